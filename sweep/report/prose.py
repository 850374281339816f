"""The sentences of a report on claims, depth and the points on further axes. No torch."""

from collections.abc import Iterable, Sequence

from dae.architecture import has_small_maps, stem_sizes
from dae.config import Latent, ModelConfig, parse_latent, side
from sweep.analysis.claims import Claim, Contrast, Factor, Split
from sweep.analysis.findings import Findings
from sweep.analysis.profiles import Profile
from sweep.analysis.results import Result
from sweep.analysis.verdicts import Verdict
from sweep.records.axes import axes_text
from sweep.records.matching import MATCHED
from sweep.records.sweep import Sweep
from sweep.records.words import counted
from sweep.report.words import (
    SPACE,
    bounds,
    capitalised,
    effect_size,
    interval,
    listed,
    mse,
    pair_name,
)

CLAIMS = {
    Factor.LATENT: ("(*)", "at a fixed depth, a smaller latent space gives a higher loss"),
    Factor.DEPTH: ("(**)", "on average, a shallower model gives a higher loss"),
}
"""The study's name and statement of each claim (section 4.2)."""

CONFOUND = (
    "Depth and latent size are not all that differs between two architectures. Depth also moves the number of "
    "parameters, the multiply-accumulates and how much of the image a latent element sees; so does latent size, "
    "through the kernels that reach it. An effect above is that of the whole change. By depth:"
)
"""What else changes with depth and latent size."""

MOST_STEPS = 3
"""Steps between levels that a sentence names; of more it gives the two levels farthest apart."""


# ---- the claims


def steps_of(claim: Claim, most: int, findings: Findings) -> list[Contrast]:
    """The average steps between adjacent levels; of more than ``most``, the one between the levels farthest apart."""

    def size(text: str) -> float:
        is_latent = claim.factor is Factor.LATENT
        return side(findings.sweep.manifest.settings.shape.sides_of(level(text)) if is_latent else level(text))

    averages = [average for average in claim.averages if average.effects]
    steps = [average for average in averages if average.adjacent]
    if len(steps) > most:
        steps = [max(averages, key=lambda average: abs(size(average.higher) - size(average.lower)))]
    # From shallow to deep and from large to small, as a reader thinks of the change.
    return sorted(steps, key=lambda step: size(step.higher), reverse=claim.factor is Factor.LATENT)


def effect_sentence(claim: Claim, word: str, findings: Findings) -> str:
    """The effects of a claim's factor, averaged over the other factor, on the test loss."""
    steps = steps_of(claim, MOST_STEPS, findings)
    if not steps:
        return f"No two cells that can be compared differ in {word} alone: nothing can be said."
    others = steps[0].other_levels
    mean = (
        f"On average over {claim.factor.other}s {', '.join(map(str, others))}"
        if len(others) > 1
        else f"At {claim.factor.other} {others[0]}"
    )
    return f"{mean}, the test loss of {', and that of '.join(_step(claim, step, findings) for step in steps)}."


def _step(claim: Claim, contrast: Contrast, findings: Findings) -> str:
    effect = contrast.effects[Split.TEST]
    higher, lower = contrast.higher, contrast.lower
    if claim.factor is Factor.LATENT:
        higher, lower = f"{higher} ({_kept_share(higher, findings)})", f"{lower} ({_kept_share(lower, findings)})"
    size = f"{abs(effect.difference):.5f}"
    size += "" if effect.relative is None else f" ({100 * abs(effect.relative):.1f}{SPACE}%)"
    low, high = (effect.low, effect.high) if effect.holds else (_minus(effect.high), _minus(effect.low))
    certain = f" (95{SPACE}% interval {bounds(low, high)}, {effect.verdict})" if effect.p is not None else ""
    return f"{higher} is {size} {'above' if effect.holds else 'below'} that of {lower}{certain}"


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _kept_share(text: str, findings: Findings) -> str:
    settings = findings.sweep.manifest.settings
    config = ModelConfig(depth=1, latent=level(text), latent_channels=settings.latent_channels, image=settings.shape)
    what = "pixels" if settings.shape.channels == 1 else "image's numbers"
    return f"{100 * config.compression:.1f}{SPACE}% of the {what}"


def level(text: str) -> Latent:
    """The number, or size, of a level such as ``depth 3`` or ``latent 13x8``."""
    return parse_latent(text.rsplit(" ", 1)[-1])


def on_split(claim: Claim, split: Split) -> str:
    """The claim on one split: how many pairs have its sign, the mean step, the pairs that have not."""
    pairs = claim.comparable_pairs()
    if not pairs:
        return "No pair has its cells."
    adjacent = claim.comparable_pairs(adjacent=True)
    holding, near = (sum(pair.effects[split].holds for pair in group) for group in (pairs, adjacent))
    text = f"The sign holds in {holding} of {counted(len(pairs), 'pair')} ({near} of {len(adjacent)} adjacent)"
    if claim.overall is not None and split in claim.overall.effects:
        effect = claim.overall.effects[split]
        text += f"; an adjacent step costs {effect_size(effect)} on average"
        text += f", 95\N{NO-BREAK SPACE}% interval {interval(effect)}: {effect.verdict}" if effect.p is not None else ""
    text += ". "
    failing = [pair for pair in pairs if not pair.effects[split].holds]
    if failing:
        sizes = (f"{pair_name(pair)}, {effect_size(pair.effects[split])}" for pair in failing)
        text += f"It fails for {listed(sizes, separator='; ')}. "
    text += f"Pair by pair: {verdict_counts(pairs, split)}."
    return text


def verdict_counts(pairs: Sequence[Contrast], split: Split) -> str:
    """How many of each verdict: ``7 supported, 2 not resolved``."""
    verdicts = [pair.effects[split].verdict for pair in pairs]
    if set(verdicts) == {Verdict.ONE_SEED}:
        return str(Verdict.ONE_SEED)
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in Verdict if verdict in verdicts)


