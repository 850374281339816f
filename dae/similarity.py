"""Structural similarity of images, many at a time. NumPy and scikit-image."""

import numpy as np

from dae.config import IMAGE_SIZE
from dae.noise import Array

SSIM = "Wang et al. (2004): Gaussian window of sigma 1.5 (11x11), K1 0.01, K2 0.03, population covariance, range 1"
"""What `ssim` computes, as the report states it. Only windows that lie within the image count."""

_REACH = 5
"""Pixels from the middle of the window to its edge."""
_CHUNK = 200


def ssim(images: Array, clean: Array) -> Array:
    """The mean structural similarity of every image with its clean one.

    scikit-image's `structural_similarity` with the parameters of Wang et al. It takes one image at a time, so a chunk
    of images is stacked into one tall image; windows that lie within one of them do not see its neighbours.

    Args:
        images: shape (n, 28, 28), values in [0, 1].
        clean: of the same shape.

    Returns:
        Shape (n,), float32; 1 where an image is the clean one.
    """
    from skimage.metrics import structural_similarity

    similarities = []
    for start in range(0, len(images), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        _, by_pixel = structural_similarity(
            images[chunk].reshape(-1, IMAGE_SIZE).astype(np.float64),
            clean[chunk].reshape(-1, IMAGE_SIZE).astype(np.float64),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            full=True,
        )
        inner = slice(_REACH, IMAGE_SIZE - _REACH)
        similarities.append(by_pixel.reshape(-1, IMAGE_SIZE, IMAGE_SIZE)[:, inner, inner].mean(axis=(1, 2)))
    return np.concatenate(similarities).astype(np.float32)
