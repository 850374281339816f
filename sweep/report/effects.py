"""The figure of the effects of depth and latent size on the test loss."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from sweep.analysis.claims import Contrast, Split
from sweep.analysis.findings import Findings
from sweep.analysis.verdicts import Verdict
from sweep.report.drawing import BLUE, GREY, INK, ORANGE, WIDTH, Figure, styled


@styled
def effects(findings: Findings) -> Figure:
    """Effects of latent size, of depth and of the two together on the test loss, with 95 % intervals."""
    groups = effect_groups(findings)
    rows = sum(len(group) for group in groups.values())
    figure = Figure(figsize=(WIDTH, 0.75 + 0.23 * rows + 0.32 * len(groups)), layout="constrained")
    axes = figure.subplots()
    y, ticks = 0.0, []
    for title, group in groups.items():
        axes.annotate(
            title, (0, y), xycoords=("axes fraction", "data"), xytext=(-3.5, 0), textcoords="offset points",
            ha="right", va="center", weight="bold",
        )  # fmt: skip
        y += 1
        for name, contrast in group:
            effect = contrast.effects[Split.TEST]
            line, point = _styles(effect.verdict)
            if effect.low is not None and effect.high is not None:
                axes.plot([effect.low, effect.high], [y, y], **line)
            axes.plot(effect.difference, y, **point, zorder=3)
            ticks.append((y, name))
            y += 1
        y += 0.4
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_ylim(y - 0.6, -0.7)
    axes.set_yticks([place for place, _ in ticks], [name for _, name in ticks], fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel("difference in test MSE per pixel: to the right of 0 the claim's sign holds")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}")))
    figure.legend(handles=_verdict_handles(groups), loc="outside lower center", ncols=4, handlelength=1.6)
    return figure


def effect_groups(findings: Findings) -> dict[str, list[tuple[str, Contrast]]]:
    """What `effects` shows, with names: effects between adjacent levels, then interactions, on the test loss."""
    latent, depth = findings.claims
    groups = {
        "smaller latent, mean over depths": _adjacent(latent.averages),
        "shallower, mean over latents": _adjacent(depth.averages),
        "smaller latent, more if shallower": [
            (f"{_level_name(contrast)}, depth {contrast.other_levels[0]} over {contrast.other_levels[1]}", contrast)
            for contrast in findings.effects.interaction
        ],
    }
    shown = {
        title: [(name, contrast) for name, contrast in group if contrast.effects] for title, group in groups.items()
    }
    return {title: group[:MOST_EFFECTS] for title, group in shown.items() if group}


MOST_EFFECTS = 18
"""Effects of one kind that the figure shows; the tables have all."""


def _adjacent(averages: Sequence[Contrast]) -> list[tuple[str, Contrast]]:
    return [(_level_name(contrast), contrast) for contrast in averages if contrast.adjacent]


def _level_name(contrast: Contrast) -> str:
    """The two levels: ``latent 5 over 8``."""
    return f"{contrast.higher} over {contrast.lower.rsplit(' ', 1)[-1]}"


def _styles(verdict: Verdict) -> tuple[dict[str, Any], dict[str, Any]]:
    """How an interval and its middle are drawn.

    Blue where the claim is supported, orange where it is contradicted, grey where that is open; dashed and crossed out
    where no number of seeds would give a verdict, hollow where there is one seed.
    """
    colour = {Verdict.SUPPORTED: BLUE, Verdict.CONTRADICTED: ORANGE}.get(verdict, GREY)
    withheld = verdict is Verdict.WITHHELD
    line = {"color": colour, "lw": 1.8, "ls": (0, (2, 1)) if withheld else "-"}
    fill = "white" if verdict is Verdict.ONE_SEED else colour
    return line, {"color": colour, "marker": "X" if withheld else "o", "ms": 5.5, "mfc": fill, "ls": ""}


def _verdict_handles(groups: Mapping[str, Sequence[tuple[str, Contrast]]]) -> list[Line2D]:
    verdicts = {contrast.effects[Split.TEST].verdict for group in groups.values() for _, contrast in group}
    shown = [(str(verdict), *_styles(verdict)) for verdict in Verdict if verdict in verdicts]
    return [Line2D([], [], label=label, **(point | line)) for label, line, point in shown]