def removed(sweep: Sweep) -> str:
    """Which cells were taken out of the sweep; empty where none was."""
    keys = sweep.manifest.removed
    were = "was" if len(keys) == 1 else "were"
    return f"{counted(len(keys), 'cell')} of this sweep {were} removed: {', '.join(keys)}." if keys else ""


def confounds(results: Sequence[Result]) -> list[str]:
    """What else changes with the latent size, by depth; the claim (*) reads all of it as latent size."""
    lines = []
    for depth in dict.fromkeys(result.config.depth for result in results):
        row = [result for result in results if result.config.depth == depth]
        latents, fields, parameters, macs = (
            " / ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in values)
            for values in zip(
                *((result.config.latent, result.field, result.parameters, result.macs) for result in row), strict=True
            )
        )
        lines.append(
            f"Depth {depth}, latent {latents}: receptive field {fields} px, parameters {parameters}, MACs {macs}."
        )
    dead = [
        f"{record.key} ({record.dead_latent_channels} of {result.config.latent_channels})"
        for result in results
        for record in result.records
        if record.dead_latent_channels
    ]
    if dead:
        lines.append(
            f"Latent channels that are 0 for every image, their ReLU having died in training: {listed(dead, limit=9)}. "
            "These models work with a smaller latent than their shape says; whether a channel dies is up to the seed."
        )
    return lines


def stem_note(sweep: Sweep) -> str:
    """Why latents on the two sides of the stem's size are not compared; empty where the grid has one side only."""
    settings = sweep.manifest.settings
    cells = [cell for cell in sweep.manifest.grid.architectures if cell.depth > 1]
    if len({has_small_maps(settings.model(cell)) for cell in cells}) < 2:
        return ""
    image, (height, width) = settings.shape, stem_sizes(settings.shape)
    where = (
        f"Between latent {height} and {height + 1}" if height == width else f"Where a latent exceeds {height}x{width}"
    )
    return (
        f"{where} the stem changes from {height}x{width} to {image.height}x{image.width} maps and the MACs jump, "
        "from depth 2 on: pairs across that line are shown, but not judged, counted or averaged, and no trend is "
        "drawn across it."
    )


# ---- how deep


def depth_sentences(findings: Findings) -> list[str]:
    """Which depths may be the best and where they overfit, latent size by latent size; from four depths on."""
    return [_depth_sentence(profile) for profile in findings.profiles if len(profile.points) >= MIN_DEPTHS]


def _depth_sentence(profile: Profile) -> str:
    best = next(point.result for point in profile.points if point.depth == profile.best)
    text = f"At latent {profile.latent} depth {profile.best} has the lowest test loss ({mse(best.mean or 0.0)})"
    if not profile.may_be_best:
        return f"{text}; nothing shows that it is not chance: that takes two seeds of two depths or more."
    sure = f"95{SPACE}%"
    if not profile.shown_worse:
        text += f"; no depth is shown to be worse than another ({sure})"
    elif len(profile.may_be_best) == 1:
        text += f"; it is shown to be the best of {_numbers((*profile.shown_worse, *profile.may_be_best))} ({sure})"
    else:
        text += (
            f". The best depth is {_numbers(profile.may_be_best, 'or')} ({sure}): "
            f"{_numbers(profile.shown_worse)} {'is' if len(profile.shown_worse) == 1 else 'are'} shown to be worse"
        )
    if profile.untested:
        text += f". Depth {_numbers(profile.untested)} could not be compared"
    if profile.overfits_from is not None:
        text += f". From depth {profile.overfits_from} on it overfits: validation lies above training and rises"
    return text + "."


def _numbers(numbers: Iterable[int], word: str = "and") -> str:
    """Such as ``1, 2 and 5``."""
    *others, last = map(str, sorted(numbers))
    return f"{', '.join(others)} {word} {last}" if others else last


MIN_DEPTHS = 4
"""Fewest depths of a latent size that depth is described and drawn over."""


# ---- facets


def facet_sentence(findings: Findings) -> str:
    """One point on the sweep's further axes in a sentence."""
    ranked = sorted((result for result in findings.results if result.losses), key=lambda result: result.mean or 0.0)
    if not ranked:
        return "No cell is completed here."
    best, worst = ranked[0], ranked[-1]
    text = f"Test loss from {mse(best.mean or 0.0)} ({best.name}) to {mse(worst.mean or 0.0)} ({worst.name})"
    verdicts = [f"claim {CLAIMS[claim.factor][0]} {claim.verdict}" for claim in findings.claims if claim.verdict]
    return ". ".join([text, *([capitalised("; ".join(verdicts))] if verdicts else [])]) + "."


def facet_name(findings: Findings) -> str:
    """The point on the further axes, such as ``alpha 0.25``."""
    others = tuple(axis for axis in findings.axes if axis not in MATCHED)
    words = [*([axes_text(others)] if others else []), *(["equal parameters"] if is_matched(findings) else [])]
    return ", ".join(words) or "the sweep's own settings"


def is_matched(findings: Findings) -> bool:
    """Whether the point is an arm of equal parameters."""
    return not set(findings.axes).isdisjoint(MATCHED)


def matched(arm: Findings) -> str:
    """What depth does where all depths have about as many parameters."""
    results = [result for result in arm.results if result.losses]
    counts = sorted(result.parameters for result in results) or [0]
    effect = effect_sentence(arm.claims[1], "depth", arm)
    return (
        f"With the width solved for each depth, so that all have {counts[0]:,} to {counts[-1]:,} parameters: "
        f"{effect[:1].lower()}{effect[1:]}"
    )
