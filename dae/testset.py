"""The noisy test set that all models are tested on, and its losses without any model. NumPy only."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dae.config import BLUR, GAUSSIAN
from dae.data import Dataset, Pixels
from dae.noise import Array, DrawTest, corrupt_test

PART_NUMBERS = 2**24
"""Most numbers of images that are held as float32 at a time: 64 MiB, more than any known dataset's test set has."""

SAMPLES = 10
"""Test images that are shown; fewer where there are fewer."""

MOST_CLASSES = 100
"""Of more classes the first so many have a mean image."""


@dataclass(frozen=True)
class TestSet:
    """A dataset's test images under one kind and strength of noise, in [0, 1].

    Shapes are (n, height, width), or (n, height, width, 3) in colour.

    Attributes:
        draw: gives the random numbers of a kind of noise, see `dae.noise.draw_test`; so that test sets of a dataset
            can share them. None draws them again.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    dataset: Dataset
    alpha: float
    noise: str = GAUSSIAN
    draw: Callable[[str], Array] | None = None

    @cached_property
    def clean(self) -> Array:
        """The images without noise."""
        return self.dataset.unit(self.dataset.test)

    @cached_property
    def noisy(self) -> Array:
        """The images under the dataset's fixed draw of noise, or as the dataset gives them."""
        if self.dataset.noisy is not None:
            return self.dataset.unit(self.dataset.noisy.test)
        draw = None if self.draw is None else self.draw(self.noise)
        return corrupt_test(self.clean, self.alpha, self.dataset.identity, self.noise, draw)

    def parts(self) -> Iterator[tuple[slice, Array, Array]]:
        """Clean and noisy images and which ones they are; a set of up to `PART_NUMBERS` is one part, and is kept."""
        parts = list(parts_of(self.dataset.test))
        if len(parts) == 1:
            yield parts[0], self.clean, self.noisy
            return
        draws = DrawTest(self.dataset.identity, self.noise)
        for part in parts:
            self._starts[part.start] = draws.state
            yield part, *self._part(part, draws)  # and nothing of it stays here

    @cached_property
    def _starts(self) -> dict[int, Any]:
        """What is drawn from where parts begin, by their first image, once they were gone through."""
        return {}

    def _part(self, part: slice, draws: DrawTest) -> tuple[Array, Array]:
        """Clean and noisy images of a part, which is the next that is drawn for."""
        clean = self.dataset.unit(self.dataset.test[part])
        if self.dataset.noisy is not None:
            return clean, self.dataset.unit(self.dataset.noisy.test[part])
        draw = draws.next(clean.shape)
        return clean, corrupt_test(clean, self.alpha, self.dataset.identity, self.noise, draw)

    def at(self, indices: npt.NDArray[np.intp]) -> tuple[Array, Array]:
        """Clean and noisy images of these indices; the others are not made, only drawn for where need be."""
        clean = self.dataset.unit(self.dataset.test[indices])
        if self.dataset.noisy is not None:
            return clean, self.dataset.unit(self.dataset.noisy.test[indices])
        return clean, corrupt_test(clean, self.alpha, self.dataset.identity, self.noise, self._draw_at(indices))

    def _draw_at(self, indices: npt.NDArray[np.intp]) -> Array:
        """The random numbers of these images."""
        test, draws = self.dataset.test, DrawTest(self.dataset.identity, self.noise)
        parts = list(parts_of(test))
        if self.noise == BLUR:
            return draws.next(())
        if len(parts) == 1 and self.draw is not None:
            return self.draw(self.noise)[indices]
        chosen = np.empty((len(indices), *test.shape[1:]), np.float32)
        for part in parts:
            if len(self._starts) == len(parts):
                if not ((part.start <= indices) & (indices < part.stop)).any():
                    continue
                draws.state = self._starts[part.start]
            pick(chosen, indices, part, draws.next(test[part].shape))
        return chosen

    def shown(self) -> tuple[Array, Array]:
        """Clean and noisy images of `samples`."""
        clean = self.dataset.unit(self.dataset.test[self.samples])
        noisy = np.empty_like(clean)
        for part, _, images in self.parts():
            pick(noisy, self.samples, part, images)
        return clean, noisy

    @cached_property
    def mean_image(self) -> Array:
        """Mean training image, of the shape of one image."""
        return self.dataset.unit(self.dataset.train.mean(axis=0))

    @cached_property
    def samples(self) -> npt.NDArray[np.intp]:
        """Indices of the images that are shown.

        The first test image of each class, of at most `SAMPLES` classes; without labels, images spread evenly.
        """
        labels, count = self.dataset.test_labels, len(self.dataset.test)
        if not self.dataset.classes:
            return np.unique(np.linspace(0, count - 1, min(SAMPLES, count)).round().astype(np.intp))
        firsts = (np.flatnonzero(labels == label) for label in range(len(self.dataset.classes)))
        return np.array([first[0] for first in firsts if first.size][:SAMPLES])

    def class_means(self, images: Array) -> Array:
        """The mean by class of ``images``, one for each test image; shape (classes, ...), zeros of an empty class."""
        means = ClassMeans(self.dataset)
        means.add(slice(0, len(images)), images)
        return means.result()

    def baselines(self) -> dict[str, float]:
        """Test MSE of doing nothing (``identity``) and of always answering the mean image (``mean_image``)."""
        losses = [
            (len(clean), mean_square(noisy - clean), mean_square(clean - self.mean_image))
            for _, clean, noisy in self.parts()
        ]
        return {
            name: weighted_mean([(loss[0], loss[i]) for loss in losses])
            for i, name in enumerate(("identity", "mean_image"), start=1)
        }

    @cached_property
    def mean_image_validation_loss(self) -> float:
        """Validation MSE of always answering the mean image: what a model must beat."""
        validation = self.dataset.validation
        losses = (
            (part.stop - part.start, mean_square(self.dataset.unit(validation[part]) - self.mean_image))
            for part in parts_of(validation)
        )
        return weighted_mean(list(losses))


