"""A Ray of this command's own or one that runs already, and what a sweep may take of it. Knows Ray, not Tune."""

import logging
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dae.errors import UserError
from sweep.trials import machine
from sweep.trials.resources import Node, Resources

# Read when Ray is imported or its workers start.
os.environ |= {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as there, the ports of a local Ray are on loopback
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of calls whose answers nobody waits for any more
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
}
machine.keep_beside_ray()
import ray  # noqa: E402  (reads the environment when it is imported)

REGISTER_TIMEOUT_S = 20.0

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 8.0
"""Together below the 15 s within which a user is to know; Ray itself would take 40 s."""


@contextmanager
def local_cluster(resources: Resources, dataset_bytes: int, meanwhile: Callable[[], None]) -> Iterator[None]:
    """A Ray of this command's own, closed to others by its token, gone when it ends.

    Args:
        resources: what trials may use in all.
        dataset_bytes: size of what they share.
        meanwhile: called when Ray's processes were started, which takes them a while.

    Raises:
        UserError: it does not start.
    """
    if "RAY_AUTH_MODE" not in os.environ:  # a token of this process's own, in no file of the home folder
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ |= {
        # What a worker imports while it waits for its first trial. Trials on GPUs have hosts for what needs torch.
        "RAY_preload_python_modules": "sweep.trials.tuning"
        if resources.gpus
        else "sweep.trials.trial,sweep.trials.tuning",
        # A raylet that is a moment too early for its own object store would wait for a whole second.
        "RAY_raylet_client_connect_timeout_milliseconds": "50",
        "RAY_raylet_client_num_connect_attempts": "200",
    }
    session = _session(
        address="local",
        num_cpus=max(resources.cpus, 1),
        num_gpus=resources.gpus,
        include_dashboard=False,
        object_store_memory=max(128 * 2**20, 2 * dataset_bytes),
    )
    with ExitStack() as started:
        try:
            with _lean_start(meanwhile):
                started.enter_context(session)
        except Exception as error:  # of any kind: Ray has no one word for it
            reason = " ".join(str(error).split())
            raise UserError(
                f"Ray did not start: {reason[:200]} Is the machine busy, or out of memory or of room for temporary "
                "files? Nothing was lost: give the same command again."
            ) from error
        yield


@contextmanager
def running_cluster(address: str) -> Iterator[None]:
    """The Ray at ``auto`` or ``ip:port``, of which this machine is a node; it goes on when this command ends.

    Raises:
        UserError: there is none, it does not answer, or it does not let us in.
    """
    found = _check_answers(address)
    session = ExitStack()
    try:
        session.enter_context(_session(address=found))
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot join the Ray cluster at {found}: {reason[:300]} Run this command on a machine of the cluster, "
            "with the cluster's Python and Ray, or hand it in with dae-sweep submit."
        ) from error
    with session:
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
                f"{len(nodes)} node{'s' * (len(nodes) != 1)}. Give --{name} {has[name]}, or --allow-autoscaling if it "
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


def shared(dataset: Any) -> Any:
    """A reference to it in the object store, which each node fetches once; the same for the same dataset."""
    if dataset is not _shared.get("dataset"):
        _shared.update(dataset=dataset, ref=ray.put(dataset))
    return _shared["ref"]


_shared: dict[str, Any] = {}


@contextmanager
def _session(**options: Any) -> Iterator[None]:
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Ray's own answer to SIGTERM, an exception wherever the program stands, would take the place of ours.
    ray._private.utils.set_sigterm_handler = lambda _handler: None
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    try:
        yield
    finally:
        _shared.clear()
        ray.shutdown()


@contextmanager
def _lean_start(meanwhile: Callable[[], None]) -> Iterator[None]:
    """Let `ray.init` start no more than trials need, and call ``meanwhile`` while it waits.

    It would start a dashboard and wait for it, an autoscaler and a copier of logs as well: Python processes that
    nobody asks anything. Ray's own options for them are none of `ray.init`'s.
    """
    from ray._private.node import Node

    def start_raylet(node: Node, *arguments: Any) -> None:
        replaced["start_raylet"](node, *arguments)
        meanwhile()
        _wait_registered(node)

    def nothing(_node: Node, **_options: Any) -> None: ...

    replacements: dict[str, Callable[..., None]] = {
        "start_raylet": start_raylet,
        "start_api_server": nothing,
        "start_monitor": nothing,
        "start_log_monitor": nothing,
    }
    replaced = {name: getattr(Node, name) for name in replacements}
    try:
        for name, method in replacements.items():
            setattr(Node, name, method)
        yield
    finally:
        for name, method in replaced.items():
            setattr(Node, name, method)


def _wait_registered(node: Any) -> None:
    """Wait for the raylet that was started; Ray itself would look once a second."""
    deadline = time.monotonic() + REGISTER_TIMEOUT_S
    while time.monotonic() < deadline and not node.get_gcs_client().get_all_node_info():
        time.sleep(0.02)


def is_own() -> bool:
    """Whether Ray's processes are children of this one, and have its environment."""
    return bool(ray._private.worker._global_node.head)


def _check_answers(address: str) -> str:
    """The address of a cluster's head as ``ip:port``, once it has answered."""
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
    from ray._private.services import canonicalize_bootstrap_address

    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        found: str | None = canonicalize_bootstrap_address(address)
    except ConnectionError:
        raise UserError(
            "--address auto: no Ray runs on this machine. Start one (ray start), or give the head's ip:port."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"--address {address} is no address ({error}): give auto or the head's ip:port.") from None
    if found is None:
        raise UserError(f"--address {address} names no cluster that runs: give auto or the head's ip:port.")
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise UserError(
            f"--address {address}: nothing answers at {found} ({error.strerror or error}). Is the head running, and is "
            "this its address? ray status on it says so."
        ) from None
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    _check_admits(found)
    return found


def _check_admits(address: str) -> None:
    problems: list[BaseException] = []

    def ask() -> None:
        try:
            ray._raylet.GcsClient(address=address)
        except BaseException as error:  # looked at where it is waited for
            problems.append(error)

    thread = threading.Thread(target=ask, name="probe", daemon=True)  # Ray would wait for 40 s
    thread.start()
    thread.join(ANSWER_TIMEOUT_S)
    if thread.is_alive():
        raise UserError(f"what listens at {address} does not answer as the head of a Ray cluster: is it another port?")
    if problems and isinstance(problems[0], ray.exceptions.AuthenticationError):
        answer = (
            "does not accept the token that was given"
            if os.environ.get("RAY_AUTH_MODE") == "token"
            else "wants a token"
        )
        raise UserError(
            f"the Ray cluster at {address} {answer}. Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH "
            "to the cluster's token; on its head it is in ~/.ray/auth_token."
        )
    if problems:
        raise UserError(f"the Ray cluster at {address} does not answer: {problems[0]}")


def folder() -> Path:
    """Where Ray keeps the files of this session; gone with the machine's temporary files."""
    return Path(ray._private.worker._global_node.get_session_dir_path())
