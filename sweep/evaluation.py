"""What the report needs beyond test losses: baselines, a reader of digits, image quality, robustness.

Computed after training from weights and dataset, for old sweeps as for new ones; records and test results are never
touched. Only what is missing, damaged or stale is made. `sweep.quality` says what is in the files.
"""

import multiprocessing
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dae import baselines
from dae.baselines import Denoiser
from dae.config import ModelConfig, TrainConfig
from dae.data import Dataset
from dae.similarity import SSIM, ssim
from dae.testset import TestSet
from sweep.child import belong_to_driver
from sweep.quality import (
    JUDGE,
    Baseline,
    Condition,
    JudgeSummary,
    Quality,
    References,
    load_quality,
    load_references,
)
from sweep.records import CellFiles, Record, Sweep, read_verified
from sweep.store import Damaged, digest

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the noise that models are tested under beside their own."""

SETTINGS: dict[str, Any] = {
    "ssim": SSIM,
    "tuning_images": baselines.TUNING_IMAGES,
    "slow_tuning_images": baselines.SLOW_TUNING_IMAGES,
    "fitting_images": baselines.FITTING_IMAGES,
}
"""What the references depend on beside the data; with others they are made anew."""

TELL_EVERY_S = 10
"""How often to say how far it has come."""

Tell = Callable[[str], None]


class Noise(NamedTuple):
    """Kind and strength."""

    kind: str
    alpha: float


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
        device: where the judge is trained, which takes longest; the rest is for CPUs.
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
    parts = [f"{len(cells)} cells"] * bool(cells) + ["baselines"] * bool(missing) + ["a judge"] * (references is None)
    tell(f"{sweep.manifest.name}: evaluating {', '.join(parts)} on {workers} CPU core{'s' * (workers != 1)}")
    try:
        with _processes(dataset, workers) if executor is None else _own(executor, dataset) as pool:
            _Evaluation(sweep, pool, references, warn, tell).run(missing, cells, device)
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
        read_verified(sweep.store, JUDGE, {JUDGE: references.judge.sha256})
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
    judge = None if references is None else references.judge.sha256
    fresh = {key for key, quality in qualities.found.items() if quality.judge == judge}
    return [record for record in sweep.completed if record.key not in fresh]


# ---- doing it


class _Evaluation:
    """One evaluation on its way; writes each result as soon as it is there."""

    def __init__(self, sweep: Sweep, pool: Executor, references: References | None, warn: Tell, tell: Tell) -> None:
        self._sweep, self._store, self._pool, self._warn, self._tell = sweep, sweep.store, pool, warn, tell
        self._references = references

    def run(self, missing: dict[Noise, _Todo], cells: list[Record], device: str) -> None:
        """Judge and fits side by side; then all that the judge is needed for."""
        training = self._pool.submit(_train_judge, device) if self._references is None else None
        fits = {noise: [self._pool.submit(_fit, noise, part) for part in todo.parts] for noise, todo in missing.items()}
        if training is not None:
            judge, self._references = training.result()
            self._store.write(JUDGE, judge)
            self._write_references()
            self._tell(f"a judge that reads {self._references.judge.accuracy_clean:.1%} of the clean test digits")
        judge = self._store.read(JUDGE)

        def submit(noises: list[Noise]) -> "dict[Noise, Any]":
            return {noise: self._submit_baselines(noise, fits[noise], judge) for noise in noises}

        # What takes longest first, so that no core is left alone with it; but nothing waits for a fit.
        fitted = [noise for noise, parts in fits.items() if all(fit.done() for fit in parts)]
        tried = submit(fitted)
        written = [self._pool.submit(_evaluate_cell, *task, judge) for task in self._cell_tasks(cells)]
        tried |= submit([noise for noise in fits if noise not in fitted])
        last = time.monotonic()
        for done, cell in enumerate(as_completed(written), start=1):
            self._keep(cell, "a cell", lambda result: self._store.write(*result))
            if time.monotonic() - last > TELL_EVERY_S:
                last = time.monotonic()
                self._tell(f"{done} of {len(written)} cells evaluated")
        for noise, parts in tried.items():
            if parts is not None:
                self._keep_condition(noise, *parts)

    def _cell_tasks(self, cells: list[Record]) -> Iterator[tuple[str, ModelConfig, TrainConfig, bytes]]:
        settings = self._sweep.manifest.settings
        for record in cells:
            try:
                weights = read_verified(self._store, CellFiles(record.key).weights, record.digests)
            except Damaged as error:
                self._warn(f"{record.key} is not evaluated: {error}")
                continue
            yield record.key, settings.model(record.cell), settings.training(record.cell), weights

    def _submit_baselines(
        self, noise: Noise, fits: "list[Future[list[Denoiser]]]", judge: bytes
    ) -> "tuple[Future[npt.NDArray[np.uint8]], list[Future[Baseline]]] | None":
        try:
            denoisers = [denoiser for fit in fits for denoiser in fit.result()]
        except Exception as error:  # of any library; the other conditions go on
            self._warn(f"no baselines for {noise.kind} noise {noise.alpha}: {type(error).__name__}: {error}")
            return None
        tried = {each.name: self._pool.submit(_try, each, noise, judge) for each in sorted(denoisers, key=_is_quick)}
        return self._pool.submit(_read_noisy, noise, judge), [tried[each.name] for each in denoisers]

    def _keep_condition(
        self, noise: Noise, reading: "Future[npt.NDArray[np.uint8]]", parts: "list[Future[Baseline]]"
    ) -> None:
        assert self._references is not None
        found: list[Baseline] = []
        for part in parts:
            self._keep(part, "a baseline", found.append)
        read, labels = reading.result(), self._references.labels
        known = self._references.condition(*noise)
        if len(found) < len(parts):
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

    def _keep(self, future: "Future[Any]", what: str, keep: Callable[[Any], object]) -> None:
        try:
            result = future.result()
        except Exception as error:  # of any library; the others go on
            self._warn(f"{what} could not be evaluated: {type(error).__name__}: {error}")
        else:
            keep(result)

    def _write_references(self) -> None:
        assert self._references is not None
        for name, content in self._references.to_files().items():
            self._store.write(name, content)


def _is_quick(denoiser: Denoiser) -> bool:
    return not denoiser.name.startswith(tuple(baselines.MODERN))


def _place(baseline: Baseline) -> tuple[bool, bool, int]:
    """The order of tables: filters as they came, PCA and regression by falling rank."""
    return baseline.family == "linear", baseline.name.startswith("reduced"), -(baseline.latent or 0)


# ---- the processes that compute


@contextmanager
def _processes(dataset: Dataset, workers: int) -> Iterator[Executor]:
    # Spawned: threads of Ray and W&B would not survive a fork. The dataset goes by a file: more than a pipe holds, sent
    # to a process that dies as it starts, would be sent without end.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="dae-sweep-") as folder:
        file = Path(folder) / "dataset"
        file.write_bytes(pickle.dumps(dataset))
        pool = ProcessPoolExecutor(workers, context, _prepare_process, (file,))
        try:
            yield pool
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()  # nothing of theirs is on disk
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _own(executor: Executor, dataset: Dataset) -> Iterator[Executor]:
    _prepare(dataset)
    yield executor


_dataset: list[Dataset] = []
"""That of this process."""


def _prepare_process(dataset: Path) -> None:
    belong_to_driver()
    import scipy.linalg  # noqa: F401  (its BLAS has to be there to be limited)
    from threadpoolctl import threadpool_limits

    from dae.engine import settle_process

    threadpool_limits(1)
    settle_process()
    _prepare(pickle.loads(dataset.read_bytes()))


def _prepare(dataset: Dataset) -> None:
    _dataset[:] = [dataset]
    _images.cache_clear()


@cache
def _images() -> Any:
    from dae.training import Images

    return Images(_dataset[0], 0.0, "cpu")


def _train_judge(device: str) -> tuple[bytes, References]:
    """The judge's weights, and references that hold nothing but the judge."""
    import safetensors.torch

    from dae import judge as judges

    dataset = _dataset[0]
    try:
        judge, result = judges.train(dataset, device=device)
    except RuntimeError:  # a GPU that others have filled
        judge, result = judges.train(dataset)
    judge = judge.cpu()
    weights = {name: value.contiguous() for name, value in judge.state_dict().items()}
    content: bytes = safetensors.torch.save(weights)
    read = judges.read(judge, dataset.unit(dataset.test))
    labels = dataset.test_labels
    return content, References(
        dataset=dataset.fingerprint,
        train=len(dataset.train),
        settings=SETTINGS,
        judge=JudgeSummary(
            accuracy_clean=float((read == labels).mean()),
            accuracy_validation=result.accuracy_validation,
            epochs=result.epochs,
            parameters=sum(value.numel() for value in weights.values()),
            sha256=digest(content),
        ),
        conditions=(),
        labels=labels,
        read_clean=read,
    )


