"""The figures of a report that show images: what noise does to them and what the models make of them."""

from collections.abc import Callable, Container, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dae.config import ImageShape, Latent
from sweep.analysis.arrays import Outputs, Samples
from sweep.analysis.findings import Findings
from sweep.analysis.results import Result, flags_of
from sweep.analysis.statistics import Array
from sweep.records.record import Record
from sweep.report.drawing import FAINT, HOLE, SOFT, WIDTH, Figure, reason_of_hole, show, strip, styled

_STUDY_STRIP = 298 / 28
"""Width of a strip of ten 28x28 images over its height."""


@styled
def corruption(findings: Findings) -> Figure:
    """The sample images, clean above corrupted (study, figure 3)."""
    samples = _samples(findings)
    tall, wide = strip(samples.clean, columns=len(samples.clean)).shape[:2]
    figure = Figure(figsize=(WIDTH, min(1.9 * tall / wide * _STUDY_STRIP, 4.0)))
    for row, (name, images) in enumerate((("clean", samples.clean), ("corrupted", samples.noisy))):
        axes = figure.add_axes((0.085, 0.5 - 0.49 * row, 0.91, 0.48))
        show(axes, strip(images, columns=len(images)))
        axes.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8, fontsize=10)
    return figure


@styled
def example(findings: Findings) -> Figure:
    """One test image: clean, corrupted and as the architecture of the lowest loss rebuilt it (study, figure 4)."""
    samples, (record, index) = _samples(findings), typical(findings)
    height, width = samples.clean.shape[1:3]
    # Of a square image 1.975 inches, and room for its title and its error.
    tall = min(1.975 * height / width, 4.5)
    whole = round(tall + 0.525, 6)
    figure = Figure(figsize=(6.6, whole))
    clean, rebuilt = samples.clean[index], findings.arrays.outputs[record.key].samples[index]
    panels = (("clean", clean), ("corrupted", samples.noisy[index]), (f"denoised by {record.architecture}", rebuilt))
    for column, (title, image) in enumerate(panels):
        axes = figure.add_axes((0.01 + 0.333 * column, round(0.25 / whole, 6), 0.313, round(tall / whole, 6)))
        show(axes, image)
        axes.set_title(title, fontsize=9.5)
        if column:
            axes.set_xlabel(f"MSE {float(((image - clean) ** 2).mean()):.5f}", color="#444444")
    return figure


@styled
def denoised(findings: Findings) -> Figure:
    """The sample images as every architecture rebuilds them: depth along one axis, latent along the other.

    Of an architecture with several seeds the first that can be read is shown (study, figure 7).
    """
    samples, outputs = findings.arrays.samples, findings.arrays.outputs
    references = {} if samples is None else {"clean": samples.clean, "corrupted": samples.noisy}
    count = 10 if samples is None else len(samples.clean)
    sheet = _Sheet(findings, _lines, count, list(references))
    for column in range(len(sheet.across)):
        for row, images in enumerate(references.values()):
            show(sheet.reference(column, row), sheet.arranged(images))
    for result, axes in sheet.panels():
        shown = None if result is None else _first(result, outputs)
        if shown is None:
            _hole(axes, result)
            continue
        show(axes, sheet.arranged(outputs[shown.key].samples))
        flags = flags_of(shown)
        text = f"MSE {shown.test_loss:.5f}" + (f" ({', '.join(flags)})" if flags else "")
        axes.set_xlabel(text, fontsize=7, labelpad=2, color="#444444")
    return sheet.figure


def _lines(images: Array, columns: int) -> Array:
    per_line = 10 if columns <= 3 else 5 if columns <= 6 else 2
    return strip(images, min(per_line, len(images)))


@styled
def extremes(findings: Findings) -> Figure:
    """The test images that each architecture denoises best, at the median and worst; clean, noisy and denoised."""
    qualities = findings.qualities.by_key
    sheet = _Sheet(findings, _triples, 9, [])
    is_line = len(sheet.across) <= 3
    for result, axes in sheet.panels():
        shown = None if result is None else _first(result, qualities)
        if shown is None:
            _hole(axes, result)
            continue
        images = qualities[shown.key].shown
        show(axes, sheet.arranged(images.reshape(9, *images.shape[2:])))
        errors = _errors(images[:, 2], images[:, 0])
        words = [f"{error:.4f}" for error in errors]
        if is_line:
            words = [f"{name} {word}" for name, word in zip(("best", "median", "worst"), words, strict=True)]
        label = (" " * 12 if is_line else " · ").join(words)
        axes.set_xlabel(label, fontsize=7 if len(sheet.across) <= 6 else 5.5, labelpad=2, color="#444444")
    return sheet.figure


def _triples(images: Array, columns: int) -> Array:
    """Three triples of images in a line, or one below the other where there are many columns."""
    triples = [strip(images[start : start + 3], 3) for start in (0, 3, 6)]
    is_line = columns <= 3
    height, width, *colours = triples[0].shape
    white = np.ones((height, 8, *colours) if is_line else (4, width, *colours), np.float32)
    parts = [triples[0], white, triples[1], white, triples[2]]
    return np.hstack(parts) if is_line else np.vstack(parts)


def _samples(findings: Findings) -> Samples:
    assert findings.arrays.samples is not None, "a figure of samples is offered only where there are samples"
    return findings.arrays.samples


def _hole(axes: Axes, result: Result | None) -> None:
    axes.set(xticks=[], yticks=[], facecolor=HOLE)
    axes.spines[:].set(visible=True, color=FAINT, linestyle=(0, (2, 2)), linewidth=0.8)
    word = "not in the grid" if result is None else reason_of_hole(result)
    axes.text(0.5, 0.5, word, ha="center", va="center", transform=axes.transAxes, fontsize=9, color=SOFT)


