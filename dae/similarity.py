"""Structural similarity of images, many at a time. NumPy."""

from functools import cache

import numpy as np
import numpy.typing as npt

from dae.noise import Array

Matrix = npt.NDArray[np.float64]

SSIM = "Wang et al. (2004): Gaussian window of sigma 1.5 (11x11), K1 0.01, K2 0.03, population covariance, range 1"
"""What `ssim` computes, as the report states it. Only windows that lie within the image count."""

_REACH, _SIGMA = 5, 1.5
"""Pixels from the middle of the window to its edge, and the width of its Gaussian."""
_C1, _C2 = 0.01**2, 0.03**2
_NUMBERS_TOGETHER = 50_000
"""Pixels that are compared at a time: few enough for a core's cache."""


def ssim(images: Array, clean: Array) -> Array:
    """The mean structural similarity of every image with its clean one; of colour images the mean of the channels.

    As scikit-image's `structural_similarity` computes it with the parameters of Wang et al., to rounding. Images of
    less than 11 pixels in height or width are compared by the largest window of odd size that fits into them.

    Args:
        images: shape (n, H, W) or (n, H, W, 3), values in [0, 1].
        clean: of the same shape.

    Returns:
        Shape (n,), float32; 1 where an image is the clean one.
    """
    if images.ndim == 4:
        by_channel: Array = np.stack([ssim(images[..., c], clean[..., c]) for c in range(images.shape[-1])])
        means: Array = by_channel.mean(axis=0).astype(np.float32, copy=False)
        return means
    step = max(1, _NUMBERS_TOGETHER // images[0].size)
    parts = [slice(start, start + step) for start in range(0, len(images), step)]
    return np.concatenate([_of_part(images[part].astype(np.float64), clean[part].astype(np.float64)) for part in parts])


def _of_part(x: Matrix, y: Matrix) -> Array:
    """The similarity of every pair, where means are those under the window."""
    down, across = (_window_sums(size, min(_REACH, (min(x.shape[1:]) - 1) // 2)) for size in x.shape[1:])

    def mean(images: Matrix) -> Matrix:
        under_window: Matrix = down @ images @ across.T
        return under_window

    mean_x, mean_y = mean(x), mean(y)
    products = mean_x * mean_y
    squares = mean_x * mean_x + mean_y * mean_y
    covariance = mean(x * y) - products
    variances = (mean(x * x) - mean_x * mean_x) + (mean(y * y) - mean_y * mean_y)
    similarity = (2 * products + _C1) * (2 * covariance + _C2) / ((squares + _C1) * (variances + _C2))
    means: Array = similarity.mean(axis=(1, 2)).astype(np.float32)
    return means


@cache
def _window_sums(size: int, reach: int) -> Matrix:
    """The window along one axis as a matrix, (size - 2 reach, size): a row for each place where it fits."""
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SIGMA) ** 2)
    matrix = np.zeros((size - 2 * reach, size))
    for row in range(len(matrix)):
        matrix[row, row : row + 2 * reach + 1] = weights / weights.sum()
    return matrix
