"""What the report needs beyond test losses: baselines, a reader of digits, image quality, robustness.

Computed after training from weights and dataset, for old sweeps as for new ones; records and test results are never
touched. Only what is missing, damaged or stale is made. `sweep.records.quality` says what is in the files.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, as_completed
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from dae import baselines
from dae.baselines import Denoiser
from dae.config import ModelConfig, TrainConfig
from dae.data import Dataset
from dae.testset import psnr_db
from sweep.evaluation import tasks
from sweep.evaluation.tasks import SETTINGS, Denoised, Noise
from sweep.records.grid import longest_first
from sweep.records.quality import READER, Baseline, Condition, References, load_quality, load_references
from sweep.records.record import CellFiles, Record, read_verified
from sweep.records.sweep import Sweep
from sweep.storage.sealing import Damaged

PART_IMAGES = 1000
"""Of the test images, for one task of a filter that takes a millisecond or more an image."""

TELL_EVERY_S = 10
"""How often to say how far it has come."""

Tell = Callable[[str], None]
T = TypeVar("T")


def evaluate(
    sweep: Sweep,
    dataset: Dataset,
    *,
    workers: int,
    warn: Tell,
    tell: Tell,
    device: str = "cpu",
    executor: Executor | None = None,
) -> None:
    """Make what is missing of a sweep's references and of its completed cells' quality.

    Args:
        sweep: as it was gathered; its lock is held.
        dataset: loaded as its settings say.
        workers: processes to use, of one thread each.
        warn: told of what could not be computed; that never raises.
        tell: told what begins and how long it took.
        device: where the reader is trained; the rest is for CPUs.
        executor: computes instead of processes of its own.
    """
    start = time.monotonic()
    references = _usable_references(sweep, warn)
    wanted = _conditions(sweep)
    missing = {noise: _missing(references, noise, latents) for noise, latents in wanted.items()}
    missing = {noise: todo for noise, todo in missing.items() if todo.any}
    cells = _stale_cells(sweep, references, warn)
    if references is not None and not missing and not cells:
        return
    parts = [f"{len(cells)} cells"] * bool(cells) + ["baselines"] * bool(missing) + ["a reader"] * (references is None)
    tell(f"{sweep.manifest.name}: evaluating {', '.join(parts)} on {workers} CPU core{'s' * (workers != 1)}")
    ready = tasks.processes(dataset, workers) if executor is None else tasks.prepared(executor, dataset)
    try:
        with ready as pool:
            _Evaluation(sweep, pool, len(dataset.test), references, warn, tell).run(missing, cells, device)
    except Exception as error:  # whatever it is, the report comes without
        warn(f"the evaluation stopped ({type(error).__name__}: {error}); the same command takes it up again")
        return
    tell(f"{sweep.manifest.name}: evaluated in {time.monotonic() - start:.0f} s")


# ---- what is to be done


class _Todo(NamedTuple):
    """Baselines of one condition that are not there: all filters, or none; linear ones of these latent elements."""

    filters: bool
    latents: tuple[int, ...]

    @property
    def any(self) -> bool:
        return self.filters or bool(self.latents)

    @property
    def parts(self) -> "list[_Todo]":
        """The same in pieces that take about as long."""
        return [part for part in (_Todo(self.filters, ()), _Todo(False, self.latents)) if part.any]


def _usable_references(sweep: Sweep, warn: Tell) -> References | None:
    try:
        references = load_references(sweep)
        if references is None:
            return None
        read_verified(sweep.store, READER, {READER: references.reader.sha256})
    except Damaged as error:
        warn(f"{error}: the references are computed anew")
        return None
    return references if dict(references.settings) == SETTINGS else None


def _conditions(sweep: Sweep) -> dict[Noise, set[int]]:
    """The noise that completed cells were trained and tested under, and their numbers of latent elements."""
    found: dict[Noise, set[int]] = {}
    for record in sweep.completed:
        settings = sweep.manifest.settings.at(record.cell)
        elements = settings.latent_channels * record.latent**2
        found.setdefault(Noise(settings.noise, settings.alpha), set()).add(elements)
    return found


def _missing(references: References | None, noise: Noise, latents: set[int]) -> _Todo:
    condition = None if references is None else references.condition(*noise)
    known = set() if condition is None else {each.latent for each in condition.baselines}
    return _Todo(condition is None, tuple(sorted(latents - known, reverse=True)))


def _stale_cells(sweep: Sweep, references: References | None, warn: Tell) -> list[Record]:
    qualities = load_quality(sweep)
    for reason in qualities.damaged.values():
        warn(f"{reason}: it is computed anew")
    reader = None if references is None else references.reader.sha256
    fresh = {key for key, quality in qualities.by_key.items() if quality.reader == reader}
    return [record for record in sweep.completed if record.key not in fresh]


# ---- doing it


class _Tried(NamedTuple):
    """A baseline, and what is measured of the test images part by part."""

    denoiser: Denoiser
    parts: list[Future[Denoised]]

    def result(self, labels: npt.NDArray[np.uint8]) -> Baseline:
        """All parts together, once they are there."""
        loss, similarity, read = map(np.concatenate, zip(*(part.result() for part in self.parts), strict=True))
        test_loss = float(loss.mean(dtype=np.float64))
        return Baseline(
            name=self.denoiser.name,
            family=self.denoiser.family,
            latent=self.denoiser.latent,
            parameters=dict(self.denoiser.parameters),
            test_loss=test_loss,
            test_psnr_db=psnr_db(test_loss) if test_loss else None,
            ssim=float(similarity.mean(dtype=np.float64)),
            accuracy=float((read == labels).mean()),
            loss=loss,
        )


class _Evaluation:
    """One evaluation on its way; writes each result as soon as it is there."""

    def __init__(
        self, sweep: Sweep, pool: Executor, images: int, references: References | None, warn: Tell, tell: Tell
    ) -> None:
        self._sweep, self._store, self._pool, self._warn, self._tell = sweep, sweep.store, pool, warn, tell
        self._images, self._references = images, references

    def run(self, missing: dict[Noise, _Todo], cells: list[Record], device: str) -> None:
        """Reader and fits side by side; then all that the reader is needed for."""
        training = self._pool.submit(tasks.train_reader, device) if self._references is None else None
        fits = {noise: self._submit_fits(noise, todo) for noise, todo in missing.items()}
        if training is not None:
            reader, self._references = training.result()
            self._store.write(READER, reader)
            self._write_references()
            self._tell(f"a reader that reads {self._references.reader.accuracy_clean:.1%} of the clean test digits")
        reader = self._store.read(READER)

        def submit(noises: list[Noise]) -> "dict[Noise, Any]":
            return {noise: self._submit_baselines(noise, fits[noise], reader) for noise in noises}

        # What takes longest first, so that no core is left alone with it; but nothing waits for a fit.
        fitted = [noise for noise, parts in fits.items() if all(fit.done() for fit in parts)]
        tried = submit(fitted)
        written = [self._pool.submit(tasks.evaluate_cell, *task, reader) for task in self._cell_tasks(cells)]
        tried |= submit([noise for noise in fits if noise not in fitted])
        last = time.monotonic()
        for done, cell in enumerate(as_completed(written), start=1):
            if (file := self._or_warning(cell.result, "a cell")) is not None:
                self._store.write(*file)
            if time.monotonic() - last > TELL_EVERY_S:
                last = time.monotonic()
                self._tell(f"{done} of {len(written)} cells evaluated")
        for noise, parts in tried.items():
            if parts is not None:
                self._keep_condition(noise, *parts)

    def _cell_tasks(self, cells: list[Record]) -> Iterator[tuple[str, ModelConfig, TrainConfig, bytes]]:
        settings = self._sweep.manifest.settings
        records = {record.cell: record for record in cells}
        for record in map(records.__getitem__, longest_first(records, settings)):
            try:
                weights = read_verified(self._store, CellFiles(record.key).weights, record.digests)
            except Damaged as error:
                self._warn(f"{record.key} is not evaluated: {error}")
                continue
            yield record.key, settings.model(record.cell), settings.training(record.cell), weights

    def _submit_fits(self, noise: Noise, todo: _Todo) -> list[Future[list[Denoiser]]]:
        return [self._pool.submit(tasks.fit, noise, part.filters, part.latents) for part in todo.parts]

    def _submit_baselines(
        self, noise: Noise, fits: list[Future[list[Denoiser]]], reader: bytes
    ) -> tuple[Future[npt.NDArray[np.uint8]], list[_Tried]] | None:
        try:
            denoisers = [denoiser for fit in fits for denoiser in fit.result()]
        except Exception as error:  # of any library; the other conditions go on
            self._warn(f"no baselines for {noise.kind} noise {noise.alpha}: {type(error).__name__}: {error}")
            return None
        tried = {each.name: self._submit_baseline(each, noise, reader) for each in sorted(denoisers, key=_is_quick)}
        reading = self._pool.submit(tasks.read_noisy, noise, reader)
        return reading, [tried[each.name] for each in denoisers]

    def _submit_baseline(self, denoiser: Denoiser, noise: Noise, reader: bytes) -> _Tried:
        step = self._images if _is_quick(denoiser) else PART_IMAGES  # that no core is left alone with a slow one
        parts = [slice(start, start + step) for start in range(0, self._images, step)]
        return _Tried(denoiser, [self._pool.submit(tasks.denoise, denoiser, noise, reader, part) for part in parts])

    def _keep_condition(self, noise: Noise, reading: Future[npt.NDArray[np.uint8]], tried: list[_Tried]) -> None:
        assert self._references is not None
        labels, known = self._references.labels, self._references.condition(*noise)
        results = [self._or_warning(partial(each.result, labels), "a baseline") for each in tried]
        found = [each for each in results if each is not None]
        read = self._or_warning(reading.result, "the noisy test set")
        if read is None or len(found) < len(tried):
            return  # half a condition would pass for a whole one
        condition = Condition(
            noise=noise.kind,
            alpha=noise.alpha,
            accuracy_noisy=float((read == labels).mean()),
            baselines=tuple(sorted((*(known.baselines if known else ()), *found), key=_place)),
            read_noisy=read,
        )
        others = [each for each in self._references.conditions if each is not known]
        self._references = replace(self._references, conditions=(*others, condition))
        self._write_references()

    def _or_warning(self, compute: Callable[[], T], what: str) -> T | None:
        try:
            return compute()
        except Exception as error:  # of any library; the others go on
            self._warn(f"{what} could not be evaluated: {type(error).__name__}: {error}")
            return None

    def _write_references(self) -> None:
        assert self._references is not None
        for name, content in self._references.to_files().items():
            self._store.write(name, content)


def _is_quick(denoiser: Denoiser) -> bool:
    return not denoiser.name.startswith(tuple(baselines.MODERN))


def _place(baseline: Baseline) -> tuple[bool, bool, int]:
    """The order of tables: filters as they came, PCA and regression by falling rank."""
    return baseline.family == "linear", baseline.name.startswith("reduced"), -(baseline.latent or 0)