# ---- which image, of which cell


def _first(result: Result, keys: Container[str]) -> Record | None:
    """The first completed cell of an architecture that is among ``keys``."""
    return next((record for record in result.records if record.key in keys), None)


def shown_seeds(findings: Findings) -> set[int]:
    """The seeds of which `denoised` shows images."""
    outputs = findings.arrays.outputs
    firsts = (_first(result, outputs) for result in findings.results)
    return {record.seed for record in firsts if record is not None}


def best_shown(findings: Findings) -> Record | None:
    """The first readable cell of the architecture with the lowest mean test loss among those that have one."""
    outputs = findings.arrays.outputs
    shown = [result for result in findings.results if result.losses and _first(result, outputs) is not None]
    best = min(shown, key=lambda result: fmean(result.losses), default=None)
    return None if best is None else _first(best, outputs)


def typical(findings: Findings) -> tuple[Record, int]:
    """That cell, and the sample whose error under it is the median of all: not chosen for being good or bad."""
    record, samples = best_shown(findings), _samples(findings)
    assert record is not None
    return record, _median(samples, findings.arrays.outputs[record.key])


def _median(samples: Samples, outputs: Outputs) -> int:
    errors = _errors(outputs.samples, samples.clean)
    return int(np.argsort(errors, kind="stable")[len(errors) // 2])


def _errors(images: Array, clean: Array) -> Array:
    """Mean squared error of each image."""
    errors: Array = ((images - clean) ** 2).mean(axis=tuple(range(1, images.ndim)))
    return errors


# ---- a sheet with a strip of images for every architecture


class _Sheet:
    """Strips of images in rows and columns: depths and latent sizes, or turned where there are many latents.

    Measures are inches from the top left corner.

    Attributes:
        across, down: levels of the columns and of the rows.
    """

    LEFT, RIGHT, TOP, GAP, CAPTION = 0.84, 0.02, 0.3, 0.1, 0.22

    def __init__(
        self,
        findings: Findings,
        arrange: Callable[[Array, int], Array],
        count: int,
        references: Sequence[str],
    ) -> None:
        """A sheet of strips that ``arrange`` makes of ``count`` images, given the number of columns of the sheet.

        Above the architectures there is a row for each of ``references``.
        """
        image: ImageShape = findings.sweep.manifest.settings.shape
        self._table = {(result.config.depth, result.config.latent): result for result in findings.results}
        depths = sorted({depth for depth, _ in self._table})
        occurring = {latent for _, latent in self._table}
        latents = [latent for latent in findings.sweep.manifest.grid.latents if latent in occurring]
        self._turned = len(latents) > max(3, len(depths))
        levels: tuple[Sequence[Latent], Sequence[Latent]] = (latents, depths) if self._turned else (depths, latents)
        self.down, self.across = levels
        self._arrange = arrange
        self._width = (WIDTH - self.LEFT - self.RIGHT - self.GAP * (len(self.across) - 1)) / len(self.across)
        tall, wide = self.arranged(np.zeros((count, *image.array), np.float32)).shape[:2]
        self._strip = self._width * tall / wide
        self._first = self.TOP + len(references) * (self._strip + 0.06) + (0.06 if references else 0)
        self._height = self._first + len(self.down) * (self._strip + self.CAPTION)
        self.figure = Figure(figsize=(WIDTH, self._height))
        self._name(references)

    def arranged(self, images: Array) -> Array:
        """The images (n, ...) as one."""
        return self._arrange(images, len(self.across))

    def reference(self, column: int, row: int) -> Axes:
        """A place above the architectures."""
        return self._axes(column, self.TOP + row * (self._strip + 0.06))

    def panels(self) -> list[tuple[Result | None, Axes]]:
        """A place for every depth and latent size, with the result if the grid has it."""
        return [
            (
                self._table.get((other, level) if self._turned else (level, other)),  # type: ignore[arg-type]
                self._axes(column, self._row(row)),
            )
            for row, level in enumerate(self.down)
            for column, other in enumerate(self.across)
        ]

    def _row(self, row: int) -> float:
        return float(self._first + row * (self._strip + self.CAPTION))

    def _axes(self, column: int, y: float) -> Axes:
        x = self.LEFT + column * (self._width + self.GAP)
        bottom = 1 - (y + self._strip) / self._height
        return self.figure.add_axes((x / WIDTH, bottom, self._width / WIDTH, self._strip / self._height))

    def _name(self, references: Sequence[str]) -> None:
        row_word, column_word = ("latent", "depth") if self._turned else ("depth", "latent")
        for column, level in enumerate(self.across):
            x = (self.LEFT + column * (self._width + self.GAP) + self._width / 2) / WIDTH
            word = f"{column_word} {level}" if len(self.across) < 12 else str(level)
            self.figure.text(x, 1 - 0.2 / self._height, word, ha="center", weight="bold", fontsize=10)

        def beside(y: float, word: str, **style: Any) -> None:
            place = ((self.LEFT - 0.08) / WIDTH, 1 - (y + self._strip / 2) / self._height)
            self.figure.text(*place, word, ha="right", va="center", **style)

        for row, name in enumerate(references):
            beside(self.TOP + row * (self._strip + 0.06), name, fontsize=8.5, color=SOFT)
        for row, level in enumerate(self.down):
            beside(self._row(row), f"{row_word} {level}", fontsize=9.5, weight="bold")
