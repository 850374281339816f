"""From a request to a finished sweep: declare it, train what is missing, report."""

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dae import data
from dae.data import Dataset
from dae.errors import UserError
from sweep.driver.declaration import declare
from sweep.driver.events import TrialEvents, copy_to_tracker
from sweep.driver.progress import Progress
from sweep.driver.request import Request
from sweep.driver.signals import Signals
from sweep.records.grid import Cell, Grid, longest_first
from sweep.records.record import CellFiles, Status, check_checkpoint, check_files
from sweep.records.sweep import Sweep, gather
from sweep.storage.sealing import Damaged
from sweep.storage.store import Held, Store
from sweep.tracking.tracker import Tracker
from sweep.trials.machine import cpu_count
from sweep.trials.resources import TRIALS_PER_GPU, Resources
from sweep.trials.watchdog import watching

if TYPE_CHECKING:
    from sweep.trials.host import Hosts
    from sweep.trials.job import Job

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        sweep: the folder as the run left it.
        tracked_at: where the W&B runs are, None without tracking.
        stopped_because: why the run ended before all cells had been tried, if it did.
    """

    sweep: Sweep
    tracked_at: str | None
    stopped_because: str | None


def run(
    request: Request,
    signals: Signals,
    *,
    make_progress: Callable[[Sweep, int], Progress],
    warn: Warn,
    make_report: Callable[[Sweep], tuple[list[dict[str, object]], list[Path]]] | None,
    tell: Warn = lambda _message: None,
) -> Outcome:
    """Train the cells of the request that are not completed yet, and report.

    Args:
        request: what was asked for.
        signals: asked between and during trials whether to stop.
        make_progress: gives the display for a sweep and its number of parallel trials.
        warn: told of everything that went on although it should not have been.
        tell: told what begins.
        make_report: writes the report, returns its table and figures for W&B; None for none.

    Raises:
        UserError: the request cannot be carried out; nothing was lost.
        Interrupted: a signal came; every finished epoch is on disk.
    """
    dataset = data.load(request.settings.dataset, request.data_dir, request.settings.train_fraction)
    largest = max(request.settings.at(cell).batch_size for cell in request.grid.cells)
    if largest > len(dataset.train):
        raise UserError(
            f"batch size {largest} is larger than the {len(dataset.train)} training images: "
            "lower --batch-size or raise --train-fraction."
        )
    store = request.store
    with _held(store) as is_held, store.spool("wandb") as folder:
        store.sweep_up()
        sweep = declare(request, dataset, warn)
        tracker = Tracker(sweep.manifest, folder, mode=request.wandb_mode, project=request.project, warn=warn)
        training = _Training(
            request, dataset, signals, tracker, make_progress, warn, tell, is_held, makes_report=make_report is not None
        )
        try:
            todo = _todo(sweep, warn)
            copy_to_tracker(sweep, tracker, todo)
            stopped_because = None
            if not todo:
                if request.resolving is None:  # which says itself how it goes on
                    tell(f"{sweep.manifest.name}: every cell is trained already")
                sweep, todo = training.next_round(sweep, request.slots)
            if todo:
                count, total = len(todo), len(sweep.manifest.grid.cells)
                tell(f"{sweep.manifest.name}: {count} of {total} cells to train, on {_place(request)}")
                stopped_because = training.run(sweep, todo)
            sweep = gather(request.store)
            signals.raise_if_asked()
            if request.evaluation and sweep.completed:
                from sweep.evaluation.evaluation import evaluate

                # In processes of this machine, whatever the cluster has.
                workers = min(request.cpus or cpu_count(), cpu_count())
                device = "cuda" if request.gpus and request.address is None else "cpu"
                evaluate(sweep, dataset, workers=workers, warn=warn, tell=tell, device=device)
            if make_report is not None and sweep.completed:
                tracker.report(*make_report(sweep))
        finally:
            tracker.close()
    return Outcome(sweep, store.uri("wandb") if tracker.mode == "offline" else tracker.location, stopped_because)


def _place(request: Request) -> str:
    if request.address is not None:
        return f"the Ray cluster at {request.address}"
    count, kind = (request.gpus, "GPU") if request.gpus else (request.cpus, "CPU core")
    return f"{count} {kind}{'s' * (count != 1)}; starting Ray"


def _todo(sweep: Sweep, warn: Warn) -> list[Cell]:
    """Cells to train or to continue, longest first; a completed one whose files are damaged is among them."""
    todo = []
    for cell in sweep.manifest.grid.cells:
        if cell.key in sweep.damaged:
            warn(f"{cell.key}: {sweep.damaged[cell.key]}; the cell is trained again")
            sweep.store.delete(CellFiles(cell.key).record)
        elif sweep.status(cell).is_final:
            try:
                check_files(sweep.store, sweep.records[cell.key])
                continue
            except Damaged as error:
                warn(f"{error}; {cell.key} is trained again")
        if cell.key in sweep.records or cell.key in sweep.damaged:
            try:
                check_checkpoint(sweep.store, cell)
            except Damaged as error:
                warn(f"the checkpoint of {cell.key} is damaged ({error}): the cell is trained from the start")
        todo.append(cell)
    return longest_first(todo, sweep.manifest.settings)


@dataclass(frozen=True, slots=True)
class _Training:
    """Rounds of trials, and what they share."""

    request: Request
    dataset: Dataset
    signals: Signals
    tracker: Tracker
    make_progress: Callable[[Sweep, int], Progress]
    warn: Warn
    tell: Warn
    is_held: Callable[[], bool]
    makes_report: bool

    def run(self, sweep: Sweep, todo: list[Cell]) -> str | None:
        """Run the trials, round after round; why they ended early, or None."""
        self.signals.be_patient()  # half of a Ray would be left behind
        # More cells may follow those that are known.
        count = len(todo) if self.request.resolving is None else sys.maxsize
        request = self.request
        if request.address is None and request.gpus:  # one that no cell is for would have a host all the same
            request = replace(request, gpus=min(request.gpus, count))
        import_tune = partial(_import_aside, "sweep.trials.tuning")
        with (
            watching(),
            self._hosting(request, sweep, todo) as hosts,
            _ray(request, self.dataset, count, import_tune) as resources,
        ):
            self.signals.install()
            self.signals.raise_if_asked()
            resources, stopped_because = self._shared(resources, hosts, sweep, todo), None
            while todo and stopped_because is None:
                stopped_because = self._round(sweep, todo, resources, hosts)
                if stopped_because is None:
                    sweep, todo = self.next_round(gather(self.request.store), resources.slots)
        return stopped_because

    def _hosting(self, request: Request, sweep: Sweep, todo: list[Cell]) -> "AbstractContextManager[Hosts | None]":
        """The hosts of this machine's GPUs, which prepare themselves meanwhile; none for CPUs, or on a cluster."""
        if request.address is not None or not request.gpus:
            return nullcontext()
        from sweep.trials import host

        job = _job(sweep, "cuda", host.MEMORY_SHARE)
        return host.hosting(request.gpus, job, self.dataset, [todo[0], todo[-1]])

    def _shared(self, resources: Resources, hosts: "Hosts | None", sweep: Sweep, todo: list[Cell]) -> Resources:
        """The same, shared by as many trials a GPU as were measured to be best, if that was asked for."""
        if self.request.trials_per_gpu is not None:
            return resources
        if not resources.gpus:
            self.warn("--trials-per-gpu auto: the sweep uses no GPU, so there is nothing to measure")
            return resources
        from sweep.trials import probe

        self.tell(f"{sweep.manifest.name}: measuring how many trials a GPU should take")
        job, check = _job_for(sweep, resources), self.signals.raise_if_asked
        choice = probe.choose(todo, job, self.dataset, resources, check, hosts)
        self.tell(f"{sweep.manifest.name}: {choice.trials} a GPU; {choice.because}")
        return replace(resources, trials_per_gpu=choice.trials)

    def next_round(self, sweep: Sweep, slots: int) -> tuple[Sweep, list[Cell]]:
        """Declare the cells that ``--resolve`` asks for next; none without it, or where it has come to its end."""
        from sweep.driver import rounds

        cells = rounds.after_look(sweep, self.request.resolving, slots, self.tell)
        if cells:
            sweep = declare(replace(self.request, grid=Grid.of(cells)), self.dataset, self.warn)
        return sweep, longest_first(cells, sweep.manifest.settings)

    def _round(self, sweep: Sweep, todo: list[Cell], resources: Resources, hosts: "Hosts | None") -> str | None:
        """Train these cells; why it ended early, or None."""
        from sweep.trials import tuning

        # A completed cell whose files are damaged begins anew.
        again = {cell.key for cell in todo if sweep.status(cell) is Status.COMPLETED}
        shown = replace(sweep, records={key: each for key, each in sweep.records.items() if key not in again})
        with self.make_progress(shown, resources.slots) as progress:
            # What the report takes to import, and to draw a first time, is there when the last trial has ended.
            prepare = partial(_import_aside, "sweep.report.page") if self.makes_report else lambda: None
            events = TrialEvents(sweep, progress, self.tracker, self.warn, at_first_news=prepare)
            self.signals.be_patient()
            # Cells that failed for their neighbours have one more round, with the device to themselves.
            for round_resources in (resources, resources.alone):
                tuning.run_trials(
                    todo,
                    _job_for(sweep, round_resources),
                    self.dataset,
                    round_resources,
                    events,
                    lambda: self.signals.asked() or events.is_stopped or self._is_late or not self.is_held(),
                    max_retries=self.request.max_retries,
                    hosts=hosts,
                )
                self.signals.raise_if_asked()
                if not self.is_held():
                    return f"another run took {sweep.store.uri()} over while the storage was out of this one's reach"
                todo, events.again_alone = events.again_alone, []
                if not todo or events.is_stopped:
                    break
        return events.stop_because or ("--time-budget is over; the same command goes on" if self._is_late else None)

    @property
    def _is_late(self) -> bool:
        return self.request.resolving is not None and self.request.resolving.is_late()