class ClassMeans:
    """The mean image of each class of a test set, of images that come in parts."""

    def __init__(self, dataset: Dataset) -> None:
        self._labels = dataset.test_labels
        count = min(len(dataset.classes), MOST_CLASSES)
        self._sums = np.zeros((count, *dataset.shape.array), np.float32)
        self._counts = np.zeros(count, np.int64)

    def add(self, part: slice, images: Array) -> None:
        """Take these test images into account."""
        labels = self._labels[part]
        for label in range(len(self._sums)):
            of_class = images[labels == label]
            self._sums[label] += of_class.sum(axis=0)
            self._counts[label] += len(of_class)

    def result(self) -> Array:
        """The means, shape (classes, ...); zeros for a class without test images."""
        counts = np.maximum(self._counts, 1).astype(np.float32)
        return self._sums / counts.reshape(-1, *[1] * (self._sums.ndim - 1))


def pick(chosen: Array, indices: npt.NDArray[np.intp], part: slice, images: Array) -> None:
    """Put those of the images, which are a part of all, that ``indices`` name to their places in ``chosen``."""
    inside = (part.start <= indices) & (indices < part.stop)
    chosen[inside] = images[indices[inside] - part.start]


def parts_of(images: Pixels) -> Iterator[slice]:
    """Slices of images, none of which holds more than `PART_NUMBERS` numbers."""
    size = max(1, PART_NUMBERS // max(1, math.prod(images.shape[1:])))
    for start in range(0, len(images), size):
        yield slice(start, min(start + size, len(images)))


def part_bytes(images: Pixels) -> int:
    """What the largest of these parts takes as float32."""
    return 4 * min(PART_NUMBERS, images.size)


def weighted_mean(values: list[tuple[int, float]]) -> float:
    """The mean of values that stand for so many images each."""
    if len(values) == 1:
        return values[0][1]
    return sum(count * value for count, value in values) / sum(count for count, _ in values)


def mean_square(difference: Array) -> float:
    """Mean of the squares, accumulated in double precision."""
    return float(np.square(difference).mean(dtype=np.float64))


def image_losses(denoised: Array, clean: Array) -> Array:
    """Mean squared error per pixel of every image, shape (n,), for images (n, ...); ``clean`` may be one image.

    Of a colour image it is the mean over its three channels too.
    """
    losses: Array = np.square(denoised - clean).mean(axis=tuple(range(1, denoised.ndim)))
    return losses


def psnr_db(loss: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error, for pixels in [0, 1]."""
    return -10 * math.log10(loss)
