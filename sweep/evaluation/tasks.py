"""The tasks of an evaluation, and the processes that compute them. They have the dataset and do not use the sweep."""

import multiprocessing
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from dae import baselines
from dae.baselines import Denoiser
from dae.config import ModelConfig, TrainConfig
from dae.data import Dataset, Labels
from dae.noise import Array
from dae.similarity import SSIM, ssim
from dae.testset import TestSet, image_losses
from sweep.evaluation import mapped
from sweep.records.quality import Quality, ReaderSummary, References
from sweep.records.record import CellFiles
from sweep.storage.sealing import digest
from sweep.trials.processes import belong_to_driver

Indices = npt.NDArray[np.intp]

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Strengths of the noise under which the robustness of models is tested, beside the one of their training."""
STRENGTH_IMAGES = 2000
"""Test images, spread evenly over all, under each strength that the model was not trained with."""
STRENGTH_NUMBERS = 2**22
"""Most numbers these images have in all, 16 MiB: of images above 45x45, or 26x26 in colour, there are fewer."""
NOISY_KEPT = 15
"""Of such noisy images a process keeps the last: three kinds of noise under all strengths."""

SETTINGS: dict[str, Any] = {
    "ssim": SSIM,
    "tuning_images": baselines.TUNING_IMAGES,
    "slow_tuning_images": baselines.SLOW_TUNING_IMAGES,
    "fitting_images": baselines.FITTING_IMAGES,
}
"""What the results of baselines depend on beside the data: references with other settings are computed again.
The reader does not depend on them."""


class Noise(NamedTuple):
    """Kind and strength of noise, as in `dae.noise`."""

    kind: str
    alpha: float


class Denoised(NamedTuple):
    """Loss and SSIM of denoised test images and the classes read in them, all of shape (n,); (0,) where none are."""

    loss: npt.NDArray[np.float32]
    ssim: npt.NDArray[np.float32]
    read: Labels

    @classmethod
    def of(cls, denoised: Array, clean: Array, read: Callable[[Array], Labels]) -> Self:
        """The results of these images."""
        return cls(image_losses(denoised, clean), ssim(denoised, clean), read(denoised))

    @classmethod
    def joined(cls, parts: Sequence["Denoised"]) -> Self:
        """Those of all parts, in their order."""
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


LAST_NICENESS = 19
"""Not Linux's idle class, which nobody may leave: on a machine that others use too, it might never come to an end."""


@contextmanager
def processes(dataset: Dataset, workers: int, *, gives_way: bool = False) -> Iterator[Executor]:
    """Processes of one thread that have the dataset; they end with the context or this process.

    Args:
        dataset: what they compute with.
        workers: how many.
        gives_way: whether trials, which Ray runs at a niceness of 15, go before them.
    """
    # Spawned, since a fork does not copy the threads of Ray and W&B. The dataset lies in a file that all map into their
    # memory; it is more than a pipe holds, and writing it to a process that dies at its start would block forever.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="dae-sweep-") as folder:
        file = Path(folder) / "dataset"
        mapped.write(dataset, file)
        pool = ProcessPoolExecutor(workers, context, _prepare_process, (file, gives_way))
        try:
            yield pool
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()  # they write no files
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def prepared(executor: Executor, dataset: Dataset) -> Iterator[Executor]:
    """An executor that runs tasks in this process, which is given the dataset."""
    _prepare(dataset)
    yield executor


_dataset: list[Dataset] = []
"""The one dataset of this process."""
_folder: list[Path] = []
"""Where the processes of a pool share what is large; nowhere where there is but this one."""


def _prepare_process(dataset: Path, gives_way: bool) -> None:
    belong_to_driver()
    if gives_way:
        os.nice(LAST_NICENESS)
    import scipy.linalg  # noqa: F401  (limits apply only to a BLAS that is loaded)
    from threadpoolctl import threadpool_limits

    from dae.engine import settle_process

    threadpool_limits(1)
    settle_process()
    _prepare(mapped.read(dataset))
    _folder[:] = [dataset.parent]


def _prepare(dataset: Dataset) -> None:
    _dataset[:] = [dataset]
    for kept in (_images, _some, _noisy_of):
        kept.cache_clear()


@cache
def _images() -> Any:
    from dae.training import Images

    return Images(_dataset[0], 0.0, "cpu")


