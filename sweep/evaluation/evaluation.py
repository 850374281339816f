"""The evaluation of a sweep: computes its references and the quality of its cells after training.

It needs weights and dataset alone, so that old sweeps can be evaluated too, and changes no record or test result. Only
what is missing, damaged or stale is computed. `sweep.records.quality` describes the results.
"""

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, as_completed
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from dae import baselines
from dae.baselines import Denoiser
from dae.data import Dataset
from dae.testset import psnr_db
from sweep.evaluation import tasks
from sweep.evaluation.tasks import SETTINGS, Denoised, Noise
from sweep.records.grid import longest_first
from sweep.records.quality import READER, Baseline, Condition, References, load_quality, load_references
from sweep.records.record import CellFiles, Record, read_verified, verified
from sweep.records.sweep import Sweep
from sweep.storage.sealing import Damaged

PART_IMAGES = 1000
"""Test images of one task of a filter that takes a millisecond or more for an image."""

TELL_EVERY_S = 10
"""How often to report the progress."""

Tell = Callable[[str], None]
Result = TypeVar("Result")


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
    """Compute and write what is missing of a sweep's references and of the quality of its completed cells.

    Failures are reported to ``warn``, not raised.

    Args:
        sweep: as `sweep.records.sweep.gather` read it; its lock is held.
        dataset: loaded with the sweep's settings.
        workers: number of processes, of one thread each.
        warn: called with what could not be computed and why.
        tell: called with the progress.
        device: where the reader is trained; the rest is computed on CPUs.
        executor: computes in place of new processes.
    """
    start = time.monotonic()
    references = _usable_references(sweep, warn)
    missing = _missing_baselines(sweep, references)
    cells = _unevaluated_cells(sweep, references, warn)
    if references is not None and not missing and not cells:
        return
    parts = [f"{len(cells)} cells"] * bool(cells) + ["baselines"] * bool(missing) + ["a reader"] * (references is None)
    tell(f"{sweep.manifest.name}: evaluating {', '.join(parts)} on {workers} CPU core{'s' * (workers != 1)}")
    ready = tasks.processes(dataset, workers) if executor is None else tasks.prepared(executor, dataset)
    try:
        with ready as pool:
            _Evaluation(sweep, pool, len(dataset.test), references, warn, tell).run(missing, cells, device)
    except Exception as error:  # of any kind: the report is made without the rest
        warn(f"the evaluation stopped ({type(error).__name__}: {error}); the same command takes it up again")
        return
    tell(f"{sweep.manifest.name}: evaluated in {time.monotonic() - start:.0f} s")


# ---- what is missing


class _Missing(NamedTuple):
    """Baselines of one condition to compute: the filters or not, and linear ones with these numbers of elements."""

    filters: bool
    latents: tuple[int, ...]


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


def _missing_baselines(sweep: Sweep, references: References | None) -> dict[Noise, _Missing]:
    """What is missing under every noise of the completed cells; nothing of conditions that are complete."""
    latents: dict[Noise, set[int]] = {}
    for record in sweep.completed:
        settings = sweep.manifest.settings.at(record.cell)
        elements = settings.model(record.cell).latent_numbers
        latents.setdefault(Noise(settings.noise, settings.alpha), set()).add(elements)
    missing = {}
    for noise, wanted in latents.items():
        condition = None if references is None else references.condition(*noise)
        known = set() if condition is None else {baseline.latent for baseline in condition.baselines}
        if condition is None or wanted - known:
            missing[noise] = _Missing(condition is None, tuple(sorted(wanted - known, reverse=True)))
    return missing


def _unevaluated_cells(sweep: Sweep, references: References | None, warn: Tell) -> list[Record]:
    """Completed cells without a quality that this reader took part in."""
    qualities = load_quality(sweep)
    for reason in qualities.damaged.values():
        warn(f"{reason}: it is computed anew")
    reader = None if references is None else references.reader.sha256
    fresh = {key for key, quality in qualities.by_key.items() if quality.reader == reader}
    return [record for record in sweep.completed if record.key not in fresh]


# ---- computing and writing it


class _PendingBaseline(NamedTuple):
    """A baseline whose results on the test images are being computed in parts."""

    denoiser: Denoiser
    parts: list[Future[Denoised]]

    def result(self, labels: npt.NDArray[np.uint8]) -> Baseline:
        """The baseline, once all parts are computed."""
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


class _PendingCondition(NamedTuple):
    """The baselines of a condition, and the digits read in its noisy test images, while they are being computed."""

    baselines: list[_PendingBaseline]
    read_noisy: Future[npt.NDArray[np.uint8]]


