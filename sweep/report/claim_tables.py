"""The tables of the claims: their verdicts, and the differences behind them. No torch."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dae.config import side
from sweep.analysis.claims import Contrast, Factor, Split
from sweep.analysis.findings import Findings
from sweep.analysis.results import Result
from sweep.analysis.verdicts import Effect
from sweep.records.words import counted
from sweep.report.entries import Entry, Row, Table, number, text, verdict_kind
from sweep.report.prose import CLAIMS, verdict_counts
from sweep.report.words import caveats_text, effect_size, hardest, interval, needed, pair_name


def verdicts(findings: Findings) -> Table:
    """The verdict on each claim as it is worded, on the test loss."""
    rows = []
    for claim in findings.claims:
        name, statement = CLAIMS[claim.factor]
        overall = claim.overall.effects.get(Split.TEST) if claim.overall else None
        holding = sum(pair.effects[Split.TEST].holds for pair in claim.comparable_pairs())
        answers = counted(len(claim.answers), "pair" if claim.factor is Factor.LATENT else "average")
        over = "" if claim.factor is Factor.LATENT else " over latent sizes"
        family = f"{answers}{over}: {verdict_counts(claim.answers, Split.TEST)}" if claim.answers else ""
        rows.append(
            Row(
                entries=[
                    text(f"{name} {statement}"),
                    Entry(
                        badge=str(claim.verdict or "not tested"),
                        kind=verdict_kind(claim.verdict),
                        order=str(claim.verdict),
                    ),
                    text(family),
                    number(holding, f"{holding} of {len(claim.comparable_pairs())}"),
                    number(overall.difference, effect_size(overall), note=interval(overall)) if overall else Entry(),
                    text(_to_resolve(claim.answers)),
                ]
            )
        )
    headings = ["claim", "verdict", "family", ">sign holds, pairs", "an adjacent step, mean", "to resolve what is open"]
    return Table(headings=headings, rows=rows)


def _to_resolve(contrasts: Iterable[Contrast]) -> str:
    """What it takes to resolve those of the contrasts that are open; empty where none is."""
    effects = [contrast.effects[Split.TEST] for contrast in contrasts if contrast.effects]
    plans = [plan for effect in effects if (plan := effect.needed) is not None]
    hopeless = [plan for plan in plans if plan.more is None]
    texts = []
    if most := hardest(plans):
        texts.append(needed(most) + (" for the hardest" if len(plans) - len(hopeless) > 1 else ""))
    if hopeless:
        texts.append(needed(hopeless[0]) if len(effects) == 1 else f"{len(hopeless)} too close to resolve")
    if any(effect.withheld for effect in effects):
        texts.append("a collapsed cell: other seeds")
    return "; ".join(texts)


def differences(contrasts: Sequence[Contrast], factor: Factor, findings: Findings) -> Table:
    """Differences between levels of a factor: pairs, or averages over the other one."""
    is_pair = all(len(contrast.other_levels) == 1 for contrast in contrasts)
    to_resolve = [_to_resolve([contrast]) for contrast in contrasts]
    has_open = any(to_resolve)
    has_caveats = any(contrast.caveats for contrast in contrasts)
    headings = ["higher over lower", f"at {factor.other}", "training", "validation", "test"]
    headings += ["to resolve (test)"] * has_open + [">images", ">field, px", ">parameters"] * is_pair
    headings += ["rests on"] * has_caveats
    rows = []
    settings = findings.sweep.manifest.settings
    for contrast, plan in zip(contrasts, to_resolve, strict=True):
        other = contrast.other_levels[0]
        other_size = side(settings.shape.sides_of(other) if factor is Factor.DEPTH else other)
        levels = f"{contrast.higher} over {contrast.lower.removeprefix(f'{factor} ')}"
        entries = [
            text(levels, note=pair_name(contrast) if is_pair else ""),
            text(", ".join(map(str, contrast.other_levels)), float(other_size)),
            *(_effect(contrast, contrast.effects.get(split)) for split in Split),
        ]
        entries += [text(plan)] * has_open
        if is_pair:
            worse, better = (
                Result(config=settings.model(cell), statuses={}, records=()) for cell in contrast.cells[:2]
            )
            entries += [
                number(contrast.share, f"{100 * (contrast.share or 0):.0f} %"),
                number(side(worse.field), f"{worse.field} / {better.field}"),
                number(worse.parameters, f"{worse.parameters:,} / {better.parameters:,}"),
            ]
        entries += [text(caveats_text(contrast.caveats))] * has_caveats
        rows.append(Row(entries=entries, kind="" if contrast.effects else "gap"))
    return Table(headings=headings, rows=rows)


def _effect(contrast: Contrast, effect: Effect | None) -> Entry:
    """A difference with its interval and a word: the verdict, with one seed the sign's."""
    if effect is None:
        return Entry(badge="missing", kind="hole")
    entry = Entry(text=effect_size(effect), note=interval(effect), order=effect.difference)
    if not contrast.counted:
        return replace(entry, badge="not comparable", kind="hole")
    if effect.p is None:
        return replace(entry, badge="holds" if effect.holds else "fails", kind="yes" if effect.holds else "no")
    return replace(entry, badge=str(effect.verdict), kind=verdict_kind(effect.verdict))
