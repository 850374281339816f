"""A reader of digits: a small classifier trained on clean images, to tell whether a denoised digit can be read.

The study proposes it in section 5.4. It is trained without noise, denoised images or test images.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from dae.adam import Adam, flatten
from dae.config import IMAGE_SIZE
from dae.data import Dataset
from dae.noise import Array

CHANNELS = (24, 48, 64)
DROPOUT = 0.2
BATCH_SIZE = 128
PEAK_LR = 8e-3
RISE = 0.2
"""Share of the steps in which the learning rate rises to its peak."""

MAX_SHIFT = 2
"""Training digits are moved by up to so many pixels in x and y, since there may be few of them."""

STEPS = 1000
"""Training steps, rounded up to whole epochs: 3 epochs of MNIST's 48,000 images, more of a smaller dataset."""

MAX_EPOCHS = 16
READING_BATCH = 500
"""Images read at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedReader:
    """How the training of a reader went.

    Attributes:
        epochs: passes over the training images.
        accuracy_validation: share of the clean validation images that it reads correctly.
    """

    epochs: int
    accuracy_validation: float


class Reader(nn.Module):
    """Three convolutions and a linear layer: images (n, 1, 28, 28) to logits (n, 10).

    The image is rearranged to four channels of half its size, so that the first convolution is cheap on a CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third = CHANNELS
        self.features = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4, first, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(second, third, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(DROPOUT),
        )
        self.classify = nn.Linear(third * (IMAGE_SIZE // 7) ** 2, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the ten classes."""
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
    images = torch.from_numpy(dataset.unit(dataset.train)).to(device)
    padded = F.pad(images, (MAX_SHIFT,) * 4)
    labels = torch.from_numpy(dataset.train_labels.astype(np.int64)).to(device)
    batch_size = min(BATCH_SIZE, len(images))
    steps = len(images) // batch_size
    epochs = min(MAX_EPOCHS, math.ceil(STEPS / steps))
    reader = _initialised(Reader()).to(device)
    flat = flatten(reader)
    adam, rates = Adam(flat, PEAK_LR), _one_cycle(epochs * steps)
    assert flat.grad is not None
    reader.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images))[: steps * batch_size].view(-1, batch_size).to(device):
            flat.grad.zero_()
            loss = F.cross_entropy(reader(_shifted(padded, batch)), labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            adam.lr = next(rates)
            adam.step()
    accuracy = float((read(reader, dataset.unit(dataset.validation)) == dataset.validation_labels).mean())
    return reader, TrainedReader(epochs=epochs, accuracy_validation=accuracy)


def _one_cycle(steps: int) -> Iterator[float]:
    """The learning rate of every step: up to `PEAK_LR` and down again, both along half a cosine."""
    for step in range(steps):
        progress = (step + 0.5) / steps
        height = progress / RISE if progress < RISE else (1 - progress) / (1 - RISE)
        yield PEAK_LR * (1 - math.cos(math.pi * height)) / 2


@torch.inference_mode()
def read(reader: Reader, images: Array) -> npt.NDArray[np.uint8]:
    """The digits that the reader reads in images.

    Args:
        reader: trained; is in evaluation mode afterwards.
        images: shape (n, 28, 28), values in [0, 1].

    Returns:
        Classes 0 to 9, shape (n,).
    """
    reader.eval()
    device = next(reader.parameters()).device
    batches = torch.split(torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(1), READING_BATCH)
    answers = [reader(batch.to(device)).argmax(dim=1).cpu() for batch in batches]
    return torch.cat(answers).numpy().astype(np.uint8)


def _shifted(padded: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """The images of a batch, cut out of the padded images at random offsets; shape (batch, 1, 28, 28)."""
    dy, dx = torch.randint(0, 2 * MAX_SHIFT + 1, (2, len(batch))).to(batch.device)
    windows = padded.unfold(1, IMAGE_SIZE, 1).unfold(2, IMAGE_SIZE, 1)
    return windows[batch, dy, dx].unsqueeze(1)


def _initialised(reader: Reader) -> Reader:
    for layer in reader.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return reader
