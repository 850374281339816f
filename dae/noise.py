"""Corruption: additive Gaussian noise, clipped to the pixel range (study, section 2.2)."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # the noisy test set is also made where torch is not wanted
    import torch


def corrupt(
    clean: "torch.Tensor", alpha: float, generator: "torch.Generator", *, out: "torch.Tensor | None" = None
) -> "torch.Tensor":
    """``clip(clean + alpha * n, 0, 1)`` with n ~ N(0, 1) drawn from ``generator``.

    Args:
        clean: images in [0, 1], any shape, float32; left as they are.
        alpha: standard deviation of the noise before clipping.
        generator: on the device of ``clean``; advanced by one draw an element.
        out: where to put the result, of the shape of ``clean``.
    """
    noise = clean.new_empty(clean.shape) if out is None else out
    noise.normal_(generator=generator)
    return noise.mul_(alpha).add_(clean).clamp_(0, 1)


def corrupt_test(clean: npt.NDArray[np.float32], alpha: float, dataset: str) -> npt.NDArray[np.float32]:
    """The one noisy test set of a dataset, shape and dtype of ``clean``.

    The draw depends on the dataset's name alone (a counter-based generator, the same on every machine), so that
    all cells of all runs are compared on the same noisy images, and noise levels differ in nothing but alpha.
    """
    key = int.from_bytes(hashlib.sha256(f"test noise of {dataset}".encode()).digest()[:16], "little")
    normals = np.random.Generator(np.random.Philox(key=key)).standard_normal(clean.shape, dtype=np.float32)
    return np.clip(clean + np.float32(alpha) * normals, 0, 1)
