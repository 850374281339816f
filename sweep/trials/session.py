"""A Ray of this command's own or one that runs already, and what a sweep may take of it. Knows Ray, not Tune."""

import gc
import logging
import math
import os
import secrets
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dae.errors import UserError
from sweep.records.words import counted
from sweep.trials import gpus, head, ray_private, user_folders
from sweep.trials.environment import environment, isolated, ray_set_aside, tune_set_aside
from sweep.trials.processes import deaf
from sweep.trials.ray_folder import cause, session_folder
from sweep.trials.resources import Node, Resources

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as there, the ports of a local Ray are on loopback
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of calls whose answers nobody waits for any more
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Of Ray and its processes while a session lasts. Ray is imported within one: it reads some of them then."""

LOOPBACK = "127.0.0.1"


@contextmanager
def local_cluster(
    resources: Resources, dataset_bytes: int, meanwhile: Callable[[], None], temp_dir: Path | None = None
) -> Iterator[None]:
    """A Ray of this command's own, closed to others by its token, gone when it ends.

    Args:
        resources: what trials may use in all.
        dataset_bytes: size of what they share.
        meanwhile: called when Ray's processes were started, which takes them a while.
        temp_dir: where Ray's sockets and logs go; None for the folder of temporary files.

    Raises:
        UserError: it does not start, or it would be open to the network.
    """
    variables: dict[str, str | None] = {
        **ray_set_aside(),
        # What a worker imports while it waits for its first trial. Trials on GPUs have hosts for what needs torch.
        "RAY_preload_python_modules": "sweep.trials.tuning"
        if resources.gpus
        else "sweep.trials.trial,sweep.trials.tuning",
        # A raylet that is a moment too early for its own object store would wait for a whole second.
        "RAY_raylet_client_connect_timeout_milliseconds": "50",
        "RAY_raylet_client_num_connect_attempts": "200",
        # `ray.init` would wait for them, without end if one dies. They start as fast when trials ask for them.
        "RAY_prestart_worker_first_driver": "0",
    }
    if "RAY_AUTH_MODE" not in os.environ:
        variables["RAY_AUTH_TOKEN"] = _token()
    if gpus.VISIBLE in os.environ:  # Ray would count entries that CUDA does not
        variables[gpus.VISIBLE] = ",".join(gpus.visible())
    _check_connects()
    with ExitStack() as stack:
        folder = stack.enter_context(session_folder(temp_dir))
        stack.enter_context(_ray_environment(variables))
        _check_loopback(_own_address())
        object_store_bytes = max(128 * 2**20, 2 * dataset_bytes)
        try:
            with ray_private.lean_start(meanwhile):
                session = stack.enter_context(
                    _session(
                        address="local",
                        num_cpus=max(resources.cpus, 1),
                        num_gpus=resources.gpus,
                        include_dashboard=False,
                        object_store_memory=object_store_bytes,
                        _temp_dir=str(folder),
                        _plasma_directory=None if _has_shared_memory(object_store_bytes) else str(folder.parent),
                    )
                )
        except Exception as error:  # of any kind: Ray has no one word for it
            reason = " ".join(str(error).split())
            raise UserError(f"Ray did not start: {reason[:200]} {_explained(reason, folder)}") from error
        _check_loopback(session.address)
        session.is_local = True
        yield


def _explained(reason: str, folder: Path) -> str:
    """What to do about a Ray that did not start."""
    logs = f"Ray's logs are in {folder} until the next run."
    if meaning := cause(reason, folder):
        return f"{meaning} {logs}"
    return f"Is the machine busy, or out of memory? Nothing was lost: give the same command again. {logs}"


def _check_connects() -> None:
    """Refuse at once where Ray's processes could not reach each other; Ray would wait for minutes.

    Raises:
        UserError: this machine has no loopback that works.
    """
    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            socket.create_connection(server.getsockname(), 5).close()
    except OSError as error:
        raise UserError(
            f"Ray cannot start: nothing on this machine can connect to {LOOPBACK} ({error.strerror or error}). Bring "
            "the loopback interface up (ip link set lo up), or leave the sandbox that has none."
        ) from error


def _has_shared_memory(size: int) -> bool:
    """Whether Ray's object store has room in shared memory; some containers have little of it, or none."""
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return False
    return os.access("/dev/shm", os.W_OK) and room.f_bavail * room.f_bsize >= size


@cache
def _token() -> str:
    """The token of this process, in no file of the home folder. Ray keeps the first one that it was given."""
    return secrets.token_hex(32)


def _own_address() -> str:
    """The address at which the processes of a Ray that is started now would listen."""
    import ray.util

    return str(ray.util.get_node_ip_address())