def train_reader(device: str) -> tuple[bytes, References]:
    """The content of the reader's file, and references without any condition."""
    import safetensors.torch

    from dae import reader as readers

    dataset = _dataset[0]
    try:
        reader, result = readers.train(dataset, device=device)
    except RuntimeError:  # the GPU's memory is full
        reader, result = readers.train(dataset)
    reader = reader.cpu()
    weights = {name: value.contiguous() for name, value in reader.state_dict().items()}
    content: bytes = safetensors.torch.save(weights)
    read = readers.read_pixels(reader, dataset, dataset.test)
    labels = dataset.test_labels
    return content, References(
        dataset=dataset.fingerprint,
        train=len(dataset.train),
        settings=SETTINGS,
        reader=ReaderSummary(
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


def unread(dataset: Dataset) -> References:
    """References of images without labels: there is no reader."""
    return References(
        dataset=dataset.fingerprint,
        train=len(dataset.train),
        settings=SETTINGS,
        reader=None,
        conditions=(),
        labels=_NOTHING,
        read_clean=_NOTHING,
    )


_NOTHING = np.empty(0, np.uint8)
"""What is read where there is no reader."""


def _reads(weights: bytes) -> Callable[[Array], Labels]:
    """What reads images; the answer is empty where there is no reader."""
    if not weights:
        return lambda _images: _NOTHING
    import safetensors.torch

    from dae import reader as readers

    reader = readers.Reader.of(safetensors.torch.load(weights), _dataset[0].shape)
    return partial(readers.read, reader)


def fit(noise: Noise, filters: bool, latents: Sequence[int]) -> list[Denoiser]:
    """Denoisers fitted for one condition: the filters, and linear maps through these numbers of latent elements."""
    dataset = _dataset[0]
    denoisers = baselines.filters(dataset, *noise) if filters else []
    maps = baselines.linear(dataset, *noise, latents)
    if maps and _folder:  # they are large: no need to send them to and fro
        file = _folder[0] / uuid.uuid4().hex
        mapped.write([one.function for one in maps], file)
        maps = [replace(one, function=_Filed(file, index)) for index, one in enumerate(maps)]
    return denoisers + maps


@dataclass(frozen=True, slots=True)
class _Filed:
    """One of several functions in a file."""

    file: Path
    index: int

    def __call__(self, noisy: Array) -> Array:
        answer: Array = _functions(self.file)[self.index](noisy)
        return answer


@lru_cache(1)
def _functions(file: Path) -> list[Callable[[Array], Array]]:
    functions: list[Callable[[Array], Array]] = mapped.read(file)
    return functions


def read_noisy(noise: Noise, reader: bytes) -> Labels:
    """The classes that the reader reads in the noisy test images, shape (n,); (0,) without a reader."""
    read = _reads(reader)
    return np.concatenate([read(noisy) for _, _, noisy in _test_set(noise).parts()]) if reader else _NOTHING


def denoise(denoiser: Denoiser, noise: Noise, reader: bytes, count: int | None) -> Denoised:
    """The results of a baseline on so many test images, evenly spread; None for all."""
    read = _reads(reader)
    if count is not None:
        clean, noisy = _some(noise, count)
        return Denoised.of(denoiser(noisy), clean, read)
    parts = _test_set(noise).parts()
    return Denoised.joined([Denoised.of(denoiser(noisy), clean, read) for _, clean, noisy in parts])


@lru_cache(1)
def _some(noise: Noise, count: int) -> tuple[Array, Array]:
    """Clean and noisy ones of so many test images, evenly spread."""
    test_set = _test_set(noise)
    return test_set.at(spread(count, len(test_set.dataset.test)))


def spread(count: int, images: int) -> Indices:
    """Indices of ``count`` of so many images, evenly spread; of all where there are no more."""
    count = min(count, images)
    return np.arange(count) * images // count


def _strength_images() -> Indices:
    """Which test images the strengths are tested on that a model was not trained with."""
    test = _dataset[0].test
    return spread(min(STRENGTH_IMAGES, max(1, STRENGTH_NUMBERS // _dataset[0].shape.numbers)), len(test))


@lru_cache(NOISY_KEPT)
def _noisy_of(noise: Noise) -> Array:
    """These images under a noise."""
    test_set: TestSet = replace(_images().test_set, alpha=noise.alpha, noise=noise.kind)
    return test_set.at(_strength_images())[1]


def _test_set(noise: Noise) -> TestSet:
    test_set: TestSet = _images().under(noise.alpha, noise.kind).test_set
    return test_set


def evaluate_cell(
    key: str, model: ModelConfig, training: TrainConfig, weights: bytes, reader: bytes
) -> tuple[str, bytes]:
    """Path and content of the quality file of a cell.

    Args:
        key: of the cell.
        model: its architecture.
        training: its settings.
        weights: content of the file of its weights.
        reader: content of the reader's file; empty without one.
    """
    import safetensors.torch

    from dae import engine
    from dae.model import DenoisingAutoencoder

    dataset, test_set = _dataset[0], _test_set(Noise(training.noise, training.alpha))
    network = DenoisingAutoencoder(model)
    network.load_state_dict(safetensors.torch.load(weights))
    runner = engine.build(network, training, _images().train, dataset.low, dataset.high)
    parts, read = list[Denoised](), _reads(reader)
    for _, clean, noisy in test_set.parts():
        denoised = runner.denoise_array(noisy)
        parts.append(Denoised.of(denoised, clean, read))
        del clean, noisy  # before the next ones are made
    result = Denoised.joined(parts)
    order = np.argsort(result.loss, kind="stable")
    shown = order[[0, len(order) // 2, -1]]
    clean, noisy = test_set.at(shown)
    denoised = denoised[shown] if len(parts) == 1 else runner.denoise_array(noisy)
    pictures = np.stack([clean, noisy, denoised], axis=1)
    means = {training.alpha: _mean(result.loss)}
    others = {*STRENGTHS} - {training.alpha} if dataset.noisy is None else ()
    if others:
        chosen = _strength_images()
        clean = dataset.unit(dataset.test[chosen])
        # What the same images lose under the cell's own noise corrects for their being easy or hard (a ratio estimate).
        correction = means[training.alpha] / (_mean(result.loss[chosen]) or 1)
    for strength in others:
        denoised = runner.denoise_array(_noisy_of(Noise(training.noise, strength)))
        means[strength] = _mean(image_losses(denoised, clean)) * correction
    strengths = sorted(means)
    quality = Quality(
        weights=digest(weights),
        reader=digest(reader) if reader else "",
        ssim=result.ssim,
        read=result.read,
        shown_index=shown,
        shown=pictures,
        robust_noise=np.array([training.noise] * len(strengths)),
        robust_alpha=np.array(strengths),
        robust_loss=np.array([means[strength] for strength in strengths]),
    )
    return CellFiles(key).quality, quality.to_bytes()


def _mean(losses: Array) -> float:
    return float(losses.mean(dtype=np.float64))