def _read(images: npt.NDArray[np.float32], judge: bytes) -> npt.NDArray[np.uint8]:
    import safetensors.torch

    from dae import judge as judges

    reader = judges.Judge()
    reader.load_state_dict(safetensors.torch.load(judge))
    return judges.read(reader, images)


def _fit(noise: Noise, todo: _Todo) -> list[Denoiser]:
    filters = baselines.filters(_dataset[0], *noise) if todo.filters else []
    return filters + (baselines.linear(_dataset[0], *noise, todo.latents) if todo.latents else [])


def _read_noisy(noise: Noise, judge: bytes) -> npt.NDArray[np.uint8]:
    return _read(_images().under(noise.alpha, noise.kind).test_set.noisy, judge)


def _try(denoiser: Denoiser, noise: Noise, judge: bytes) -> Baseline:
    from dae.training import psnr_db

    test_set = _images().under(noise.alpha, noise.kind).test_set
    denoised = denoiser(test_set.noisy)
    loss = _losses(denoised, test_set)
    test_loss = float(loss.mean(dtype=np.float64))
    return Baseline(
        name=denoiser.name,
        family=denoiser.family,
        latent=denoiser.latent,
        parameters=dict(denoiser.parameters),
        test_loss=test_loss,
        test_psnr_db=psnr_db(test_loss) if test_loss else None,
        ssim=float(ssim(denoised, test_set.clean).mean(dtype=np.float64)),
        accuracy=float((_read(denoised, judge) == test_set.dataset.test_labels).mean()),
        loss=loss,
    )


