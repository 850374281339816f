"""The arm of equal parameters: a width for every depth, so that depth is not confounded with size.

Deeper models have more parameters. In the arm every depth >= 2 has the width at which its number of parameters comes
nearest to that of the reference, the shallowest such depth at the sweep's width; latent sizes are matched separately.
Depth 1 has no width and is not in the arm.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from dae.architecture import parameter_count
from dae.config import ModelConfig
from dae.errors import UserError
from sweep.records.axes import Axes
from sweep.records.grid import Cell, Grid, Settings

WIDTH = "width"
MATCHED: Axes = ((WIDTH, "matched"),)
"""Stands for the arm's widths among the axis values of its facet."""


@cache
def nearest_width(model: ModelConfig, parameters: int) -> int:
    """The width at which ``model``, of depth >= 2, has nearest to ``parameters`` parameters; of two the smaller."""

    def count(width: int) -> int:
        return parameter_count(replace(model, width=width))

    low, high = 1, 2
    while count(high) < parameters:
        low, high = high, 2 * high
    while high - low > 1:  # the count rises with width
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < parameters else (low, middle)
    return min((low, high), key=lambda width: (abs(count(width) - parameters), width))


def arm(grid: Grid, settings: Settings) -> Grid:
    """The arm for a grid: one cell for every cell of depth >= 2.

    Raises:
        UserError: the grid has an axis of widths, or fewer than two depths to match.
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
    return Grid.of((_matched(cell, depths[0], settings) for cell in cells), settings.shape)


def _matched(cell: Cell, reference: int, settings: Settings) -> Cell:
    unmatched = replace(cell, axes=without_width(cell.axes))
    target = parameter_count(settings.model(replace(unmatched, depth=reference)))
    width = nearest_width(settings.model(unmatched), target)
    return settings.plain(replace(cell, axes=(*unmatched.axes, (WIDTH, width))))


def without_width(axes: Axes) -> Axes:
    """The axes except width."""
    return tuple((name, value) for name, value in axes if name != WIDTH)


def find_arms(grid: Grid, settings: Settings) -> dict[Axes, tuple[Cell, ...]]:
    """The cells of the arm in a sweep, those of the reference included, for each point on its other axes.

    The reference is the depth with which most cells have a matched width. It need not be the shallowest one, since
    shallower depths may have been added to the sweep later.
    """
    arms: dict[Axes, tuple[Cell, ...]] = {}
    if WIDTH not in grid.axes:
        return arms
    for point in dict.fromkeys(without_width(cell.axes) for cell in grid.cells):
        cells = [cell for cell in grid.cells if cell.depth > 1 and without_width(cell.axes) == point]
        candidates = [_arm_of(reference, cells, settings) for reference in sorted({cell.depth for cell in cells})]
        largest = max(candidates, key=_matched_count, default=())
        if _matched_count(largest):
            arms[point] = largest
    return arms


def _arm_of(reference: int, cells: Iterable[Cell], settings: Settings) -> tuple[Cell, ...]:
    return tuple(cell for cell in cells if cell == _matched(cell, reference, settings))


def _matched_count(cells: Iterable[Cell]) -> int:
    return sum(WIDTH in dict(cell.axes) for cell in cells)
