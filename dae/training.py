"""Algorithm 1 of the study: train and validate in every epoch, test once, resumable at every epoch boundary.

Each use of random numbers has its own stream for every epoch, derived from (seed, stream, epoch). So a training that
was interrupted and resumed at an epoch boundary gives the same numbers as one that was not: to the bit on a CPU of the
same type with the same version of torch.
"""

import copy
import math
import time
import warnings
from dataclasses import asdict, dataclass
from enum import IntEnum
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from dae import engine
from dae.config import GAUSSIAN, LSUV, ModelConfig, TrainConfig
from dae.data import Dataset, Pixels
from dae.errors import UserError
from dae.initialisation import IMAGES, draw, to_unit_variance
from dae.model import DenoisingAutoencoder
from dae.noise import Array, corrupt, draw_test
from dae.testset import ClassMeans, TestSet, image_losses, pick


class Stream(IntEnum):
    """What random numbers are used for."""

    WEIGHTS = 0
    ORDER = 1
    TRAIN_NOISE = 2
    VALIDATION_NOISE = 3
    INITIALISATION = 4
    """Which images the initialisation looks at, and their noise."""


LATENT_PROBE = 1000
"""Number of test images on which latent channels are checked for being always 0."""


class Diverged(Exception):
    """A loss is not finite; more training cannot change that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochResult:
    """Losses are mean squared errors per pixel; the training loss is the mean over the epoch's steps."""

    epoch: int
    train_loss: float
    val_loss: float
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TestResult:
    """What a model makes of the noisy test set.

    Attributes:
        loss: squared error per pixel of each test image, shape (n,).
        samples: reconstructions of the sample images, shape (samples, ...).
        class_means: mean reconstruction of each class, shape (classes, ...); of no class where there are no labels.
        to_mean: mean squared difference of each reconstruction from the mean training image, shape (n,).
        latent_activity: share of the elements of each latent channel that are not 0, shape (latent_channels,). The
            ReLU of a channel may become 0 for every image early in training, and stays so.
    """

    loss: Array
    samples: Array
    class_means: Array
    to_mean: Array
    latent_activity: Array

    @property
    def dead_latent_channels(self) -> int:
        """Number of latent channels that are 0 for every image."""
        return int((self.latent_activity == 0).sum())

    @property
    def mean_loss(self) -> float:
        """Mean squared error per pixel over the test set."""
        return float(self.loss.mean(dtype=np.float64))


CONDITIONS_KEPT = 2
"""Number of noisy test sets that a process keeps, the last ones used. One of full MNIST takes some 60 MB."""


class Images:
    """A dataset on one device, with its test set under one noise; shared by all trainings of a process.

    Attributes:
        test_set: under the noise, on the CPU.
        train, validation: images (n, ...) as in the dataset, on the device. On a CPU they are the dataset's own
            memory, which may be shared with other processes: nobody writes into them.
        noisy_train, noisy_validation: likewise, of a dataset that brings its own noise; else None.
    """

    def __init__(self, dataset: Dataset, alpha: float, device: str, noise: str = GAUSSIAN) -> None:
        self.dataset = dataset
        draw = lru_cache(1)(partial(draw_test, dataset.test.shape, dataset.identity))  # the same for every alpha
        self._test_set = lru_cache(CONDITIONS_KEPT)(lambda alpha, noise: TestSet(dataset, alpha, noise, draw))
        self.test_set = self._test_set(alpha, noise)
        self.train = _to_device(dataset.train, device)
        self.validation = _to_device(dataset.validation, device)
        noisy = dataset.noisy
        self.noisy_train = None if noisy is None else _to_device(noisy.train, device)
        self.noisy_validation = None if noisy is None else _to_device(noisy.validation, device)

    def under(self, alpha: float, noise: str) -> "Images":
        """The same images under another noise; what is on the device is shared."""
        other = copy.copy(self)
        other.test_set = self._test_set(alpha, noise)
        return other


