"""The figures of a report that go beyond the study: cost, depth, the reader, classes, robustness, further axes."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sweep.analysis.effects import Cost, front
from sweep.analysis.findings import Findings
from sweep.analysis.quality import (
    CLASSES,
    Share,
    accuracy,
    class_accuracy,
    class_losses,
    confusion,
    robust_curves,
    worst_read,
)
from sweep.analysis.results import Result
from sweep.analysis.statistics import Array
from sweep.analysis.verdicts import Effect
from sweep.report.drawing import (
    FAINT,
    INK,
    ORANGE,
    SOFT,
    WIDTH,
    Figure,
    depth_ticks,
    even_columns,
    grouped,
    log_scale,
    markers,
    named,
    palette,
    styled,
)
from sweep.report.prose import facet_name

# ---- cost


@styled
def cost(findings: Findings) -> Figure:
    """Test loss against compression, parameters and MACs; the line is the Pareto front."""
    colours, shapes = _colours(findings), markers(findings.sweep.manifest.grid.depths)
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (kind, title) in zip(panels, _COSTS.items(), strict=True):
        points = front(findings.results, kind)
        ahead = [point for point in points if point.on_front]
        axes.plot([each.cost for each in ahead], [each.result.mean for each in ahead], color=FAINT, lw=1.2, zorder=1)
        for point in points:
            colour, marker = colours[point.result.config.latent], shapes[point.result.config.depth]
            fill = colour if point.on_front else "white"
            if point.result.interval:
                axes.plot([point.cost] * 2, point.result.interval, color=colour, lw=1, zorder=2)
            axes.plot(point.cost, point.result.mean, marker, color=colour, mfc=fill, ms=6.5, mew=1.3, zorder=3)
        axes.set_xlabel(title)
        axes.grid(visible=True)
        if len({point.cost for point in points}) > 1:
            log_scale(axes, of="x")
        log_scale(axes)
    panels[0].set_ylabel("test MSE per pixel (log)")
    front_line = Line2D([], [], color=FAINT, lw=1.2, marker="o", mfc=SOFT, mec=SOFT, ms=5, label="Pareto front")
    beaten = Line2D([], [], ls="", marker="o", mfc="white", mec=SOFT, ms=5, label="beaten on both")
    _legend(figure, [*_keys(findings), front_line, beaten])
    return figure


_COSTS = {
    Cost.COMPRESSION: "latent elements per pixel",
    Cost.PARAMETERS: "parameters",
    Cost.MACS: "multiply-accumulates an image",
}


# ---- depth


@styled
def depth(findings: Findings) -> Figure:
    """Test loss, train-validation gap and training time against depth, one line a latent size, with intervals."""
    found, colours = findings.profiles, _colours(findings)
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    panels = figure.subplots(1, 3)
    titles = ("test MSE per pixel (log)", "validation above training loss, 1000 MSE", "training time of a cell, s")
    offsets = np.linspace(-0.12, 0.12, len(found)) if len(found) > 1 else [0.0]
    for profile, offset in zip(found, offsets, strict=True):
        colour, points = colours[profile.latent], profile.points
        places = [point.depth + float(offset) for point in points]
        _line(panels[0], places, [(each.result.mean or 0.0, each.result.interval) for each in points], colour)
        _line(panels[1], places, [_thousandfold(each.gap) for each in points], colour)
        _line(panels[2], places, [(e.seconds.mean, _bounds(e.seconds.low, e.seconds.high)) for e in points], colour)
        lowest = next(point for point in points if point.depth == profile.best)
        panels[0].plot(lowest.depth + offset, lowest.result.mean, "o", ms=10, mfc="none", mec=colour, mew=1.1)
        over = [
            (place, 1000 * each.gap.difference) for place, each in zip(places, points, strict=True) if each.overfits
        ]
        panels[1].plot([x for x, _ in over], [y for _, y in over], "o", ms=10, mfc="none", mec=ORANGE, mew=1.4)
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=9.5, weight="normal")
        axes.set_xlabel("depth")
        axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
        axes.grid(axis="y")
    panels[1].axhline(0, color=INK, lw=0.8)
    panels[2].set_ylim(bottom=0)
    log_scale(panels[0])
    handles = [Line2D([], [], marker="o", color=colours[each.latent], label=f"latent {each.latent}") for each in found]
    handles.append(Line2D([], [], ls="", marker="o", ms=9, mfc="none", mec=INK, label="lowest loss"))
    if any(point.overfits for profile in found for point in profile.points):
        handles.append(Line2D([], [], ls="", marker="o", ms=9, mfc="none", mec=ORANGE, label="overfits"))
    _legend(figure, handles)
    return figure


def _line(
    axes: Axes, places: Sequence[float], values: Sequence[tuple[float, tuple[float, float] | None]], colour: str
) -> None:
    axes.plot(places, [mean for mean, _ in values], "o-", c=colour, ms=4, lw=1.4)
    for place, (_, interval) in zip(places, values, strict=True):
        if interval is not None:
            axes.plot([place, place], interval, color=colour, lw=1.1)


def _thousandfold(effect: Effect) -> tuple[float, tuple[float, float] | None]:
    bounds = _bounds(effect.low, effect.high)
    return 1000 * effect.difference, None if bounds is None else (1000 * bounds[0], 1000 * bounds[1])


def _bounds(low: float | None, high: float | None) -> tuple[float, float] | None:
    return None if low is None or high is None else (low, high)


# ---- the reader


@styled
def reader(findings: Findings) -> Figure:
    """How many digits the reader misreads by architecture, with intervals; beside it against the test loss."""
    references, condition = findings.references, findings.condition
    assert references is not None
    grid, colours = findings.sweep.manifest.grid, _colours(findings)
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
    if condition is not None:
        levels["noisy, as they are"] = 1 - condition.accuracy_noisy
        for each in condition.baselines:
            if each.family != "none" or each.name != "doing nothing":
                shape = "x" if each.family == "linear" else "+"
                right.plot(each.test_loss, 100 * (1 - each.accuracy), shape, color=SOFT, ms=5.5, mew=1.1, zorder=1)
    for axes in (left, right):
        for level in levels.values():
            axes.axhline(max(100 * level, 0.01), color=FAINT, lw=1, ls=(0, (4, 2)), zorder=0)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
    depth_ticks(left, grid.depths)
    for name, level in levels.items():
        left.annotate(
            f"{name} {100 * level:.1f} %", (1, max(100 * level, 0.01)), xycoords=("axes fraction", "data"),
            xytext=(-2, 2), textcoords="offset points", ha="right", va="bottom", fontsize=7.5, color=SOFT,
        )  # fmt: skip
    left.set_ylabel("misread digits, % (log)")
    right.set_xlabel("test MSE per pixel (log)")
    log_scale(right, of="x")
    # An interval may reach down to no misread digit at all, which has no place on this scale.
    lowest = min(_misread(1 - level) for level in [*levels.values(), *(1 - each.mean for each in shares)])
    left.set_ylim(bottom=0.6 * lowest)
    log_scale(left)
    kinds = [("+", "filter"), ("x", "linear denoiser")] if condition is not None else []
    others = [Line2D([], [], ls="", marker=marker, color=SOFT, label=label) for marker, label in kinds]
    _legend(figure, [*_keys(findings), *others])
    return figure


def _misread(share: float) -> float:
    return max(100 * (1 - share), 0.01)


@styled
def classes(findings: Findings) -> Figure:
    """Test loss and misread digits by class, a row an architecture."""
    found = class_rows(findings)
    losses = np.array([class_losses(findings, result) for result in found])
    read = [class_accuracy(findings, result) for result in found]
    tables: dict[str, Array] = {"test MSE per pixel, by digit": losses}
    if all(row is not None for row in read):
        tables["misread, %, by digit"] = 100 * (1 - np.array(read))
    figure = Figure(figsize=(WIDTH, 0.9 + 0.235 * len(found)), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        _heat(axes, table, (lambda value: f"{value:.4f}"[1:]) if axes is panels[0] else (lambda value: f"{value:.1f}"))
        axes.set_title(title, fontsize=9.5, weight="normal")
        axes.set_xticks(list(CLASSES))
        axes.set_yticks([])
    panels[0].set_yticks(range(len(found)), [result.name for result in found], fontsize=8)
    return figure


MOST_ROWS = 30
"""Of an image with a row an architecture; beyond that the best and the worst are shown."""


def class_rows(findings: Findings) -> list[Result]:
    """The architectures that `classes` shows, in the grid's order."""
    found = [result for result in findings.results if class_losses(findings, result) is not None]
    ranked = sorted(found, key=lambda result: result.mean or 0.0)
    kept = {result.name for result in (ranked if len(found) <= MOST_ROWS else ranked[:15] + ranked[-15:])}
    return [result for result in found if result.name in kept]


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
    """What the reader takes each digit for after the cell of which it reads the fewest, in % of the digit."""
    record = worst_read(findings)
    assert record is not None
    counts = confusion(findings, record)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    wrong = shares * (1 - np.eye(10))
    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(float(wrong.max()), 1e-9) * 1.3)
    for (row, column), value in np.ndenumerate(shares):
        if counts[row, column]:
            is_right = row == column
            text = f"{value:.0f}" if is_right or value >= 9.95 else f"{value:.1f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=FAINT if is_right else INK)
    axes.set_xticks(list(CLASSES))
    axes.set_yticks(list(CLASSES))
    axes.set_xlabel("read as")
    axes.set_ylabel("is")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


