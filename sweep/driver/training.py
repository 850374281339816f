"""The training of a sweep: rounds of trials on Ray, until every cell has ended."""

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from dae.data import Dataset
from dae.errors import UserError
from sweep.driver import rounds
from sweep.driver.control import PAUSED, Control
from sweep.driver.declaration import cells_to_train, declare
from sweep.driver.events import TrialEvents, copy_to_tracker
from sweep.driver.memory import shortage
from sweep.driver.progress import Display
from sweep.driver.proposals import Proposals
from sweep.driver.request import Request
from sweep.driver.signals import Signals
from sweep.records.grid import Cell, Grid, longest_first
from sweep.records.record import Status
from sweep.records.sweep import Sweep, gather
from sweep.records.words import counted
from sweep.tracking.tracker import Tracker
from sweep.trials.job import Job, git_commit
from sweep.trials.resources import TRIALS_PER_GPU, Resources
from sweep.trials.watchdog import watching

if TYPE_CHECKING:
    from sweep.trials.host import Hosts


@dataclass(frozen=True, slots=True)
class Training:
    """Rounds of trials, and what they share.

    Attributes:
        is_held: whether this process still holds the sweep.
        control: what users ask of the run from outside.
        at_first_news: called when a first trial has got somewhere.
    """

    request: Request
    dataset: Dataset
    signals: Signals
    display: Display
    tracker: Tracker
    is_held: Callable[[], bool]
    control: Control
    at_first_news: Callable[[], None] = lambda: None

    def run(self, sweep: Sweep) -> tuple[Sweep, str | None]:
        """Train what is missing; the sweep as it is then, and why that ended before all cells had been tried, or None.

        Raises:
            UserError: Ray does not start, or the cluster cannot run this sweep.
            Interrupted: a signal came; every finished epoch is on disk.
        """
        # The seeds that --resolve has declared are of the same command.
        grid = self.request.grid if self.request.resolving is None else sweep.manifest.grid
        todo = cells_to_train(sweep, grid, self.display.warn)
        copy_to_tracker(sweep, self.tracker, todo)
        self._tell_left_out(sweep, grid)
        if not todo:
            if self.request.resolving is None:  # which says itself how it goes on
                self.display.tell(f"{sweep.manifest.name}: every cell is trained already")
            sweep, todo = self._next_round(sweep, self.request.slots)
        if not todo:
            return gather(sweep.store, at_rest=True, snapshot=sweep.snapshot), None
        count, total = len(todo), len(sweep.manifest.grid.cells)
        self.display.tell(f"{sweep.manifest.name}: {count} of {total} cells to train, on {place(self.request)}")
        try:
            stopped_because = self._train(sweep, todo)
        except Exception:
            self.signals.raise_if_asked()  # a signal to the whole group ends Ray's processes too
            raise
        return gather(sweep.store, at_rest=True), stopped_because

    def _tell_left_out(self, sweep: Sweep, grid: Grid) -> None:
        """Name the declared cells that are not completed and that this command does not ask for."""
        asked = set(grid.cells)
        left_out = [
            cell.key for cell in sweep.manifest.grid.cells if cell not in asked and not sweep.status(cell).is_final
        ]
        if left_out:
            shown = ", ".join(left_out[:4]) + (f" and {len(left_out) - 4} more" if len(left_out) > 4 else "")
            self.display.tell(
                f"{sweep.manifest.name}: this command leaves out {shown}, declared before; "
                "without --depths, --latents, --seeds and --axis it trains all"
            )

    def _train(self, sweep: Sweep, todo: list[Cell]) -> str | None:
        """Start Ray and train round after round; why it ended early, or None."""
        # More cells may follow those that are known.
        count = len(todo) if self.request.resolving is None else sys.maxsize
        with self._machines(sweep, todo, count) as (resources, hosts):
            stopped_because = None
            while todo and stopped_because is None:
                stopped_because = self._round(sweep, todo, resources, hosts)
                if stopped_because is None:
                    sweep, todo = self._next_round(gather(self.request.store), resources.slots)
        return stopped_because

    @contextmanager
    def _machines(self, sweep: Sweep, examples: list[Cell], count: int) -> "Iterator[tuple[Resources, Hosts | None]]":
        """A Ray for ``count`` trials, of cells as the ``examples``."""
        self.signals.be_patient()  # half of a Ray would be left behind
        request = self.request
        if request.address is None and request.gpus:  # a GPU without a cell would have a host all the same
            request = replace(request, gpus=min(request.gpus, count))
        elif request.address is None:
            settings, trials = sweep.manifest.settings, min(request.cpus or 1, count)
            short = shortage(examples, settings, self.dataset, trials, is_search=request.search is not None)
            if short is not None:
                self.display.warn(short)
        with (
            watching(),
            self._hosting(request, sweep, examples) as hosts,
            _ray(request, self.dataset, count) as resources,
        ):
            self.signals.install()
            self.signals.raise_if_asked()
            yield self._with_measured_sharing(resources, hosts, sweep, examples), hosts

    def _hosting(self, request: Request, sweep: Sweep, todo: list[Cell]) -> "AbstractContextManager[Hosts | None]":
        """The hosts of this machine's GPUs, which prepare themselves meanwhile; none for CPUs, or on a cluster."""
        if request.address is not None or not request.gpus:
            return nullcontext()
        from sweep.trials import host

        job = _job(sweep, "cuda", host.MEMORY_SHARE)
        return host.hosting(request.gpus, job, self.dataset, [todo[0], todo[-1]])

    def _with_measured_sharing(
        self, resources: Resources, hosts: "Hosts | None", sweep: Sweep, todo: list[Cell]
    ) -> Resources:
        """The same, shared by as many trials a GPU as were measured to be best, if that was asked for."""
        if self.request.trials_per_gpu is not None:
            return resources
        if not resources.gpus:
            self.display.warn("--trials-per-gpu auto: the sweep uses no GPU, so there is nothing to measure")
            return resources
        from sweep.trials import probe

        self.display.tell(f"{sweep.manifest.name}: measuring how many trials a GPU should take")
        job, check = _job_for(sweep, resources), self.signals.raise_if_asked
        choice = probe.choose(todo, job, self.dataset, resources, check, hosts)
        self.display.tell(f"{sweep.manifest.name}: {choice.trials} a GPU; {choice.because}")
        return replace(resources, trials_per_gpu=choice.trials)

    def _next_round(self, sweep: Sweep, slots: int) -> tuple[Sweep, list[Cell]]:
        """Declare the cells that ``--resolve`` asks for next; none without it, or where it has come to its end."""
        cells = rounds.after_look(sweep, self.request.resolving, slots, self.display.tell)
        if cells:
            sweep = declare(
                replace(self.request, grid=Grid.of(cells, sweep.manifest.grid.image)), self.dataset, self.display.warn
            )
        return sweep, longest_first(cells, sweep.manifest.settings)

    def _round(
        self,
        sweep: Sweep,
        todo: list[Cell],
        resources: Resources,
        hosts: "Hosts | None",
        proposals: Proposals | None = None,
    ) -> str | None:
        """Train these cells, or those of a search; why it ended early, or None."""
        from sweep.trials import tuning

        # A completed cell whose files are damaged begins anew.
        again = {cell.key for cell in todo if sweep.status(cell) is Status.COMPLETED}
        source: list[Cell] | Proposals = todo if proposals is None else proposals
        shown = replace(sweep, records={key: record for key, record in sweep.records.items() if key not in again})
        with self.display.progress(shown, resources.slots) as progress:
            # What the report takes to import, and to draw a first time, is there when the last trial has ended.
            events = TrialEvents(
                sweep,
                progress,
                self.tracker,
                self.display.warn,
                at_first_news=self._prepare_the_end,
                control=self.control,
                prune=(lambda record: record) if proposals is None else proposals.pruned,
            )
            self.signals.be_patient()
            # Cells that failed for their neighbours have one more round, with the device to themselves.
            for round_resources in (resources, resources.alone):
                tuning.run_trials(
                    source,
                    replace(_job_for(sweep, round_resources), is_search=proposals is not None),
                    self.dataset,
                    round_resources,
                    events,
                    lambda: self._should_stop(events),
                    max_retries=self.request.max_retries,
                    hosts=hosts,
                )
                self.signals.raise_if_asked()
                if not self.is_held():
                    return f"another run took {sweep.store.uri()} over while the storage was out of this one's reach"
                source, events.again_alone = events.again_alone, []
                if not source or events.is_stopped:
                    break
        if self.control.is_paused:
            return PAUSED
        return events.stop_because or ("--time-budget is over; the same command goes on" if self._is_late else None)

    def _prepare_the_end(self) -> None:
        """Have there what the report takes to import, and to draw a first time, when the last trial has ended."""
        self.at_first_news()
        if self.request.report:
            _import_aside("sweep.report.page")

    def _should_stop(self, events: TrialEvents) -> bool:
        self.signals.install()  # Tune takes SIGUSR1 for itself when it starts
        is_ended = self.signals.asked() or events.is_stopped or self._is_late or self.control.is_paused
        return is_ended or not self.is_held()

    @property
    def _is_late(self) -> bool:
        return self.request.resolving is not None and self.request.resolving.is_late()


