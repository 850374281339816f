"""Pictures of any size through a model of one size: overlapping tiles, put together without seams. NumPy only."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

Function = Callable[[Array], Array]
"""Maps tiles (n, channels, height, width) to as many of the same shape."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The tiles along one axis of a picture.

    Attributes:
        starts: first pixel of each tile, ascending, from 0; the last tile ends with the picture.
        weights: of each pixel of each tile, (tiles, size of a tile); those of one pixel of the picture sum to 1.
    """

    starts: tuple[int, ...]
    weights: npt.NDArray[np.float64]


def axis(size: int, tile: int) -> Axis:
    """Tiles along ``size`` >= ``tile`` pixels, each a quarter of a tile or less from the next.

    The weights fall steeply towards the edges of a tile, where a model sees least around a pixel and may have learned
    what edges of images look like. Half a tile from one to the next, or weights that fall less steeply, leave a grid
    that can be seen on even ground.
    """
    count = 1 + math.ceil((size - tile) / max(1, tile // 4))
    starts = [round(number * (size - tile) / max(1, count - 1)) for number in range(count)]
    window = np.sin(np.pi * (np.arange(tile) + 0.5) / tile) ** 4
    total = np.zeros(size)
    for start in starts:
        total[start : start + tile] += window
    return Axis(tuple(starts), np.stack([window / total[start : start + tile] for start in starts]))


def through_tiles(picture: Array, tile: tuple[int, int], function: Function) -> Array:
    """What ``function`` makes of a picture of any size, tile by tile.

    Tiles are added up in double precision, so that a function that changes nothing gives the picture to the bit. A
    picture of one tile's size goes through the function as it is; others are continued by reflection, smaller ones to
    one tile, larger ones by half a tile on each side.

    Args:
        picture: (channels, height, width).
        tile: height and width of a tile.
        function: is called with one row of tiles at a time.

    Returns:
        The new picture, of the same shape.
    """
    margins = [_margin(size, length) for size, length in zip(picture.shape[1:], tile, strict=True)]
    padded = np.pad(picture, [(0, 0), *margins], mode="reflect") if any(map(any, margins)) else picture
    channels, height, width = padded.shape
    rows, columns = axis(height, tile[0]), axis(width, tile[1])
    result = np.empty_like(padded)
    sums = np.zeros((channels, tile[0], width))  # of the rows from `top` on
    for top, following, weights in zip(rows.starts, (*rows.starts[1:], height), rows.weights, strict=True):
        sums += weights[:, None] * _row(padded[:, top : top + tile[0]], columns, function)
        finished = following - top
        result[:, top:following] = sums[:, :finished]
        sums = np.pad(sums[:, finished:], [(0, 0), (0, finished), (0, 0)])
    (above, _), (left, _) = margins
    return result[:, above : above + picture.shape[1], left : left + picture.shape[2]]


def _row(band: Array, columns: Axis, function: Function) -> npt.NDArray[np.float64]:
    """What the function makes of one row of tiles, their weights across the row applied."""
    width = columns.weights.shape[1]
    tiles = np.stack([band[:, :, left : left + width] for left in columns.starts])
    row = np.zeros(band.shape)
    for left, weights, result in zip(columns.starts, columns.weights, function(tiles), strict=True):
        row[:, :, left : left + width] += weights * result
    return row


def _margin(size: int, tile: int) -> tuple[int, int]:
    """The pixels to add on both sides."""
    missing = tile - size if size <= tile else 2 * (tile // 2)
    return missing // 2, missing - missing // 2