def _check_loopback(address: str) -> None:
    if address != LOOPBACK:
        import ray

        raise UserError(
            f"Ray {ray.__version__} would listen at {address}, open to the network, and dae-sweep did not find how to "
            "keep it on this machine: install a Ray that dae-sweep was tested with (constraints.txt)."
        )


@contextmanager
def running_cluster(address: str) -> Iterator[None]:
    """The Ray at ``auto`` or ``ip:port``, of which this machine is a node; it goes on when this command ends.

    Raises:
        UserError: there is none, it does not answer, or it does not let us in.
    """
    with ExitStack() as stack:
        variables: dict[str, str] = (
            {} if "RAY_AUTH_MODE" in os.environ or not head.has_token() else {"RAY_AUTH_MODE": "token"}
        )
        stack.enter_context(_ray_environment(variables))
        import ray

        address = head.reach(address)
        try:
            stack.enter_context(_session(address=address))
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"cannot join the Ray cluster at {address}: {reason[:300]} Run this command on a machine of the "
                "cluster, with the cluster's Python and Ray, or hand it in with dae-sweep submit."
            ) from error
        yield


def cluster_resources(*, cpus: int | None, gpus: int | None, trials_per_gpu: int, allow_autoscaling: bool) -> Resources:
    """What the sweep may use of the cluster that was joined: what was asked for, or all of it.

    Raises:
        UserError: it has less, and does not grow.
    """
    nodes = alive_nodes()
    has = {"cpus": math.floor(sum(node.cpus for node in nodes)), "gpus": math.floor(sum(node.gpus for node in nodes))}
    for name, asked in (("cpus", cpus), ("gpus", gpus)):
        if asked is not None and asked > has[name] and not allow_autoscaling:
            raise UserError(
                f"--{name} {asked}: the cluster has {has['cpus']} CPU cores and {has['gpus']} GPUs on "
                f"{counted(len(nodes), 'node')}. Give --{name} {has[name]}, or --allow-autoscaling if it "
                "grows."
            )
    return Resources(
        cpus=has["cpus"] if cpus is None else cpus,
        gpus=has["gpus"] if gpus is None else gpus,
        trials_per_gpu=trials_per_gpu,
        # One that grows has room for what is allowed, not for what it has now.
        nodes=() if allow_autoscaling else tuple(nodes),
    )


def alive_nodes() -> list[Node]:
    """The machines of the cluster that was joined, those that leave ignored."""
    import ray

    return [
        Node(
            id=node["NodeID"],
            name=node["NodeName"],
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


@dataclass(slots=True)
class Session:
    """The Ray that this process uses.

    Attributes:
        address: of this machine, as Ray's processes on it listen.
        folder: where Ray keeps the files of this session, gone with the machine's temporary files; None if unknown.
        is_local: whether Ray's processes are children of this one, and have its environment.
        dataset: what was last put into the object store, and ``reference`` to it.
    """

    address: str = ""
    folder: str | None = None
    is_local: bool = False
    dataset: Any = None
    reference: Any = None


current = Session()


def shared(dataset: Any) -> Any:
    """A reference to it in the object store, which each node fetches once; the same for the same dataset."""
    if dataset is not current.dataset:
        import ray

        current.dataset, current.reference = dataset, ray.put(dataset)
    return current.reference


@contextmanager
def _ray_environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    with (
        environment({**user_folders.variables(), **isolated(), **tune_set_aside(), **variables, **ENVIRONMENT}),
        ray_private.import_time_constants(),
    ):
        yield


@contextmanager
def _session(**options: Any) -> Iterator[Session]:
    global current
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        with ray_private.without_sigterm_handler(), ray_private.without_current_folder(), deaf():
            information = ray.init(log_to_driver=False, logging_level=logging.ERROR, **options).address_info
        current = Session(information.get("node_ip_address", ""), information.get("session_dir"))
        yield current
    finally:
        current = Session()
        # What Tune has left in cycles, and in the frames of an error on its way up, refers to actors. Another thread
        # that frees it while Ray ends, or later, would end this process, from within Ray and with exit code 1.
        _clear_frames(sys.exc_info()[1])
        gc.collect()
        gc.disable()
        try:
            ray.shutdown()
        finally:
            gc.enable()


def _clear_frames(error: BaseException | None) -> None:
    """Free what the frames of an error refer to, and those of the errors that it followed from or came after."""
    waiting, cleared = [error], set[int]()
    while waiting:
        error = waiting.pop()
        if error is not None and id(error) not in cleared:
            cleared.add(id(error))
            traceback.clear_frames(error.__traceback__)
            waiting += [error.__cause__, error.__context__]
