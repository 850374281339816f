"""What is reached without a model on the test images of a cell, and whether the model is worth using. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sweep.analysis.arrays import load_arrays
from sweep.records.grid import Grid
from sweep.records.quality import Array, Baseline, References, load_references
from sweep.records.record import Record
from sweep.records.sweep import SAMPLES, Sweep, samples_file
from sweep.storage.sealing import Damaged

NOTHING, MEAN_IMAGE = "doing nothing", "the mean image"
BEST_OF = {"filter": "best filter", "linear": "best linear map"}
"""By family of baselines, what its best one is called."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Something that is done in place of using a model.

    Attributes:
        name: such as ``doing nothing`` or ``median filter``.
        rank: ``best filter`` or ``best linear map``; empty of what stands alone.
        test_loss: mean squared error per pixel.
        model_loss: that of the model on the same images; None where it is not known.
        images: how many of the test images it was tested on; None for all.
    """

    name: str
    test_loss: float
    model_loss: float | None
    rank: str = ""
    images: int | None = None

    @property
    def is_better(self) -> bool:
        """Whether the model loses to it."""
        return self.model_loss is not None and self.model_loss > self.test_loss


def alternatives(sweep: Sweep, record: Record) -> list[Alternative]:
    """Doing nothing, the mean image and, where they were evaluated, the best filter and linear map, under its noise."""
    file = samples_file(record.cell.axes)
    baselines = sweep.manifest.baselines if file == SAMPLES else sweep.manifest.conditions.get(file, {})
    names = {"identity": NOTHING, "mean_image": MEAN_IMAGE}
    found = [Alternative(name, baselines[key], record.test_loss) for key, name in names.items() if key in baselines]
    try:
        references = load_references(sweep)
    except Damaged:
        return found
    return found if references is None else found + _tuned(sweep, record, references)


def warning(record: Record, found: Sequence[Alternative]) -> str | None:
    """In one sentence that the model loses to what is done without it; None where it does not.

    The mean image is left out: such a model is `collapsed`, which is said elsewhere.
    """
    better = sorted((one for one in found if one.is_better and one.name != MEAN_IMAGE), key=lambda one: one.test_loss)
    better.sort(key=lambda one: one.name != NOTHING)
    if not better:
        return None
    *first, last = map(_with_loss, better)
    than = f"{', '.join(first)} and {last}" if first else last
    return f"{record.key}, whose test loss is {record.test_loss:.5f}, is worse than {than}."


def _with_loss(better: Alternative) -> str:
    loss = f"{better.rank}{', ' * bool(better.rank)}{better.test_loss:.5f}"
    if better.images is not None:
        loss += f" on {better.images:,} test images, on which the model has {better.model_loss:.5f}"
    return f"{better.name} ({loss})"


def _tuned(sweep: Sweep, record: Record, references: References) -> list[Alternative]:
    at_cell = sweep.manifest.settings.at(record.cell)
    condition = references.condition(at_cell.noise, at_cell.alpha)
    if condition is None:
        return []
    loss = _losses(sweep, record)
    found = []
    for family, rank in BEST_OF.items():
        of_family = [one for one in condition.baselines if one.family == family and math.isfinite(one.test_loss)]
        if of_family:
            best = min(of_family, key=lambda one: one.test_loss)
            found.append(_alternative(best, rank, record, loss))
    return found


def _alternative(baseline: Baseline, rank: str, record: Record, loss: Array | None) -> Alternative:
    """Compared on the images that the baseline was tested on: of a slow one these are not all."""
    tested = np.isfinite(baseline.loss)
    if tested.all():
        return Alternative(baseline.name, baseline.test_loss, record.test_loss, rank)
    same = None if loss is None or loss.shape != tested.shape else float(loss[tested].mean(dtype=np.float64))
    return Alternative(baseline.name, baseline.test_loss, same, rank, int(tested.sum()))


def _losses(sweep: Sweep, record: Record) -> Array | None:
    """Squared error per pixel of each test image; None where it is not there."""
    one = replace(sweep.manifest, grid=Grid.of([record.cell]))
    outputs = load_arrays(Sweep(sweep.store, sweep.snapshot, one, {record.key: record}, {})).outputs
    return outputs[record.key].loss if record.key in outputs else None
