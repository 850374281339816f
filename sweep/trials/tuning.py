"""Trials on Ray Tune: the only module that knows it.

One Tune trial is one cell. Tune schedules, places and restarts; records and checkpoints are the trials' own, so none
of Tune's snapshots is relied on.
"""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import cloudpickle, tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator

from dae.data import Dataset
from sweep.records.grid import Cell
from sweep.records.record import DRAINED, Record, Status
from sweep.trials import ray_private, session
from sweep.trials.environment import environment, tune_set_aside
from sweep.trials.host import Address, Executor, HostExecutor, Hosts
from sweep.trials.job import Job
from sweep.trials.resources import Resources

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
"""What Tune reads while it runs trials."""

REPORT_EVERY_S = 0.5
"""A trial reports once an epoch, but not more often than this."""

NEEDED_BY_TUNE = {"done", "training_iteration", "trial_id"}
"""Of a result; of whatever else it holds Tune would keep statistics in memory until the end of the sweep."""


class Listener(Protocol):
    """Who wants to know how the trials are doing. Called from the driver's one thread."""

    def started(self, key: str) -> None:
        """A process has been given the cell."""

    def decided(self, record: Record) -> Record:
        """Epochs were finished; the record as it stands, no longer running where its trial is to end."""

    def progressed(self, record: Record, images_per_s: float) -> None:
        """The record holds all finished epochs, and the end if it is one."""

    def lost(self, key: str, reason: str, *, is_final: bool) -> None:
        """The cell's process died; it is tried again unless ``is_final``."""


class Source(Protocol):
    """Cells that are chosen while others are trained. Called from the driver's one thread."""

    def next_cell(self) -> Cell | None:
        """The next one to train; None where there is none now."""

    @property
    def is_over(self) -> bool:
        """Whether no more will come."""


