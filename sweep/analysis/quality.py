"""What the evaluation of the cells says by architecture: the reader, classes, other strengths of noise. No torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from sweep.analysis.findings import Findings
from sweep.analysis.results import Result
from sweep.analysis.statistics import Array, crossed
from sweep.records.record import Record

Z = 1.959964
"""97.5 % of the standard normal distribution lie below."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of the test images, mean over cells, with its 95 % interval.

    The interval is for other seeds and other test images where there are several cells, else for other test images.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: Array) -> "Share":
        """The share of hits in a table (cells, images) of booleans."""
        table = np.atleast_2d(hits).astype(np.float64)
        if len(table) == 1:
            return cls(float(table.mean()), *wilson(int(table.sum()), table.size))
        estimate = crossed(table)
        low, high = estimate.interval()
        return cls(estimate.mean, max(0.0, low), min(1.0, high))


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    share, square = hits / count, Z**2 / count
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def answers(findings: Findings, records: Sequence[Record]) -> Array | None:
    """The reader's answers (cells, images) on what these cells denoised; None where there are none."""
    qualities = findings.qualities.by_key
    rows = [qualities[record.key].read for record in records if record.key in qualities]
    references = findings.references
    if not rows or references is None or not references.labels.size:
        return None
    if any(row.shape != references.labels.shape for row in rows):
        return None
    return np.stack(rows)


def accuracy(findings: Findings, result: Result) -> Share | None:
    """How much of what an architecture denoised is read rightly."""
    read = answers(findings, result.records)
    if read is None:
        return None
    assert findings.references is not None  # they hold what was read
    return Share.of(read == findings.references.labels)


def class_accuracy(findings: Findings, result: Result) -> Array | None:
    """The same by class, (classes,); NaN for a class that the test set lacks."""
    read, references = answers(findings, result.records), findings.references
    if read is None or references is None:
        return None
    hits = (read == references.labels).mean(axis=0)
    return np.array([_mean(hits[references.labels == label]) for label in _labels(findings)])


def class_losses(findings: Findings, result: Result) -> Array | None:
    """Test loss by class, mean over seeds, (classes,): MSE per pixel. None without the labels of the test images."""
    references, outputs = findings.references, findings.arrays.outputs
    rows = [outputs[record.key].loss for record in result.records if record.key in outputs]
    if (
        references is None
        or not rows
        or not _labels(findings)
        or any(row.shape != references.labels.shape for row in rows)
    ):
        return None
    losses = np.stack(rows).astype(np.float64).mean(axis=0)
    return np.array([_mean(losses[references.labels == label]) for label in _labels(findings)])


def worst_read(findings: Findings) -> Record | None:
    """The cell of which the fewest images are read rightly."""
    references = findings.references
    read = [(record, answers(findings, [record])) for result in findings.results for record in result.records]
    shares = [
        (record, float((labels == references.labels).mean()))
        for record, labels in read
        if labels is not None and references is not None
    ]
    return min(shares, key=lambda item: item[1])[0] if shares else None


def confusion(findings: Findings, record: Record) -> Array:
    """How often a class (row) is read as another (column) after this cell has denoised it: counts."""
    read, references = answers(findings, [record]), findings.references
    assert read is not None
    assert references is not None
    table = np.zeros([len(_labels(findings))] * 2, np.int64)
    np.add.at(table, (references.labels, read[0]), 1)
    return table


def _labels(findings: Findings) -> range:
    return range(len(findings.sweep.manifest.classes))


def robust_curves(findings: Findings) -> list[tuple[Result, Mapping[float, float]]]:
    """Test loss (MSE per pixel) by strength of the noise, mean over the seeds that were tested, by architecture.

    None where the noise is part of the images: it has one strength.
    """
    if findings.whole.manifest.has_own_noise:
        return []
    by_architecture: list[tuple[Result, Mapping[float, float]]] = []
    for result in findings.results:
        curves = [
            dict(zip(quality.robust_alpha.tolist(), quality.robust_loss.tolist(), strict=True))
            for record in result.records
            if (quality := findings.qualities.by_key.get(record.key)) is not None and quality.robust_alpha.size
        ]
        if curves:
            strengths = sorted(set.intersection(*map(set, curves)))
            by_architecture.append((result, {alpha: fmean(curve[alpha] for curve in curves) for alpha in strengths}))
    return by_architecture


def losses_without_network(findings: Findings) -> dict[str, float]:
    """Test loss (MSE per pixel) without a network, by name: of linear denoisers only the best one."""
    if findings.condition is None:
        names = {"mean_image": "mean image", "identity": "doing nothing"}
        return {names.get(name, name): loss for name, loss in findings.sweep.manifest.baselines.items()}
    baselines = findings.condition.baselines
    linear = [baseline.test_loss for baseline in baselines if baseline.family == "linear"]
    others = {baseline.name: baseline.test_loss for baseline in baselines if baseline.family != "linear"}
    return others | ({"best linear": min(linear)} if linear else {})


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None where it has no meaning."""
    if len(one) < 3 or len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: Sequence[float]) -> Array:
    array = np.asarray(values)
    return np.array([(array < value).sum() + ((array == value).sum() - 1) / 2 for value in array])


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else math.nan
