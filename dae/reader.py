"""A reader of digits: a small classifier trained on clean images, to tell whether a denoised digit can be read.

The study's section 5.4 proposes it. It never sees noise, a denoised image or a test image while it learns.
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
from dae.testset import Array

CHANNELS = (24, 48, 64)
DROPOUT = 0.2
BATCH_SIZE = 128
PEAK_LR = 8e-3
RISE = 0.2
"""Share of the steps after which the learning rate is at its peak."""

MAX_SHIFT = 2
"""Training digits are moved by up to so many pixels each way, which few training images ask for."""

STEPS = 1000
"""Of training, rounded up to whole epochs: 3 epochs of MNIST's 48,000 images, more of fewer."""

MAX_EPOCHS = 16
READING_BATCH = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedReader:
    """How the training of a reader went.

    Attributes:
        epochs: passes over the training images.
        accuracy_validation: share of the clean validation images that it reads rightly.
    """

    epochs: int
    accuracy_validation: float


class Reader(nn.Module):
    """Three convolutions and a linear layer: images (n, 1, 28, 28) to logits (n, 10).

    The image is folded into four channels of half its size, which makes the first convolution cheap on a CPU.
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
    """A reader for a dataset, trained on its clean training images; the same bits for the same seed on one CPU type.

    Adam, its learning rate under a one-cycle schedule (Smith and Topin 2018, arXiv:1708.07120).

    Args:
        dataset: its training images and labels are learnt from.
        seed: root of weights, order and shifts.
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
    """Learning rates from nothing to their peak and back, along half waves of a cosine."""
    for step in range(steps):
        progress = (step + 0.5) / steps
        way = progress / RISE if progress < RISE else (1 - progress) / (1 - RISE)
        yield PEAK_LR * (1 - math.cos(math.pi * way)) / 2


@torch.inference_mode()
def read(reader: Reader, images: Array) -> npt.NDArray[np.uint8]:
    """The digit that each image shows, as the reader reads it.

    Args:
        reader: trained; is in evaluation mode afterwards.
        images: shape (n, 28, 28), values in [0, 1].

    Returns:
        Classes, shape (n,).
    """
    reader.eval()
    device = next(reader.parameters()).device
    batches = torch.split(torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(1), READING_BATCH)
    answers = [reader(batch.to(device)).argmax(dim=1).cpu() for batch in batches]
    return torch.cat(answers).numpy().astype(np.uint8)


def _shifted(padded: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """The images of a batch, each cut out of its padded one at a place of its own: (batch, 1, 28, 28)."""
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
