"""The noisy test set that all models are tested on, and its losses without any model. NumPy only."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dae.config import GAUSSIAN
from dae.data import Dataset
from dae.noise import Array, corrupt_test


@dataclass(frozen=True)
class TestSet:
    """A dataset's test images under one kind and strength of noise. Shape (n, 28, 28), values in [0, 1].

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
        """The images under the dataset's fixed draw of noise."""
        draw = None if self.draw is None else self.draw(self.noise)
        return corrupt_test(self.clean, self.alpha, self.dataset.name, self.noise, draw)

    @cached_property
    def mean_image(self) -> Array:
        """Mean training image, shape (28, 28)."""
        return self.dataset.unit(self.dataset.train.mean(axis=0))

    @cached_property
    def samples(self) -> npt.NDArray[np.intp]:
        """Indices of the first test image of each class, shape (10,)."""
        return np.array([np.flatnonzero(self.dataset.test_labels == label)[0] for label in range(10)])

    def class_means(self, images: Array) -> Array:
        """The mean by class of ``images`` (n, 28, 28), one for each test image; shape (10, 28, 28)."""
        labels = self.dataset.test_labels
        return np.stack([images[labels == label].mean(axis=0) for label in range(10)])

    def baselines(self) -> dict[str, float]:
        """Test MSE of doing nothing (``identity``) and of always answering the mean image (``mean_image``)."""
        return {
            "identity": mean_square(self.noisy - self.clean),
            "mean_image": mean_square(self.clean - self.mean_image),
        }

    @cached_property
    def mean_image_validation_loss(self) -> float:
        """Validation MSE of always answering the mean image: what a model must beat."""
        return mean_square(self.dataset.unit(self.dataset.validation) - self.mean_image)


def mean_square(difference: Array) -> float:
    """Mean of the squares, accumulated in double precision."""
    return float(np.square(difference).mean(dtype=np.float64))


def image_losses(denoised: Array, clean: Array) -> Array:
    """Mean squared error per pixel of every image, shape (n,), for images (n, 28, 28); ``clean`` may be one image."""
    losses: Array = np.square(denoised - clean).mean(axis=(1, 2))
    return losses


def psnr_db(loss: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error, for pixels in [0, 1]."""
    return -10 * math.log10(loss)
