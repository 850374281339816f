"""A reader: a small classifier trained on clean images, to tell whether what is on a denoised one can be recognised.

The study proposes it in section 5.4. It is trained without noise, denoised images or test images.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from dae.adam import Adam, flatten
from dae.config import IMAGE_SIZE, ImageShape
from dae.data import Dataset, Labels, Pixels
from dae.engine import as_batch
from dae.noise import Array
from dae.testset import parts_of

CHANNELS = (24, 48, 64)
DROPOUT = 0.2
BATCH_SIZE = 128
TOGETHER_NUMBERS = 2**21
"""Most numbers of images that gradients are computed of at a time: a batch of images up to 73x73 in colour."""
PEAK_LR = 8e-3
RISE = 0.2
"""Share of the steps in which the learning rate rises to its peak."""

MAX_SHIFT = 2
"""Training images are moved by up to so many pixels in x and y, since there may be few of them."""
MAP = 4
"""Height and width of the map that is classified; that of larger images is averaged down to it."""

STEPS = 1000
"""Training steps, rounded up to whole epochs: 3 epochs of MNIST's 48,000 images, more of a smaller dataset."""

MAX_EPOCHS = 16
READING_BATCH = 500
"""28x28 images read at a time; of larger ones fewer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedReader:
    """How the training of a reader went.

    Attributes:
        epochs: passes over the training images.
        accuracy_validation: share of the clean validation images that it reads correctly.
    """

    epochs: int
    accuracy_validation: float


class Averages(nn.Module):
    """Maps (n, C, *size) averaged down to ``smaller``, as by ``nn.AdaptiveAvgPool2d``.

    It is one product with a matrix, whose gradient takes a fifth of the time on CPUs.
    """

    weights: torch.Tensor

    def __init__(self, size: tuple[int, int], smaller: tuple[int, int]) -> None:
        super().__init__()
        down, across = (_windows(old, new) for old, new in zip(size, smaller, strict=True))
        self._smaller = smaller
        self.register_buffer("weights", torch.kron(down, across), persistent=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """The averages, (n, C, *smaller)."""
        last = maps.permute(0, 2, 3, 1)
        averages: torch.Tensor = self.weights @ last.reshape(len(last), -1, last.shape[-1])
        return averages.reshape(len(last), *self._smaller, -1).permute(0, 3, 1, 2)


def _windows(size: int, smaller: int) -> torch.Tensor:
    """The windows that are averaged along an axis, as rows of shares, (smaller, size)."""
    ends = [(place * size // smaller, -(-(place + 1) * size // smaller)) for place in range(smaller)]
    return torch.tensor([[(start <= i < end) / (end - start) for i in range(size)] for start, end in ends])


class Reader(nn.Module):
    """Three convolutions and a linear layer: images (n, C, H, W) to logits (n, classes).

    The image is rearranged to four times its channels of half its size, so that the first convolution is cheap on CPUs.

    Args:
        image: size of the images.
        classes: number of classes.
        channels: of the three convolutions.
    """

    def __init__(
        self, image: ImageShape | None = None, classes: int = 10, channels: tuple[int, int, int] = CHANNELS
    ) -> None:
        super().__init__()
        image = image or ImageShape()
        first, second, third = channels
        maps = (-(-image.height // 8), -(-image.width // 8))
        height, width = (min(MAP, size) for size in maps)
        self._padding = (0, image.width % 2, 0, image.height % 2)
        self.features = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * image.channels, first, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(second, third, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            Averages(maps, (height, width)),
            nn.Dropout2d(DROPOUT),  # of whole channels, which takes few random numbers
            nn.Flatten(),
        )
        self.classify = nn.Linear(third * height * width, classes)
        self.to(memory_format=torch.channels_last)

    @classmethod
    def of(cls, weights: Mapping[str, torch.Tensor], image: ImageShape) -> "Reader":
        """The reader with these weights, whatever version trained it."""
        first, second, third = (len(weights[f"features.{layer}.weight"]) for layer in (1, 3, 5))
        reader = cls(image, len(weights["classify.weight"]), (first, second, third))
        reader.load_state_dict(dict(weights))
        return reader

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the classes."""
        if any(self._padding):
            images = F.pad(images, self._padding)
        logits: torch.Tensor = self.classify(self.features(images))
        return logits