def _job_for(sweep: Sweep, resources: Resources) -> "Job":
    return _job(sweep, "cuda" if resources.gpus else "cpu", resources.memory_share)


def _job(sweep: Sweep, device: str, memory_share: float) -> "Job":
    from sweep.trials.job import Job, git_commit

    return Job(sweep.store, sweep.manifest.settings, device, memory_share, git_commit())


def _import_aside(module: str) -> None:
    """Import it in a thread; who needs it before it is there waits."""
    threading.Thread(target=importlib.import_module, args=(module,), name=f"import {module}", daemon=True).start()


@contextmanager
def _ray(request: Request, dataset: Dataset, count: int, meanwhile: Callable[[], None]) -> Iterator[Resources]:
    """A Ray to run ``count`` trials on, and what they may use of it; ``meanwhile`` is called once it is on its way.

    Raises:
        UserError: a cluster that cannot run this sweep; why, for all of its nodes.
    """
    from sweep.trials import session

    sharing = request.trials_per_gpu or TRIALS_PER_GPU
    if request.address is None:
        assert request.cpus is not None and request.gpus is not None  # noqa: PT018  (this machine's are known)
        resources = Resources(cpus=request.cpus, gpus=request.gpus, trials_per_gpu=sharing).capped_to(count)
        dataset_bytes = dataset.train.nbytes + dataset.validation.nbytes + dataset.test.nbytes
        with session.local_cluster(resources, dataset_bytes, meanwhile):
            yield resources
        return
    with session.running_cluster(request.address):
        from sweep.trials import preflight

        meanwhile()
        resources = session.cluster_resources(
            cpus=request.cpus,
            gpus=request.gpus,
            trials_per_gpu=sharing,
            allow_autoscaling=request.allow_autoscaling,
        )
        preflight.check(
            resources,
            request.store,
            dataset,
            wandb=request.wandb_mode,
            allow_autoscaling=request.allow_autoscaling,
        )
        yield resources


@contextmanager
def _held(store: Store) -> Iterator[Callable[[], bool]]:
    """The sweep's folder, made if need be, for this process alone.

    Raises:
        UserError: it cannot be written, or another run is at it.
    """
    with ExitStack() as held:
        try:
            store.create()
            is_held = held.enter_context(store.lock())
        except Held as holder:
            raise UserError(
                f"{holder} is already at the sweep in {store.uri()}. Wait for it, or give another --name."
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot write to {store.uri()} ({error.strerror}). Give a --storage that can be written."
            ) from error
        yield is_held
