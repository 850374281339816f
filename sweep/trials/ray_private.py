"""All that is used of Ray and not promised by it: each use beside its reason, and what is done without it.

Names are looked up when they are used. Where Ray has no such name any more, the program is slower or says less; where
it would be less safe, it refuses. Importing this module does not import Ray.
"""

import signal
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

from dae.errors import UserError
from dae.private import lookup

REGISTER_TIMEOUT_S = 20.0

TITLE, IDLE_TITLE = "ray::", "ray::IDLE"
"""How Ray calls its Python processes, and a worker that waits."""

TRIAL_TITLES = (f"{TITLE}CellTrial", f"{TITLE}ResourceTrainable")
"""Processes that run a trial: our class between two steps, the one that Tune wraps it in during a step."""

WORKER_PROGRAM = "default_worker.py"

TOLD_TO_TRIALS = "ray.tune.execution.class_cache:ENV_VARS_TO_PROPAGATE"
AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")


@contextmanager
def replaced(path: str, replace: Callable[[Any], Any]) -> Iterator[None]:
    """Put ``replace(value)`` in the place of the value that ``path`` stands for; nothing where it stands for none."""
    value = lookup(path)
    if value is None:
        yield
        return
    module, _, names = path.partition(":")
    *owners, name = names.split(".")
    owner = reduce(getattr, owners, import_module(module))
    setattr(owner, name, replace(value))
    try:
        yield
    finally:
        setattr(owner, name, value)


# ---- a Ray that starts


@contextmanager
def import_time_constants() -> Iterator[None]:
    """What Ray reads from the environment when it is imported, for a process that has imported it before.

    A Ray that is imported while `session.ENVIRONMENT` is set needs none of this.
    """
    with ExitStack() as stack:
        for constant in (
            "ray._private.ray_constants:ENABLE_RAY_CLUSTER",
            "ray._private.ray_constants:RAY_ENABLE_UV_RUN_RUNTIME_ENV",
        ):
            stack.enter_context(replaced(constant, lambda _: False))
        yield


@contextmanager
def lean_start(meanwhile: Callable[[], None]) -> Iterator[None]:
    """Let `ray.init` start no more than trials need, and call ``meanwhile`` while it waits.

    It would start a dashboard and wait for it, an autoscaler and a copier of logs as well: Python processes that
    nobody asks anything. Ray's own options for them are none of `ray.init`'s. Without these names all of them start,
    and ``meanwhile`` is called at the end.
    """
    called: list[bool] = []

    def call_once() -> None:
        if not called:
            called.append(True)
            meanwhile()

    def with_news(start: Callable[..., None]) -> Callable[..., None]:
        def start_raylet(node: Any, *arguments: Any, **options: Any) -> None:
            start(node, *arguments, **options)
            call_once()
            _wait_registered(node)

        return start_raylet

    with ExitStack() as stack:
        stack.enter_context(replaced("ray._private.node:Node.start_raylet", with_news))
        for method in (
            "ray._private.node:Node.start_api_server",
            "ray._private.node:Node.start_monitor",
            "ray._private.node:Node.start_log_monitor",
        ):
            stack.enter_context(replaced(method, lambda _: lambda *_arguments, **_options: None))
        yield
    call_once()


@contextmanager
def without_sigterm_handler() -> Iterator[None]:
    """Let SIGTERM be answered as before while `ray.init` runs, and afterwards.

    The handler that it sets at its beginning raises `SystemExit` wherever the program stands, so that half of a Ray
    would be left behind. Without this function a SIGTERM in these seconds does so, and is said to nobody.
    """
    before = signal.getsignal(signal.SIGTERM)
    with replaced("ray._private.utils:set_sigterm_handler", lambda _: lambda _handler: None):
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)


@contextmanager
def without_current_folder() -> Iterator[None]:
    """Keep Ray from putting the current folder on the path of its workers, where a file may be called as a module is.

    Without this class the folder is there, as the last on the path.
    """
    with replaced("ray.job_config:JobConfig._runtime_env_has_working_dir", lambda _: lambda _config: True):
        yield


def _wait_registered(node: Any) -> None:
    """Wait for the raylet that was started. Ray itself looks once a second, which it does where this cannot look."""
    deadline = time.monotonic() + REGISTER_TIMEOUT_S
    with suppress(AttributeError, TypeError):
        while time.monotonic() < deadline and not node.get_gcs_client().get_all_node_info():
            time.sleep(0.02)


# ---- a Ray that runs already


def resolve(address: str) -> str | None:
    """The head's ``ip:port`` behind ``auto`` or a host's name, as `ray.init` would find it.

    Without this function the address is left to `ray.init`.

    Raises:
        ConnectionError: ``auto``, and no Ray runs on this machine.
        ValueError: it is no address.
    """
    canonicalize = lookup("ray._private.services:canonicalize_bootstrap_address")
    if canonicalize is None:
        return address
    resolved: str | None = canonicalize(address)
    return resolved


def use_token() -> None:
    """Let a process whose Ray was imported before take the user's token, as `ray start` does.

    Without this function Ray takes it where ``RAY_AUTH_MODE`` says so, which the refusal of a cluster tells the user.
    """
    enable = lookup("ray._private.authentication.authentication_token_setup:maybe_enable_token_auth_if_token_available")
    if enable is not None:
        enable(warn_if_disabled=False)


