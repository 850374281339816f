"""A sweep with axes in parts, each of them a sweep without."""

from collections.abc import Iterable
from dataclasses import replace

from sweep.records.grid import Axes, Cell, Grid, Settings
from sweep.records.matching import MATCHED, find_arms, without_width
from sweep.records.sweep import SAMPLES, Sweep


def facets(sweep: Sweep) -> list[tuple[Axes, Sweep]]:
    """The sweep in parts within which only architecture and seed vary, one for each point on its axes.

    A part is a sweep of its own, with the cells of that point and the settings at it, so that whatever is said of a
    sweep without axes can be said of each. The sweep's own settings, ``()``, come first where they have cells. Width
    means nothing at depth 1: such a cell belongs to every width. An arm of equal parameters is one part, the last,
    ``MATCHED`` among its axes; its cells differ in width, the settings have the reference's.
    """
    grid, settings = sweep.manifest.grid, sweep.manifest.settings
    arms = find_arms(grid, settings)
    matched = {cell for cells in arms.values() for cell in cells}
    found = []
    for point in grid.points:
        own = [cell for cell in grid.cells if cell.axes == point]
        if without_width(point) == point or not matched.issuperset(own):
            places = {settings.plain(replace(cell, axes=point)) for cell in grid.cells}
            found.append((point, _part(sweep, [cell for cell in grid.cells if cell in places], settings.at(own[0]))))
    for point, cells in arms.items():
        found.append(((*point, *MATCHED), _part(sweep, cells, settings.at(replace(cells[0], axes=point)))))
    return found


def _part(sweep: Sweep, cells: Iterable[Cell], settings: Settings) -> Sweep:
    grid = Grid.of(cells)
    manifest = replace(sweep.manifest, grid=grid, settings=settings, conditions={})
    if manifest.samples != SAMPLES:
        manifest = replace(manifest, baselines=sweep.manifest.conditions.get(manifest.samples, {}))
    keys = {cell.key for cell in grid.cells}
    records = {key: record for key, record in sweep.records.items() if key in keys}
    damaged = {key: reason for key, reason in sweep.damaged.items() if key in keys}
    return Sweep(sweep.store, manifest, records, damaged)
