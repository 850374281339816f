"""Facets: the parts of a sweep with axes within which only architecture and seed vary."""

from collections.abc import Iterable
from dataclasses import replace

from sweep.records.axes import Axes
from sweep.records.grid import Cell, Grid, Settings
from sweep.records.matching import MATCHED, find_arms, without_width
from sweep.records.sweep import SAMPLES, Sweep


def facets(sweep: Sweep) -> list[tuple[Axes, Sweep]]:
    """The facets of a sweep with their axis values, one for each point on its axes.

    A facet is a `Sweep` with the cells of that point and the settings there, so that the analysis of a sweep without
    axes works for it. The point ``()``, the sweep's own settings, comes first if it has cells. Width has no effect at
    depth 1, so such a cell is in the facets of all widths. The arms of equal parameters come last, one facet an arm
    with ``MATCHED`` among its axes; its cells differ in width, and its settings have the width of the reference.
    """
    grid, settings = sweep.manifest.grid, sweep.manifest.settings
    arms = find_arms(grid, settings)
    matched = {cell for cells in arms.values() for cell in cells}
    parts = []
    for point in grid.points:
        at_point = [cell for cell in grid.cells if cell.axes == point]
        if without_width(point) == point or not matched.issuperset(at_point):
            members = {settings.plain(replace(cell, axes=point)) for cell in grid.cells}
            cells = [cell for cell in grid.cells if cell in members]
            parts.append((point, _facet(sweep, cells, settings.at(at_point[0]))))
    for point, arm in arms.items():
        parts.append(((*point, *MATCHED), _facet(sweep, arm, settings.at(replace(arm[0], axes=point)))))
    return parts


def _facet(sweep: Sweep, cells: Iterable[Cell], settings: Settings) -> Sweep:
    grid = Grid.of(cells, settings.shape)
    manifest = replace(sweep.manifest, grid=grid, settings=settings, conditions={})
    if manifest.samples != SAMPLES:
        manifest = replace(manifest, baselines=sweep.manifest.conditions.get(manifest.samples, {}))
    keys = {cell.key for cell in grid.cells}
    records = {key: record for key, record in sweep.records.items() if key in keys}
    damaged = {key: reason for key, reason in sweep.damaged.items() if key in keys}
    return Sweep(sweep.store, sweep.snapshot, manifest, records, damaged)
