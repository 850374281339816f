"""The figures of what a classifier reads of denoised images, and of losses class by class."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sweep.analysis.findings import Findings
from sweep.analysis.quality import (
    Share,
    accuracy,
    class_accuracy,
    class_losses,
    confusion,
    worst_read,
)
from sweep.analysis.results import Result
from sweep.analysis.statistics import Array
from sweep.report.drawing import (
    FAINT,
    INK,
    SOFT,
    WIDTH,
    Figure,
    add_legend,
    architecture_keys,
    depth_ticks,
    grouped,
    log_scale,
    markers,
    palette,
    styled,
)


@styled
def reader(findings: Findings) -> Figure:
    """How many images the reader misreads by architecture, with intervals; beside it against the test loss."""
    references, condition = findings.references, findings.condition
    assert references is not None
    assert references.reader is not None  # nothing is read without one
    grid, colours = findings.sweep.manifest.grid, palette(findings.whole.manifest.grid.latents)
    shapes = markers(grid.depths)
    figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.35, 1))
    shares: list[Share] = []
    for result in findings.results:
        share = accuracy(findings, result)
        if share is None or result.mean is None:
            continue
        shares.append(share)
        place, _ = grouped(result, grid.depths, grid.latents)
        colour, marker = colours[result.config.latent], shapes[result.config.depth]
        for axes, x in ((left, place), (right, result.mean)):
            axes.plot([x, x], [_misread(share.high), _misread(share.low)], color=colour, lw=1.3)
            axes.plot(x, _misread(share.mean), marker, color=colour, ms=5.5, zorder=3)
    levels = {"clean images": 1 - references.reader.accuracy_clean}
    if condition is not None and condition.accuracy_noisy is not None:
        levels["noisy, as they are"] = 1 - condition.accuracy_noisy
        for baseline in condition.baselines:
            if baseline.name != "doing nothing" and baseline.accuracy is not None:
                shape = "x" if baseline.family == "linear" else "+"
                right.plot(
                    baseline.test_loss, 100 * (1 - baseline.accuracy), shape, color=SOFT, ms=5.5, mew=1.1, zorder=1
                )
    for axes in (left, right):
        for level in levels.values():
            axes.axhline(max(100 * level, 0.01), color=FAINT, lw=1, ls=(0, (4, 2)), zorder=0)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
    depth_ticks(left, grid.depths)
    for name, level in levels.items():
        left.annotate(
            f"{name} {100 * level:.1f} %",
            (1, max(100 * level, 0.01)),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=7.5,
            color=SOFT,
        )
    left.set_ylabel(f"misread {findings.sweep.manifest.noun}s, % (log)")
    right.set_xlabel("test MSE per pixel (log)")
    log_scale(right, direction="x")
    # An interval may reach down to no misread image at all, which has no place on this scale.
    lowest = min(_misread(1 - level) for level in [*levels.values(), *(1 - share.mean for share in shares)])
    left.set_ylim(bottom=0.6 * lowest)
    log_scale(left)
    kinds = [("+", "filter"), ("x", "linear denoiser")] if condition is not None else []
    others = [Line2D([], [], ls="", marker=marker, color=SOFT, label=label) for marker, label in kinds]
    add_legend(figure, [*architecture_keys(grid.depths, grid.latents, colours), *others])
    return figure


def _misread(share: float) -> float:
    return max(100 * (1 - share), 0.01)


@styled
def classes(findings: Findings) -> Figure:
    """Test loss and misread images by class, a row an architecture."""
    rows = class_rows(findings)
    losses = np.array([class_losses(findings, result) for result in rows])
    accuracies = [class_accuracy(findings, result) for result in rows]
    tables: dict[str, Array] = {f"test MSE per pixel, by {_class_word(findings)}": losses}
    if all(row is not None for row in accuracies):
        tables[f"misread, %, by {_class_word(findings)}"] = 100 * (1 - np.array(accuracies))
    figure = Figure(figsize=(WIDTH, 0.9 + 0.235 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        _heat(axes, table, (lambda value: f"{value:.4f}"[1:]) if axes is panels[0] else (lambda value: f"{value:.1f}"))
        axes.set_title(title, fontsize=9.5, weight="normal")
        _name_classes(axes, findings, along="x")
        axes.set_yticks([])
    panels[0].set_yticks(range(len(rows)), [result.name for result in rows], fontsize=8)
    return figure


def _class_word(findings: Findings) -> str:
    return "digit" if findings.sweep.manifest.shows_digits else "class"


def _name_classes(axes: Axes, findings: Findings, *, along: str) -> None:
    """A tick for each class along an axis; upright names, which may be long, where they are no numbers."""
    names = findings.sweep.manifest.classes
    places = range(len(names))
    if names == tuple(map(str, places)):
        getattr(axes, f"set_{along}ticks")(list(places))
        return
    texts = [name if len(name) <= 14 else f"{name[:13]}…" for name in names]
    getattr(axes, f"set_{along}ticks")(list(places), texts, fontsize=7, rotation=90 if along == "x" else 0)


MOST_ROWS = 30
"""Rows of a figure with one an architecture; of more architectures the best and the worst are shown."""


def class_rows(findings: Findings) -> list[Result]:
    """The architectures that `classes` shows, in the grid's order."""
    results = [result for result in findings.results if class_losses(findings, result) is not None]
    ranked = sorted(results, key=lambda result: result.mean or 0.0)
    kept = {result.name for result in (ranked if len(results) <= MOST_ROWS else ranked[:15] + ranked[-15:])}
    return [result for result in results if result.name in kept]


def _heat(axes: Axes, table: Array, text: Callable[[float], str]) -> None:
    axes.imshow(table, cmap="Blues", aspect="auto", vmin=0, vmax=float(np.nanmax(table)) * 1.15 or 1)
    dark = 0.6 * float(np.nanmax(table)) * 1.15
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            colour = "white" if value > dark else INK
            axes.text(column, row, text(float(value)), ha="center", va="center", fontsize=6.5, color=colour)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


@styled
def confusions(findings: Findings) -> Figure:
    """What the reader takes each class for after the cell of which it reads the fewest, in % of the class."""
    record = worst_read(findings)
    assert record is not None
    counts = confusion(findings, record)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    wrong = shares * (1 - np.eye(len(counts)))
    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(float(wrong.max()), 1e-9) * 1.3)
    for (row, column), value in np.ndenumerate(shares):
        if counts[row, column]:
            is_right = row == column
            text = f"{value:.0f}" if is_right or value >= 9.95 else f"{value:.1f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=FAINT if is_right else INK)
    _name_classes(axes, findings, along="x")
    _name_classes(axes, findings, along="y")
    axes.set_xlabel("read as")
    axes.set_ylabel("is")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure
