"""The sentences at the top of a report: what is completed, what depth and latent size do, and how sure. No torch."""

from sweep.analysis.claims import Claim, Factor, Split
from sweep.analysis.findings import Findings
from sweep.analysis.results import Result
from sweep.records.record import Status
from sweep.report.prose import CLAIMS, depth_sentences, effect_sentence, verdict_counts
from sweep.report.words import (
    SPACE,
    capitalised,
    command,
    counted,
    hardest,
    interval,
    mse,
    needed,
    rests_on,
    rests_on_results,
)


def lead(findings: Findings) -> str:
    """How many cells are completed, and of which dataset, noise and number of epochs."""
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
    text = f"Lowest test loss: {_with_loss(best)}"
    if worst is not best:
        text += f"; highest: {_with_loss(worst)}"
    if identity := findings.sweep.manifest.baselines.get("identity"):
        text += f"; doing nothing gives {mse(identity)}"
    return text + "." + rests_on_results([best, worst])


def _with_loss(result: Result) -> str:
    return f"{result.name} with MSE {mse(result.mean or 0.0)} (PSNR {result.psnr:.2f} dB)"


def summary(findings: Findings) -> list[tuple[str, str]]:
    """Headings and sentences on the test loss: what depth does, what compression does, how sure that is."""
    latent, depth = findings.claims
    return [
        ("Depth", effect_sentence(depth, "depth", findings) + _stops(findings)),
        ("Compression", effect_sentence(latent, "latent size", findings) + _more_if_shallow(findings)),
        ("How sure", _certainty(findings)),
    ]


def _stops(findings: Findings) -> str:
    """Where more depth stops paying, where there are enough depths to say."""
    sentences = depth_sentences(findings)
    return f" {sentences[0]}" if sentences else ""


def _more_if_shallow(findings: Findings) -> str:
    corners = findings.effects.corners
    if corners is None or not corners.effects:
        return ""
    effect, (shallow, deep) = corners.effects[Split.TEST], (corners.other_levels[0], corners.other_levels[-1])
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
    rests = rests_on(caveat for claim in claims for contrast in claim.answers for caveat in contrast.caveats)
    if counts[-1] == 1:
        signs = "; ".join(_signs(claim) for claim in claims if claim.comparable_pairs())
        more = command(findings.whole.manifest, "--seeds 0,1,2")
        return (
            "One seed an architecture: the spread between seeds is unknown, so that no verdict can be given. "
            + (f"{capitalised(signs)}. " if signs else "")
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
    pairs, (name, statement) = claim.comparable_pairs(), CLAIMS[claim.factor]
    holding = sum(pair.effects[Split.TEST].holds for pair in pairs)
    return f"the sign of claim {name}, {statement}, holds in {holding} of {counted(len(pairs), 'pair')}"


def _verdict_of(claim: Claim) -> str:
    name, statement = CLAIMS[claim.factor]
    word = "average" if claim.factor is Factor.DEPTH else "pair"
    text = f"claim {name}, {statement}, is {claim.verdict}: {verdict_counts(claim.answers, Split.TEST)} of "
    text += counted(len(claim.answers), word)
    most = hardest(contrast.effects[Split.TEST].needed for contrast in claim.answers if contrast.effects)
    return text + (f"; the hardest of the open ones takes {needed(most)}" if most else "")
