"""How every figure of a report looks: style, colours with a meaning, and the pieces that figures share.

Matplotlib without pyplot: nothing global is drawn on and no window is opened.
"""

import atexit
import io
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import numpy as np

from dae.config import Latent
from sweep.analysis.results import Result
from sweep.analysis.statistics import Array


@contextmanager
def _font_list_elsewhere() -> Iterator[None]:
    """While matplotlib is imported: else it would keep its list of fonts in the home folder."""
    if "MPLCONFIGDIR" in os.environ:
        yield
        return
    os.environ["MPLCONFIGDIR"] = folder = tempfile.mkdtemp(prefix="dae-sweep-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        yield
    finally:
        del os.environ["MPLCONFIGDIR"]


with _font_list_elsewhere():
    import matplotlib as mpl
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MatplotlibFigure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

WIDTH = 10.0
"""Width of a figure in inches; a page shows it about 1,000 pixels wide."""

INK, SOFT, FAINT, HOLE = "#222222", "#555555", "#8a8a8a", "#f1f1f1"
BLUE, ORANGE, GREY = "#0b5f97", "#c8500a", "#8a8a8a"
"""Supported, contradicted, open: told apart also by those who do not see red or green."""

MARKERS = "os^DvP*Xph<>8d"
"""One a depth, where colour is the latent size."""

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
    "savefig.dpi": 160,
    "svg.hashsalt": "dae-sweep",
}


class Figure(MatplotlibFigure):
    """A matplotlib figure that a notebook shows as it stands on the page."""

    def _repr_png_(self) -> bytes:
        return render(self).png


@dataclass(frozen=True, slots=True)
class Drawing:
    """One figure in two formats; the same data give the same bytes."""

    png: bytes
    svg: bytes


P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a function draw in the style of the report."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def render(figure: Figure) -> Drawing:
    """The figure as PNG and SVG."""
    with mpl.rc_context(STYLE):
        FigureCanvasAgg(figure)
        png, svg = io.BytesIO(), io.BytesIO()
        # Layout costs as much as drawing, and with an engine in place each format would have it done again.
        if (layout := figure.get_layout_engine()) is not None:
            layout.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(png, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 4})
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return Drawing(png.getvalue(), svg.getvalue())


# ---- colours


def palette(latents: Iterable[Latent]) -> dict[Latent, str]:
    """One colour a latent size, dark for the first: viridis without its pale end, so also told apart in grey."""
    sizes = list(latents)
    positions = np.linspace(0.08, 0.86, len(sizes)) if len(sizes) > 1 else [0.35]
    return {
        size: mpl.colors.to_hex(mpl.colormaps["viridis"](place)) for size, place in zip(sizes, positions, strict=True)
    }


def markers(depths: Iterable[int]) -> dict[int, str]:
    """One marker a depth."""
    return {depth: MARKERS[index % len(MARKERS)] for index, depth in enumerate(sorted(depths))}


# ---- scales and places


def log_scale(axes: Axes, *, direction: str = "y") -> None:
    """A logarithmic axis with plain numbers, at most three a factor of ten where the range is wide."""
    getattr(axes, f"set_{direction}scale")("log")
    axis = getattr(axes, f"{direction}axis")
    low, high = sorted(getattr(axes, f"get_{direction}lim")())
    subs: tuple[float, ...] = (1, 2, 3, 5) if high < 60 * low else (1, 3) if high < 1000 * low else (1,)
    if high < 3 * low:
        subs = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9) if high < 2 * low else (1, 1.5, 2, 3, 4, 5, 7)
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)


def short_number(value: float) -> str:
    """A number on an axis: ``0.02``, ``8k``, ``3M``."""
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:g}{letter}"
    return f"{value:g}"


def grouped(result: Result, depths: Sequence[int], latents: Sequence[Latent]) -> tuple[float, float]:
    """Place and width of an architecture where depths are groups and latent sizes stand side by side in them."""
    step = 0.84 / len(latents)
    place = depths.index(result.config.depth) + step * (latents.index(result.config.latent) - (len(latents) - 1) / 2)
    return place, step


def depth_ticks(axes: Axes, depths: Sequence[int]) -> None:
    """The ticks of the groups that `grouped` places."""
    axes.set_xticks(range(len(depths)), [f"depth {depth}" if len(depths) < 10 else str(depth) for depth in depths])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.55, len(depths) - 0.45)


def levels_of_legend(levels: Sequence[Latent], most: int = 9) -> list[Latent]:
    """The levels that a legend names: all, or of many a few that are evenly spaced from end to end."""
    if len(levels) <= most:
        return list(levels)
    return [levels[round(i * (len(levels) - 1) / (most - 3))] for i in range(most - 2)]


def latent_keys(latents: Sequence[Latent]) -> list[Line2D]:
    """A legend's entries for latent sizes drawn as lines."""
    colours = palette(latents)
    return [
        Line2D([], [], marker="o", ms=4, color=colours[size], label=f"latent {size}")
        for size in levels_of_legend(latents)
    ]


def architecture_keys(depths: Sequence[int], latents: Sequence[Latent], colours: Mapping[Latent, str]) -> list[Line2D]:
    """A legend's entries for colours, which are latent sizes, and markers, which are depths."""
    sizes = [
        Line2D([], [], ls="", marker="s", color=colours[size], label=f"latent {size}")
        for size in levels_of_legend(latents)
    ]
    shapes = markers(depths).items()
    return [
        *sizes,
        *(Line2D([], [], ls="", marker=shape, color=SOFT, label=f"depth {depth}") for depth, shape in shapes),
    ]


def add_legend(figure: Figure, handles: Sequence[Artist], limit: int = 8) -> None:
    """A legend below the figure, in at most ``limit`` columns."""
    columns = even_columns(len(handles), limit)
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, handlelength=1.4)


def even_columns(count: int, limit: int) -> int:
    """Columns of a legend, at most ``limit``, so that its lines are about equally long."""
    return -(-count // -(-count // limit))


def apart(places: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """The places moved as little as needed to lie ``distance`` from each other within [low, high], order kept."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = [0.0] * len(places)
    floor = low
    for i in order:
        moved[i] = max(places[i], floor)
        floor = moved[i] + distance
    ceiling = high
    for i in reversed(order):
        moved[i] = min(moved[i], ceiling)
        ceiling = moved[i] - distance
    return moved


# ---- images and holes


def strip(images: Array, columns: int, gap: int = 2) -> Array:
    """Images (n, h, w) or (n, h, w, 3) side by side, ``columns`` to a line, ``gap`` white pixels between."""
    count, height, width, *colours = images.shape
    lines = math.ceil(count / columns)
    canvas = np.ones((lines * (height + gap) - gap, columns * (width + gap) - gap, *colours), np.float32)
    for index, image in enumerate(images):
        y, x = (index // columns) * (height + gap), (index % columns) * (width + gap)
        canvas[y : y + height, x : x + width] = image
    return canvas


def show(axes: Axes, image: Array) -> None:
    """An image of values from 0 to 1, grey or colour, pixel by pixel."""
    axes.imshow(
        image if image.ndim == 2 else image.clip(0, 1),
        cmap="gray",
        vmin=0,
        vmax=1,
        interpolation="nearest",
        aspect="equal",
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def reason_of_hole(result: Result) -> str:
    """Why an architecture has nothing to show."""
    if result.records:
        return "images damaged"
    return " / ".join(dict.fromkeys(map(str, result.statuses.values())))
