"""The tables of a report: what stands in them and what their columns are sorted by. No torch."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from dae.config import IMAGE_SIZE
from sweep.analysis.claims import Contrast, Factor, Split
from sweep.analysis.effects import DepthPoint, Measured, Profile
from sweep.analysis.findings import Findings
from sweep.analysis.quality import accuracy, robust_curves
from sweep.analysis.results import Result, psnr
from sweep.analysis.verdicts import Effect, Verdict
from sweep.records.record import Status
from sweep.report import remarks
from sweep.report.prose import CLAIMS, verdict_counts
from sweep.report.words import (
    SPACE,
    bounds,
    caveats_text,
    difference,
    duration,
    effect_size,
    hardest,
    interval,
    mse,
    needed,
    pair_name,
    share,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One field of a table.

    Attributes:
        order: what the column is sorted by; None sorts last.
        note: a second, smaller line.
        badge, kind: a word in a frame and its colour: ``yes``, ``no``, ``open`` or ``hole``.
    """

    text: str = ""
    order: float | str | None = None
    note: str = ""
    badge: str = ""
    kind: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        kind: ``gap`` for what is not there, ``base`` for what is done without a network.
        link: the cell or architecture that its numbers lead to.
    """

    entries: Sequence[Entry]
    kind: str = ""
    link: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Headings, ``>`` in front of those of numbers, and rows of as many entries."""

    headings: Sequence[str]
    rows: Sequence[Row] = field(default=())


def _text(text: object, order: float | str | None = None, note: str = "") -> Entry:
    return Entry(text=str(text), order=str(text) if order is None else order, note=note)


def _number(value: float | None, text: str = "", note: str = "") -> Entry:
    return Entry(text=text if value is not None else "", order=value, note=note)


def _loss(result: Result) -> Entry:
    return _number(result.mean, mse(result.mean or 0.0), note=bounds(*result.interval) if result.interval else "")


# ---- architectures and baselines


def results(findings: Findings) -> Table:
    """The study's Table 1 with results beside it, and below it the ways to do without a network."""
    has_quality = bool(findings.qualities.found) or findings.condition is not None
    rows = [
        Row(entries=_architecture(findings, each), kind="" if each.losses else "gap", link=each.name)
        for each in findings.results
    ]
    rows += [Row(entries=entries, kind="base") for entries in _baselines(findings)]
    headings = [
        "model", ">test MSE", ">n", ">PSNR, dB", ">SSIM", ">read rightly", ">sum of squares", "latent space",
        ">compression rate", "layers, or as tuned", ">field, px", ">parameters", ">MACs", "marks",
    ]  # fmt: skip
    kept = [i for i, name in enumerate(headings) if has_quality or name not in {">SSIM", ">read rightly"}]
    return Table(
        headings=[headings[i] for i in kept],
        rows=[replace(row, entries=[row.entries[i] for i in kept]) for row in rows],
    )


def _architecture(findings: Findings, result: Result) -> list[Entry]:
    config, read = result.config, accuracy(findings, result)
    qualities = [findings.qualities.found[each.key] for each in result.records if each.key in findings.qualities.found]
    ssim = fmean(float(each.ssim.mean(dtype=float)) for each in qualities) if qualities else None
    return [
        _text(result.name),
        _loss(result),
        _number(len(result.losses), f"{len(result.losses)} of {len(result.statuses)}"),
        _number(result.psnr, f"{result.psnr or 0:.2f}"),
        _number(ssim, f"{ssim or 0:.3f}"),
        Entry()
        if read is None
        else _number(read.mean, share(read.mean), note=f"[{100 * read.low:.1f}, {100 * read.high:.1f}]"),
        _number(result.total, f"{result.total or 0:.2f}"),
        _text(f"({config.latent_channels}, {config.latent}, {config.latent})".replace(" ", SPACE), config.latent),
        _number(config.compression, f"{100 * config.compression:.2f} %"),
        _text(result.layers, config.depth),
        _number(result.field, str(result.field)),
        _number(result.parameters, f"{result.parameters:,}"),
        _number(result.macs, f"{result.macs:,}"),
        _text(", ".join(result.marks)),
    ]


def _baselines(findings: Findings) -> Iterator[list[Entry]]:
    references, condition = findings.references, findings.condition
    if references is None or condition is None:
        names = {"identity": "doing nothing", "mean_image": "mean image"}
        for name, loss in findings.sweep.manifest.baselines.items():
            yield _without_network(names.get(name, name), loss)
        return
    for each in condition.baselines:
        tuned = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in each.parameters.items())
        yield _without_network(each.name, each.test_loss, each.ssim, each.accuracy, each.latent, tuned)
    yield _without_network("the clean images", None, 1.0, references.reader.accuracy_clean)


