"""The sentences of a report, written from the numbers: nothing is said that the records do not say. No torch."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from dae.architecture import STEM_SIZE
from sweep.analysis import Arrays, Effect, Result, Verdict, flags_of, usable_records
from sweep.claims import Claim, Contrast, Factor, Split
from sweep.records import Record, Status, Sweep
from sweep.statistics import Array

CLAIMS = {
    Factor.LATENT: ("(*)", "at a fixed depth, a smaller latent space gives a higher loss"),
    Factor.DEPTH: ("(**)", "on average, a shallower model gives a higher loss"),
}
"""The study's name and statement of each claim (section 4.2)."""


# ---- numbers


def mse(value: float) -> str:
    """A loss."""
    return f"{value:.5f}" if abs(value) >= 1e-3 else f"{value:.2e}"


def difference(value: float) -> str:
    """A difference of losses, with its sign."""
    return f"{value:+.5f}".replace("-", "\N{MINUS SIGN}")


def percent(value: float) -> str:
    """A relative difference, with its sign."""
    return f"{100 * value:+.1f}\N{NO-BREAK SPACE}%".replace("-", "\N{MINUS SIGN}")


def effect_size(effect: Effect) -> str:
    """The difference and, where it has a meaning, what part of the lower loss it is."""
    relative = "" if effect.relative is None else f" ({percent(effect.relative)})"
    return difference(effect.difference) + relative


def interval(effect: Effect) -> str:
    """The 95 % interval and the number of seeds; nothing with one seed."""
    if effect.low is None or effect.high is None:
        return ""
    return f"[{difference(effect.low)}, {difference(effect.high)}], n = {len(effect.seeds)}"