def train(dataset: Dataset, *, seed: int = 0, device: str = "cpu") -> tuple[Reader, TrainedReader]:
    """A reader trained on the clean training images of a dataset; the same bits for the same seed and CPU type.

    By Adam with a one-cycle learning rate (Smith and Topin 2018, arXiv:1708.07120).

    Args:
        dataset: gives training images and labels, and validation images for the accuracy.
        seed: of weights, order, shifts and dropout.
        device: where to train.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _train(dataset, device)


def _train(dataset: Dataset, device: str) -> tuple[Reader, TrainedReader]:
    count = len(dataset.train)
    labels = torch.from_numpy(dataset.train_labels.astype(np.int64)).to(device)
    batch_size = min(BATCH_SIZE, count)
    together = max(1, TOGETHER_NUMBERS // dataset.shape.numbers)
    steps = count // batch_size
    epochs = min(MAX_EPOCHS, math.ceil(STEPS / steps))
    reader = _initialised(Reader(dataset.shape, len(dataset.classes))).to(device)
    flat = flatten(reader)
    adam, rates = Adam(flat, PEAK_LR), _one_cycle(epochs * steps)
    assert flat.grad is not None
    reader.train()
    for _ in range(epochs):
        for batch in torch.randperm(count)[: steps * batch_size].view(-1, batch_size):
            flat.grad.zero_()
            for part in torch.split(batch, together):
                images = _shifted(as_batch(dataset.unit(dataset.train[part.numpy()])).to(device))
                loss = F.cross_entropy(reader(images), labels[part.to(device)]) * (len(part) / batch_size)
                loss.backward()  # type: ignore[no-untyped-call]  # torch's
            adam.lr = next(rates)
            adam.step()
    read_validation = read_pixels(reader, dataset, dataset.validation)
    accuracy = float((read_validation == dataset.validation_labels).mean())
    return reader, TrainedReader(epochs=epochs, accuracy_validation=accuracy)


def _one_cycle(steps: int) -> Iterator[float]:
    """The learning rate of every step: up to `PEAK_LR` and down again, both along half a cosine."""
    for step in range(steps):
        progress = (step + 0.5) / steps
        height = progress / RISE if progress < RISE else (1 - progress) / (1 - RISE)
        yield PEAK_LR * (1 - math.cos(math.pi * height)) / 2


@torch.inference_mode()
def read(reader: Reader, images: Array) -> Labels:
    """The classes that the reader reads in images.

    Args:
        reader: trained; is in evaluation mode afterwards.
        images: shape (n, H, W) or (n, H, W, 3), values in [0, 1].

    Returns:
        Classes from 0, shape (n,), uint8, or uint16 of more than 256 classes.
    """
    reader.eval()
    device = next(reader.parameters()).device
    together = READING_BATCH * IMAGE_SIZE**2 // max(IMAGE_SIZE**2, math.prod(images.shape[1:3]))
    batches = torch.split(as_batch(images), max(1, together))
    scores = torch.cat([reader(batch.to(device)).cpu() for batch in batches])
    return scores.argmax(dim=1).numpy().astype(np.min_scalar_type(scores.shape[1] - 1))


def read_pixels(reader: Reader, dataset: Dataset, images: Pixels) -> Labels:
    """The classes that the reader reads in images of the dataset as they are, shape (n,)."""
    return np.concatenate([read(reader, dataset.unit(images[part])) for part in parts_of(images)])


def _shifted(images: torch.Tensor) -> torch.Tensor:
    """The images (n, C, H, W) moved by random offsets, black beyond their edges."""
    dy, dx = torch.randint(0, 2 * MAX_SHIFT + 1, (2, len(images))).to(images.device)
    height, width = images.shape[2:]
    windows = F.pad(images, (MAX_SHIFT,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, dy, dx]


def _initialised(reader: Reader) -> Reader:
    for layer in reader.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return reader