def place(request: Request) -> str:
    """Where its trials run, as a user is told."""
    if request.address is not None:
        return f"the Ray cluster at {request.address}"
    count, kind = (request.gpus, "GPU") if request.gpus else (request.cpus, "CPU core")
    return f"{counted(count or 0, kind)}; starting Ray"


def _job_for(sweep: Sweep, resources: Resources) -> Job:
    return _job(sweep, "cuda" if resources.gpus else "cpu", resources.memory_share)


def _job(sweep: Sweep, device: str, memory_share: float) -> Job:
    return Job(sweep.store, sweep.manifest.settings, device, memory_share, git_commit())


def _import_aside(module: str) -> None:
    """Import it in a thread; who needs it before it is there waits."""
    threading.Thread(target=importlib.import_module, args=(module,), name=f"import {module}", daemon=True).start()


def _tracking_problems(wandb_mode: str) -> list[str]:
    """Why W&B cannot be reached, where it has to be."""
    if wandb_mode != "online":
        return []
    from sweep.tracking import configuration
    from sweep.tracking.sync import check_reachable

    try:
        check_reachable(configuration.base_url())
    except UserError as error:
        return [str(error)]
    return []


@contextmanager
def _ray(request: Request, dataset: Dataset, count: int) -> Iterator[Resources]:
    """A Ray to run ``count`` trials on, and what they may use of it; Tune is imported while it starts.

    Raises:
        UserError: a cluster that cannot run this sweep; why, for all of its nodes.
    """
    from sweep.trials import session

    import_tune = partial(_import_aside, "sweep.trials.tuning")
    sharing = request.trials_per_gpu or TRIALS_PER_GPU
    if request.address is None:
        assert request.cpus is not None and request.gpus is not None  # noqa: PT018  (this machine's are known)
        resources = Resources(cpus=request.cpus, gpus=request.gpus, trials_per_gpu=sharing).capped_to(count)
        with session.local_cluster(resources, dataset.nbytes, import_tune, request.temp_dir):
            yield resources
        return
    with session.running_cluster(request.address):
        from sweep.trials import preflight

        import_tune()
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
            problems=_tracking_problems(request.wandb_mode),
            allow_autoscaling=request.allow_autoscaling,
        )
        yield resources