class Training:
    """The training of one model by Algorithm 1.

    Args:
        model_config: the architecture.
        config: the settings.
        images: the dataset, on the device to train on.

    Raises:
        UserError: the training split does not fill one batch.
    """

    def __init__(self, model_config: ModelConfig, config: TrainConfig, images: Images) -> None:
        if len(images.train) < config.batch_size:
            raise UserError(
                f"batch size {config.batch_size} is larger than the {len(images.train)} training images: "
                "lower --batch-size or raise --train-fraction."
            )
        self.config = config
        self.images = images
        self.history: list[EpochResult] = []
        model = DenoisingAutoencoder(model_config)
        mean_image = images.test_set.mean_image.reshape(*model_config.image.sides, -1)
        mean_pixel = [float(mean_image[..., channel].mean()) for channel in range(model_config.image.channels)]
        draw(model, self._generator(Stream.WEIGHTS, 0, "cpu"), mean_pixel, config.latent_bias)
        if config.initialisation == LSUV:
            to_unit_variance(model, self._noisy_examples(), mean_pixel)
        dataset = images.dataset
        self._engine = engine.build(model, config, images.train, dataset.low, dataset.high, images.noisy_train)

    @property
    def method(self) -> str:
        """How steps are computed, in words, where there is a choice."""
        return self._engine.method

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done."""
        return len(self.history) >= self.config.epochs

    def run_epoch(self) -> EpochResult:
        """Train on every image once, then validate.

        Raises:
            Diverged: a loss is not finite.
        """
        start = time.perf_counter()
        epoch, device = len(self.history) + 1, self.images.train.device.type
        order = torch.randperm(len(self.images.train), generator=self._generator(Stream.ORDER, epoch, "cpu"))
        whole = len(order) // self.config.batch_size * self.config.batch_size
        self._engine.set_lr(self.config.lr_at(epoch))
        train_noise = self._generator(Stream.TRAIN_NOISE, epoch, device)
        train_loss = self._engine.train_epoch(order[:whole].to(device), train_noise)
        val_noise = self._generator(Stream.VALIDATION_NOISE, epoch, device)
        val_loss = self._engine.validate(self.images.validation, val_noise, self.images.noisy_validation)
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            raise Diverged(f"epoch {epoch}: training loss {train_loss}, validation loss {val_loss}")
        result = EpochResult(epoch=epoch, train_loss=train_loss, val_loss=val_loss, seconds=time.perf_counter() - start)
        self.history.append(result)
        return result

    def test(self) -> TestResult:
        """Denoise the noisy test set once."""
        test_set, dataset = self.images.test_set, self.images.dataset
        samples = np.empty((len(test_set.samples), *dataset.shape.array), np.float32)
        losses, to_mean, means, latent_activity = [], [], ClassMeans(dataset), None
        for part, clean, noisy in test_set.parts():
            denoised = self._engine.denoise_array(noisy)
            losses.append(image_losses(denoised, clean))
            to_mean.append(image_losses(denoised, test_set.mean_image))
            pick(samples, test_set.samples, part, denoised)
            means.add(part, denoised)
            if latent_activity is None:
                latent_activity = self._engine.latent_activity(engine.as_batch(noisy[:LATENT_PROBE])).numpy()
        assert latent_activity is not None
        return TestResult(
            loss=np.concatenate(losses),
            samples=samples,
            class_means=means.result(),
            to_mean=np.concatenate(to_mean),
            latent_activity=latent_activity,
        )

    def weights(self) -> dict[str, torch.Tensor]:
        """The parameters of `DenoisingAutoencoder` by name, contiguous, on the CPU."""
        with self._engine.averaged():
            parameters = self._engine.model.state_dict().items()
            return {name: value.detach().cpu().contiguous().clone() for name, value in parameters}

    def state(self) -> dict[str, Any]:
        """What `restore` needs, tensors and plain numbers only, on the CPU."""
        return {"engine": self._engine.state(), "history": [asdict(epoch) for epoch in self.history]}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue after the last epoch of ``state``."""
        self._engine.restore(state["engine"])
        self.history = [EpochResult(**epoch) for epoch in state["history"]]

    def _noisy_examples(self) -> torch.Tensor:
        """Training images as the model will see them, shape (n, channels, height, width), on the CPU."""
        generator, dataset = self._generator(Stream.INITIALISATION, 0, "cpu"), self.images.dataset
        chosen = torch.randperm(len(dataset.train), generator=generator)[:IMAGES].numpy()
        if dataset.noisy is not None:
            return engine.as_batch(dataset.unit(dataset.noisy.train[chosen]))
        clean = engine.as_batch(dataset.unit(dataset.train[chosen]))
        return corrupt(clean, self.config.alpha, generator, self.config.noise)

    def _generator(self, stream: Stream, epoch: int, device: str) -> torch.Generator:
        words = np.random.SeedSequence([self.config.seed, stream, epoch]).generate_state(2, np.uint32)
        # 63 bits: torch takes seeds below 2^63 on every device.
        return torch.Generator(device).manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def is_collapsed(history: list[EpochResult], mean_image_loss: float) -> bool:
    """Whether the last validation loss is no lower than that of always answering the mean training image."""
    return bool(history) and history[-1].val_loss >= mean_image_loss


def is_unconverged(history: list[EpochResult]) -> bool:
    """Whether the validation loss still fell by over 1 % an epoch, on average over the last three epochs.

    A training of one epoch counts as unconverged.
    """
    span = min(3, len(history) - 1)
    if span < 1:
        return True
    fall: float = 1 - (history[-1].val_loss / history[-1 - span].val_loss) ** (1 / span)
    return fall > 0.01


def _to_device(images: Pixels, device: str) -> torch.Tensor:
    with warnings.catch_warnings():
        # Torch warns about arrays that it must not write to, such as those in Ray's object store. Nobody does.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(np.ascontiguousarray(images)).to(device)