def problem_at(address: str, timeout_s: float) -> BaseException | None:
    """Why the cluster's head does not let us in, if it says so within the time; `ray.init` takes 40 s.

    Without Ray's client of a head the answer is left to `ray.init`.

    Raises:
        TimeoutError: whatever listens there says nothing.
    """
    connect = lookup("ray._raylet:GcsClient")
    if connect is None:
        return None
    problems: list[BaseException] = []

    def ask() -> None:
        try:
            connect(address=address)
        except BaseException as error:  # looked at where it is waited for
            problems.append(error)

    thread = threading.Thread(target=ask, name="probe", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise TimeoutError
    return problems[0] if problems else None


def draining_nodes() -> Container[str]:
    """Ids of nodes that are being taken away in order. Without this a trial that is lost so counts as a failure."""
    ask = lookup("ray._private.state:state.get_draining_nodes")
    return () if ask is None else ask()


# ---- Tune


@contextmanager
def patched_tune(variables: Iterable[str] | None) -> Iterator[None]:
    """Tune while it runs the trials: faster, and silent about the driver's keys.

    Args:
        variables: environment variables that trials get from the driver, of those that Tune would give them; None for
            all but AWS's keys. A trial with variables of its own needs a process that is started for it, where
            otherwise one that waits would do.
    """
    with ExitStack() as stack:
        stack.enter_context(replaced(TOLD_TO_TRIALS, lambda names: _without_keys(names, variables)))
        stack.enter_context(replaced("ray.tune.execution.class_cache:DEFAULT_ENV_VARS", lambda _: {}))
        # To count what is used Tune would import wandb, a second for a statistic that is turned off.
        stack.enter_context(replaced("ray.air._internal.usage:tag_callbacks", lambda _: lambda _callbacks: True))
        stack.enter_context(
            replaced("ray.tune.execution.tune_controller:TuneController._maybe_reuse_cached_actor", _reuse_if_idle)
        )
        stack.enter_context(
            replaced("ray.tune.execution.tune_controller:TuneController._trial_task_failure", _fail_once)
        )
        yield


def _without_keys(names: Iterable[str], variables: Iterable[str] | None) -> set[str]:
    kept = {name for name in names if not name.startswith("AWS_")}
    return kept if variables is None else kept & set(variables)


def check_keys_stay_here(environment: Iterable[str]) -> None:
    """Refuse to run trials where Tune would write the driver's AWS keys into what Ray logs and shows.

    Trials have the credentials of their node.

    Raises:
        UserError: there are such keys, and this Ray has no place where to say that they are not to be told.
    """
    import ray

    told = [name for name in AWS_KEYS if name in environment]
    if told and lookup(TOLD_TO_TRIALS) is None:
        raise UserError(
            f"Ray {ray.__version__} may write {' and '.join(told)} into its logs, and dae-sweep cannot keep it from "
            "that: put the keys into ~/.aws/credentials on all machines and unset these variables, or install a Ray "
            "that dae-sweep was tested with (constraints.txt)."
        )


def _reuse_if_idle(reuse: Callable[..., bool]) -> Callable[..., bool]:
    """Give a free actor to a trial that has none.

    Tune gives it to a trial whose own actor is still starting as well, and ends that one. With cells shorter than such
    a start one actor would do all the work, and those beside it would be started and ended without end.
    """

    def reuse_if_idle(controller: Any, trial: Any) -> bool:
        actors, search = (getattr(controller, name, None) for name in ("_trial_to_actor", "_search_alg"))
        if actors is not None and search is not None and trial in actors and not search.is_finished():
            return False
        return bool(reuse(controller, trial))

    return reuse_if_idle


def _fail_once(fail: Callable[..., None]) -> Callable[..., None]:
    """Count the death of a process that was to take on its next trial as one failure of that trial.

    Tune takes it in twice, as the actor's and as that of the call: the first puts the trial back in line, the second
    finds it there and fails it for good, whatever retries are left.
    """

    def trial_task_failure(controller: Any, trial: Any, exception: BaseException) -> None:
        from ray.exceptions import RayActorError

        resetting: set[Any] = getattr(controller, "_resetting_trials", set())
        if isinstance(exception, RayActorError) and trial in resetting and trial.status == type(trial).PENDING:
            resetting.discard(trial)  # else Tune would wait for its answer for good
        else:
            fail(controller, trial, exception)

    return trial_task_failure


def is_trial(command: str) -> bool:
    """Whether the process of this title runs a trial."""
    return command.startswith(TRIAL_TITLES)


def is_worker(command: str) -> bool:
    """Whether the process of this command line, which has no title, is one of Ray's that could run a trial."""
    program, *words = command.split() or [""]
    # The raylet's own command line holds that of a worker.
    return Path(program).name.startswith("python") and any(word.endswith(WORKER_PROGRAM) for word in words)


def is_node_of(command: str, address: str) -> bool:
    """Whether the process of this command line is a node of the cluster whose head is at this ``ip:port``."""
    program, *words = command.split() or [""]
    return "raylet" in Path(program).name and any(
        word.startswith("--gcs-address=") and word.rpartition(":")[2] == address.rpartition(":")[2] for word in words
    )


# ---- jobs


def with_timeouts(client: Any, timeout: Callable[[str], tuple[float, float]]) -> Any:
    """A subclass of Ray's `JobSubmissionClient` whose requests end, at ``timeout(endpoint)`` to connect and to answer.

    Ray waits without end. Where it asks in another way than by this method, it does so again.
    """

    class Client(client):  # type: ignore[misc]  # Ray is untyped
        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, **({"timeout": timeout(endpoint)} | options))

    return Client


def version_of_server(client: Any) -> str | None:
    """The version of Ray that the client met when it connected; None where it does not keep it."""
    version: str | None = getattr(client, "_server_ray_version", None)
    return version
