"""The figures of losses: by epoch, and by architecture."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from dae.config import Latent
from sweep.analysis.findings import Findings
from sweep.analysis.quality import losses_without_network
from sweep.analysis.results import Result, flags_of
from sweep.records.grid import Cell
from sweep.records.record import Status
from sweep.records.sweep import Sweep
from sweep.report.drawing import (
    FAINT,
    GREY,
    HOLE,
    INK,
    SOFT,
    WIDTH,
    Figure,
    add_legend,
    apart,
    depth_ticks,
    even_columns,
    grouped,
    levels_of_legend,
    log_scale,
    palette,
    reason_of_hole,
    styled,
)

UPRIGHT = 8.0
"""Font size of a bar's value where it is printed upright."""


# ---- figure 5: curves


@styled
def curves(findings: Findings) -> Figure:
    """Training and validation loss by epoch, one panel a depth, one colour a latent size (study, figure 5)."""
    sweep = findings.sweep
    grid, colours = sweep.manifest.grid, palette(findings.whole.manifest.grid.latents)
    columns = min(3, len(grid.depths))
    rows = -(-len(grid.depths) // columns)
    legend_columns = even_columns(len(levels_of_legend(grid.latents)) + 3, limit=7)
    legend_height = 0.2 * -(-(len(levels_of_legend(grid.latents)) + 3) // legend_columns)
    figure = Figure(figsize=(WIDTH, 2.75 * rows + 0.5 + legend_height), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(grid.depths) :]:
        axes.set_visible(False)
    for axes, depth in zip(panels.flat, grid.depths, strict=False):
        for cell in grid.cells:
            if cell.depth == depth:
                _curve(axes, sweep, cell, colours[cell.latent])
        if baseline := sweep.manifest.baselines.get("mean_image"):
            axes.axhline(baseline, color=FAINT, lw=1, ls=(0, (1, 2)), zorder=1)
        axes.set_title(f"depth {depth}")
        axes.grid(axis="y")
        log_scale(axes)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    for axes in panels[:, 0]:
        axes.set_ylabel("MSE per pixel (log)")
    # With a ragged last row the panel above the gap carries the axis label of its column.
    for index in range(max(0, len(grid.depths) - columns), len(grid.depths)):
        panels.flat[index].set_xlabel("epoch")
        panels.flat[index].tick_params(labelbottom=True)
    figure.legend(
        handles=[
            *(
                Line2D([], [], color=colours[latent], lw=2, label=f"latent {latent}")
                for latent in levels_of_legend(grid.latents)
            ),
            Line2D([], [], color=INK, lw=1.5, label="validation"),
            Line2D([], [], color=INK, lw=1.2, ls=(0, (3, 1.5)), label="training"),
            Line2D([], [], color=FAINT, lw=1, ls=(0, (1, 2)), label="mean image"),
        ],
        loc="outside lower center",
        ncols=legend_columns,
        handlelength=2.2,
    )
    return figure


def _curve(axes: Axes, sweep: Sweep, cell: Cell, colour: str) -> None:
    record = sweep.records.get(cell.key)
    if record is None or not record.history:
        return
    epochs = [epoch.epoch for epoch in record.history]
    thin = 0.65 if len(sweep.manifest.grid.seeds) > 1 else 1.0
    validation = [epoch.val_loss for epoch in record.history]
    axes.plot(epochs, [epoch.train_loss for epoch in record.history], c=colour, lw=1.2 * thin, ls=(0, (3, 1.5)))
    axes.plot(epochs, validation, c=colour, lw=1.8 * thin)
    if record.status is not Status.COMPLETED:
        axes.plot(epochs[-1], validation[-1], "x", c=colour, ms=7, mew=2)


# ---- figure 6: bars


@styled
def loss_bars(findings: Findings) -> Figure:
    """Test loss of every architecture with its interval, bars grouped by depth; beside them what a network beats.

    The losses of filters are several times those of a trained cell: a panel of its own has them to scale without
    squashing the bars (study, figure 6).
    """
    results, grid = findings.results, findings.sweep.manifest.grid
    colours = {
        size: colour for size, colour in palette(findings.whole.manifest.grid.latents).items() if size in grid.latents
    }
    figure = Figure(figsize=(WIDTH, 3.9 + 0.2 * -(-len(levels_of_legend(grid.latents)) // 8)), layout="constrained")
    axes, whole = figure.subplots(1, 2, width_ratios=(3, 1))
    highest = max(max((*result.losses, (result.interval or (0, 0))[1])) for result in results if result.losses)
    linear = {size: loss for size, loss in _linear(findings).items() if loss < 2.2 * highest}
    top, bars = max([highest, *linear.values()]), len(grid.depths) * len(grid.latents)
    # Values are printed upright where there is room, then upended; beyond that the table has them.
    font = UPRIGHT if bars <= 9 else 6.5 if bars <= 60 else 0.0
    label = top * (0.09 if font == UPRIGHT else 0.2)  # its height, and the gap below it
    for result in results:
        place, step = grouped(result, grid.depths, grid.latents)
        line = linear.get(result.config.latent)
        if result.mean is None:
            _hole_bar(axes, place, step, highest, reason_of_hole(result))
        else:
            high = max(*result.losses, (result.interval or (0, 0))[1])
            base = line if line is not None and high <= line < high + label else high
            _bar(axes, place, step, result, colours[result.config.latent], font, base)
        if line is not None:
            axes.plot([place - step * 0.46, place + step * 0.46], [line, line], color=INK, lw=1.4, zorder=4)
    depth_ticks(axes, grid.depths)
    axes.set_ylim(0, top * (1.13 if font in (UPRIGHT, 0.0) else 1.24))
    axes.set_ylabel("test MSE per pixel")
    if len(grid.depths) > 9:
        axes.set_xlabel("depth")
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    _legend(figure, results, colours, has_linear=bool(linear))
    _to_scale(whole, findings)
    return figure


def _bar(axes: Axes, place: float, step: float, result: Result, colour: str, font: float, base: float) -> None:
    """A bar with its value above ``base``."""
    assert result.mean is not None
    flags = {flag for record in result.records for flag in flags_of(record)}
    hatch = "xxx" if "collapsed" in flags else "///" if flags else None
    axes.bar(place, result.mean, step * 0.92, color=colour, hatch=hatch, edgecolor="white", lw=0)
    if result.interval is not None:
        spread = np.linspace(-0.26, 0.26, len(result.losses)) * step
        size = 3.2 if step > 0.1 else 1.8
        axes.plot(place + spread, result.losses, "o", ms=size, mfc="white", mec=INK, mew=0.6, zorder=3)
        axes.plot([place, place], [max(0.0, result.interval[0]), result.interval[1]], color=INK, lw=1.1, zorder=2.5)
    if font:
        axes.annotate(
            f"{result.mean:.5f}",
            (place, base),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            rotation=0 if font == UPRIGHT else 90,
            fontsize=font,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.75},
            zorder=5,
        )


def _hole_bar(axes: Axes, place: float, step: float, highest: float, word: str) -> None:
    axes.add_patch(
        Rectangle((place - step * 0.46, 0), step * 0.92, highest * 0.34, fc=HOLE, ec=FAINT, ls=(0, (2, 2)), lw=0.8)
    )
    axes.text(place, highest * 0.17, word, rotation=90, ha="center", va="center", fontsize=7.5, color=SOFT)


def _legend(figure: Figure, results: Sequence[Result], colours: Mapping[Latent, str], *, has_linear: bool) -> None:
    shown = levels_of_legend(list(colours))
    handles: list[Patch | Line2D] = [
        Patch(fc=colour, label=f"latent {latent}") for latent, colour in colours.items() if latent in shown
    ]
    flags = {flag for result in results for record in result.records for flag in flags_of(record)}
    for flag, hatch in (("unconverged", "///"), ("collapsed", "xxx")):
        if flag in flags:
            handles.append(Patch(fc="#aaaaaa", ec="white", hatch=hatch, label=flag))
    if any(result.interval for result in results):
        handles.append(Line2D([], [], ls="", marker="o", ms=4, mfc="white", mec=INK, label="one seed"))
        handles.append(Line2D([], [], ls="", color=INK, marker="|", ms=9, mew=1.1, label="95 % interval"))
    if has_linear:
        handles.append(Line2D([], [], color=INK, lw=1.4, label="linear denoiser, same latent size"))
    add_legend(figure, handles, limit=7)


def _linear(findings: Findings) -> dict[Latent, float]:
    """Loss of the best linear denoiser with as many latent elements, by latent size."""
    elements = {result.config.latent: result.config.latent_numbers for result in findings.results}
    lowest: dict[Latent, float] = {}
    for baseline in findings.condition.baselines if findings.condition else ():
        for latent, numbers in elements.items():
            if baseline.family == "linear" and baseline.latent == numbers:
                lowest[latent] = min(baseline.test_loss, lowest.get(latent, baseline.test_loss))
    return lowest


def _to_scale(axes: Axes, findings: Findings) -> None:
    """The networks as a band, and above it a line for each way to do without one."""
    means = [result.mean for result in findings.results if result.mean is not None]
    lines = losses_without_network(findings)
    top = max([*lines.values(), *means]) * 1.06
    axes.fill_between([0, 1], min(means), max(means), color="#44688c", lw=2)
    names = {"the networks": (min(means) + max(means)) / 2} | lines
    places = apart(list(names.values()), top * 0.055, top * 0.01, top * 0.98)
    for place, (name, loss) in zip(places, names.items(), strict=True):
        is_network = name == "the networks"
        if not is_network:
            axes.plot([0, 1], [loss, loss], color=GREY, lw=1)
        axes.plot([1, 1.12], [loss, place], color="#b5b5b5", lw=0.6)
        weight = "bold" if is_network else "normal"
        text = name if is_network else f"{name} {loss:.3f}"
        axes.text(1.16, place, text, va="center", fontsize=6.8, weight=weight)
    axes.set_xlim(0, 3.1)
    axes.set_ylim(0, top)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_title("to scale", fontsize=9, loc="left")
    axes.yaxis.set_major_locator(MaxNLocator(4))
