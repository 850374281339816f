"""The figures that go beyond the study: loss against cost, depth, other strengths of noise, further axes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sweep.analysis.costs import Cost, front
from sweep.analysis.findings import Findings
from sweep.analysis.quality import robust_curves
from sweep.analysis.verdicts import Effect
from sweep.report.drawing import (
    FAINT,
    INK,
    ORANGE,
    SOFT,
    WIDTH,
    Figure,
    add_legend,
    architecture_keys,
    even_columns,
    latent_keys,
    log_scale,
    markers,
    palette,
    styled,
)
from sweep.report.prose import facet_name


@styled
def cost(findings: Findings) -> Figure:
    """Test loss against compression, parameters and MACs; the line is the Pareto front."""
    grid = findings.sweep.manifest.grid
    colours, shapes = palette(findings.whole.manifest.grid.latents), markers(grid.depths)
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (kind, title) in zip(panels, _COSTS.items(), strict=True):
        points = front(findings.results, kind)
        costs, losses = zip(*((point.cost, point.result.mean) for point in points if point.on_front), strict=True)
        axes.plot(costs, losses, color=FAINT, lw=1.2, zorder=1)
        for point in points:
            colour, marker = colours[point.result.config.latent], shapes[point.result.config.depth]
            fill = colour if point.on_front else "white"
            if point.result.interval:
                axes.plot([point.cost] * 2, point.result.interval, color=colour, lw=1, zorder=2)
            axes.plot(point.cost, point.result.mean, marker, color=colour, mfc=fill, ms=6.5, mew=1.3, zorder=3)
        axes.set_xlabel(title)
        axes.grid(visible=True)
        if len({point.cost for point in points}) > 1:
            log_scale(axes, direction="x")
        log_scale(axes)
    panels[0].set_ylabel("test MSE per pixel (log)")
    front_line = Line2D([], [], color=FAINT, lw=1.2, marker="o", mfc=SOFT, mec=SOFT, ms=5, label="Pareto front")
    beaten = Line2D([], [], ls="", marker="o", mfc="white", mec=SOFT, ms=5, label="beaten on both")
    add_legend(figure, [*architecture_keys(grid.depths, grid.latents, colours), front_line, beaten])
    return figure


_COSTS = {
    Cost.COMPRESSION: "latent elements per pixel",
    Cost.PARAMETERS: "parameters",
    Cost.MACS: "multiply-accumulates an image",
}


@styled
def depth(findings: Findings) -> Figure:
    """Test loss, train-validation gap and training time against depth, one line a latent size, with intervals."""
    profiles, colours = findings.profiles, palette(findings.whole.manifest.grid.latents)
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    panels = figure.subplots(1, 3)
    titles = ("test MSE per pixel (log)", "validation above training loss, 1000 MSE", "training time of a cell, s")
    offsets = np.linspace(-0.12, 0.12, len(profiles)) if len(profiles) > 1 else [0.0]
    for profile, offset in zip(profiles, offsets, strict=True):
        colour, points = colours[profile.latent], profile.points
        places = [point.depth + float(offset) for point in points]
        _line(panels[0], places, [(point.result.mean or 0.0, point.result.interval) for point in points], colour)
        _line(panels[1], places, [_thousandfold(point.gap) for point in points], colour)
        seconds = [point.seconds for point in points]
        _line(panels[2], places, [(time.mean, _bounds(time.low, time.high)) for time in seconds], colour)
        lowest = next(point for point in points if point.depth == profile.best)
        panels[0].plot(lowest.depth + offset, lowest.result.mean, "o", ms=10, mfc="none", mec=colour, mew=1.1)
        overfitted = [
            (x, 1000 * point.gap.difference) for x, point in zip(places, points, strict=True) if point.overfits
        ]
        panels[1].plot(
            [x for x, _ in overfitted], [y for _, y in overfitted], "o", ms=10, mfc="none", mec=ORANGE, mew=1.4
        )
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=9.5, weight="normal")
        axes.set_xlabel("depth")
        axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
        axes.grid(axis="y")
    panels[1].axhline(0, color=INK, lw=0.8)
    panels[2].set_ylim(bottom=0)
    log_scale(panels[0])
    latents = [profile.latent for profile in profiles]
    handles = [Line2D([], [], marker="o", color=colours[size], label=f"latent {size}") for size in latents]
    handles.append(Line2D([], [], ls="", marker="o", ms=9, mfc="none", mec=INK, label="lowest loss"))
    if any(point.overfits for profile in profiles for point in profile.points):
        handles.append(Line2D([], [], ls="", marker="o", ms=9, mfc="none", mec=ORANGE, label="overfits"))
    add_legend(figure, handles)
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


@styled
def robustness(findings: Findings) -> Figure:
    """Test loss of every architecture under other strengths of its noise, one panel a depth."""
    grid, colours = findings.sweep.manifest.grid, palette(findings.whole.manifest.grid.latents)
    curves = robust_curves(findings)
    depths = [depth for depth in grid.depths if any(result.config.depth == depth for result, _ in curves)]
    figure, panels = _panels(len(depths))
    for axes, level in zip(panels, depths, strict=False):
        for result, curve in curves:
            if result.config.depth == level:
                axes.plot(list(curve), list(curve.values()), "o-", color=colours[result.config.latent], ms=3.5, lw=1.5)
        axes.axvline(findings.sweep.manifest.settings.alpha, color=FAINT, lw=1, ls=(0, (4, 2)), zorder=0)
        axes.set_title(f"depth {level}")
        axes.grid(axis="y")
        log_scale(axes)
    handles = latent_keys(findings.whole.manifest.grid.latents)
    handles.append(Line2D([], [], color=FAINT, ls=(0, (4, 2)), label="strength of training"))
    _frame(figure, panels, len(depths), "strength of the noise at test", "test MSE per pixel (log)", handles)
    return figure


@styled
def facets(findings: Findings) -> Figure:
    """Test loss by depth, one colour a latent size, one panel a point on the sweep's further axes."""
    shown = [facet for facet in findings.facets if any(result.losses for result in facet.results)]
    grid = findings.whole.manifest.grid
    depths, colours = grid.depths, palette(grid.latents)
    figure, panels = _panels(len(shown))
    for axes, facet in zip(panels, shown, strict=False):
        for latent in facet.sweep.manifest.grid.latents:
            column = [result for result in facet.results if result.config.latent == latent and result.mean is not None]
            places = [depths.index(result.config.depth) for result in column]
            axes.plot(places, [result.mean or 0.0 for result in column], "o-", color=colours[latent], ms=4, lw=1.4)
            for place, result in zip(places, column, strict=True):
                if result.interval:
                    axes.plot([place, place], result.interval, color=colours[latent], lw=1)
        axes.set_title(facet_name(facet), fontsize=9)
        axes.set_xticks(range(len(depths)), list(map(str, depths)))
        axes.set_xlim(-0.4, len(depths) - 0.6)
        axes.grid(axis="y")
        log_scale(axes)
    _frame(figure, panels, len(shown), "depth", "test MSE per pixel (log)", latent_keys(grid.latents))
    return figure


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
    add_legend(figure, handles)