def _losses(denoised: npt.NDArray[np.float32], test_set: TestSet) -> npt.NDArray[np.float32]:
    """Squared error per pixel of each image, as trials compute it."""
    losses: npt.NDArray[np.float32] = np.square(denoised - test_set.clean).mean(axis=(1, 2))
    return losses


def _evaluate_cell(
    key: str, model: ModelConfig, training: TrainConfig, weights: bytes, judge: bytes
) -> tuple[str, bytes]:
    """A cell's quality file, by name."""
    import safetensors.torch
    import torch

    from dae import engine
    from dae.model import DenoisingAutoencoder

    images, dataset = _images().under(training.alpha, training.noise), _dataset[0]
    test_set = images.test_set
    network = DenoisingAutoencoder(model)
    network.load_state_dict(safetensors.torch.load(weights))
    runner = engine.build(network, training, images.train, dataset.low, dataset.high)

    def denoise(noisy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        answer: npt.NDArray[np.float32] = runner.denoise(torch.from_numpy(noisy).unsqueeze(1)).squeeze(1).numpy()
        return answer

    denoised = denoise(test_set.noisy)
    losses = {training.alpha: _losses(denoised, test_set)}
    order = np.argsort(losses[training.alpha], kind="stable")
    shown = order[[0, len(order) // 2, -1]]
    strengths = sorted({*STRENGTHS, training.alpha})
    for strength in strengths:
        if strength not in losses:
            under = images.under(strength, training.noise).test_set
            losses[strength] = _losses(denoise(under.noisy), under)
    quality = Quality(
        weights=digest(weights),
        judge=digest(judge),
        ssim=ssim(denoised, test_set.clean),
        read=_read(denoised, judge),
        shown_index=shown,
        shown=np.stack([test_set.clean[shown], test_set.noisy[shown], denoised[shown]], axis=1),
        robust_noise=np.array([training.noise] * len(strengths)),
        robust_alpha=np.array(strengths),
        robust_loss=np.array([losses[strength].mean(dtype=np.float64) for strength in strengths]),
    )
    return CellFiles(key).quality, quality.to_bytes()
