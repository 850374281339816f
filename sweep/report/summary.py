"""The first screen of a report: what depth and latent size do, how sure that is, what is wrong with cells. No torch."""

from collections.abc import Sequence

from dae.config import LSUV
from dae.images.arrangement import FEW_PICTURES
from sweep.analysis.claims import Claim, Contrast, Factor, Split
from sweep.analysis.findings import Findings
from sweep.analysis.quality import losses_without_network
from sweep.analysis.results import Result
from sweep.analysis.verdicts import Effect, Verdict
from sweep.records.record import Record, Status
from sweep.records.words import counted
from sweep.report.prose import depth_sentences, level, steps_of
from sweep.report.words import SPACE, capitalised, command, hardest, listed, mse, roughly

MOST_STEPS = 2
"""Steps between levels that a sentence names; of more it gives the two levels farthest apart."""

DECIDED = {Verdict.SUPPORTED, Verdict.CONTRADICTED}


def lead(findings: Findings) -> str:
    """How many cells are completed, and of which dataset, noise and number of epochs."""
    grid, settings = findings.whole.manifest.grid, findings.sweep.manifest.settings
    noise = f"{settings.noise} noise of strength {settings.alpha:g}"
    if findings.whole.manifest.has_own_noise:
        noise = "its own noise"
    statuses = [findings.whole.status(cell) for cell in grid.cells]
    holes = [status for status in Status if status is not Status.COMPLETED and status in statuses]
    rest = ", ".join(f"{statuses.count(status)} {status}" for status in holes)
    return (
        f"{statuses.count(Status.COMPLETED)} of {counted(len(grid.cells), 'cell')} completed: "
        f"{counted(len({cell.architecture for cell in grid.cells}), 'architecture')}, "
        f"{counted(len(grid.seeds), 'seed')}"
        + (f" ({rest})." if rest else ".")
        + f" Dataset {settings.dataset}, {noise}, "
        f"{counted(settings.epochs, 'epoch')}."
    )


def extremes(findings: Findings) -> str:
    """The best and the worst architecture, and what doing nothing costs."""
    ranked = sorted((result for result in findings.results if result.losses), key=lambda result: result.mean or 0.0)
    best, worst = ranked[0], ranked[-1]
    text = f"Lowest test loss: {_with_loss(best)}"
    if worst is not best:
        text += f"; highest: {_with_loss(worst)}"
    if identity := findings.sweep.manifest.baselines.get("identity"):
        text += f"; doing nothing gives {mse(identity)}"
    return text + "."


def _with_loss(result: Result) -> str:
    return f"{result.name} with MSE {mse(result.mean or 0.0)} (PSNR {result.psnr:.2f} dB)"


def summary(findings: Findings) -> list[tuple[str, str]]:
    """Headings and sentences on the test loss: what depth does, what compression does, how sure that is."""
    latent, depth = findings.claims
    several = any(len(result.losses) > 1 for result in findings.results)
    return [
        ("Depth", _effect(depth, findings, several_seeds=several)),
        ("Compression", _effect(latent, findings, several_seeds=several)),
        ("How sure", _certainty(findings)),
    ]


def more(findings: Findings) -> list[str]:
    """What a reader wants to know next: which depth is best, where a small latent costs most."""
    return [*depth_sentences(findings)[:1], *_more_if_shallow(findings)]


def _effect(claim: Claim, findings: Findings, *, several_seeds: bool) -> str:
    """What the claim's factor does to the test loss on average, step by step.

    Where the sweep has several seeds, a step that rests on one says so.
    """
    steps = steps_of(claim, MOST_STEPS, findings)
    if not steps:
        return f"No two completed cells differ in {_factor(claim)} alone."
    sentences = [
        _step(claim, step) + (" (one seed)" if several_seeds and step.effects[Split.TEST].p is None else "")
        for step in steps
    ]
    return f"{capitalised('; '.join(sentences))}{_what_is_averaged(claim, steps)}."


