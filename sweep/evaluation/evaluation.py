"""The evaluation of a sweep: computes its references and the quality of its cells after training.

It needs weights and dataset alone, so that old sweeps can be evaluated too, and changes no record or test result. Only
what is missing, damaged or stale is computed. `sweep.records.quality` describes the results.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, as_completed
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from dae import baselines
from dae.baselines import Denoiser
from dae.data import Dataset, Labels
from dae.testset import psnr_db
from sweep.evaluation import tasks
from sweep.evaluation.missing import Missing, Tell, find_references, to_evaluate, unevaluated_cells, with_condition
from sweep.evaluation.shared import SharedReferences
from sweep.evaluation.tasks import Denoised, Indices, Noise
from sweep.records.grid import Cell, longest_first
from sweep.records.quality import READER, Baseline, Condition, LeftOut, References
from sweep.records.record import CellFiles, Record, verified
from sweep.records.sweep import Sweep
from sweep.records.words import counted
from sweep.storage.sealing import Damaged
from sweep.trials import machine

TEST_IMAGES = 10_000
"""Most test images that filters and linear maps are tested on; fewer of larger images."""

TELL_EVERY_S = 10
"""How often to report the progress."""

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
) -> bool:
    """Compute and write what is missing of a sweep's references and of the quality of its completed cells.

    Trials of a search are left out: only finalists meet the test images. Failures are reported to ``warn``, not raised.

    Args:
        sweep: as `sweep.records.sweep.gather` read it; its lock is held.
        dataset: loaded with the sweep's settings.
        workers: number of processes, of one thread each; fewer where the memory does not hold them.
        warn: called with what could not be computed and why.
        tell: called with the progress.
        device: where the reader is trained; the rest is computed on CPUs.
        executor: computes in place of new processes.

    Returns:
        Whether anything was missing.
    """
    start = time.monotonic()
    try:
        is_computed = _evaluate(sweep, dataset, workers, warn, tell, device, executor)
    except Exception as error:  # of any kind: the report is made without the rest
        warn(f"the evaluation stopped ({type(error).__name__}: {error}); the same command takes it up again")
        return True
    if is_computed:
        tell(f"{sweep.manifest.name}: evaluated in {time.monotonic() - start:.0f} s")
    return is_computed


def prepare(
    sweep: Sweep, cells: Iterable[Cell], dataset: Dataset, executor: Executor, *, warn: Tell, tell: Tell
) -> None:
    """Compute and write the references that these cells will be compared with, which need not be trained for it.

    Raises:
        Exception: of any kind; what was not written `evaluate` computes.
    """
    references, missing, shared = find_references(sweep, cells, dataset, warn)
    if references is None or missing:
        with tasks.prepared(executor, dataset) as pool:
            _Evaluation(sweep, pool, dataset, references, shared, warn, tell).run(missing, [], "cpu")


def _evaluate(
    sweep: Sweep, dataset: Dataset, workers: int, warn: Tell, tell: Tell, device: str, executor: Executor | None
) -> bool:
    """Take over what the storage has, compute the rest; whether there was any."""
    if not to_evaluate(sweep):
        return False
    tested = [record.cell for record in to_evaluate(sweep)]
    references, missing, shared = find_references(sweep, tested, dataset, warn)
    cells = unevaluated_cells(sweep, references, warn)
    if references is not None and not missing and not cells:
        return False
    parts = (
        [counted(len(cells), "cell")] * bool(cells)
        + ["baselines"] * bool(missing)
        + ["a reader"] * (references is None)
    )
    fitting = max(1, machine.memory_for_trials(dataset) // machine.evaluation_bytes(dataset))
    why = "" if workers <= fitting else f"; the memory, {machine.memory_bytes() / 2**30:.1f} GiB, holds no more"
    workers = min(workers, fitting)
    tell(f"{sweep.manifest.name}: evaluating {', '.join(parts)} on {counted(workers, 'CPU core')}{why}")
    ready = tasks.processes(dataset, workers) if executor is None else tasks.prepared(executor, dataset)
    with ready as pool:
        _Evaluation(sweep, pool, dataset, references, shared, warn, tell).run(missing, cells, device)
    return True


# ---- computing and writing it


class _PendingBaseline(NamedTuple):
    """A baseline whose results on the test images, or on those chosen, are being computed."""

    denoiser: Denoiser
    chosen: Indices | None
    future: Future[Denoised]

    def result(self, labels: Labels, images: int) -> Baseline:
        """The baseline, once it is computed."""
        loss, similarity, read = self.future.result()
        test_loss = float(loss.mean(dtype=np.float64))
        parameters = dict(self.denoiser.parameters)
        if self.chosen is not None:
            parameters["test_images"] = len(self.chosen)
            labels, some = labels[self.chosen] if labels.size else labels, loss
            loss = np.full(images, np.nan, np.float32)
            loss[self.chosen] = some
        return Baseline(
            name=self.denoiser.name,
            family=self.denoiser.family,
            latent=self.denoiser.latent,
            parameters=parameters,
            test_loss=test_loss,
            test_psnr_db=psnr_db(test_loss) if test_loss else None,
            ssim=float(similarity.mean(dtype=np.float64)),
            accuracy=float((read == labels).mean()) if labels.size else None,
            loss=loss,
        )


class _PendingCondition(NamedTuple):
    """The baselines of a condition, and the digits read in its noisy test images, while they are being computed."""

    baselines: list[_PendingBaseline]
    left_out: tuple[LeftOut, ...]
    read_noisy: Future[Labels]


class _Evaluation:
    """A running evaluation; writes every result as soon as it is computed."""

    def __init__(
        self,
        sweep: Sweep,
        pool: Executor,
        dataset: Dataset,
        references: References | None,
        shared: SharedReferences,
        warn: Tell,
        tell: Tell,
    ) -> None:
        self._sweep, self._store, self._pool, self._warn, self._tell = sweep, sweep.store, pool, warn, tell
        self._dataset, self._references, self._shared = dataset, references, shared
        self._images = len(dataset.test)

    def run(self, missing: dict[Noise, Missing], cells: list[Record], device: str) -> None:
        """Train the reader and fit baselines side by side; then compute all that needs the reader."""
        training = self._pool.submit(tasks.train_reader, device) if self._references is None else None
        fits = {noise: self._submit_fits(noise, wanted) for noise, wanted in missing.items()}
        if training is not None:
            self._write_reader(*training.result())
        reader = self._store.read(READER) if self._dataset.classes else b""
        # The longest tasks come first, so that no core works on one alone at the end; but cells do not wait for fits.
        fitted = [noise for noise in fits if all(fit.done() for fit in fits[noise])]
        unfitted = [noise for noise in fits if noise not in fitted]
        left_out = {noise: wanted.left_out for noise, wanted in missing.items()}
        conditions = {noise: self._submit_condition(noise, fits[noise], left_out[noise], reader) for noise in fitted}
        qualities = self._submit_cells(cells, reader)
        conditions |= {noise: self._submit_condition(noise, fits[noise], left_out[noise], reader) for noise in unfitted}
        self._write_qualities(qualities)
        for noise, condition in conditions.items():
            if condition is not None:
                self._write_condition(noise, condition)

    # ---- tasks

    def _submit_fits(self, noise: Noise, missing: Missing) -> list[Future[list[Denoiser]]]:
        """Filters and linear maps in two tasks, which take about as long."""
        parts = [(True, ())] * missing.filters + [(False, missing.latents)] * bool(missing.latents)
        return [self._pool.submit(tasks.fit, noise, *part) for part in parts]

    def _submit_condition(
        self, noise: Noise, fits: list[Future[list[Denoiser]]], left_out: tuple[LeftOut, ...], reader: bytes
    ) -> _PendingCondition | None:
        try:
            denoisers = [denoiser for fit in fits for denoiser in fit.result()]
        except Exception as error:  # of any library; the other conditions go on
            self._warn(f"no baselines for {noise.kind} noise {noise.alpha}: {type(error).__name__}: {error}")
            return None
        slow_first = sorted(denoisers, key=_is_quick)
        pending = {denoiser.name: self._submit_baseline(denoiser, noise, reader) for denoiser in slow_first}
        read_noisy = self._pool.submit(tasks.read_noisy, noise, reader)
        return _PendingCondition([pending[denoiser.name] for denoiser in denoisers], left_out, read_noisy)

    def _submit_baseline(self, denoiser: Denoiser, noise: Noise, reader: bytes) -> _PendingBaseline:
        """On all test images; on some of them where the filter is slow or the images are large."""
        most = baselines.SLOW_TEST_IMAGES if denoiser.name.startswith(baselines.SLOW) else TEST_IMAGES
        most = self._images if denoiser.family == "none" else baselines.images_of(most, self._dataset)
        count = most if most < self._images else None
        chosen = None if count is None else tasks.spread(count, self._images)
        return _PendingBaseline(denoiser, chosen, self._pool.submit(tasks.denoise, denoiser, noise, reader, count))

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
        self._shared.keep_reader(references, weights)
        assert references.reader is not None
        self._tell(f"a reader that reads {references.reader.accuracy_clean:.1%} of the clean test images")

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
        labels = self._references.labels
        results = [
            self._result_or_warning(partial(baseline.result, labels, self._images), "a baseline")
            for baseline in pending.baselines
        ]
        computed = [baseline for baseline in results if baseline is not None]
        read = self._result_or_warning(pending.read_noisy.result, "the noisy test set")
        if read is None or len(computed) < len(results):
            return  # a condition in the references counts as complete
        condition = Condition(
            noise=noise.kind,
            alpha=noise.alpha,
            accuracy_noisy=float((read == labels).mean()) if labels.size else None,
            baselines=tuple(sorted(computed, key=lambda baseline: baseline.table_order)),
            read_noisy=read,
            left_out=pending.left_out,
        )
        self._references = with_condition(self._references, condition)
        self._write_references()
        self._shared.keep_condition(self._references, condition)

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