def counted(number: int, noun: str) -> str:
    """``1 cell``, ``2 cells``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, the leading zeros left out."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def listed(items: Iterable[str], limit: int = 4, separator: str = ", ") -> str:
    """The items with commas; beyond ``limit`` only how many more there are."""
    items = list(dict.fromkeys(items))
    shown = separator.join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def rests_on(caveats: Iterable[str]) -> str:
    """What a sentence must add where it rests on cells that did not train well."""
    listing = listed(caveats)
    return f" This rests on {listing}." if listing else ""


# ---- the summary


def summary(sweep: Sweep, found: Sequence[Result], claims: Sequence[Claim]) -> list[str]:
    """Three sentences: what is completed, what is best and worst, what the claims come to on the test loss."""
    return [_progress(sweep), _extremes(sweep, found), " ".join(_in_short(sweep, claim) for claim in claims)]


def _progress(sweep: Sweep) -> str:
    grid = sweep.manifest.grid
    statuses = [sweep.status(cell) for cell in grid.cells]
    holes = [status for status in Status if status is not Status.COMPLETED and status in statuses]
    rest = ", ".join(f"{statuses.count(status)} {status}" for status in holes)
    return (
        f"{statuses.count(Status.COMPLETED)} of {counted(len(grid.cells), 'cell')} completed: "
        f"{counted(len(grid.architectures), 'architecture')}, {counted(len(grid.seeds), 'seed')}"
        + (f" ({rest})." if rest else ".")
    )


def _extremes(sweep: Sweep, found: Sequence[Result]) -> str:
    ranked = sorted((result for result in found if result.losses), key=lambda result: result.mean or 0.0)
    best, worst = ranked[0], ranked[-1]
    text = f"Lowest test loss: {_named(best)}"
    if worst is not best:
        text += f"; highest: {_named(worst)}"
    if identity := sweep.manifest.baselines.get("identity"):
        text += f"; doing nothing gives {mse(identity)}"
    return text + "." + rests_on(_caveats([best, worst]))


def _named(result: Result) -> str:
    return f"{result.name} with MSE {mse(result.mean or 0.0)} (PSNR {result.psnr:.2f} dB)"


def _in_short(sweep: Sweep, claim: Claim) -> str:
    name, statement = CLAIMS[claim.factor]
    if claim.overall is None:
        return f"Claim {name} is not tested: no two cells differ in {claim.factor} alone."
    pairs, effect = claim.judged(), claim.overall.effects.get(Split.TEST)
    holding = sum(pair.effects[Split.TEST].holds for pair in pairs)
    text = f"Claim {name}, {statement}: the sign holds in {holding} of {counted(len(pairs), 'pair')}"
    if effect is not None:
        text += f", {effect_size(effect)} a step on average ({effect.verdict})"
    if pairs and len(sweep.manifest.grid.seeds) > 1:
        text += f"; pair by pair: {_verdicts(pairs, Split.TEST)}"
    return text + "." + rests_on(_pair_caveats(pairs))


def _caveats(found: Iterable[Result]) -> list[str]:
    return [f"{flag} {record.key}" for result in found for record in result.records for flag in flags_of(record)]


def _pair_caveats(pairs: Iterable[Contrast]) -> list[str]:
    return [caveat for pair in pairs for caveat in pair.caveats]


# ---- the claims


def on_split(claim: Claim, split: Split) -> str:
    """How the claim fares on one split: pairs that hold, the average, the pairs in which it fails."""
    pairs = claim.judged()
    if not pairs:
        return "No pair has its cells."
    holding, adjacent = [pair for pair in pairs if pair.effects[split].holds], claim.judged(adjacent=True)
    near = sum(pair.effects[split].holds for pair in adjacent)
    text = f"The sign holds in {len(holding)} of {counted(len(pairs), 'pair')} ({near} of {len(adjacent)} adjacent)"
    if claim.overall is not None and split in claim.overall.effects:
        effect = claim.overall.effects[split]
        text += f"; an adjacent step costs {effect_size(effect)} on average"
        text += f", 95\N{NO-BREAK SPACE}% interval {interval(effect)}: {effect.verdict}" if effect.p is not None else ""
    text += ". "
    failing = [pair for pair in pairs if not pair.effects[split].holds]
    if failing:
        named = (f"{pair_name(pair)}, {effect_size(pair.effects[split])}" for pair in failing)
        text += f"It fails for {listed(named, separator='; ')}. "
    text += f"Pair by pair: {_verdicts(pairs, split)}."
    return text + rests_on(_pair_caveats(pairs))


def _verdicts(pairs: Sequence[Contrast], split: Split) -> str:
    verdicts = [pair.effects[split].verdict for pair in pairs]
    if set(verdicts) == {Verdict.ONE_SEED}:
        return str(Verdict.ONE_SEED)
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in Verdict if verdict in verdicts)


def pair_name(pair: Contrast) -> str:
    """The two architectures of a pair, the one that the claim gives the higher loss first."""
    return " over ".join(cell.architecture for cell in pair.cells[:2])


def collapsed(sweep: Sweep) -> str:
    """How many models have collapsed, to stand above all that rests on them; empty where none has."""
    records = usable_records(sweep)
    count = sum(record.collapsed for record in records)
    return f"{count} of {len(records)} models collapsed." if count else ""


def confounds(found: Sequence[Result]) -> list[str]:
    """What else changes with the latent size, by depth; the claim (*) reads all of it as latent size."""
    lines = []
    for depth in dict.fromkeys(result.config.depth for result in found):
        row = [result for result in found if result.config.depth == depth]
        latents, fields, parameters, macs = (
            " / ".join(f"{value:,}" for value in values)
            for values in zip(
                *((each.config.latent, each.field, each.parameters, each.macs) for each in row), strict=True
            )
        )
        lines.append(
            f"Depth {depth}, latent {latents}: receptive field {fields} px, parameters {parameters}, MACs {macs}."
        )
    dead = [
        f"{record.key} ({record.dead_latent_channels} of {result.config.latent_channels})"
        for result in found
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
    cells = [cell for cell in sweep.manifest.grid.architectures if cell.depth > 1]
    sides = {cell.latent <= STEM_SIZE for cell in cells}
    if len(sides) < 2:
        return ""
    return (
        f"Between latent {STEM_SIZE} and {STEM_SIZE + 1} the stem changes from 13x13 to 28x28 maps and the MACs jump, "
        "from depth 2 on: pairs across that line are shown, but not judged, counted or averaged, and no trend is "
        "drawn across it."
    )


# ---- the study's side remarks


def convergence(sweep: Sweep) -> str:
    """Whether the epochs given were enough (study, section 4.2)."""
    records = usable_records(sweep)
    epochs = sweep.manifest.settings.epochs
    unconverged = [record.key for record in records if record.unconverged]
    collapsed = [record.key for record in records if record.collapsed]
    if unconverged:
        text = (
            f"{len(unconverged)} of {counted(len(records), 'completed cell')} had not converged after {epochs} epochs, "
            "the validation loss still falling by over 1\N{NO-BREAK SPACE}% an epoch in the last three: "
            f"{listed(unconverged)}."
        )
    else:
        text = (
            f"All {counted(len(records), 'completed cell')} had converged after {epochs} epochs: "
            "no validation loss still fell by over 1\N{NO-BREAK SPACE}% an epoch in the last three."
        )
    if collapsed:
        text += f" Collapsed, no better than predicting the mean image: {listed(collapsed)}."
    return text


def gap(sweep: Sweep) -> str:
    """How far validation lies from training at the last epoch (study, section 4.2)."""
    gaps = {
        record.key: (last.val_loss - last.train_loss) / last.train_loss
        for record in usable_records(sweep)
        if (last := record.history[-1]).train_loss > 0
    }
    if not gaps:
        return "No training loss to hold validation against."
    low, high = min(gaps, key=lambda key: gaps[key]), max(gaps, key=lambda key: gaps[key])
    spread = (
        f"by {percent(gaps[low])} ({low})"
        if low == high
        else f"by {percent(gaps[low])} ({low}) to {percent(gaps[high])} ({high})"
    )
    return (
        f"At the last epoch the validation loss differs from the training loss {spread}. The training loss is a "
        "running mean within the epoch, under weights that are still improving, so that validation can lie below it."
        + rests_on(f"{flag} {record.key}" for record in usable_records(sweep) for flag in flags_of(record))
    )


def interaction(contrasts: Sequence[Contrast], latents: Claim) -> list[str]:
    """Whether a smaller latent costs a shallower model more, on the test loss (study, section 5.1).

    ``latents`` is the claim (*), whose pairs give the two increases.
    """
    increases = {(each.at, each.higher, each.lower): each.effects.get(Split.TEST) for each in latents.pairs}
    lines = []
    for contrast in contrasts:
        if Split.TEST not in contrast.effects:
            continue
        effect = contrast.effects[Split.TEST]
        shallow, deep = contrast.at
        one, other = (increases.get(((depth,), contrast.higher, contrast.lower)) for depth in (shallow, deep))
        same_seeds = one is not None and other is not None and one.seeds == other.seeds == effect.seeds
        both = f" ({effect_size(one)} against {effect_size(other)})" if one and other and same_seeds else ""
        small, large = contrast.higher.removeprefix("latent "), contrast.lower.removeprefix("latent ")
        lines.append(
            f"From latent {large} to {small}, the increase at depth {shallow} is {abs(effect.difference):.5f} "
            f"{'larger' if effect.holds else 'smaller'} than at depth {deep}{both}: the study's "
            f"sign {'holds' if effect.holds else 'fails'}"
            + (
                f", 95\N{NO-BREAK SPACE}% interval {interval(effect)}: {effect.verdict}"
                if effect.p is not None
                else f" ({effect.verdict})"
            )
            + "."
            + rests_on(contrast.caveats)
        )
    return lines


def spread_ratios(sweep: Sweep, result: Result, arrays: Arrays) -> tuple[float, float] | None:
    """Two answers to "does it paint the average image?", mean over seeds: 0 if it does, 1 if as varied as clean images.

    The first is the mean squared distance of the reconstructions to the mean training image, the second that
    between the mean reconstructions of the classes; both over the same of clean test images.
    """
    baseline = sweep.manifest.baselines.get("mean_image", 0.0)
    outputs = [arrays.outputs[record.key] for record in result.records if record.key in arrays.outputs]
    if not outputs or arrays.samples is None or not baseline:
        return None
    clean = _class_spread(arrays.samples.class_means)
    to_mean = float(np.mean([each.to_mean.mean(dtype=np.float64) for each in outputs])) / baseline
    return to_mean, float(np.mean([_class_spread(each.class_means) for each in outputs])) / clean


def _class_spread(means: Array) -> float:
    """Mean squared distance per pixel over all pairs of different images (n, h, w)."""
    distances = ((means[:, None].astype(np.float64) - means[None]) ** 2).mean(axis=(2, 3))
    return float(distances.sum() / (len(means) * (len(means) - 1)))


def average_image(sweep: Sweep, found: Sequence[Result], arrays: Arrays) -> str:
    """Whether the smallest latent merely paints the average image (study, section 5.2)."""
    smallest = [result for result in found if result.config.latent == min(sweep.manifest.grid.latents)]
    ratios = [(each, pair) for each in smallest if (pair := spread_ratios(sweep, each, arrays)) is not None]
    if not ratios:
        return "The images of the smallest latent size cannot be read or are not there: nothing can be said."
    lowest = min(min(pair) for _, pair in ratios)
    verdict = (
        "comes close to painting the average"
        if lowest < 0.1
        else "is pulled strongly towards the average"
        if lowest < 0.5
        else "does not merely paint the average"
    )
    numbers = listed((f"{each.name} {one:.2f} and {two:.2f}" for each, (one, two) in ratios), limit=9)
    return (
        "Both ratios are 0 for a model that always paints the average image and 1 for one whose reconstructions are as "
        f"varied as clean images. The smallest latent {verdict}: {numbers}."
        + rests_on(_caveats(each for each, _ in ratios))
    )


# ---- captions


def curves_caption(sweep: Sweep) -> str:
    """What the curves show."""
    finals = {record.key: record.history[-1].val_loss for record in usable_records(sweep)}
    low, high = min(finals, key=lambda key: finals[key]), max(finals, key=lambda key: finals[key])
    ended = [key for key, record in sweep.records.items() if record.history and record.status is not Status.COMPLETED]
    text = (
        f"Solid lines are validation, dashed ones training; axes are shared. After {sweep.manifest.settings.epochs} "
        f"epochs validation ends between {mse(finals[low])} ({low}) and {mse(finals[high])} ({high})."
    )
    if len(sweep.manifest.grid.seeds) > 1:
        text += " Each seed is a line of its own."
    if ended:
        text += f" Crosses mark where cells that are not completed stopped: {listed(ended)}."
    return text + rests_on(f"{flag} {each.key}" for each in usable_records(sweep) for flag in flags_of(each))


def bars_caption(sweep: Sweep, found: Sequence[Result]) -> str:
    """What the bars show."""
    means = [result.mean for result in found if result.mean is not None]
    text = "Test MSE per pixel"
    text += ", mean over seeds, each seed a dot." if len(sweep.manifest.grid.seeds) > 1 else ", one seed."
    if identity := sweep.manifest.baselines.get("identity"):
        text += (
            f" Doing nothing costs {mse(identity)}, {identity / min(means):.1f} times the lowest bar and "
            f"{identity / max(means):.1f} times the highest: the narrow panel has it to scale."
        )
    steps = [(a, b) for a, b in pairwise(sorted(means)) if a > 0]
    if len(steps) > 1:
        close = min(steps, key=lambda step: step[1] / step[0])
        text += f" The closest two bars differ by {100 * (close[1] / close[0] - 1):.1f} %."
    holes = [result.name for result in found if result.mean is None]
    if holes:
        text += f" Without a number: {listed(holes)}."
    return text + rests_on(_caveats(found))


def corruption_caption(sweep: Sweep) -> str:
    """What corruption did."""
    text = (
        f"One test image of each class, before and after adding {sweep.manifest.settings.alpha:g} n, n ~ N(0, 1), "
        "and clipping to [0, 1]."
    )
    if identity := sweep.manifest.baselines.get("identity"):
        text += f" Over the test set the corruption is an MSE of {mse(identity)}: what a cell has to remove."
    return text


def example_caption(record: Record, label: int) -> str:
    """Which image is shown and whose work it is."""
    return (
        f"Test image of class {label}: of the ten samples the one of median error under {record.architecture} "
        f"(seed {record.seed}), the architecture with the lowest test loss whose images can be read."
        + rests_on(f"{flag} {record.key}" for flag in flags_of(record))
    )


def denoised_caption(found: Sequence[Result], seeds: Iterable[int]) -> str:
    """How to read the grid of images, and its holes."""
    ranked = sorted((result for result in found if result.losses), key=lambda result: result.mean or 0.0)
    holes = [result.name for result in found if not result.records]
    seeds = sorted(seeds)
    text = (
        "The same ten test images under every architecture, clean and corrupted on top; below each strip its MSE over "
        f"the whole test set (seed {listed(map(str, seeds))}). Lowest on average: {ranked[0].name}, "
        f"highest: {ranked[-1].name}."
    )
    if holes:
        text += f" Holes: {listed(holes)}."
    return text + rests_on(_caveats(found))