# ---- robustness


@styled
def robustness(findings: Findings) -> Figure:
    """Test loss of every architecture under other strengths of its noise, one panel a depth."""
    grid, colours = findings.sweep.manifest.grid, _colours(findings)
    curves = robust_curves(findings)
    depths = [depth for depth in grid.depths if any(result.config.depth == depth for result, _ in curves)]
    figure, panels = _panels(len(depths))
    for axes, depth_ in zip(panels, depths, strict=False):
        for result, curve in curves:
            if result.config.depth == depth_:
                axes.plot(list(curve), list(curve.values()), "o-", color=colours[result.config.latent], ms=3.5, lw=1.5)
        axes.axvline(findings.sweep.manifest.settings.alpha, color=FAINT, lw=1, ls=(0, (4, 2)), zorder=0)
        axes.set_title(f"depth {depth_}")
        axes.grid(axis="y")
        log_scale(axes)
    handles = _latent_handles(colours)
    handles.append(Line2D([], [], color=FAINT, ls=(0, (4, 2)), label="strength of training"))
    _frame(figure, panels, len(depths), "strength of the noise at test", "test MSE per pixel (log)", handles)
    return figure


# ---- further axes


@styled
def facets(findings: Findings) -> Figure:
    """Test loss by depth, one colour a latent size, one panel a point on the sweep's further axes."""
    shown = [each for each in findings.facets if any(result.losses for result in each.results)]
    depths, colours = findings.whole.manifest.grid.depths, palette(findings.whole.manifest.grid.latents)
    figure, panels = _panels(len(shown))
    for axes, facet in zip(panels, shown, strict=False):
        for latent in facet.sweep.manifest.grid.latents:
            column = [each for each in facet.results if each.config.latent == latent and each.mean is not None]
            places = [depths.index(each.config.depth) for each in column]
            axes.plot(places, [each.mean or 0.0 for each in column], "o-", color=colours[latent], ms=4, lw=1.4)
            for place, each in zip(places, column, strict=True):
                if each.interval:
                    axes.plot([place, place], each.interval, color=colours[latent], lw=1)
        axes.set_title(facet_name(facet), fontsize=9)
        axes.set_xticks(range(len(depths)), [str(each) for each in depths])
        axes.set_xlim(-0.4, len(depths) - 0.6)
        axes.grid(axis="y")
        log_scale(axes)
    _frame(figure, panels, len(shown), "depth", "test MSE per pixel (log)", _latent_handles(colours))
    return figure


