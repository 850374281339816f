"""The arrays that completed cells leave behind: losses by image, samples. No torch."""

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dae.config import DATASETS
from dae.testset import MOST_CLASSES, SAMPLES
from sweep.analysis.statistics import Array
from sweep.records.record import CellFiles, Record, verified
from sweep.records.sweep import Sweep
from sweep.storage.sealing import Damaged


def loss_by_image(keys: Sequence[str], outputs: "Mapping[str, Outputs]") -> Array | None:
    """Test losses (cells, images) of these cells; None where one cannot be read or has other images."""
    losses = [outputs[key].loss for key in keys if key in outputs]
    if len(losses) < len(keys) or len({loss.shape for loss in losses}) != 1:
        return None
    return np.stack(losses).astype(np.float64)


def usable_records(sweep: Sweep) -> list[Record]:
    """Completed records that carry a test loss and a history, in the grid's order."""
    return [record for record in sweep.completed if record.test_loss is not None and record.history]


@dataclass(frozen=True, slots=True)
class Samples:
    """The sweep's sample images, and the average images of the training set; values from 0 to 1.

    There is one sample a class, of at most ten classes; without labels there are ten from all over the test set.

    Attributes:
        clean, noisy: (samples, height, width), or (samples, height, width, 3) in colour.
        labels: class of each, (samples,); (0,) where images have no labels.
        mean_image: mean training image.
        class_means: mean clean test image of each class, (classes, ...); (0, ...) without labels.
    """

    clean: Array
    noisy: Array
    labels: Array
    mean_image: Array
    class_means: Array


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one completed cell made of the test set; losses and distances are MSE per pixel.

    Attributes:
        loss: of each test image, (images,).
        samples: the sample images, denoised, (samples, ...).
        class_means: mean denoised test image of each class, (classes, ...).
        to_mean: distance of each denoised test image to the mean training image, (images,).
    """

    loss: Array
    samples: Array
    class_means: Array
    to_mean: Array


@dataclass(frozen=True, slots=True)
class Arrays:
    """The arrays that can be read, by key of the cell; ``damaged`` says of each other file why it cannot."""

    samples: Samples | None
    outputs: Mapping[str, Outputs]
    damaged: Mapping[str, str]


def _shapes(sweep: Sweep) -> tuple[dict[str, tuple[int | None, ...]], dict[str, tuple[int | None, ...]]]:
    """The shapes of what is in the files of samples and of outputs; None for any size."""
    image, classes = sweep.manifest.settings.shape.array, len(sweep.manifest.classes)
    # Of own images there are fewer samples where a class, or the test set, has too few images.
    count = SAMPLES if sweep.manifest.dataset.get("name") in DATASETS else None
    samples, means = (count, *image), (min(MOST_CLASSES, classes), *image)
    labels = (count if classes else 0,)
    return (
        {"clean": samples, "noisy": samples, "labels": labels, "mean_image": image, "class_means": means},
        {"loss": (None,), "samples": samples, "class_means": means, "to_mean": (None,)},
    )


def load_arrays(sweep: Sweep) -> Arrays:
    """The sample images and every completed cell's outputs; a file that cannot be trusted is left out and named."""
    samples, outputs, damaged = None, {}, {}
    sample_shapes, output_shapes = _shapes(sweep)
    records = usable_records(sweep)
    contents = sweep.snapshot.read_all([sweep.manifest.samples, *(CellFiles(record.key).test for record in records)])
    try:
        samples = Samples(**_unpacked(contents, sweep.manifest.samples, sweep.manifest.digests, sample_shapes))
    except Damaged as error:
        damaged[sweep.manifest.samples] = str(error)
    for record in records:
        name = CellFiles(record.key).test
        try:
            outputs[record.key] = _checked(Outputs(**_unpacked(contents, name, record.digests, output_shapes)), record)
        except Damaged as error:
            damaged[name] = str(error)
    return Arrays(samples, outputs, damaged)


def _unpacked(
    contents: Mapping[str, bytes], name: str, digests: Mapping[str, str], shapes: Mapping[str, tuple[int | None, ...]]
) -> dict[str, Array]:
    data = verified(name, contents, digests)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in shapes}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise Damaged(f"{name} does not hold the arrays it should: {error}") from error
    for key, shape in shapes.items():
        actual = arrays[key].shape
        if len(actual) != len(shape) or any(want not in (None, have) for want, have in zip(shape, actual, strict=True)):
            raise Damaged(f"{name}: {key} has shape {actual}")
        if (0 in actual and 0 not in shape) or not np.isfinite(arrays[key]).all():
            raise Damaged(f"{name}: {key} is empty or not finite")
    return arrays


def _checked(outputs: Outputs, record: Record) -> Outputs:
    """The outputs, their mean loss being that of the record."""
    mean = float(outputs.loss.mean(dtype=np.float64))
    if record.test_loss is None or not math.isclose(mean, record.test_loss, rel_tol=1e-3):
        raise Damaged(f"{CellFiles(record.key).test}: mean loss {mean:.5f}, but the record says {record.test_loss}")
    return outputs
