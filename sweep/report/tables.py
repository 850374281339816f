"""The tables of a report on results, depth, images, noise and cells. No torch."""

import math
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean

from dae.config import ImageShape, ModelConfig, side
from sweep.analysis.findings import Findings
from sweep.analysis.profiles import DepthPoint, Profile
from sweep.analysis.quality import accuracy, robust_curves
from sweep.analysis.results import Result, psnr
from sweep.records.record import Status, duration
from sweep.report import remarks
from sweep.report.entries import Entry, Row, Table, effect_entry, loss, number, text
from sweep.report.words import SPACE, bounds, mse, share, utc

# ---- architectures and baselines


def results(findings: Findings) -> Table:
    """The study's Table 1 with results beside it, and below it the ways to do without a network."""
    has_quality = bool(findings.qualities.by_key) or findings.condition is not None
    rows = [
        Row(entries=_architecture(findings, result), kind="" if result.losses else "gap", link=result.name)
        for result in findings.results
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
    by_key = findings.qualities.by_key
    qualities = [by_key[record.key] for record in result.records if record.key in by_key]
    ssim = fmean(float(quality.ssim.mean(dtype=float)) for quality in qualities) if qualities else None
    return [
        text(result.name),
        loss(result),
        number(len(result.losses), f"{len(result.losses)} of {len(result.statuses)}"),
        number(result.psnr, f"{result.psnr or 0:.2f}"),
        number(ssim, f"{ssim or 0:.3f}"),
        Entry()
        if read is None
        else number(read.mean, share(read.mean), note=f"[{100 * read.low:.1f}, {100 * read.high:.1f}]"),
        number(result.total, f"{result.total or 0:.2f}"),
        text(_latent_space(config), side(config.latent_sides)),
        number(config.compression, f"{100 * config.compression:.2f} %"),
        text(result.layers, config.depth),
        number(side(result.field), str(result.field)),
        number(result.parameters, f"{result.parameters:,}"),
        number(result.macs, f"{result.macs:,}"),
        text(", ".join(result.marks)),
    ]


def _latent_space(config: ModelConfig) -> str:
    height, width = config.latent_sides
    return f"({config.latent_channels}, {height}, {width})".replace(" ", SPACE)


def _baselines(findings: Findings) -> Iterator[list[Entry]]:
    references, condition = findings.references, findings.condition
    image = findings.sweep.manifest.settings.shape
    if references is None or condition is None:
        names = {"identity": "doing nothing", "mean_image": "mean image"}
        for name, test_loss in findings.sweep.manifest.baselines.items():
            yield _without_network(image, names.get(name, name), test_loss)
        return
    for base in condition.baselines:
        tuned = ", ".join(f"{name.replace('_', ' ')} {_setting_text(value)}" for name, value in base.parameters.items())
        yield _without_network(image, base.name, base.test_loss, base.ssim, base.accuracy, base.latent, tuned)
    reader = references.reader
    yield _without_network(image, "the clean images", None, 1.0, reader.accuracy_clean if reader else None)


def left_out(findings: Findings) -> list[tuple[str, str]]:
    """The linear maps that were not fitted, and why."""
    missing = findings.condition.left_out if findings.condition else ()
    return [(f"PCA {one.latent}, reduced-rank regression {one.latent}", one.reason) for one in missing]


def _setting_text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _without_network(
    image: ImageShape,
    name: str,
    test_loss: float | None,
    ssim: float | None = None,
    read: float | None = None,
    latent: int | None = None,
    tuned: str = "",
) -> list[Entry]:
    decibels = psnr(test_loss) if test_loss else None
    total = None if test_loss is None else test_loss * image.numbers
    compression = None if latent is None else latent / image.numbers
    return [
        text(name),
        number(test_loss, mse(test_loss or 0.0)),
        Entry(),
        number(decibels, f"{decibels or 0:.2f}"),
        number(ssim, f"{ssim or 0:.3f}"),
        number(read, share(read or 0.0)),
        number(total, f"{total or 0:.2f}"),
        number(None if latent is None else math.sqrt(latent), f"{latent}{SPACE}elements"),
        number(compression, f"{100 * (compression or 0):.2f} %"),
        text(tuned),
        *[Entry()] * 4,
    ]


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
    to_next = step.loss if step else None
    return [
        text(point.result.name),
        number(point.depth, str(point.depth)),
        loss(point.result),
        effect_entry(to_next, "lowers by " if to_next and to_next.holds else "raises by "),
        effect_entry(point.gap),
        effect_entry(point.rise),
        number(point.seconds.mean, duration(point.seconds.mean), note=bounds(point.seconds.low, point.seconds.high, 0)),
    ]


# ---- images, robustness


def spreads(findings: Findings) -> Table:
    """Whether a model paints the average image, architecture by architecture."""
    rows = []
    for result in findings.results:
        ratios = remarks.spread_ratios(findings.sweep, result, findings.arrays)
        entries = [number(value, f"{value:.3f}") for value in ratios or ()] or [text("no images"), Entry()]
        rows.append(Row(entries=[text(result.name), *entries], kind="" if ratios else "gap", link=result.name))
    headings = ["model", ">distance to the mean image", ">distance between class means"]
    columns = min([3, *(len(row.entries) for row in rows)])  # without labels there are no classes
    rows = [replace(row, entries=row.entries[:columns]) for row in rows]
    return Table(headings=headings[:columns], rows=rows)


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
                text(result.name),
                number(facet.sweep.manifest.settings.alpha, f"{facet.sweep.manifest.settings.alpha:g}"),
                *(number(curve.get(alpha), mse(curve.get(alpha, 0.0))) for alpha in strengths),
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
                    text(result.name),
                    number(result.parameters, f"{result.parameters:,}"),
                    loss(result),
                    number(len(result.losses), f"{len(result.losses)} of {len(result.statuses)}"),
                    number(result.psnr, f"{result.psnr or 0:.2f}"),
                    number(read.mean, share(read.mean)) if read else Entry(),
                    text(", ".join(result.marks)),
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
            rows.append(Row(entries=[text(cell.key), text(status), *[Entry()] * 6], kind="gap"))
            continue
        seconds = sum(epoch.seconds for epoch in record.history)
        rows.append(
            Row(
                entries=[
                    text(cell.key),
                    text(record.status),
                    number(record.test_loss, mse(record.test_loss or 0.0)),
                    number(len(record.history), str(len(record.history))),
                    number(seconds, duration(seconds)),
                    number(len(record.attempts), str(len(record.attempts))),
                    text(utc(record.started_at), record.started_at or ""),
                    text(utc(record.finished_at), record.finished_at or ""),
                ],
                kind="" if record.status is Status.COMPLETED else "gap",
                link=cell.key,
            )
        )
    return Table(
        headings=["cell", "status", ">test MSE", ">epochs", ">time", ">attempts", "started (UTC)", "finished (UTC)"],
        rows=rows,
    )