# ---- shared


def _colours(findings: Findings) -> dict[int, str]:
    return palette(findings.whole.manifest.grid.latents)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels that share their axes, four at most side by side."""
    columns = even_columns(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, 2.5 * rows + 0.7), layout="constrained")
    return figure, list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)


def _frame(figure: Figure, panels: Sequence[Axes], count: int, x: str, y: str, handles: Sequence[Line2D]) -> None:
    """Axis labels at the edge of the grid of panels, and the legend below it."""
    columns = even_columns(count, 4)
    for axes in panels[count:]:
        axes.set_visible(False)
    for axes in panels[:count:columns]:
        axes.set_ylabel(y)
    for axes in panels[max(0, count - columns) : count]:
        axes.set_xlabel(x)
        axes.tick_params(labelbottom=True)
    _legend(figure, handles)


def _keys(findings: Findings) -> list[Line2D]:
    """What colours and markers mean; a grid of one depth or latent size needs no key to it."""
    colours, shapes = _colours(findings), markers(findings.sweep.manifest.grid.depths)
    latents = [
        Line2D([], [], ls="", marker="s", color=colours[size], label=f"latent {size}")
        for size in named(findings.sweep.manifest.grid.latents)
    ]
    depths = [Line2D([], [], ls="", marker=each, color=SOFT, label=f"depth {depth}") for depth, each in shapes.items()]
    return [*latents, *depths]


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    columns = even_columns(len(handles), 8)
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, handlelength=1.4)


def _latent_handles(colours: Mapping[int, str]) -> list[Line2D]:
    """A legend's entries for latent sizes."""
    return [
        Line2D([], [], marker="o", ms=4, color=each, label=f"latent {size}")
        for size, each in colours.items()
        if size in named(list(colours))
    ]
