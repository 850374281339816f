"""Numbers and lists as a report writes them. No torch."""

import shlex
from collections.abc import Iterable

from dae.config import usual_latents
from dae.images.location import name_of
from sweep.analysis.claims import Contrast
from sweep.analysis.statistics import Limit, Needed
from sweep.analysis.verdicts import Effect
from sweep.records.axes import value_text
from sweep.records.grid import STUDY_DEPTHS, Grid, Settings
from sweep.records.matching import WIDTH, find_arms
from sweep.records.sweep import Manifest
from sweep.records.words import counted

SPACE, MINUS = "\N{NO-BREAK SPACE}", "\N{MINUS SIGN}"


def mse(value: float) -> str:
    """A loss, MSE per pixel."""
    return f"{value:.5f}" if abs(value) >= 1e-3 else f"{value:.2e}"


def difference(value: float) -> str:
    """A difference of losses, with its sign."""
    return f"{value:+.5f}".replace("-", MINUS)


def percent(value: float) -> str:
    """A relative difference, with its sign."""
    return f"{100 * value:+.1f}\N{NO-BREAK SPACE}%".replace("-", MINUS)


def effect_size(effect: Effect) -> str:
    """The difference and, where it has a meaning, what part of the lower loss it is."""
    relative = "" if effect.relative is None else f" ({percent(effect.relative)})"
    return difference(effect.difference) + relative


def interval(effect: Effect) -> str:
    """The 95 % interval and the number of seeds; nothing with one seed."""
    if effect.low is None or effect.high is None:
        return ""
    return f"[{difference(effect.low)}, {difference(effect.high)}], n = {len(effect.seeds)}"


def capitalised(text: str) -> str:
    """The text with its first letter in upper case, the others as they are."""
    return text[:1].upper() + text[1:]


def utc(time: str | None) -> str:
    """A time of a record to the second, such as ``2026-11-29 14:28:37``; empty where there is none."""
    return (time or "")[:19].replace("T", " ")


def number_word(number: int) -> str:
    """``ten`` for 10, the figures of other numbers."""
    return "ten" if number == 10 else str(number)


def roughly(seconds: float) -> str:
    """An estimated time: whole minutes, from 1.5 hours on hours."""
    return f"{seconds / 3600:.1f}{SPACE}h" if seconds > 5400 else f"{max(1, round(seconds / 60))}{SPACE}min"


def listed(items: Iterable[str], limit: int = 4, separator: str = ", ") -> str:
    """The items with commas; beyond ``limit`` only how many more there are."""
    items = list(dict.fromkeys(items))
    shown = separator.join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def caveats_text(caveats: Iterable[str]) -> str:
    """What is wrong with cells, such as ``dead channels in DAE_3_5-s0``, grouped by kind."""
    cells: dict[str, list[str]] = {}
    for caveat in dict.fromkeys(caveats):
        kind, _, key = caveat.rpartition(" ")
        cells.setdefault(kind, []).append(key)
    return "; ".join(f"{kind} {listed(keys)}" for kind, keys in cells.items())


def bounds(low: float | None, high: float | None, digits: int = 5) -> str:
    """An interval such as ``[0.01000, 0.01100]``; empty where an end is None."""
    return "" if low is None or high is None else f"[{low:.{digits}f}, {high:.{digits}f}]".replace("-", MINUS)


def share(value: float) -> str:
    """A part of 1 in per cent."""
    return f"{100 * value:.1f}{SPACE}%"


def needed(plan: Needed | None) -> str:
    """What would resolve a difference of this size: seeds and time."""
    if plan is None:
        return ""
    if plan.more is None:
        return "no number of seeds: too close for this test set" if plan.limit is Limit.IMAGES else "over 100 seeds"
    time = "" if plan.seconds is None else f", {roughly(plan.seconds)}"
    return f"about {counted(plan.more, 'more seed')}{time}"


def hardest(plans: Iterable[Needed | None]) -> Needed | None:
    """The largest of the plans with a number of seeds, then the longest; None where there is none."""
    within_reach = [plan for plan in plans if plan is not None and plan.more is not None]
    return max(within_reach, key=lambda plan: (plan.more or 0, plan.seconds or 0), default=None)


def pair_name(pair: Contrast) -> str:
    """The two architectures of a pair, the one that the claim gives the higher loss first."""
    return " over ".join(cell.architecture for cell in pair.cells[:2])


def command(manifest: Manifest, options: str = "") -> str:
    """The command that goes on with this sweep, with these options and what they leave of its grid.

    It takes its settings, and without options its grid, from the sweep.
    """
    grid, settings = manifest.grid, manifest.settings
    place = str(manifest.dataset.get("source", settings.dataset))
    dataset = shlex.quote(place)
    name = [] if manifest.name == name_of(place) else [f"--name {shlex.quote(manifest.name)}"]
    if not options:
        return " ".join([f"dae-sweep run --dataset {dataset}", *name])
    levels = {"depths": grid.depths, "latents": grid.latents, "seeds": grid.seeds}
    usual = usual_latents(settings.shape)
    is_default = {"depths": grid.depths == STUDY_DEPTHS, "latents": grid.latents == usual, "seeds": False}
    # Beside options the rest of the grid is named where the command would not take it anyway.
    kept_levels = [
        f"--{factor} {','.join(map(str, values))}"
        for factor, values in levels.items()
        if f"--{factor}" not in options and not is_default[factor] and values != (0,)
    ]
    words = [*name, *kept_levels, *_axes_options(grid, settings, options), options]
    return " ".join([f"dae-sweep run --dataset {dataset}", *filter(None, words)])


def _axes_options(grid: Grid, settings: Settings, options: str) -> list[str]:
    """The sweep's further axes; without them the command would extend it at its own settings alone."""
    has_arm = bool(find_arms(grid, settings))
    axes = {
        name: (*[getattr(settings, name)] * grid.keeps_own(name), *values)
        for name, values in grid.axes.items()
        if f"--axis {name}=" not in options and not (has_arm and name == WIDTH)
    }
    axis_options = [f"--axis {name}={','.join(map(value_text, values))}" for name, values in axes.items()]
    return [*axis_options, *["--match-parameters"] * (has_arm and "--match-parameters" not in options)]
