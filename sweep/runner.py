"""From a request to a finished sweep: declare it, train what is missing, report."""

import importlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dae import data
from dae.data import Dataset
from dae.errors import UserError
from dae.testset import TestSet
from sweep.desk import Desk, copy_to_tracker
from sweep.grid import Cell, Grid, Settings, longest_first
from sweep.machine import cpu_count
from sweep.progress import Progress
from sweep.records import (
    IDENTITY,
    MANIFEST,
    SAMPLES,
    CellFiles,
    Manifest,
    Record,
    Status,
    Sweep,
    check_checkpoint,
    check_files,
    check_sweep,
    gather,
    read_record,
    read_verified,
    samples_file,
)
from sweep.rounds import Resolving
from sweep.signals import Signals
from sweep.store import Damaged, Held, Store, digest, seal, unseal
from sweep.tracking import Tracker

if TYPE_CHECKING:
    from sweep.session import Resources

Warn = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What `dae-sweep run` was asked for.

    Attributes:
        cpus: cores the sweep may use in all; None for all that a cluster has.
        gpus: likewise.
        address: of a Ray cluster that runs; None for a Ray of this command's own.
    """

    store: Store
    grid: Grid
    settings: Settings
    data_dir: Path
    cpus: int | None
    gpus: int | None
    trials_per_gpu: int
    wandb_mode: str
    project: str
    max_retries: int = 3
    address: str | None = None
    allow_autoscaling: bool = False
    resolving: Resolving | None = None
    evaluation: bool = False
    """Whether to compute what the report shows beside the test losses."""

    @property
    def slots(self) -> int:
        """Trials that run at the same time, as far as is known before a cluster is joined."""
        return (self.gpus or 0) * self.trials_per_gpu or self.cpus or 1


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
        try:
            todo = _todo(sweep, warn)
            copy_to_tracker(sweep, tracker, todo)
            stopped_because = None
            if not todo:
                sweep, todo = _next_round(sweep, request, dataset, warn, tell, request.slots)
            if todo:
                count, total = len(todo), len(sweep.manifest.grid.cells)
                tell(f"{sweep.manifest.name}: {count} of {total} cells to train, on {_place(request)}")
                stopped_because = _train(
                    todo, sweep, request, dataset, signals, tracker, make_progress, warn, tell, is_held
                )
            sweep = gather(request.store)
            signals.raise_if_asked()
            if request.evaluation and sweep.completed:
                from sweep.evaluation import evaluate

                # In processes of this machine, whatever the cluster has.
                workers = min(request.cpus or cpu_count(), cpu_count())
                evaluate(sweep, dataset, workers=workers, warn=warn, tell=tell)
            if make_report is not None and sweep.completed:
                tracker.report(*make_report(sweep))
        finally:
            tracker.close()
    return Outcome(sweep, store.at("wandb") if tracker.mode == "offline" else tracker.location, stopped_because)


def _place(request: Request) -> str:
    if request.address is not None:
        return f"the Ray cluster at {request.address}"
    count, kind = (request.gpus, "GPU") if request.gpus else (request.cpus, "CPU core")
    return f"{count} {kind}{'s' * (count != 1)}; starting Ray"


def declare(request: Request, dataset: Dataset, warn: Warn) -> Sweep:
    """Write the manifest, or extend the one that is there to the union of both grids.

    Raises:
        UserError: the request contradicts what the sweep already holds.
    """
    store, settings = request.store, request.settings
    try:
        found = gather(store)
    except FileNotFoundError:
        found = None
    except Damaged as error:
        warn(f"{MANIFEST} is damaged ({error}): it is written anew from this command and the records")
        found = None
    grid = request.grid.union(_recorded(store))
    if found is None:
        manifest = Manifest.new(
            name=store.name, grid=grid, settings=settings, dataset=_describe(dataset), **_known_id(store)
        )
        records = gather_records(store, grid)
    else:
        manifest = replace(found.manifest, grid=grid.union(found.manifest.grid))
        records = dict(found.records)
    if not records and (manifest.settings, manifest.dataset) != (settings, _describe(dataset)):
        grid = Grid.of(map(settings.plain, manifest.grid.cells))
        # Without its digest a file counts for nothing: the sample digits may be of other data or under other noise.
        manifest = replace(
            manifest, grid=grid, settings=settings, dataset=_describe(dataset), conditions={}, digests={}
        )
    check_sweep(list(records.values()), settings, None if found is None else found.manifest)
    for record in records.values():
        _check_same(record, dataset)
    manifest = _with_samples(manifest, store, dataset)
    if found is None or manifest != found.manifest:
        store.write(IDENTITY, seal(manifest.id.encode()))
        store.write(MANIFEST, manifest.to_bytes())
    return gather(store)


def _with_samples(manifest: Manifest, store: Store, dataset: Dataset) -> Manifest:
    """Write the sample digits under every noise of the sweep, where they are not there yet."""
    noises = {SAMPLES: manifest.settings}
    noises |= {samples_file(cell.axes): manifest.settings.at(cell) for cell in manifest.grid.cells}
    for file, settings in noises.items():
        try:
            read_verified(store, file, manifest.digests)
            continue
        except Damaged:
            pass
        test_set = TestSet(dataset, settings.alpha, settings.noise)
        samples = _samples(test_set)
        store.write(file, samples)
        manifest = replace(manifest, digests={**manifest.digests, file: digest(samples)})
        if file == SAMPLES:
            manifest = replace(manifest, baselines=test_set.baselines())
        else:
            manifest = replace(manifest, conditions={**manifest.conditions, file: test_set.baselines()})
    return manifest


def _known_id(store: Store) -> dict[str, str]:
    """The id of a sweep whose manifest is lost."""
    try:
        return {"id": unseal(store.read(IDENTITY)).decode()}
    except (FileNotFoundError, Damaged):
        return {}


def _recorded(store: Store) -> Grid:
    """The cells that have a folder, declared or not."""
    cells = []
    for folder in store.folders("cells"):
        with suppress(ValueError):
            cells.append(Cell.from_key(folder))
    return Grid.of(cells)


def gather_records(store: Store, grid: Grid) -> dict[str, Record]:
    """The readable records of a grid, without a manifest."""
    records = {}
    for cell in grid.cells:
        with suppress(FileNotFoundError, Damaged):
            records[cell.key] = read_record(store, cell)
    return records


def _check_same(record: Record, dataset: Dataset) -> None:
    if (found := record.dataset["fingerprint"]) != dataset.fingerprint:
        raise UserError(
            f"{record.key} was trained on other data ({found[:12]}) than is at hand ({dataset.fingerprint[:12]}). "
            "Give another --name, or the --data-dir it was trained on."
        )


def _describe(dataset: Dataset) -> dict[str, object]:
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "test": len(dataset.test),
    }


def _samples(test_set: TestSet) -> bytes:
    chosen = test_set.samples
    arrays = io.BytesIO()
    np.savez(
        arrays,
        clean=test_set.clean[chosen],
        noisy=test_set.noisy[chosen],
        labels=test_set.dataset.test_labels[chosen].astype(np.int64),
        mean_image=test_set.mean_image,
        class_means=test_set.class_means(test_set.clean),
    )
    return arrays.getvalue()


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


def _train(
    todo: list[Cell],
    sweep: Sweep,
    request: Request,
    dataset: Dataset,
    signals: Signals,
    tracker: Tracker,
    make_progress: Callable[[Sweep, int], Progress],
    warn: Warn,
    tell: Warn,
    is_held: Callable[[], bool],
) -> str | None:
    """Run the trials, round after round; why they ended early, or None."""
    # Ray starts its processes while Tune is imported.
    importing = threading.Thread(target=importlib.import_module, args=("sweep.tuning",))
    importing.start()
    signals.be_patient()  # half of a Ray would be left behind
    with _ray(request, dataset) as resources:
        signals.install()
        importing.join()
        signals.raise_if_asked()
        stopped_because = None
        while todo and stopped_because is None:
            stopped_because = _round(
                todo, sweep, request, resources, dataset, signals, tracker, make_progress, warn, is_held
            )
            if stopped_because is None:
                sweep, todo = _next_round(gather(request.store), request, dataset, warn, tell, resources.slots)
    return stopped_because


def _round(
    todo: list[Cell],
    sweep: Sweep,
    request: Request,
    resources: "Resources",
    dataset: Dataset,
    signals: Signals,
    tracker: Tracker,
    make_progress: Callable[[Sweep, int], Progress],
    warn: Warn,
    is_held: Callable[[], bool],
) -> str | None:
    """Train these cells; why it ended early, or None."""
    from sweep import tuning
    from sweep.job import Job, git_commit

    commit, settings, device = git_commit(), sweep.manifest.settings, "cuda" if resources.gpus else "cpu"
    is_late: Callable[[], bool] = request.resolving.is_late if request.resolving else lambda: False
    # A completed cell whose files are damaged begins anew.
    again = {cell.key for cell in todo if sweep.status(cell) is Status.COMPLETED}
    shown = replace(sweep, records={key: each for key, each in sweep.records.items() if key not in again})
    with make_progress(shown, resources.slots) as progress:
        desk = Desk(sweep, progress, tracker, warn)
        signals.be_patient()
        # Cells that ran out of memory beside others have one more round, with the device to themselves.
        for round_resources in (resources, resources.alone):
            job = Job(sweep.store, settings, device, round_resources.memory_share, commit)
            tuning.run_trials(
                todo,
                job,
                dataset,
                round_resources,
                desk,
                lambda: signals.asked() or desk.is_stopped or is_late() or not is_held(),
                max_retries=request.max_retries,
            )
            signals.raise_if_asked()
            if not is_held():
                return f"another run took {sweep.store.at()} over while the storage was out of this one's reach"
            todo, desk.out_of_memory = desk.out_of_memory, []
            if not todo or desk.is_stopped:
                break
    return desk.stop_because or ("--time-budget is over; the same command goes on" if is_late() else None)


def _next_round(
    sweep: Sweep, request: Request, dataset: Dataset, warn: Warn, tell: Warn, slots: int
) -> tuple[Sweep, list[Cell]]:
    """Declare the cells that ``--resolve`` asks for next; none without it, or where it has come to its end."""
    from sweep import rounds

    cells = rounds.after_look(sweep, request.resolving, slots, tell)
    if cells:
        sweep = declare(replace(request, grid=Grid.of(cells)), dataset, warn)
    return sweep, longest_first(cells, sweep.manifest.settings)


@contextmanager
def _ray(request: Request, dataset: Dataset) -> Iterator["Resources"]:
    """A Ray to run the trials on, and what they may use of it.

    Raises:
        UserError: a cluster that cannot run this sweep; why, for all of its nodes.
    """
    from sweep import session

    if request.address is None:
        assert request.cpus is not None and request.gpus is not None  # noqa: PT018  (this machine's are known)
        resources = session.Resources(cpus=request.cpus, gpus=request.gpus, trials_per_gpu=request.trials_per_gpu)
        dataset_bytes = dataset.train.nbytes + dataset.validation.nbytes + dataset.test.nbytes
        with session.local_cluster(resources, dataset_bytes):
            yield resources
        return
    with session.running_cluster(request.address):
        from sweep import preflight

        resources = session.cluster_resources(
            cpus=request.cpus,
            gpus=request.gpus,
            trials_per_gpu=request.trials_per_gpu,
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
                f"{holder} is already at the sweep in {store.at()}. Wait for it, or give another --name."
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot write to {store.at()} ({error.strerror}). Give a --storage that can be written."
            ) from error
        yield is_held
