"""The tasks of an evaluation, and the processes that compute them. They have the dataset and do not use the sweep."""

import multiprocessing
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dae import baselines
from dae.baselines import Denoiser
from dae.config import ModelConfig, TrainConfig
from dae.data import Dataset, Labels
from dae.noise import Array
from dae.similarity import SSIM, ssim
from dae.testset import TestSet, image_losses
from sweep.records.quality import Quality, ReaderSummary, References
from sweep.records.record import CellFiles
from sweep.storage.sealing import digest
from sweep.trials.processes import belong_to_driver

Indices = npt.NDArray[np.intp]

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Strengths of the noise under which the robustness of models is tested, beside the one of their training."""
STRENGTH_IMAGES = 2000
"""Test images, spread evenly over all, under each strength that the model was not trained with."""

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


@contextmanager
def processes(dataset: Dataset, workers: int) -> Iterator[Executor]:
    """Processes of one thread that have the dataset; they end with the context or this process."""
    # Spawned, since a fork does not copy the threads of Ray and W&B. The dataset goes through a file, since it is more
    # than a pipe holds, and writing it to a process that dies at its start would block forever.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="dae-sweep-") as folder:
        file = Path(folder) / "dataset"
        file.write_bytes(pickle.dumps(dataset))
        pool = ProcessPoolExecutor(workers, context, _prepare_process, (file,))
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


def _prepare_process(dataset: Path) -> None:
    belong_to_driver()
    import scipy.linalg  # noqa: F401  (limits apply only to a BLAS that is loaded)
    from threadpoolctl import threadpool_limits

    from dae.engine import settle_process

    threadpool_limits(1)
    settle_process()
    _prepare(pickle.loads(dataset.read_bytes()))


def _prepare(dataset: Dataset) -> None:
    _dataset[:] = [dataset]
    _images.cache_clear()
    _under_other_strength.cache_clear()


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
    read = readers.read(reader, dataset.unit(dataset.test))
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


def _read(images: Array, weights: bytes) -> Labels:
    if not weights:
        return _NOTHING
    import safetensors.torch

    from dae import reader as readers

    return readers.read(readers.Reader.of(safetensors.torch.load(weights), _dataset[0].shape), images)


def fit(noise: Noise, filters: bool, latents: Sequence[int]) -> list[Denoiser]:
    """Denoisers fitted for one condition: the filters, and linear maps through these numbers of latent elements."""
    dataset = _dataset[0]
    denoisers = baselines.filters(dataset, *noise) if filters else []
    return denoisers + (baselines.linear(dataset, *noise, latents) if latents else [])


def read_noisy(noise: Noise, reader: bytes) -> Labels:
    """The classes that the reader reads in the noisy test images, shape (n,); (0,) without a reader."""
    return _read(_test_set(noise).noisy, reader)


def denoise(denoiser: Denoiser, noise: Noise, reader: bytes, chosen: slice | Indices) -> Denoised:
    """The results of a baseline on these test images."""
    test_set = _test_set(noise)
    denoised, clean = denoiser(test_set.noisy[chosen]), test_set.clean[chosen]
    return Denoised(image_losses(denoised, clean), ssim(denoised, clean), _read(denoised, reader))


def spread(count: int, images: int) -> Indices:
    """Indices of ``count`` of so many images, evenly spread; of all where there are no more."""
    count = min(count, images)
    return np.arange(count) * images // count


@cache
def _under_other_strength(noise: Noise) -> tuple[Array, Array]:
    """`STRENGTH_IMAGES` noisy test images and the clean ones."""
    test_set = _test_set(noise)
    chosen = spread(STRENGTH_IMAGES, len(test_set.clean))
    return test_set.noisy[chosen], test_set.clean[chosen]


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
    denoised = runner.denoise_array(test_set.noisy)
    losses = image_losses(denoised, test_set.clean)
    order = np.argsort(losses, kind="stable")
    shown = order[[0, len(order) // 2, -1]]
    means = {training.alpha: _mean(losses)}
    # What the same images lose under the cell's own noise corrects for their being easy or hard (a ratio estimate).
    correction = means[training.alpha] / (_mean(losses[spread(STRENGTH_IMAGES, len(losses))]) or 1)
    for strength in {*STRENGTHS} - {training.alpha} if dataset.noisy is None else ():
        noisy, clean = _under_other_strength(Noise(training.noise, strength))
        means[strength] = _mean(image_losses(runner.denoise_array(noisy), clean)) * correction
    strengths = sorted(means)
    quality = Quality(
        weights=digest(weights),
        reader=digest(reader) if reader else "",
        ssim=ssim(denoised, test_set.clean),
        read=_read(denoised, reader),
        shown_index=shown,
        shown=np.stack([test_set.clean[shown], test_set.noisy[shown], denoised[shown]], axis=1),
        robust_noise=np.array([training.noise] * len(strengths)),
        robust_alpha=np.array(strengths),
        robust_loss=np.array([means[strength] for strength in strengths]),
    )
    return CellFiles(key).quality, quality.to_bytes()


def _mean(losses: Array) -> float:
    return float(losses.mean(dtype=np.float64))