def _what_is_averaged(claim: Claim, steps: Sequence[Contrast]) -> str:
    """What the sizes of these steps are, in brackets; empty where each is one pair of architectures with one seed."""
    over = f"means over {claim.factor.other}s" if any(len(step.other_levels) > 1 for step in steps) else ""
    has_interval = any(step.effects[Split.TEST].low is not None for step in steps)
    told = [part for part in (over, f"95{SPACE}% intervals" * has_interval) if part]
    return f" ({', '.join(told)})" if told else ""


def _factor(claim: Claim) -> str:
    return "depth" if claim.factor is Factor.DEPTH else "latent size"


def _step(claim: Claim, step: Contrast) -> str:
    """One step in at most 15 words, such as ``depth 3 has 30 to 34 % less error than depth 1``."""
    effect, high, low = step.effects[Split.TEST], level(step.higher), level(step.lower)
    if claim.factor is Factor.DEPTH:  # the claim: shallower is worse
        subject, other, has_less = f"depth {low}", f"depth {high}", effect.holds
    else:
        subject, other, has_less = f"latent {high}", f"latent {low}", not effect.holds
    if effect.verdict is Verdict.WITHHELD:
        return f"{subject} and {other} are not compared: a cell collapsed"
    if effect.verdict is Verdict.NOT_RESOLVED:
        return f"{subject} and {other} are too close to tell apart"
    size = _percentages(effect, of_higher=claim.factor is Factor.DEPTH)
    return f"{subject} has {size} {'less' if has_less else 'more'} error than {other}"


def _percentages(effect: Effect, *, of_higher: bool) -> str:
    """The 95 % interval in whole per cent, or the size alone where there is one seed.

    Args:
        effect: relative to the loss that is claimed to be lower.
        of_higher: as a part of the other loss, the one that is claimed to be higher.
    """
    if effect.relative is None or not effect.difference:
        return f"{abs(effect.difference):.5f}"
    base = effect.difference / effect.relative
    ends = [effect.difference] if effect.low is None or effect.high is None else [effect.low, effect.high]
    relatives = [end / base for end in ends if end / base > -1]  # a loss that is compared with is above 0
    parts = {abs(relative) / (1 + relative) if of_higher else abs(relative) for relative in relatives}
    numbers = sorted({_rounded(100 * part) for part in parts}, key=float)
    return f"{' to '.join(numbers)}{SPACE}%" if len(relatives) == len(ends) else f"over {numbers[0]}{SPACE}%"


def _rounded(percent: float) -> str:
    """Whole per cent, and one digit below 1."""
    return f"{percent:.0f}" if percent >= 1 else f"{percent:.1f}"


def _more_if_shallow(findings: Findings) -> list[str]:
    corners = findings.effects.corners
    if corners is None or not corners.effects:
        return []
    effect, (shallow, deep) = corners.effects[Split.TEST], (corners.other_levels[0], corners.other_levels[-1])
    if effect.verdict not in {*DECIDED, Verdict.ONE_SEED}:
        return []
    small, large = (corners.higher.removeprefix("latent "), corners.lower.removeprefix("latent "))
    return [
        f"Going from latent {large} to {small} costs {abs(effect.difference):.5f} {'more' if effect.holds else 'less'} "
        f"at depth {shallow} than at depth {deep}" + (" (one seed)." if effect.p is None else f" (95{SPACE}%).")
    ]


