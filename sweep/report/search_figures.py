"""The figures of a search: its trials one after another, its parameters, its front."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sweep.analysis.search import SearchFindings
from sweep.analysis.statistics import Array
from sweep.records.record import Status
from sweep.records.space import Range
from sweep.report.drawing import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    SOFT,
    WIDTH,
    Figure,
    add_legend,
    even_columns,
    log_scale,
    short_number,
    styled,
)
from sweep.search.history import Tried
from sweep.search.importance import Importance

CMAP = "viridis"
"""Of losses: dark is low."""


@styled
def trials(findings: SearchFindings) -> Figure:
    """The last validation loss of every trial by its number, and the lowest of a completed one so far."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    lowest: list[tuple[int, float]] = []
    for entry in findings.tried:
        number, loss = entry.proposal.number + 1, entry.losses[-1]
        if entry.status is Status.COMPLETED:
            lowest.append((number, min(loss, lowest[-1][1] if lowest else loss)))
        elif len(findings.tried) <= 60:
            axes.annotate(
                str(len(entry.losses)), (number, loss), (0, 4), textcoords="offset points", ha="center",
                fontsize=6.5, color=SOFT,
            )  # fmt: skip
    for status, entries in _by_status(findings.tried).items():
        shape, colour = _SHAPES.get(status, ("+", FAINT))
        style: dict[str, Any] = (
            {"ms": 4.5, "zorder": 3} if status is Status.COMPLETED else {"ms": 5, "mew": 1.1, "zorder": 2}
        )
        points = [(entry.proposal.number + 1, entry.losses[-1]) for entry in entries]
        axes.plot(*zip(*points, strict=True), ls="", marker=shape, color=colour, **style)
    if lowest:
        lowest.append((findings.tried[-1].proposal.number + 1, lowest[-1][1]))
        axes.step(*zip(*lowest, strict=True), where="post", color=INK, lw=1.2, zorder=1)
    axes.set_xlabel("trial")
    axes.set_xlim(left=0)
    axes.set_ylabel("validation MSE per pixel (log)")
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.grid(axis="y")
    log_scale(axes)
    handles = [
        Line2D([], [], ls="", marker="o", color=BLUE, label="completed"),
        Line2D([], [], color=INK, lw=1.2, label="lowest so far"),
    ]
    present = {entry.status for entry in findings.tried} - {Status.COMPLETED}
    handles += [
        Line2D([], [], ls="", marker=shape, color=colour, label=f"{status}, at its last epoch")
        for status, (shape, colour) in _SHAPES.items()
        if status in present
    ]
    add_legend(figure, handles)
    return figure


_SHAPES = {
    Status.COMPLETED: ("o", BLUE),
    Status.PRUNED: ("x", ORANGE),
    Status.STOPPED: ("s", FAINT),
    Status.DIVERGED: ("v", INK),
}


def _by_status(tried: Sequence[Tried]) -> dict[Status, list[Tried]]:
    """Those of each status, which are drawn in one go."""
    return {status: entries for status in Status if (entries := [entry for entry in tried if entry.status is status])}


def _by_end(tried: Sequence[Tried]) -> dict[bool, list[Tried]]:
    """Those that were ended early and the completed ones, under True."""
    parts = {is_completed: [entry for entry in tried if (entry.status is Status.COMPLETED) is is_completed]
             for is_completed in (False, True)}  # fmt: skip
    return {is_completed: entries for is_completed, entries in parts.items() if entries}


