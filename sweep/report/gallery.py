"""Which figures a report has, in the order of the page, and what to run for those whose data are not there."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sweep.analysis.findings import Findings
from sweep.analysis.quality import robust_curves, worst_read
from sweep.report import captions, charts, figures, images
from sweep.report.drawing import Figure
from sweep.report.prose import MIN_DEPTHS
from sweep.report.words import command


@dataclass(frozen=True, kw_only=True, slots=True)
class Exhibit:
    """A figure of the report.

    Attributes:
        answers: the figure or section of the study that it answers.
        caption: what is shown; empty where it cannot be drawn.
        draw: None where it cannot be drawn.
        missing: why not, and what to run.
        is_photo: whether it shows images, which are smaller as PNG; lines stay sharp at any size as SVG.
    """

    name: str
    title: str
    answers: str
    caption: str = ""
    draw: Callable[[Findings], Figure] | None = None
    missing: str = ""
    is_photo: bool = False


def exhibits(findings: Findings) -> list[Exhibit]:
    """All figures of a report."""
    return list(_exhibits(findings))


def _exhibits(findings: Findings) -> Iterator[Exhibit]:
    has_samples = findings.arrays.samples is not None
    has_outputs = images.best_shown(findings) is not None
    has_reader = worst_read(findings) is not None
    evaluate = f"Not there yet: {command(findings.whole.manifest)} computes it from the trained models."
    unreadable = "Its images cannot be read or are not there."

    def exhibit(
        name: str,
        title: str,
        answers: str,
        draw: Callable[[Findings], Figure],
        caption: Callable[[Findings], str],
        *,
        given: bool = True,
        missing: str = "",
        is_photo: bool = False,
    ) -> Exhibit:
        if not given:
            return Exhibit(name=name, title=title, answers=answers, missing=missing)
        return Exhibit(name=name, title=title, answers=answers, caption=caption(findings), draw=draw, is_photo=is_photo)

    yield exhibit("test_loss", "Test loss", "the study's figure 6", figures.loss_bars, captions.test_loss)
    yield exhibit(
        "effects", "Effects of depth and latent size", "the study's claims and section 5.1", figures.effects,
        captions.effects, given=bool(figures.effect_groups(findings)),
        missing="No two cells differ in one thing alone: "
        + command(findings.whole.manifest, "--depths 1,3 --latents 13,5"),
    )  # fmt: skip
    yield exhibit(
        "cost", "Loss against cost", "the study's section 5.3", charts.cost, captions.cost,
        given=sum(bool(result.losses) for result in findings.results) > 1,
        missing="One architecture alone: " + command(findings.whole.manifest, "--depths 1,3,5 --latents 13,8,5"),
    )  # fmt: skip
    yield exhibit(
        "depth", "How deep before it stops helping", "the study's future work, section 5.4", charts.depth,
        captions.depth, given=any(len(profile.points) >= MIN_DEPTHS for profile in findings.profiles),
        missing=f"Drawn from {MIN_DEPTHS} depths on: "
        + command(findings.whole.manifest, f"--depths 1..9 --latents {findings.sweep.manifest.grid.latents[0]}"),
    )  # fmt: skip
    yield exhibit(
        "reader", "Can the digits be read?", "the study's future work, section 5.4", charts.reader, captions.reader,
        given=has_reader, missing=evaluate,
    )  # fmt: skip
    yield exhibit(
        "classes", "Digit by digit", "the study's future work, section 5.4", charts.classes, captions.classes,
        given=bool(charts.class_rows(findings)), missing=evaluate,
    )  # fmt: skip
    yield exhibit(
        "confusion", "What is misread as what", "the study's future work, section 5.4", charts.confusions,
        captions.confusion, given=has_reader, missing=evaluate,
    )  # fmt: skip
    yield exhibit(
        "robustness", "Other strengths of noise", "the study's section 2.2", charts.robustness, captions.robustness,
        given=bool(robust_curves(findings)), missing=evaluate,
    )  # fmt: skip
    yield exhibit(
        "facets", "Further axes", "the study's section 1.2", charts.facets, captions.facets,
        given=len(findings.facets) > 1,
        missing="The sweep has no further axis: " + command(findings.whole.manifest, "--axis alpha=0.25,0.5,0.75"),
    )  # fmt: skip
    yield exhibit("curves", "Training and validation loss", "the study's figure 5", figures.curves, captions.curves)
    yield exhibit(
        "corruption", "Clean and corrupted test images", "the study's figure 3", images.corruption,
        captions.corruption, given=has_samples, missing=unreadable, is_photo=True,
    )  # fmt: skip
    yield exhibit(
        "example", "One test image", "the study's figure 4", images.example, captions.example,
        given=has_samples and has_outputs, missing=unreadable, is_photo=True,
    )  # fmt: skip
    yield exhibit(
        "denoised", "Denoised test images", "the study's figure 7", images.denoised, captions.denoised,
        given=has_outputs, missing=unreadable, is_photo=True,
    )  # fmt: skip
    yield exhibit(
        "extremes", "Best, median and worst", "the study's section 5.2", images.extremes, captions.extremes,
        given=bool(findings.qualities.found), missing=evaluate, is_photo=True,
    )  # fmt: skip