def _certainty(findings: Findings) -> str:
    counts = sorted({len(result.losses) for result in findings.results if result.losses})
    seeds = counted(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    if counts[-1] == 1:
        more_seeds = command(findings.whole.manifest, "--seeds 0,1,2")
        return f"One seed each: sizes without certainty. {more_seeds} adds intervals."
    contrasts = [contrast for claim in findings.claims for contrast in claim.answers if contrast.effects]
    if not contrasts:
        return f"{capitalised(seeds)} each, but no two architectures that can be compared."
    decided = sum(contrast.effects[Split.TEST].verdict in DECIDED for contrast in contrasts)
    text = f"{capitalised(seeds)} each: {decided} of {counted(len(contrasts), 'comparison')} decided"
    plan = hardest(contrast.effects[Split.TEST].needed for contrast in contrasts)
    if plan is not None:
        time = "" if plan.seconds is None else f", {roughly(plan.seconds)}"
        text += f"; the rest take about {counted(plan.more or 0, 'more seed')}{time}"
    return f"{text}." + f" At most 5{SPACE}% chance of a false one in each claim." * (decided > 0)


# ---- what to know of the cells


def caveats(findings: Findings) -> list[tuple[str, str]]:
    """What is wrong with the networks or with cells, once a kind: which, and what to do."""
    return [*_beaten(findings), *_narrow(findings), *_flagged(findings)]


def _narrow(findings: Findings) -> list[tuple[str, str]]:
    """That the test tiles were cut from few images, if so."""
    pictures = findings.whole.manifest.dataset.get("pictures")
    if pictures is None or pictures[-1] >= FEW_PICTURES:
        return []
    title = f"All test tiles are of {counted(pictures[-1], 'image')}"
    return [
        (title, "Intervals and verdicts are for tiles such as these, and other images may differ more: add images.")
    ]


def _beaten(findings: Findings) -> list[tuple[str, str]]:
    """That no network is as good as something simpler, if so."""
    best = min((result for result in findings.results if result.losses), key=lambda result: result.mean or 0.0)
    better = {name: loss for name, loss in losses_without_network(findings).items() if loss < (best.mean or 0.0)}
    if not better:
        return []
    name = min(better, key=lambda name: better[name])
    worse_than = "doing nothing" if "doing nothing" in better else name
    others = f"; {counted(len(better) - 1, 'other way')} without a network beat it too" if len(better) > 1 else ""
    text = f"The best one, {best.name}, has {mse(best.mean or 0.0)}, {name} {mse(better[name])}{others}. "
    return [(f"Every network is worse than {worse_than}", text + _against_compression(findings))]


def _against_compression(findings: Findings) -> str:
    largest = max((result.config for result in findings.results), key=lambda config: config.latent_numbers)
    return (
        f"The largest latent keeps {100 * largest.compression:.0f}{SPACE}% of an image's numbers: larger --latents or "
        "--latent-channels, and longer training, lose less."
    )


def _flagged(findings: Findings) -> list[tuple[str, str]]:
    records = [record for record in findings.whole.records.values() if record.status is Status.COMPLETED]
    epochs = findings.whole.manifest.settings.epochs
    kinds: Sequence[tuple[str, list[Record], str]] = (
        (
            "collapsed",
            [record for record in records if record.collapsed],
            "no better than the mean training image, so that nothing is concluded from them: train with another seed.",
        ),
        (
            "unconverged",
            [record for record in records if record.unconverged and not record.collapsed],
            f"validation loss still falls by over 1{SPACE}% an epoch: train longer than {counted(epochs, 'epoch')}.",
        ),
        (
            "with dead latent channels",
            [record for record in records if record.dead_latent_channels and not record.collapsed],
            f"they work with a smaller latent than their name says: {_against_dead_channels(findings)}.",
        ),
    )
    return [
        (f"{len(concerned)} of {counted(len(records), 'cell')} {kind}", f"{listed(_keys(concerned))}: {advice}")
        for kind, concerned, advice in kinds
        if concerned
    ]


def _against_dead_channels(findings: Findings) -> str:
    settings = findings.whole.manifest.settings
    if settings.initialisation != LSUV:
        return f"--initialisation {LSUV} keeps channels alive"
    return "train with another seed, a lower --lr or a longer --warmup"


def _keys(records: Sequence[Record]) -> list[str]:
    return [record.key for record in records]