class _Evaluation:
    """A running evaluation; writes every result as soon as it is computed."""

    def __init__(
        self, sweep: Sweep, pool: Executor, images: int, references: References | None, warn: Tell, tell: Tell
    ) -> None:
        self._sweep, self._store, self._pool, self._warn, self._tell = sweep, sweep.store, pool, warn, tell
        self._images, self._references = images, references

    def run(self, missing: dict[Noise, _Missing], cells: list[Record], device: str) -> None:
        """Train the reader and fit baselines side by side; then compute all that needs the reader."""
        training = self._pool.submit(tasks.train_reader, device) if self._references is None else None
        fits = {noise: self._submit_fits(noise, wanted) for noise, wanted in missing.items()}
        if training is not None:
            self._write_reader(*training.result())
        reader = self._store.read(READER)
        # The longest tasks come first, so that no core works on one alone at the end; but cells do not wait for fits.
        fitted = [noise for noise in fits if all(fit.done() for fit in fits[noise])]
        unfitted = [noise for noise in fits if noise not in fitted]
        conditions = {noise: self._submit_condition(noise, fits[noise], reader) for noise in fitted}
        qualities = self._submit_cells(cells, reader)
        conditions |= {noise: self._submit_condition(noise, fits[noise], reader) for noise in unfitted}
        self._write_qualities(qualities)
        for noise, condition in conditions.items():
            if condition is not None:
                self._write_condition(noise, condition)

    # ---- tasks

    def _submit_fits(self, noise: Noise, missing: _Missing) -> list[Future[list[Denoiser]]]:
        """Filters and linear maps in two tasks, which take about as long."""
        parts = [(True, ())] * missing.filters + [(False, missing.latents)] * bool(missing.latents)
        return [self._pool.submit(tasks.fit, noise, *part) for part in parts]

    def _submit_condition(
        self, noise: Noise, fits: list[Future[list[Denoiser]]], reader: bytes
    ) -> _PendingCondition | None:
        try:
            denoisers = [denoiser for fit in fits for denoiser in fit.result()]
        except Exception as error:  # of any library; the other conditions go on
            self._warn(f"no baselines for {noise.kind} noise {noise.alpha}: {type(error).__name__}: {error}")
            return None
        slow_first = sorted(denoisers, key=_is_quick)
        pending = {denoiser.name: self._submit_baseline(denoiser, noise, reader) for denoiser in slow_first}
        read_noisy = self._pool.submit(tasks.read_noisy, noise, reader)
        return _PendingCondition([pending[denoiser.name] for denoiser in denoisers], read_noisy)

    def _submit_baseline(self, denoiser: Denoiser, noise: Noise, reader: bytes) -> _PendingBaseline:
        step = self._images if _is_quick(denoiser) else PART_IMAGES  # so that all cores work on a slow one
        parts = [slice(start, start + step) for start in range(0, self._images, step)]
        return _PendingBaseline(
            denoiser, [self._pool.submit(tasks.denoise, denoiser, noise, reader, part) for part in parts]
        )

    def _submit_cells(self, cells: list[Record], reader: bytes) -> list[Future[tuple[str, bytes]]]:
        settings = self._sweep.manifest.settings
        records = {record.cell: record for record in cells}
        futures = []
        contents = self._store.read_all(CellFiles(record.key).weights for record in cells)
        for cell in longest_first(records, settings):
            try:
                weights = verified(CellFiles(cell.key).weights, contents, records[cell].digests)
            except Damaged as error:
                self._warn(f"{cell.key} is not evaluated: {error}")
                continue
            task = (cell.key, settings.model(cell), settings.training(cell), weights, reader)
            futures.append(self._pool.submit(tasks.evaluate_cell, *task))
        return futures

    # ---- results

    def _write_reader(self, weights: bytes, references: References) -> None:
        self._references = references
        self._store.write(READER, weights)
        self._write_references()
        self._tell(f"a reader that reads {references.reader.accuracy_clean:.1%} of the clean test digits")

    def _write_qualities(self, qualities: list[Future[tuple[str, bytes]]]) -> None:
        last = time.monotonic()
        for done, quality in enumerate(as_completed(qualities), start=1):
            if (file := self._result_or_warning(quality.result, "a cell")) is not None:
                self._store.write(*file)
            if time.monotonic() - last > TELL_EVERY_S:
                last = time.monotonic()
                self._tell(f"{done} of {len(qualities)} cells evaluated")

    def _write_condition(self, noise: Noise, pending: _PendingCondition) -> None:
        """Add the condition to the references, if all of it could be computed, and write them."""
        assert self._references is not None
        labels, known = self._references.labels, self._references.condition(*noise)
        results = [
            self._result_or_warning(partial(baseline.result, labels), "a baseline") for baseline in pending.baselines
        ]
        computed = [baseline for baseline in results if baseline is not None]
        read = self._result_or_warning(pending.read_noisy.result, "the noisy test set")
        if read is None or len(computed) < len(results):
            return  # a condition in the references counts as complete
        condition = Condition(
            noise=noise.kind,
            alpha=noise.alpha,
            accuracy_noisy=float((read == labels).mean()),
            baselines=tuple(sorted((*(known.baselines if known else ()), *computed), key=_table_order)),
            read_noisy=read,
        )
        others = [other for other in self._references.conditions if other is not known]
        self._references = replace(self._references, conditions=(*others, condition))
        self._write_references()

    def _result_or_warning(self, result: Callable[[], Result], what: str) -> Result | None:
        try:
            return result()
        except Exception as error:  # of any library; the others go on
            self._warn(f"{what} could not be evaluated: {type(error).__name__}: {error}")
            return None

    def _write_references(self) -> None:
        assert self._references is not None
        for name, content in self._references.to_files().items():
            self._store.write(name, content)


def _is_quick(denoiser: Denoiser) -> bool:
    return not denoiser.name.startswith(tuple(baselines.MODERN))


def _table_order(baseline: Baseline) -> tuple[bool, bool, int]:
    """Filters in the order of their computation, then PCA and regression by falling rank."""
    return baseline.family == "linear", baseline.name.startswith("reduced"), -(baseline.latent or 0)