class CellTrial(tune.Trainable):  # type: ignore[misc]  # Ray is untyped
    """A Tune trial: the config names a cell, each step reports its record."""

    def setup(self, config: dict[str, Any], *, executor: Callable[[], Executor]) -> None:
        """Once a process."""
        self._executor = executor()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The same process takes on another cell."""
        self._executor.begin(new_config["key"])
        return True

    def step(self) -> dict[str, Any]:
        """Some epochs more."""
        record, images_per_s = self._executor.advance(REPORT_EVERY_S)
        return {
            "record": record.to_bytes(),
            "images_per_s": images_per_s,
            "node": ray.get_runtime_context().get_node_id(),
            "done": record.status is not Status.RUNNING,
        }


class LocalExecutor:
    """The executor of a trial that does its work itself."""

    def __init__(self, job: Job, shared: list[Any]) -> None:
        from sweep.trials.trial import prepare

        # The dataset is in the node's object store, or comes there.
        self._job, self._images = job, prepare(job, ray.get(shared[0]))

    def begin(self, key: str) -> None:
        """Take on a cell."""
        from sweep.trials.trial import Trial

        self._trial = Trial(self._job, Cell.from_key(key), self._images)

    def advance(self, at_least_s: float) -> tuple[Record, float]:
        """As `Trial.advance`: the record, and training images a second."""
        return self._trial.advance(at_least_s), self._trial.images_per_s


def _host_executor(job: Job, hosts: Mapping[str, Address]) -> HostExecutor:
    """Executor at the host of the GPU that Ray has given to this process."""
    return HostExecutor(hosts[str(ray.get_gpu_ids()[0])], job)


class _Unpickled:
    """Pickles to nothing: Tune saves its callbacks, and ours live and end with the driver."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Forwarder(_Unpickled, tune.Callback):  # type: ignore[misc]  # Ray is untyped
    """Tune's events in the words of a `Listener`."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._nodes: dict[str, str] = {}

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._listener.started(trial.config["key"])

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        self._nodes[trial.trial_id] = result["node"]
        self._listener.progressed(result["record"], result["images_per_s"])
        for name in set(result) - NEEDED_BY_TUNE:
            del result[name]

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        reason = _reason(trial)
        if self._is_drained(trial):
            reason = f"{DRAINED}{reason}"
        self._listener.lost(trial.config["key"], reason, is_final=False)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._listener.lost(trial.config["key"], _reason(trial), is_final=True)

    def _is_drained(self, trial: TuneTrial) -> bool:
        """Whether the trial's node was taken away in order, as spot nodes are; that is no failure of the cell's.

        Ray says so where it has noticed that the node is gone. Mostly the connection to the actor is lost before, as
        one that is "unavailable", and Tune counts that as a failure: not here, while the node's notice stands.
        """
        if not trial.pickled_error_file:
            return False
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        if not isinstance(error, ray.exceptions.RayActorError):
            return False
        if not error.preempted and self._nodes.get(trial.trial_id, "") in ray_private.draining_nodes():
            trial.run_metadata.num_failures -= 1
            return True
        return bool(error.preempted)


def _reason(trial: TuneTrial) -> str:
    text = Path(trial.error_file).read_text(errors="replace").strip() if trial.error_file else ""
    return text.splitlines()[-1].strip() if text else "the process died"


class _StopWhen(_Unpickled, tune.Stopper):  # type: ignore[misc]  # Ray is untyped
    """Ends all trials once a condition of the driver holds, and a trial that its listener ends.

    Tune asks it of every result before it tells a callback.
    """

    def __init__(self, condition: Callable[[], bool], listener: Listener) -> None:
        self._condition, self._listener = condition, listener

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        record = self._listener.decided(Record.from_bytes(result["record"]))
        result["record"] = record
        return record.status is not Status.RUNNING

    def stop_all(self) -> bool:
        return self._condition()


class _Proposals(_Unpickled, Searcher):  # type: ignore[misc]  # Ray is untyped
    """A `Source` as Tune asks it. It keeps nothing: what it needs to go on stands in the records."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    def suggest(self, trial_id: str) -> Any:
        cell = self._source.next_cell()
        if cell is not None:
            return {"key": cell.key}
        return Searcher.FINISHED if self._source.is_over else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """The source was told by its driver."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def run_trials(
    cells: Sequence[Cell] | Source,
    job: Job,
    dataset: Dataset,
    resources: Resources,
    listener: Listener,
    should_stop: Callable[[], bool],
    *,
    max_retries: int,
    hosts: Hosts | None = None,
) -> None:
    """Train the cells, in this order, as many at a time as the resources allow; return when all have ended.

    Of a `Source` the next one is asked for when there is room for it.

    A cell whose process or node died is continued by another one, up to ``max_retries`` times; one
    whose node was drained is continued elsewhere however often. With ``hosts`` the trials of this machine's GPUs leave
    their work to these.
    """

    def looks_on() -> bool:
        if hosts is not None:
            hosts.revive()
        return should_stop()

    if hosts is None:
        executor: Callable[[], Executor] = partial(LocalExecutor, job, [session.shared(dataset)])
    else:
        executor = partial(_host_executor, job, hosts.addresses)
    trainable = tune.with_resources(
        tune.with_parameters(CellTrial, executor=executor),
        tune.PlacementGroupFactory([_upper(resources.trial)]),
    )
    if isinstance(cells, Sequence):
        param_space, num_samples = {"key": tune.grid_search([cell.key for cell in cells])}, 1
        search_alg: Any = BasicVariantGenerator(max_concurrent=resources.slots)
    else:
        param_space, num_samples, search_alg = {}, -1, _Proposals(cells)
    ray_private.check_keys_stay_here(os.environ)
    with (
        tempfile.TemporaryDirectory(prefix="dae-sweep-", dir=session.current.folder) as folder,
        environment({**tune_set_aside(), **ENVIRONMENT}),
        ray_private.patched_tune(() if session.current.is_local else None),
    ):
        tune.Tuner(
            trainable,
            param_space=param_space,
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                num_samples=num_samples,
                max_concurrent_trials=resources.slots,
                search_alg=search_alg,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=folder,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # ours are taken each epoch
                failure_config=tune.FailureConfig(max_failures=max_retries),
                stop=_StopWhen(looks_on, listener),
                callbacks=[_Forwarder(listener)],
            ),
        ).fit()


def _upper(resources: Mapping[str, float]) -> dict[str, float]:
    return {name.upper(): amount for name, amount in resources.items()}
