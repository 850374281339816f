"""Corruption of images in [0, 1], of three kinds (study, section 1) and one strength ``alpha``.

What ``alpha`` means:

- ``gaussian``: standard deviation of additive noise: clip(x + alpha * n, 0, 1), n ~ N(0, 1) (study, section 2.2).
- ``salt-and-pepper``: share of the pixels that are replaced, by 0 or 1 with equal chance; at most 1. Of colour images
  each channel by itself.
- ``blur``: width of a Gaussian blur: its standard deviation is `BLUR_PIXELS` * alpha pixels; nothing is random in it.

With ``alpha`` 0 every kind leaves the images unchanged.
"""

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dae.config import BLUR, GAUSSIAN, SALT_AND_PEPPER

if TYPE_CHECKING:  # imported where it is needed: the noisy test set is made without torch
    import torch

Array = npt.NDArray[np.float32]

BLUR_PIXELS = 4
"""Standard deviation of the blur at ``alpha`` 1. At the default 0.5 it is 2 pixels, about the width of a stroke."""


def corrupt(clean: "torch.Tensor", alpha: float, generator: "torch.Generator", kind: str = GAUSSIAN) -> "torch.Tensor":
    """``clean`` under a fresh draw of noise, of the same shape.

    Args:
        clean: images in [0, 1], shape (..., height, width), float32; not changed.
        alpha: strength of the noise.
        generator: on the device of ``clean``; advanced by one draw an element, not at all by blur.
        kind: one of `dae.config.NOISES`.
    """
    import torch

    if kind == BLUR:
        down, across = (_blur_operator(size, alpha, clean.device) for size in clean.shape[-2:])
        blurred: torch.Tensor = down @ clean @ across.mT
        return blurred.clamp_(0, 1)
    noisy = torch.empty_like(clean)
    in_memory = noisy.as_strided((noisy.numel(),), (1,))  # the order that a draw fills fastest
    if kind == SALT_AND_PEPPER:
        in_memory.uniform_(generator=generator)
        pepper, salt = noisy < alpha / 2, noisy >= 1 - alpha / 2
        return noisy.copy_(clean).masked_fill_(pepper, 0).masked_fill_(salt, 1)
    in_memory.normal_(generator=generator)
    return noisy.mul_(alpha).add_(clean).clamp_(0, 1)


def corrupt_test(clean: Array, alpha: float, dataset: str, kind: str = GAUSSIAN, draw: Array | None = None) -> Array:
    """The images under the fixed draw of noise of a dataset, of the shape and dtype of ``clean``.

    Args:
        clean: images in [0, 1], shape (n, height, width), or (n, height, width, 3).
        alpha: strength of the noise.
        dataset: `dae.data.Dataset.identity`, or a name of a part of it; another one gives another draw.
        kind: one of `dae.config.NOISES`.
        draw: the result of `draw_test` for these images, where it is already made: it is the same for every alpha.
    """
    if kind == BLUR:
        return _blur(clean, alpha)
    draw = draw_test(clean.shape, dataset, kind) if draw is None else draw
    if kind == SALT_AND_PEPPER:
        return np.where(draw < alpha / 2, np.float32(0), np.where(draw >= 1 - alpha / 2, np.float32(1), clean))
    return np.clip(clean + np.float32(alpha) * draw, 0, 1)


def draw_test(shape: tuple[int, ...], dataset: str, kind: str) -> Array:
    """The random numbers behind a noisy test set: normal ones, uniform ones for salt and pepper, none for blur.

    They depend on dataset and kind alone (a counter-based generator, the same on every machine), so that all cells of
    all runs are compared on the same noisy images.
    """
    return DrawTest(dataset, kind).next(shape)


class DrawTest:
    """The same random numbers, some images after others."""

    def __init__(self, dataset: str, kind: str) -> None:
        purpose = f"test noise of {dataset}" if kind == GAUSSIAN else f"{kind} test noise of {dataset}"
        key = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:16], "little")
        self._generator = np.random.Generator(np.random.Philox(key=key))
        self._kind = kind

    @property
    def state(self) -> Any:
        """Where it is; to be set again to go on from there."""
        return self._generator.bit_generator.state

    @state.setter
    def state(self, state: Any) -> None:
        self._generator.bit_generator.state = state

    def next(self, shape: tuple[int, ...]) -> Array:
        """Those of the next images, of this shape."""
        if self._kind == BLUR:
            return np.empty(0, np.float32)
        if self._kind == SALT_AND_PEPPER:
            return self._generator.random(shape, dtype=np.float32)
        return self._generator.standard_normal(shape, dtype=np.float32)


def _blur(images: Array, alpha: float) -> Array:
    """Gaussian blur along height and width; images are mirrored at their edges."""
    from scipy.ndimage import gaussian_filter

    blurred: Array = gaussian_filter(images, BLUR_PIXELS * alpha, mode="reflect", axes=(1, 2))
    return blurred.clip(0, 1)


@cache  # a CUDA graph keeps its address, and cannot copy it to the device while it is captured
def _blur_operator(size: int, alpha: float, device: "torch.device") -> "torch.Tensor":
    """The blur of an axis of ``size`` pixels as a matrix, (size, size): the filter applied to the unit vectors."""
    import torch
    from scipy.ndimage import gaussian_filter

    unit_vectors = np.eye(size)
    matrix = gaussian_filter(unit_vectors, BLUR_PIXELS * alpha, mode="reflect", axes=(0,))
    return torch.from_numpy(matrix).to(device, torch.float32)
