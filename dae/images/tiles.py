"""Tiles of images that are larger than what is trained on.

A grid of tiles side by side that do not overlap; what a side has beyond whole tiles is a margin. How much of the margin
lies before the grid is drawn with the image's content as the seed: the same wherever the image is and whatever else is
there, and no edge is always left out.
"""

from typing import Any

import numpy as np
import numpy.typing as npt


def count(height: int, width: int, size: int) -> int:
    """How many tiles an image has."""
    return (height // size) * (width // size)


def corner(digest: bytes, height: int, width: int, size: int) -> tuple[int, int]:
    """Where the grid begins in the image of this content."""
    draw = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    return int(draw.integers(height % size + 1)), int(draw.integers(width % size + 1))


def cut(image: npt.NDArray[Any], size: int, corner: tuple[int, int]) -> npt.NDArray[Any]:
    """The tiles of an image, row by row."""
    rows, columns = image.shape[0] // size, image.shape[1] // size
    top, left = corner
    grid = image[top : top + rows * size, left : left + columns * size]
    tiles = grid.reshape(rows, size, columns, size, *image.shape[2:]).swapaxes(1, 2)
    return tiles.reshape(rows * columns, size, size, *image.shape[2:])
