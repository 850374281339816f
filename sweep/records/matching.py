"""The arm of equal parameters: a width for every depth, so that depth is not confounded with size.

Deeper models have more parameters. In the arm each depth >= 2 has the width at which its parameters come nearest to
those of the arm's reference, the shallowest such depth at the sweep's own width, for each latent size by itself. Depth
1 has no width and is not in the arm.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from dae.architecture import parameter_count
from dae.config import ModelConfig
from dae.errors import UserError
from sweep.records.grid import Axes, Cell, Grid, Settings

WIDTH = "width"
MATCHED: Axes = ((WIDTH, "matched"),)
"""The arm among the points of a sweep."""


@cache
def nearest_width(model: ModelConfig, parameters: int) -> int:
    """The width at which ``model``, of depth >= 2, comes nearest to so many parameters; of two the smaller."""

    def count(width: int) -> int:
        return parameter_count(replace(model, width=width))

    low, high = 1, 2
    while count(high) < parameters:
        low, high = high, 2 * high
    while high - low > 1:  # more width is always more parameters
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < parameters else (low, middle)
    return min((low, high), key=lambda width: (abs(count(width) - parameters), width))


def arm(grid: Grid, settings: Settings) -> Grid:
    """The arm of a grid, one cell for each of its cells of depth >= 2.

    Raises:
        UserError: the grid has widths of its own, or nothing to match.
    """
    if WIDTH in grid.axes:
        raise UserError("--match-parameters solves the width of every depth: leave out --axis width.")
    cells = [cell for cell in grid.cells if cell.depth > 1]
    depths = sorted({cell.depth for cell in cells})
    if len(depths) < 2:
        raise UserError(
            f"--match-parameters has nothing to match: --depths {','.join(map(str, grid.depths))} has "
            f"{len(depths)} of at least 2, and depth 1 has no width. Give two or more, for example --depths 3,5."
        )
    return Grid.of(_matched(cell, depths[0], settings) for cell in cells)


def _matched(cell: Cell, reference: int, settings: Settings) -> Cell:
    at_own_width = replace(cell, axes=without_width(cell.axes))
    target = parameter_count(settings.model(replace(at_own_width, depth=reference)))
    width = nearest_width(settings.model(at_own_width), target)
    return settings.plain(replace(cell, axes=(*at_own_width.axes, (WIDTH, width))))


def without_width(axes: Axes) -> Axes:
    """The axes but for width."""
    return tuple(each for each in axes if each[0] != WIDTH)


def find_arms(grid: Grid, settings: Settings) -> dict[Axes, tuple[Cell, ...]]:
    """The cells of the arm in a sweep, the reference's among them, for each point on its other axes.

    The reference is the depth whose arm has most cells beside its own; a sweep may have been extended by a shallower
    depth since.
    """
    arms: dict[Axes, tuple[Cell, ...]] = {}
    if WIDTH not in grid.axes:
        return arms
    for point in dict.fromkeys(without_width(cell.axes) for cell in grid.cells):
        cells = [cell for cell in grid.cells if cell.depth > 1 and without_width(cell.axes) == point]
        candidates = [_arm_of(reference, cells, settings) for reference in sorted({cell.depth for cell in cells})]
        largest = max(candidates, key=_solved, default=())
        if _solved(largest):
            arms[point] = largest
    return arms


def _arm_of(reference: int, cells: Iterable[Cell], settings: Settings) -> tuple[Cell, ...]:
    return tuple(cell for cell in cells if cell == _matched(cell, reference, settings))


def _solved(cells: Iterable[Cell]) -> int:
    return sum(WIDTH in dict(cell.axes) for cell in cells)
