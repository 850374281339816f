"""From a request to a finished sweep: declare it, train what is missing, report."""

import importlib
import io
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dae import data
from dae.data import Dataset
from dae.errors import UserError
from dae.testset import TestSet
from sweep.grid import Cell, Grid, Settings, longest_first
from sweep.progress import Progress
from sweep.records import (
    MANIFEST,
    SAMPLES,
    CellFiles,
    Failure,
    Manifest,
    Record,
    Status,
    Sweep,
    gather,
    now,
    read_record,
    read_verified,
)
from sweep.signals import Signals
from sweep.store import Damaged, Held, Store, digest
from sweep.tracking import Tracker

SAME_ERROR_LIMIT = 2
"""So many cells that fail with one and the same error mean that the program or the data is at fault, not the cell."""

Warn = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What `dae-sweep run` was asked for."""

    store: Store
    grid: Grid
    settings: Settings
    data_dir: Path
    cpus: int
    gpus: int
    trials_per_gpu: int
    wandb_mode: str
    project: str


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
) -> Outcome:
    """Train the cells of the request that are not completed yet, and report.

    Args:
        request: what was asked for.
        signals: asked between and during trials whether to stop.
        make_progress: gives the display for a sweep and its number of parallel trials.
        warn: told of everything that went on although it should not have been.
        make_report: writes the report, returns its table and figures for W&B; None for none.

    Raises:
        UserError: the request cannot be carried out; nothing was lost.
        Interrupted: a signal came; every finished epoch is on disk.
    """
    dataset = data.load(request.settings.dataset, request.data_dir, request.settings.train_fraction)
    if request.settings.batch_size > len(dataset.train):
        raise UserError(
            f"batch size {request.settings.batch_size} is larger than the {len(dataset.train)} training images: "
            "lower --batch-size or raise --train-fraction."
        )
    with _held(request.store):
        request.store.sweep_up()
        sweep = declare(request, dataset, warn)
        tracker = Tracker(
            sweep.manifest, request.store.root, mode=request.wandb_mode, project=request.project, warn=warn
        )
        try:
            todo = _todo(sweep, warn)
            stopped_because = _train(todo, sweep, request, dataset, signals, tracker, make_progress) if todo else None
            sweep = gather(request.store)
            signals.raise_if_asked()
            if make_report is not None and sweep.completed:
                tracker.report(*make_report(sweep))
        finally:
            tracker.close()
    return Outcome(sweep, tracker.location, stopped_because)


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
        manifest = Manifest.new(name=store.root.name, grid=grid, settings=settings, dataset=_describe(dataset))
        records = gather_records(store, grid)
    else:
        manifest = replace(found.manifest, grid=grid.union(found.manifest.grid))
        records = dict(found.records)
    if not records:
        manifest = replace(manifest, settings=settings, dataset=_describe(dataset))
    for record in records.values():
        _check_same(record, settings, dataset)
    test_set = TestSet(dataset, settings.alpha)
    try:
        read_verified(store, SAMPLES, manifest.digests)
    except Damaged:
        samples = _samples(test_set)
        store.write(SAMPLES, samples)
        manifest = replace(manifest, baselines=test_set.baselines(), digests={SAMPLES: digest(samples)})
    if found is None or manifest != found.manifest:
        store.write(MANIFEST, manifest.to_bytes())
    return gather(store)


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


def _check_same(record: Record, settings: Settings, dataset: Dataset) -> None:
    """A sweep compares like with like: refuse to go on with other settings or other data."""
    for name, asked in settings.config(record.cell).items():
        if (found := record.config.get(name)) != asked:
            raise UserError(
                f"{record.key} was made with {name} {found}, this command asks for {asked}. Give another --name to "
                f"begin a new sweep, or --{name.replace('_', '-')} {found} to go on with this one."
            )
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
        elif sweep.status(cell) is Status.COMPLETED:
            record, files = sweep.records[cell.key], CellFiles(cell.key)
            try:
                for name in (files.test, files.weights):
                    read_verified(sweep.store, name, record.digests)
                continue
            except Damaged as error:
                warn(f"{error}; {cell.key} is trained again")
        elif sweep.status(cell).is_final:
            continue
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
) -> str | None:
    """Run the trials; why they ended early, or None."""
    from sweep import session

    # Ray starts its processes while Tune is imported.
    importing = threading.Thread(target=importlib.import_module, args=("sweep.tuning",))
    importing.start()
    resources = session.Resources(cpus=request.cpus, gpus=request.gpus, trials_per_gpu=request.trials_per_gpu)
    settings, device = sweep.manifest.settings, "cuda" if request.gpus else "cpu"
    with session.local_cluster(resources, dataset.train.nbytes + dataset.validation.nbytes + dataset.test.nbytes):
        signals.install()
        importing.join()
        from sweep import tuning
        from sweep.job import Job, git_commit

        commit = git_commit()
        with make_progress(sweep, resources.slots) as progress:
            desk = _Desk(sweep, progress, tracker)
            signals.be_patient()
            # Cells that ran out of memory beside others have one more round, with the device to themselves.
            for round_resources in (resources, resources.alone):
                job = Job(sweep.store, settings, device, round_resources.memory_share, commit)
                tuning.run_trials(todo, job, dataset, round_resources, desk, lambda: signals.asked() or desk.is_stopped)
                signals.raise_if_asked()
                todo, desk.out_of_memory = desk.out_of_memory, []
                if not todo or desk.is_stopped:
                    break
    return desk.stop_because


class _Desk:
    """Where the news of all trials come in; hands them on to the display and to W&B."""

    def __init__(self, sweep: Sweep, progress: Progress, tracker: Tracker) -> None:
        self._sweep, self._progress, self._tracker = sweep, progress, tracker
        self._tracked: set[str] = set()
        self._errors: dict[str, set[str]] = {}
        self.out_of_memory: list[Cell] = []
        self.stop_because: str | None = None

    @property
    def is_stopped(self) -> bool:
        return self.stop_because is not None

    def started(self, key: str) -> None:
        self._progress.started(key)

    def progressed(self, record: Record, images_per_s: float) -> None:
        self._progress.progressed(record, images_per_s)
        if record.key not in self._tracked:
            self._tracked.add(record.key)
            self._tracker.started(record)
        if record.status is Status.RUNNING:
            self._tracker.progressed(record.key, record.history)
        else:
            self._tracker.ended(record, self._sample(record))
        if record.failure is Failure.MEMORY:
            self.out_of_memory.append(record.cell)
        if record.failure is Failure.PROGRAM and record.error is not None:
            cells = self._errors.setdefault(record.error, set())
            cells.add(record.key)
            if len(cells) >= SAME_ERROR_LIMIT:
                self.stop_because = f"{' and '.join(sorted(cells))} failed with the same error: {record.error}"

    def lost(self, key: str, reason: str, *, is_final: bool) -> None:
        self._progress.lost(key, reason, is_final=is_final)
        if not is_final:
            return
        cell, manifest = Cell.from_key(key), self._sweep.manifest
        try:
            record = read_record(self._sweep.store, cell)
        except (FileNotFoundError, Damaged):
            dataset = {name: str(manifest.dataset[name]) for name in ("name", "fingerprint")}
            record = Record.new(cell, manifest.settings, dataset)
        if record.status.is_final:  # its last word was written before the process died
            return
        record = replace(
            record,
            status=Status.FAILED,
            failure=Failure.LOST,
            error=f"its process was lost: {reason}",
            finished_at=now(),
        )
        self._sweep.store.write(CellFiles(key).record, record.to_bytes())
        self._tracker.ended(record, None)

    def _sample(self, record: Record) -> npt.NDArray[np.uint8] | None:
        """Clean, noisy and denoised digits, one row each."""
        if record.status is not Status.COMPLETED:
            return None
        test = np.load(io.BytesIO(read_verified(self._sweep.store, CellFiles(record.key).test, record.digests)))
        rows = np.stack([*self._clean_and_noisy, test["samples"]])
        return (255 * rows.transpose(0, 2, 1, 3).reshape(3 * 28, -1)).round().astype(np.uint8)

    @cached_property
    def _clean_and_noisy(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        samples = np.load(io.BytesIO(read_verified(self._sweep.store, SAMPLES, self._sweep.manifest.digests)))
        return samples["clean"], samples["noisy"]


class _held:  # noqa: N801  (reads as the context it is)
    """The sweep's folder, made if need be, for this process alone.

    Raises:
        UserError: it cannot be written, or another run is at it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> None:
        try:
            self._store.root.mkdir(parents=True, exist_ok=True)
            self._lock = self._store.lock()
            self._lock.__enter__()
        except Held as holder:
            raise UserError(
                f"{holder} is already at the sweep in {self._store.root}. Wait for it, or give another --name."
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot write to {self._store.root} ({error.strerror}). Give a --storage that can be written."
            ) from error

    def __exit__(self, *exception: object) -> None:
        self._lock.__exit__(None, None, None)
