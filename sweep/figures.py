"""The figures of a report. Matplotlib without pyplot: nothing global is drawn on and no window is opened."""

import atexit
import io
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

if "MPLCONFIGDIR" not in os.environ:
    # Else matplotlib would keep its font list in the home folder.
    os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="dae-sweep-")
    atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from sweep.analysis import Outputs, Result, Samples, flags_of
from sweep.grid import Cell
from sweep.records import Status, Sweep
from sweep.statistics import Array

WIDTH = 10.0
"""Width of a figure in inches; a page shows it about 1,000 pixels wide."""

UPRIGHT = 8.0
"""Font size of a bar's value where it is printed upright."""

INK, FAINT, HOLE = "#222222", "#8a8a8a", "#f1f1f1"

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.edgecolor": "#666666",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "hatch.linewidth": 0.7,
    "savefig.dpi": 200,
    "svg.hashsalt": "dae-sweep",
}


Draw = Callable[[], Figure]
"""Draws a figure when the style of the report is in force."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """One figure in two formats; the same data give the same bytes."""

    png: bytes
    svg: bytes


def render(draw: Draw) -> Drawing:
    """What ``draw`` draws, in the style of the report."""
    with mpl.rc_context(STYLE):
        figure = draw()
        FigureCanvasAgg(figure)
        png, svg = io.BytesIO(), io.BytesIO()
        figure.savefig(png, format="png", metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return Drawing(png.getvalue(), svg.getvalue())


def palette(latents: Iterable[int]) -> dict[int, str]:
    """One colour a latent size, dark for the largest: viridis without its pale end, so also told apart in grey."""
    ordered = sorted(latents, reverse=True)
    positions = np.linspace(0.08, 0.86, len(ordered)) if len(ordered) > 1 else [0.35]
    return {
        latent: mpl.colors.to_hex(mpl.colormaps["viridis"](place))
        for latent, place in zip(ordered, positions, strict=True)
    }


# ---- the study's figures 3 and 4: images


def corruption(samples: Samples) -> Figure:
    """Ten test images, clean above corrupted, shape (10, 28, 28) each (study, figure 3)."""
    figure = Figure(figsize=(WIDTH, 1.9))
    for row, (name, images) in enumerate((("clean", samples.clean), ("corrupted", samples.noisy))):
        axes = figure.add_axes((0.085, 0.5 - 0.49 * row, 0.91, 0.48))
        _show(axes, _strip(images, columns=len(images), gap=2))
        axes.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8, fontsize=10)
    return figure


def example(samples: Samples, outputs: Outputs, index: int, name: str) -> Figure:
    """One test image: clean, corrupted and as architecture ``name`` rebuilt it (study, figure 4)."""
    figure = Figure(figsize=(6.6, 2.5))
    clean = samples.clean[index]
    panels = (("clean", clean), ("corrupted", samples.noisy[index]), (f"denoised by {name}", outputs.samples[index]))
    for column, (title, image) in enumerate(panels):
        axes = figure.add_axes((0.01 + 0.333 * column, 0.1, 0.313, 0.79))
        _show(axes, image)
        axes.set_title(title, fontsize=9.5)
        if column:
            axes.set_xlabel(f"MSE {float(((image - clean) ** 2).mean()):.5f}", color="#444444")
    return figure


# ---- figure 5: curves


def curves(sweep: Sweep) -> Figure:
    """Training and validation loss by epoch, one panel a depth, one colour a latent size (study, figure 5)."""
    grid, colours = sweep.manifest.grid, palette(sweep.manifest.grid.latents)
    columns = min(3, len(grid.depths))
    rows = -(-len(grid.depths) // columns)
    legend_columns = _even_columns(len(grid.latents) + 3, limit=7)
    legend_height = 0.2 * -(-(len(grid.latents) + 3) // legend_columns)
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
        _log_scale(axes)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    for axes in panels[:, 0]:
        axes.set_ylabel("MSE per pixel (log)")
    # With a ragged last row the panel above the gap carries the axis label of its column.
    for index in range(max(0, len(grid.depths) - columns), len(grid.depths)):
        panels.flat[index].set_xlabel("epoch")
        panels.flat[index].tick_params(labelbottom=True)
    figure.legend(
        handles=[
            *(Line2D([], [], color=colours[latent], lw=2, label=f"latent {latent}") for latent in grid.latents),
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


def _even_columns(count: int, limit: int) -> int:
    return -(-count // -(-count // limit))


def _log_scale(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)


# ---- figure 6: bars


def loss_bars(sweep: Sweep, found: Sequence[Result]) -> Figure:
    """Test loss of every architecture, bars grouped by depth; beside them the same on the scale of doing nothing.

    The loss of doing nothing is about ten times that of a trained cell: a panel of its own keeps it to scale
    without squashing the bars (study, figure 6).
    """
    grid, colours = sweep.manifest.grid, palette(sweep.manifest.grid.latents)
    figure = Figure(figsize=(WIDTH, 3.7 + 0.2 * -(-len(grid.latents) // 8)), layout="constrained")
    axes, whole = figure.subplots(1, 2, width_ratios=(5.4, 1))
    highest = max(max(result.losses, default=0) for result in found)
    step, bars = 0.84 / len(grid.latents), len(grid.depths) * len(grid.latents)
    # Values are printed upright where there is room, then upended; beyond that the table has them.
    font = UPRIGHT if bars <= 12 else 6.5 if bars <= 60 else 0.0
    for result in found:
        place = grid.depths.index(result.config.depth) + step * (
            grid.latents.index(result.config.latent) - (len(grid.latents) - 1) / 2
        )
        if result.mean is None:
            _hole_bar(axes, place, step, highest, _hole_word(result))
        else:
            _bar(axes, place, step, result, colours[result.config.latent], font)
    axes.set_xticks(range(len(grid.depths)), [f"depth {depth}" for depth in grid.depths])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.55, len(grid.depths) - 0.45)
    axes.set_ylim(0, highest * (1.13 if font in (UPRIGHT, 0.0) else 1.24))
    axes.set_ylabel("test MSE per pixel")
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    _legend(figure, found, colours)
    _whole_scale(whole, sweep, found)
    return figure


def _bar(axes: Axes, place: float, step: float, result: Result, colour: str, font: float) -> None:
    assert result.mean is not None
    flags = {flag for record in result.records for flag in flags_of(record)}
    hatch = "xxx" if "collapsed" in flags else "///" if flags else None
    axes.bar(place, result.mean, step * 0.92, color=colour, hatch=hatch, edgecolor="white", lw=0)
    if len(result.losses) > 1:
        spread = np.linspace(-0.22, 0.22, len(result.losses)) * step
        axes.plot(place + spread, result.losses, "o", ms=3.2, mfc="white", mec=INK, mew=0.7, zorder=3)
    if font:
        axes.annotate(
            f"{result.mean:.5f}",
            (place, max(result.losses)),
            xytext=(0, 3.5 if len(result.losses) == 1 else 5),
            textcoords="offset points",
            ha="center",
            va="bottom",
            rotation=0 if font == UPRIGHT else 90,
            fontsize=font,
        )


def _hole_bar(axes: Axes, place: float, step: float, highest: float, word: str) -> None:
    axes.add_patch(
        Rectangle((place - step * 0.46, 0), step * 0.92, highest * 0.34, fc=HOLE, ec=FAINT, ls=(0, (2, 2)), lw=0.8)
    )
    axes.text(place, highest * 0.17, word, rotation=90, ha="center", va="center", fontsize=7.5, color="#555555")


def _legend(figure: Figure, found: Sequence[Result], colours: Mapping[int, str]) -> None:
    handles: list[Patch | Line2D] = [Patch(fc=colour, label=f"latent {latent}") for latent, colour in colours.items()]
    flags = {flag for result in found for record in result.records for flag in flags_of(record)}
    for flag, hatch in (("unconverged", "///"), ("collapsed", "xxx")):
        if flag in flags:
            handles.append(Patch(fc="#aaaaaa", ec="white", hatch=hatch, label=flag))
    if any(len(result.losses) > 1 for result in found):
        handles.append(Line2D([], [], ls="", marker="o", ms=4, mfc="white", mec=INK, label="one seed"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=_even_columns(len(handles), limit=8), handlelength=1.4
    )


def _whole_scale(axes: Axes, sweep: Sweep, found: Sequence[Result]) -> None:
    means = [result.mean for result in found if result.mean is not None]
    baselines = sweep.manifest.baselines
    bars = [("best", min(means), "#444444"), ("worst", max(means), "#444444")]
    bars += [
        (name, baselines[key], "#b8b8b8")
        for key, name in (("mean_image", "mean\nimage"), ("identity", "doing\nnothing"))
        if key in baselines
    ]
    for place, (_, height, colour) in enumerate(bars):
        axes.bar(place, height, 0.8, color=colour)
        axes.annotate(
            f"{height:.3f}", (place, height), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7
        )
    axes.set_xticks(range(len(bars)), [name for name, _, _ in bars], rotation=90, fontsize=8)
    axes.tick_params(axis="x", length=0)
    axes.set_title("to scale", fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y")
    axes.set_axisbelow(True)


# ---- figure 7: the denoising grid


def denoised(found: Sequence[Result], outputs: Mapping[str, Outputs], samples: Samples | None) -> Figure:
    """The ten sample images as every architecture rebuilds them: depth along one axis, latent along the other.

    Rows are depths and columns latents, or the other way round where there are many latents. Of an architecture
    with several seeds the first that can be read is shown (study, figure 7).
    """
    table = {(result.config.depth, result.config.latent): result for result in found}
    depths, latents = sorted({depth for depth, _ in table}), sorted({size for _, size in table}, reverse=True)
    turned = len(latents) > max(3, len(depths))
    down, across = (latents, depths) if turned else (depths, latents)
    row_word, column_word = ("latent", "depth") if turned else ("depth", "latent")
    per_line = 10 if len(across) <= 3 else 5 if len(across) <= 6 else 2
    references = [] if samples is None else [("clean", samples.clean), ("corrupted", samples.noisy)]

    left, right, top, gap = 0.84, 0.02, 0.3, 0.1
    width = (WIDTH - left - right - gap * (len(across) - 1)) / len(across)
    lines = 10 // per_line
    strip = width * (lines * 30 - 2) / (per_line * 30 - 2)
    caption = 0.17
    height = top + len(references) * (strip + 0.06) + 0.06 + len(down) * (strip + caption + 0.05)
    figure = Figure(figsize=(WIDTH, height))

    def place(column: int, y: float) -> Axes:
        x = left + column * (width + gap)
        return figure.add_axes((x / WIDTH, 1 - (y + strip) / height, width / WIDTH, strip / height))

    for column, level in enumerate(across):
        x = left + column * (width + gap) + width / 2
        figure.text(x / WIDTH, 1 - 0.2 / height, f"{column_word} {level}", ha="center", weight="bold", fontsize=10)
        for row, (_, images) in enumerate(references):
            _show(place(column, top + row * (strip + 0.06)), _strip(images, per_line, gap=2))
    for row, (name, _) in enumerate(references):
        y = top + row * (strip + 0.06) + strip / 2
        figure.text((left - 0.08) / WIDTH, 1 - y / height, name, ha="right", va="center", fontsize=8.5, color="#555555")
    first = top + len(references) * (strip + 0.06) + 0.06
    for row, level in enumerate(down):
        y = first + row * (strip + caption + 0.05)
        figure.text(
            (left - 0.08) / WIDTH,
            1 - (y + strip / 2) / height,
            f"{row_word} {level}",
            ha="right",
            va="center",
            weight="bold",
            fontsize=9.5,
        )
        for column, other in enumerate(across):
            result = table.get((other, level) if turned else (level, other))
            axes = place(column, y)
            text = _panel(axes, result, outputs, per_line)
            axes.set_xlabel(text, fontsize=7, labelpad=2, color="#444444")
    return figure


def _panel(axes: Axes, result: Result | None, outputs: Mapping[str, Outputs], per_line: int) -> str:
    shown = None if result is None else next((each for each in result.records if each.key in outputs), None)
    if result is None or shown is None:
        word = "not in the grid" if result is None else _hole_word(result)
        axes.set(xticks=[], yticks=[], facecolor=HOLE)
        axes.spines[:].set(visible=True, color=FAINT, linestyle=(0, (2, 2)), linewidth=0.8)
        axes.text(0.5, 0.5, word, ha="center", va="center", transform=axes.transAxes, fontsize=9, color="#555555")
        return ""
    _show(axes, _strip(outputs[shown.key].samples, per_line, gap=2))
    flags = flags_of(shown)
    return f"MSE {shown.test_loss:.5f}" + (f" ({', '.join(flags)})" if flags else "")


def shown_seeds(found: Sequence[Result], outputs: Mapping[str, Outputs]) -> set[int]:
    """The seeds of which `denoised` shows images."""
    firsts = (next((record for record in result.records if record.key in outputs), None) for result in found)
    return {record.seed for record in firsts if record is not None}


def _hole_word(result: Result) -> str:
    if result.records:
        return "images damaged"
    return " / ".join(dict.fromkeys(map(str, result.statuses.values())))


def _strip(images: Array, columns: int, gap: int) -> Array:
    """Images (n, h, w) side by side, ``columns`` to a line, ``gap`` white pixels between."""
    count, height, width = images.shape
    lines = math.ceil(count / columns)
    canvas = np.ones((lines * (height + gap) - gap, columns * (width + gap) - gap), np.float32)
    for index, image in enumerate(images):
        y, x = (index // columns) * (height + gap), (index % columns) * (width + gap)
        canvas[y : y + height, x : x + width] = image
    return canvas


def _show(axes: Axes, image: Array) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def typical(samples: Samples, outputs: Outputs) -> int:
    """Index of the sample whose reconstruction error is the median of the ten: neither chosen well nor badly."""
    errors = ((outputs.samples - samples.clean) ** 2).mean(axis=(1, 2))
    return int(np.argsort(errors, kind="stable")[len(errors) // 2])


def best_result(found: Sequence[Result], outputs: Mapping[str, Outputs]) -> Result | None:
    """The architecture of the lowest mean test loss among those whose images can be read."""
    shown = [result for result in found if result.losses and any(each.key in outputs for each in result.records)]
    return min(shown, key=lambda result: fmean(result.losses), default=None)
