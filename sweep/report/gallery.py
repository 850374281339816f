"""Which figures a report has, in the order of the page, and what to run for those whose data are not there."""

from collections.abc import Callable
from dataclasses import dataclass

from dae.config import usual_latents
from sweep.analysis.findings import Findings
from sweep.analysis.quality import robust_curves, worst_read
from sweep.report import captions, charts, effects, figures, images, reading
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
    """All figures of a report, also those that cannot be drawn."""
    return [
        Exhibit(
            name=name,
            title=_title(title, findings),
            answers=answers,
            caption=caption(findings),
            draw=draw,
            is_photo=draw in _PHOTOS,
        )
        if can_draw(findings)
        else Exhibit(name=name, title=_title(title, findings), answers=answers, missing=missing(findings))
        for name, title, answers, draw, caption, can_draw, missing in _EXHIBITS
    ]


def _title(title: str, findings: Findings) -> str:
    return title if findings.sweep.manifest.shows_digits else _OTHER_IMAGES.get(title, title)


def _always(_: Findings) -> bool:
    return True


def _has_two_results(findings: Findings) -> bool:
    return sum(bool(result.losses) for result in findings.results) > 1


def _has_depths(findings: Findings) -> bool:
    return any(len(profile.points) >= MIN_DEPTHS for profile in findings.profiles)


def _is_read(findings: Findings) -> bool:
    return worst_read(findings) is not None


def _has_samples(findings: Findings) -> bool:
    return findings.arrays.samples is not None


def _has_outputs(findings: Findings) -> bool:
    return images.best_shown(findings) is not None


def _not_evaluated(findings: Findings) -> str:
    return f"Not there yet: {command(findings.whole.manifest)} computes it from the trained models."


def _not_read(findings: Findings) -> str:
    if not findings.sweep.manifest.classes:
        return "Left out: the images have no labels."
    return _not_evaluated(findings)


def _not_robust(findings: Findings) -> str:
    if findings.whole.manifest.has_own_noise:
        return "Left out: the noise is part of the images, and there is no other strength of it."
    return _not_evaluated(findings)


def _no_axes(findings: Findings) -> str:
    axis = "width=8,16,32" if findings.whole.manifest.has_own_noise else "alpha=0.25,0.5,0.75"
    return _run("The sweep has no further axis", f"--axis {axis}")(findings)


def _unreadable(_: Findings) -> str:
    return "Its images cannot be read or are not there."


def _run(reason: str, options: str) -> Callable[[Findings], str]:
    """The reason and the command with these options.

    ``{latent}`` stands for the largest latent size, ``{usual}`` for the usual ones, ``{ends}`` for the ends of these.
    """

    def said(findings: Findings) -> str:
        manifest = findings.sweep.manifest
        usual = usual_latents(manifest.settings.shape)
        words = options.format(
            latent=manifest.grid.latents[0], usual=",".join(map(str, usual)), ends=f"{usual[0]},{usual[-1]}"
        )
        return f"{reason}: {command(findings.whole.manifest, words)}"

    return said


_FUTURE_WORK = "the study's future work, section 5.4"
_PHOTOS = {images.corruption, images.example, images.denoised, images.extremes}

_OTHER_IMAGES = {"Can the digits be read?": "Are the images recognised?", "Digit by digit": "Class by class"}
"""Titles where the images are no digits."""

_EXHIBITS = (
    # name, title, what of the study it answers, draw, caption, whether it can be drawn, else what is missing
    ("test_loss", "Test loss", "the study's figure 6", figures.loss_bars, captions.test_loss, _always, _unreadable),
    ("effects", "Effects of depth and latent size", "the study's claims and section 5.1",
     effects.effects, captions.effects, lambda findings: bool(effects.effect_groups(findings)),
     _run("No two cells differ in one thing alone", "--depths 1,3 --latents {ends}")),
    ("cost", "Loss against cost", "the study's section 5.3", charts.cost, captions.cost, _has_two_results,
     _run("One architecture alone", "--depths 1,3,5 --latents {usual}")),
    ("depth", "How deep before it stops helping", _FUTURE_WORK, charts.depth, captions.depth, _has_depths,
     _run(f"Drawn from {MIN_DEPTHS} depths on", "--depths 1..9 --latents {latent}")),
    ("reader", "Can the digits be read?", _FUTURE_WORK, reading.reader, captions.reader, _is_read, _not_read),
    ("classes", "Digit by digit", _FUTURE_WORK, reading.classes, captions.classes,
     lambda findings: bool(reading.class_rows(findings)), _not_read),
    ("confusion", "What is misread as what", _FUTURE_WORK,
     reading.confusions, captions.confusion, _is_read, _not_read),
    ("robustness", "Other strengths of noise", "the study's section 2.2", charts.robustness, captions.robustness,
     lambda findings: bool(robust_curves(findings)), _not_robust),
    ("facets", "Further axes", "the study's section 1.2", charts.facets, captions.facets,
     lambda findings: len(findings.facets) > 1, _no_axes),
    ("curves", "Training and validation loss", "the study's figure 5",
     figures.curves, captions.curves, _always, _unreadable),
    ("corruption", "Clean and corrupted test images", "the study's figure 3",
     images.corruption, captions.corruption, _has_samples, _unreadable),
    ("example", "One test image", "the study's figure 4", images.example, captions.example,
     lambda findings: _has_samples(findings) and _has_outputs(findings), _unreadable),
    ("denoised", "Denoised test images", "the study's figure 7",
     images.denoised, captions.denoised, _has_outputs, _unreadable),
    ("extremes", "Best, median and worst", "the study's section 5.2", images.extremes, captions.extremes,
     lambda findings: bool(findings.qualities.by_key), _not_evaluated),
)  # fmt: skip
