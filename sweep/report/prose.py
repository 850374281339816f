"""The sentences of a report, written from the numbers: nothing is said that the records do not say. No torch."""

from collections.abc import Iterable, Sequence

from dae.architecture import STEM_SIZE
from sweep.analysis.arrays import usable_records
from sweep.analysis.claims import Claim, Contrast, Factor, Split
from sweep.analysis.effects import Profile
from sweep.analysis.findings import Findings
from sweep.analysis.results import Result, flags_of
from sweep.analysis.verdicts import Verdict
from sweep.records.grid import axes_text
from sweep.records.matching import MATCHED
from sweep.records.record import Status
from sweep.records.sweep import Sweep
from sweep.report.words import (
    SPACE,
    bounds,
    command,
    counted,
    effect_size,
    hardest,
    interval,
    listed,
    mse,
    needed,
    pair_name,
    rests_on,
    share,
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
"""Why an effect of depth or latent size may be one of something else."""

MOST_STEPS = 3
"""Steps between levels that a sentence goes through; beyond that it gives both ends."""


# ---- the summary


def lead(findings: Findings) -> str:
    """What is completed, of what."""
    grid, settings = findings.whole.manifest.grid, findings.sweep.manifest.settings
    statuses = [findings.whole.status(cell) for cell in grid.cells]
    holes = [status for status in Status if status is not Status.COMPLETED and status in statuses]
    rest = ", ".join(f"{statuses.count(status)} {status}" for status in holes)
    return (
        f"{statuses.count(Status.COMPLETED)} of {counted(len(grid.cells), 'cell')} completed: "
        f"{counted(len({cell.architecture for cell in grid.cells}), 'architecture')}, "
        f"{counted(len(grid.seeds), 'seed')}"
        + (f" ({rest})." if rest else ".")
        + f" Dataset {settings.dataset}, {settings.noise} noise of strength {settings.alpha:g}, "
        f"{counted(settings.epochs, 'epoch')}."
    )


def extremes(findings: Findings) -> str:
    """The best and the worst architecture, and what doing nothing costs."""
    ranked = sorted((result for result in findings.results if result.losses), key=lambda result: result.mean or 0.0)
    best, worst = ranked[0], ranked[-1]
    text = f"Lowest test loss: {_named(best)}"
    if worst is not best:
        text += f"; highest: {_named(worst)}"
    if identity := findings.sweep.manifest.baselines.get("identity"):
        text += f"; doing nothing gives {mse(identity)}"
    return text + "." + rests_on(_caveats([best, worst]))


def _named(result: Result) -> str:
    return f"{result.name} with MSE {mse(result.mean or 0.0)} (PSNR {result.psnr:.2f} dB)"


def summary(findings: Findings) -> list[tuple[str, str]]:
    """Three sentences with a word each: what depth does, what compression does, how sure that is. On the test loss."""
    latent, depth = findings.claims
    return [
        ("Depth", _effect_sentence(depth, "depth", findings) + _stops(findings)),
        ("Compression", _effect_sentence(latent, "latent size", findings) + _more_if_shallow(findings)),
        ("How sure", _certainty(findings)),
    ]


def _effect_sentence(claim: Claim, word: str, findings: Findings) -> str:
    averages = [each for each in claim.averages if each.effects]
    if not averages:
        return f"No two cells that can be compared differ in {word} alone: nothing can be said."
    steps = [each for each in averages if each.adjacent]
    if len(steps) > MOST_STEPS:
        steps = [max(averages, key=lambda each: abs(_level(each.higher) - _level(each.lower)))]
    # From shallow to deep and from large to small, as a reader thinks of the change.
    steps = sorted(steps, key=lambda each: _level(each.higher), reverse=claim.factor is Factor.LATENT)
    at = steps[0].at
    mean = (
        f"On average over {claim.factor.other}s {', '.join(map(str, at))}"
        if len(at) > 1
        else f"At {claim.factor.other} {at[0]}"
    )
    return f"{mean}, the test loss of {', and that of '.join(_step(claim, each, findings) for each in steps)}."


def _step(claim: Claim, contrast: Contrast, findings: Findings) -> str:
    effect = contrast.effects[Split.TEST]
    higher, lower = contrast.higher, contrast.lower
    if claim.factor is Factor.LATENT:
        higher, lower = f"{higher} ({_kept(higher, findings)})", f"{lower} ({_kept(lower, findings)})"
    size = f"{abs(effect.difference):.5f}"
    size += "" if effect.relative is None else f" ({100 * abs(effect.relative):.1f}{SPACE}%)"
    low, high = (effect.low, effect.high) if effect.holds else (_minus(effect.high), _minus(effect.low))
    certain = f" (95{SPACE}% interval {bounds(low, high)}, {effect.verdict})" if effect.p is not None else ""
    return f"{higher} is {size} {'above' if effect.holds else 'below'} that of {lower}{certain}"


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _kept(level: str, findings: Findings) -> str:
    side = _level(level)
    channels = findings.sweep.manifest.settings.latent_channels
    return f"{100 * channels * side**2 / 784:.1f}{SPACE}% of the pixels"


def _level(text: str) -> int:
    return int(text.rsplit(" ", 1)[-1])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _stops(findings: Findings) -> str:
    """Where more depth stops paying, where there are enough depths to say."""
    sentences = depth_sentences(findings)
    return f" {sentences[0]}" if sentences else ""


def _more_if_shallow(findings: Findings) -> str:
    corners = findings.effects.corners
    if corners is None or not corners.effects:
        return ""
    effect, (shallow, deep) = corners.effects[Split.TEST], (corners.at[0], corners.at[-1])
    small, large = (corners.higher.removeprefix("latent "), corners.lower.removeprefix("latent "))
    way = "more" if effect.holds else "less"
    certain = f" ({interval(effect)}: {effect.verdict})" if effect.p is not None else ""
    return (
        f" Going from latent {large} to {small} costs {abs(effect.difference):.5f} {way} at depth {shallow} "
        f"than at depth {deep}{certain}."
    )


def _certainty(findings: Findings) -> str:
    claims = findings.claims
    counts = sorted({len(result.losses) for result in findings.results if result.losses})
    seeds = counted(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    judged = [each for claim in claims for each in claim.answers]
    rests = rests_on(_pair_caveats(judged))
    if counts[-1] == 1:
        signs = "; ".join(_signs(claim) for claim in claims if claim.judged())
        more = command(findings.whole.manifest, "--seeds 0,1,2")
        return (
            "One seed an architecture: the spread between seeds is unknown, so that no verdict can be given. "
            + (f"{_capital(signs)}. " if signs else "")
            + f"Verdicts take two seeds or more, such as {more}."
            + rests
        )
    texts = [_verdict_of(claim) for claim in claims if claim.verdict is not None]
    return (
        f"Over {seeds} an architecture, {'; '.join(texts)}. The chance of any false verdict in a family of "
        f"comparisons is held at 5{SPACE}%." + rests
        if texts
        else f"Over {seeds} an architecture, nothing can be compared."
    )


def _signs(claim: Claim) -> str:
    pairs, (name, statement) = claim.judged(), CLAIMS[claim.factor]
    holding = sum(pair.effects[Split.TEST].holds for pair in pairs)
    return f"the sign of claim {name}, {statement}, holds in {holding} of {counted(len(pairs), 'pair')}"


def _verdict_of(claim: Claim) -> str:
    name, statement = CLAIMS[claim.factor]
    word = "average" if claim.factor is Factor.DEPTH else "pair"
    text = f"claim {name}, {statement}, is {claim.verdict}: {verdict_counts(claim.answers, Split.TEST)} of "
    text += counted(len(claim.answers), word)
    most = hardest(each.effects[Split.TEST].needed for each in claim.answers if each.effects)
    return text + (f"; the hardest of the open ones takes {needed(most)}" if most else "")


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
    text += f"Pair by pair: {verdict_counts(pairs, split)}."
    return text + rests_on(_pair_caveats(pairs))


def verdict_counts(pairs: Sequence[Contrast], split: Split) -> str:
    """How many of each verdict: ``7 supported, 2 not resolved``."""
    verdicts = [pair.effects[split].verdict for pair in pairs]
    if set(verdicts) == {Verdict.ONE_SEED}:
        return str(Verdict.ONE_SEED)
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in Verdict if verdict in verdicts)


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


# ---- how deep


def depth_sentences(findings: Findings) -> list[str]:
    """Where more depth stops paying or starts to overfit, latent size by latent size; from four depths on."""
    texts = []
    for profile in findings.profiles:
        if len(profile.points) < MIN_DEPTHS:
            continue
        best = next(point.result for point in profile.points if point.depth == profile.best)
        text = (
            f"At latent {profile.latent} the lowest test loss is that of depth {profile.best} ({mse(best.mean or 0.0)})"
        )
        if profile.enough is None:
            text += "; with one seed, where depth stops paying cannot be told from chance"
        elif profile.enough == profile.points[-1].depth:
            text += f": up to depth {profile.enough}, the deepest, more depth is shown to pay"
        else:
            told = f"as far as {counted(len(best.records), 'seed')} can tell"
            text += f"; more depth stops paying at depth {profile.enough}, {told}: no deeper one is shown to do better"
            text += _left_open(profile)
        if profile.overfits_from is not None:
            text += f". From depth {profile.overfits_from} on it overfits: validation lies above training and rises"
        elif profile.enough is not None:
            text += ". No depth is shown to overfit"
        texts.append(text + "." + rests_on(_caveats(point.result for point in profile.points)))
    return texts


def _left_open(profile: Profile) -> str:
    """What a deeper model than enough is seen to gain, and what it might."""
    losses = {point.depth: point.result.mean or 0.0 for point in profile.points}
    if profile.enough is None or profile.may_gain is None:
        return ""
    seen = f"depth {profile.best} lies {share(1 - losses[profile.best] / losses[profile.enough])} lower, "
    seen = "" if profile.best == profile.enough else seen
    return f" ({seen}a gain of up to {share(max(0.0, profile.may_gain))} is left open)"


MIN_DEPTHS = 4
"""Fewer depths make no curve."""


# ---- facets


def facet_sentence(findings: Findings) -> str:
    """One point on the sweep's further axes in a sentence."""
    ranked = sorted((result for result in findings.results if result.losses), key=lambda result: result.mean or 0.0)
    if not ranked:
        return "No cell is completed here."
    best, worst = ranked[0], ranked[-1]
    text = f"Test loss from {mse(best.mean or 0.0)} ({best.name}) to {mse(worst.mean or 0.0)} ({worst.name})"
    verdicts = [f"claim {CLAIMS[claim.factor][0]} {claim.verdict}" for claim in findings.claims if claim.verdict]
    return ". ".join([text, *([_capital("; ".join(verdicts))] if verdicts else [])]) + "." + rests_on(_caveats(ranked))


def facet_name(findings: Findings) -> str:
    """The point, in words."""
    others = tuple(each for each in findings.axes if each not in MATCHED)
    words = [*([axes_text(others)] if others else []), *(["equal parameters"] if is_matched(findings) else [])]
    return ", ".join(words) or "the sweep's own settings"


def is_matched(findings: Findings) -> bool:
    """Whether it is an arm of equal parameters."""
    return not set(findings.axes).isdisjoint(MATCHED)


def matched(arm: Findings) -> str:
    """What depth does where all depths have about as many parameters."""
    found = [result for result in arm.results if result.losses]
    counts = sorted(result.parameters for result in found) or [0]
    effect = _effect_sentence(arm.claims[1], "depth", arm)
    return (
        f"With the width solved for each depth, so that all have {counts[0]:,} to {counts[-1]:,} parameters: "
        f"{effect[:1].lower()}{effect[1:]}" + rests_on(_caveats(found))
    )