@styled
def curves(findings: SearchFindings) -> Figure:
    """The validation loss of every trial by epoch; a cross where one was ended early."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    for is_completed, entries in _by_end(findings.tried).items():
        lines = [list(enumerate(entry.losses, start=1)) for entry in entries]
        axes.add_collection(LineCollection(lines, colors=BLUE if is_completed else ORANGE, lw=1, alpha=0.65))
        if not is_completed:
            ends = [line[-1] for line in lines]
            axes.plot(*zip(*ends, strict=True), ls="", marker="x", color=ORANGE, ms=5, mew=1.2)
    axes.autoscale()
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation MSE per pixel (log)")
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.grid(axis="y")
    log_scale(axes)
    handles = {
        True: Line2D([], [], color=BLUE, label="completed"),
        False: Line2D([], [], color=ORANGE, marker="x", label="ended early"),
    }
    add_legend(figure, [handle for kind, handle in handles.items() if kind in _by_end(findings.tried)])
    return figure


@styled
def parallel(findings: SearchFindings) -> Figure:
    """Every trial as a line across its parameters, coloured by its loss; those ended early are grey."""
    names = findings.varied
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes = figure.subplots()
    completed = [entry for entry in findings.tried if entry.status is Status.COMPLETED]
    norm = _norm(completed)
    for is_completed, entries in _by_end(findings.tried).items():
        worst_first = sorted(entries, key=lambda entry: -entry.losses[-1])
        lines = [[(place, _place(findings, name, entry)) for place, name in enumerate(names)] for entry in worst_first]
        colours = mpl.colormaps[CMAP](norm([entry.losses[-1] for entry in worst_first])) if is_completed else "#d5d5d5"
        width = 1.5 if is_completed else 0.8
        axes.add_collection(LineCollection(lines, colors=colours, lw=width, zorder=2 + is_completed))
    axes.autoscale()
    for place, name in enumerate(names):
        axes.axvline(place, color="#999999", lw=0.8, zorder=1)
        for height, text in _ticks(findings, name):
            axes.annotate(text, (place, height), (-4, 0), textcoords="offset points", ha="right", va="center",
                          fontsize=7.5, color=SOFT)  # fmt: skip
    axes.set_xticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_xlim(-0.35, len(names) - 0.9)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if completed:
        _colour_bar(figure, axes, norm)
    return figure


@styled
def importance(findings: SearchFindings) -> Figure:
    """The importance of every parameter and its spread over resamplings."""
    found: Sequence[Importance] = findings.importances
    figure = Figure(figsize=(0.7 * WIDTH, 0.9 + 0.36 * len(found)), layout="constrained")
    axes = figure.subplots()
    for place, entry in enumerate(reversed(found)):
        axes.barh(place, entry.share, 0.6, color=BLUE, alpha=0.5, lw=0)
        axes.plot([entry.low, entry.high], [place, place], color=INK, lw=1.3)
    axes.set_yticks(range(len(found)), [entry.parameter.replace("_", " ") for entry in reversed(found)])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("importance for being among the best tenth (PED-ANOVA)")
    axes.set_xlim(left=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    return figure


@styled
def slices(findings: SearchFindings) -> Figure:
    """The loss of every trial against each parameter."""
    names = findings.varied
    columns = even_columns(len(names), 4)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(WIDTH, 2.5 * rows + 0.5), layout="constrained")
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(panels, names, strict=False):
        for is_completed, entries in _by_end(findings.tried).items():
            shape, colour = ("o", BLUE) if is_completed else ("x", ORANGE)
            points = [(_place(findings, name, entry), entry.losses[-1]) for entry in entries]
            axes.plot(
                *zip(*points, strict=True), ls="", marker=shape, color=colour, ms=4, mew=1, alpha=0.8,
                zorder=2 + is_completed,
            )  # fmt: skip
        axes.set_xlabel(name.replace("_", " "))
        axes.set_xticks(*zip(*_ticks(findings, name), strict=True))
        axes.set_xlim(-0.06, 1.06)
        axes.grid(axis="y")
        log_scale(axes)
    for axes in panels[::columns]:
        axes.set_ylabel("validation MSE (log)")
    add_legend(figure, _kinds(findings))
    return figure


@styled
def contours(findings: SearchFindings) -> Figure:
    """The loss over the two most important pairs of parameters: trials, and the mean of those near."""
    pairs = findings.pairs
    figure = Figure(figsize=(WIDTH if len(pairs) > 1 else 0.6 * WIDTH, 4.0), layout="constrained")
    norm = _norm(findings.tried)
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    for axes, (first, second) in zip(panels, pairs, strict=True):
        places = np.array(
            [[_place(findings, first, entry), _place(findings, second, entry)] for entry in findings.tried]
        )
        losses = np.log(np.array([entry.losses[-1] for entry in findings.tried]))
        x, y, field = _field(places, losses)
        axes.contourf(x, y, np.exp(field), levels=_levels(norm), norm=norm, cmap=CMAP, alpha=0.75, extend="both")
        is_completed = np.array([entry.status is Status.COMPLETED for entry in findings.tried])
        for chosen, shape in ((~is_completed, "X"), (is_completed, "o")):
            axes.scatter(
                *places[chosen].T, s=36, c=np.exp(losses[chosen]), norm=norm, cmap=CMAP, marker=shape,
                edgecolors="white", linewidths=0.7, zorder=2,
            )  # fmt: skip
        for name, axis in ((first, axes.xaxis), (second, axes.yaxis)):
            ticks = _ticks(findings, name)
            axis.set_ticks([place for place, _ in ticks], [text for _, text in ticks])
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axes.set_xlabel(first.replace("_", " "))
        axes.set_ylabel(second.replace("_", " "))
    _colour_bar(figure, panels[-1], norm)
    handles = {
        True: Line2D([], [], ls="", marker="o", color=SOFT, mec="white", ms=7, label="completed"),
        False: Line2D([], [], ls="", marker="X", color=SOFT, mec="white", ms=7, label="ended early, at its last loss"),
    }
    add_legend(figure, [handle for kind, handle in handles.items() if kind in _by_end(findings.tried)])
    return figure


@styled
def pareto(findings: SearchFindings) -> Figure:
    """Validation loss against MACs; the line is the front."""
    figure = Figure(figsize=(0.7 * WIDTH, 4.0), layout="constrained")
    axes = figure.subplots()
    kept = {record.key for record in findings.ranked}
    completed = [entry for entry in findings.tried if entry.status is Status.COMPLETED]
    for is_kept in (False, True):
        if found := [(entry.macs, entry.losses[-1]) for entry in completed if (entry.cell.key in kept) is is_kept]:
            axes.plot(
                *zip(*found, strict=True), ls="", marker="o", color=BLUE, mfc=BLUE if is_kept else "white", ms=5.5,
                mew=0.9, zorder=3,
            )  # fmt: skip
    points = sorted((record.macs, record.val_loss or 0.0) for record in findings.ranked)
    axes.step(*zip(*points, strict=True), where="post", color=FAINT, lw=1.2, zorder=1)
    axes.set_xlabel("multiply-accumulates an image (log)")
    axes.set_ylabel("validation MSE per pixel (log)")
    axes.grid(visible=True)
    log_scale(axes, direction="x")
    log_scale(axes)
    add_legend(figure, [
        Line2D([], [], color=FAINT, lw=1.2, marker="o", mfc=BLUE, mec=BLUE, ms=5, label="Pareto front"),
        Line2D([], [], ls="", marker="o", mfc="white", mec=BLUE, ms=5, label="beaten on both"),
    ])  # fmt: skip
    return figure


# ---- places of values


def _kinds(findings: SearchFindings) -> list[Line2D]:
    handles = [Line2D([], [], ls="", marker="o", color=BLUE, label="completed")]
    if any(entry.status is not Status.COMPLETED for entry in findings.tried):
        handles.append(Line2D([], [], ls="", marker="x", color=ORANGE, label="ended early, at its last loss"))
    return handles


def _height(findings: SearchFindings, name: str, entry: Tried) -> float:
    """Where the value of a trial lies: itself on a range, its place in a list."""
    values, value = findings.space.parameters[name], findings.point(entry)[name]
    return float(value) if isinstance(values, Range) else float(values.listed.index(value))


def _place(findings: SearchFindings, name: str, entry: Tried) -> float:
    """The same from 0 to 1."""
    return _unit(findings, name, _height(findings, name, entry))


def _unit(findings: SearchFindings, name: str, height: float) -> float:
    values = findings.space.parameters[name]
    if not isinstance(values, Range):
        return height / max(1, len(values.listed) - 1)
    low, high = float(values.low), float(values.high)
    if values.is_log:
        low, high, height = math.log(low), math.log(high), math.log(height)
    return (height - low) / (high - low) if high > low else 0.5


def _ticks(findings: SearchFindings, name: str) -> list[tuple[float, str]]:
    """Places from 0 to 1 with the values there."""
    values = findings.space.parameters[name]
    if not isinstance(values, Range):
        return [(_unit(findings, name, place), short_number(float(value))) for place, value in
                enumerate(values.listed)]  # fmt: skip
    low, high = float(values.low), float(values.high)
    if values.is_log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        inside = [factor * 10.0**power for power in powers for factor in (1, 3)]
        shown = [value for value in inside if low <= value <= high]
        shown = shown if len(shown) > 1 else [low, high]
    else:
        located = MaxNLocator(5, integer=values.is_whole).tick_values(low, high)
        shown = [float(value) for value in located if low <= value <= high]
    return [(_unit(findings, name, value), f"{value:.3g}") for value in shown]


# ---- colours of losses


def _norm(entries: Sequence[Tried]) -> LogNorm:
    """The colours of losses, the worst fifth all alike: a few hopeless trials would leave the others one colour."""
    losses = sorted(entry.losses[-1] for entry in entries) or [1.0]
    high = losses[min(len(losses) - 1, math.ceil(0.8 * len(losses)))]
    return LogNorm(losses[0], max(high, losses[0] * 1.001))


def _levels(norm: LogNorm) -> Array:
    assert norm.vmin is not None and norm.vmax is not None  # noqa: PT018  (`_norm` gives both)
    return np.geomspace(norm.vmin, norm.vmax, 9)


def _colour_bar(figure: Figure, axes: Axes, norm: LogNorm) -> None:
    bar = figure.colorbar(mpl.cm.ScalarMappable(norm, CMAP), ax=axes, pad=0.02, aspect=30)
    bar.set_label("validation MSE (log)")
    bar.ax.yaxis.set_major_locator(mpl.ticker.FixedLocator(list(_levels(norm)[::2])))
    bar.ax.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:.4f}"))
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)


def _field(places: Array, losses: Array, cells: int = 60) -> tuple[Array, Array, Array]:
    """The mean of the trials near each point of a grid, weighted by distance."""
    x, y = np.meshgrid(np.linspace(0, 1, cells), np.linspace(0, 1, cells))
    squared = (x[..., None] - places[:, 0]) ** 2 + (y[..., None] - places[:, 1]) ** 2
    weights = np.exp(-squared / (2 * 0.12**2)) + 1e-9
    return x, y, (weights * losses).sum(axis=-1) / weights.sum(axis=-1)