def _plain(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _without_network(
    name: str,
    loss: float | None,
    ssim: float | None = None,
    read: float | None = None,
    latent: int | None = None,
    tuned: str = "",
) -> list[Entry]:
    decibels = psnr(loss) if loss else None
    total = None if loss is None else loss * IMAGE_SIZE**2
    compression = None if latent is None else latent / IMAGE_SIZE**2
    return [
        _text(name),
        _number(loss, mse(loss or 0.0)),
        Entry(),
        _number(decibels, f"{decibels or 0:.2f}"),
        _number(ssim, f"{ssim or 0:.3f}"),
        _number(read, share(read or 0.0)),
        _number(total, f"{total or 0:.2f}"),
        _number(None if latent is None else math.sqrt(latent), f"{latent}{SPACE}elements"),
        _number(compression, f"{100 * (compression or 0):.2f} %"),
        _text(tuned),
        Entry(),
        Entry(),
        Entry(),
        Entry(),
    ]


# ---- claims


def verdicts(findings: Findings) -> Table:
    """What each claim comes to on the test loss, as it is worded."""
    rows = []
    for claim in findings.claims:
        name, statement = CLAIMS[claim.factor]
        overall = claim.overall.effects.get(Split.TEST) if claim.overall else None
        holding = sum(pair.effects[Split.TEST].holds for pair in claim.judged())
        word = "pairs" if claim.factor is Factor.LATENT else "averages over latent sizes"
        family = f"{len(claim.answers)} {word}: {verdict_counts(claim.answers, Split.TEST)}" if claim.answers else ""
        rows.append(
            Row(
                entries=[
                    _text(f"{name} {statement}"),
                    Entry(
                        badge=str(claim.verdict or "not tested"), kind=_kind(claim.verdict), order=str(claim.verdict)
                    ),
                    _text(family),
                    _number(holding, f"{holding} of {len(claim.judged())}"),
                    _number(overall.difference, effect_size(overall), note=interval(overall)) if overall else Entry(),
                    _text(_to_resolve(claim.answers)),
                ]
            )
        )
    headings = ["claim", "verdict", "family", ">sign holds, pairs", "an adjacent step, mean", "to resolve what is open"]
    return Table(headings=headings, rows=rows)


def _to_resolve(contrasts: Iterable[Contrast]) -> str:
    found = [each.effects[Split.TEST] for each in contrasts if each.effects]
    withheld = sum(bool(each.withheld) for each in found)
    plans = [plan for each in found if (plan := each.needed) is not None]
    hopeless = [each for each in plans if each.more is None]
    texts = []
    if most := hardest(plans):
        texts.append(needed(most) + (" for the hardest" if len(plans) - len(hopeless) > 1 else ""))
    if hopeless:
        texts.append(needed(hopeless[0]) if len(found) == 1 else f"{len(hopeless)} too close to resolve")
    if withheld:
        texts.append("a collapsed cell: other seeds")
    return "; ".join(texts)


def contrasts(found: Sequence[Contrast], factor: Factor, findings: Findings) -> Table:
    """Differences between levels of a factor: pairs, or averages over the other one."""
    is_pair = all(len(each.at) == 1 for each in found)
    to_resolve = [_to_resolve([each]) for each in found]
    has_open = any(to_resolve)
    has_caveats = any(each.caveats for each in found)
    headings = ["higher over lower", f"at {factor.other}", "training", "validation", "test"]
    headings += ["to resolve (test)"] * has_open + [">images", ">field, px", ">parameters"] * is_pair
    headings += ["rests on"] * has_caveats
    rows = []
    for index, each in enumerate(found):
        levels = f"{each.higher} over {each.lower.removeprefix(f'{factor} ')}"
        entries = [
            _text(levels, note=pair_name(each) if is_pair else ""),
            _text(", ".join(map(str, each.at)), float(each.at[0])),
            *(_effect(each, each.effects.get(split)) for split in Split),
        ]
        entries += [_text(to_resolve[index])] * has_open
        if is_pair:
            settings = findings.sweep.manifest.settings
            one, other = (Result(config=settings.model(cell), statuses={}, records=()) for cell in each.cells[:2])
            entries += [
                _number(each.share, f"{100 * (each.share or 0):.0f} %"),
                _number(one.field, f"{one.field} / {other.field}"),
                _number(one.parameters, f"{one.parameters:,} / {other.parameters:,}"),
            ]
        entries += [_text(caveats_text(each.caveats))] * has_caveats
        rows.append(Row(entries=entries, kind="" if each.effects else "gap"))
    return Table(headings=headings, rows=rows)


def _effect(contrast: Contrast, effect: Effect | None) -> Entry:
    """A difference with its interval and a word: the verdict, with one seed the sign's."""
    if effect is None:
        return Entry(badge="missing", kind="hole")
    known = Entry(text=effect_size(effect), note=interval(effect), order=effect.difference)
    if not contrast.counted:
        return replace(known, badge="not comparable", kind="hole")
    if effect.p is None:
        return replace(known, badge="holds" if effect.holds else "fails", kind="yes" if effect.holds else "no")
    return replace(known, badge=str(effect.verdict), kind=_kind(effect.verdict))


def _kind(verdict: Verdict | None) -> str:
    return {Verdict.SUPPORTED: "yes", Verdict.CONTRADICTED: "no"}.get(verdict or Verdict.ONE_SEED, "open")


# ---- depth


def depths(findings: Findings, least: int) -> Table:
    """What happens with depth, latent size by latent size, where there are ``least`` depths."""
    rows = []
    for profile in findings.profiles:
        if len(profile.points) >= least:
            rows += [Row(entries=_depth(profile, point), link=point.result.name) for point in profile.points]
    headings = ["model", ">depth", ">test MSE", "next depth", ">validation above training", ">rise at the end", ">time"]
    return Table(headings=headings, rows=rows)


def _depth(profile: Profile, point: DepthPoint) -> list[Entry]:
    step = next((step for step in profile.steps if step.shallower == point.depth), None)
    loss = step.loss if step else None
    return [
        _text(point.result.name),
        _number(point.depth, str(point.depth)),
        _loss(point.result),
        _judged(loss, "lowers by " if loss and loss.holds else "raises by "),
        _judged(point.gap),
        _judged(point.rise),
        _number(point.seconds.mean, duration(point.seconds.mean), note=_spread(point.seconds)),
    ]


def _judged(effect: Effect | None, words: str | None = None) -> Entry:
    if effect is None:
        return Entry()
    text = difference(effect.difference) if words is None else f"{words}{abs(effect.difference):.5f}"
    known = Entry(text=text, order=effect.difference, note=interval(effect))
    return known if effect.p is None else replace(known, badge=str(effect.verdict), kind=_kind(effect.verdict))


def _spread(measured: Measured) -> str:
    return bounds(measured.low, measured.high, 0)


# ---- images, robustness


def spreads(findings: Findings) -> Table:
    """Whether a model paints the average image, architecture by architecture."""
    rows = []
    for result in findings.results:
        ratios = remarks.spread_ratios(findings.sweep, result, findings.arrays)
        entries = [_number(value, f"{value:.3f}") for value in ratios or ()] or [_text("no images"), Entry()]
        rows.append(Row(entries=[_text(result.name), *entries], kind="" if ratios else "gap", link=result.name))
    return Table(headings=["model", ">distance to the mean image", ">distance between class means"], rows=rows)


def robustness(findings: Findings) -> Table:
    """Test loss of what was trained at one strength of noise and tested at others, over all points on the axes."""
    curves = [
        (facet, result, curve)
        for facet in findings.facets
        if facet.sweep.manifest.settings.noise == findings.sweep.manifest.settings.noise
        for result, curve in robust_curves(facet)
    ]
    strengths = sorted({alpha for _, _, curve in curves for alpha in curve})
    rows = [
        Row(
            entries=[
                _text(result.name),
                _number(facet.sweep.manifest.settings.alpha, f"{facet.sweep.manifest.settings.alpha:g}"),
                *(_number(curve.get(alpha), mse(curve.get(alpha, 0.0))) for alpha in strengths),
            ],
            link=result.name,
        )
        for facet, result, curve in curves
    ]
    return Table(headings=["model", ">trained at", *(f">{alpha:g}" for alpha in strengths)], rows=rows)


# ---- facets and cells


def facet(findings: Findings) -> Table:
    """The results at one point on the axes, in few columns."""
    rows = []
    for result in findings.results:
        read = accuracy(findings, result)
        rows.append(
            Row(
                entries=[
                    _text(result.name),
                    _number(result.parameters, f"{result.parameters:,}"),
                    _loss(result),
                    _number(len(result.losses), f"{len(result.losses)} of {len(result.statuses)}"),
                    _number(result.psnr, f"{result.psnr or 0:.2f}"),
                    _number(read.mean, share(read.mean)) if read else Entry(),
                    _text(", ".join(result.marks)),
                ],
                kind="" if result.losses else "gap",
                link=result.name,
            )
        )
    return Table(headings=["model", ">parameters", ">test MSE", ">n", ">PSNR, dB", ">read rightly", "marks"], rows=rows)


def cells(findings: Findings) -> Table:
    """Every cell of the sweep and how it went."""
    rows = []
    for cell in findings.whole.manifest.grid.cells:
        record = findings.whole.records.get(cell.key)
        if record is None:
            status = "damaged" if cell.key in findings.whole.damaged else str(Status.MISSING)
            rows.append(Row(entries=[_text(cell.key), _text(status), *[Entry()] * 6], kind="gap"))
            continue
        seconds = sum(epoch.seconds for epoch in record.history)
        rows.append(
            Row(
                entries=[
                    _text(cell.key),
                    _text(record.status),
                    _number(record.test_loss, mse(record.test_loss or 0.0)),
                    _number(len(record.history), str(len(record.history))),
                    _number(seconds, duration(seconds)),
                    _number(len(record.attempts), str(len(record.attempts))),
                    _text(record.started_at or ""),
                    _text(record.finished_at or ""),
                ],
                kind="" if record.status is Status.COMPLETED else "gap",
                link=cell.key,
            )
        )
    return Table(
        headings=["cell", "status", ">test MSE", ">epochs", ">time", ">attempts", "started", "finished"], rows=rows
    )
