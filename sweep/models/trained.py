"""A trained model of a sweep: which one is meant, its weights, and the scale of its pixels."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch

from dae.config import ImageShape, ModelConfig
from dae.errors import UserError
from dae.model import DenoisingAutoencoder
from sweep.analysis.ranking import rankings
from sweep.records.grid import Cell
from sweep.records.record import CellFiles, Record, Status, read_verified
from sweep.records.sweep import Manifest, Sweep
from sweep.storage.sealing import Damaged

BATCH = 128
"""Images of one forward pass."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The pixel values of the training data that became 0 and 1.

    Attributes:
        offset, factor: where the pixels were made of other numbers, pixel = (number - offset) * factor; None of both
            where they were pixels.
    """

    low: int = 0
    high: int = 255
    offset: float | None = None
    factor: float | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> "Scale":
        """The scale of a sweep's dataset; manifests that do not say it are of data from 0 to 255."""
        names = ("low", "high", "offset", "factor")
        return cls(**{name: manifest.dataset[name] for name in names if name in manifest.dataset})

    @property
    def pixel_type(self) -> type[np.uint8] | type[np.uint16]:
        """Of the training data; what was made of other numbers has 16 bits."""
        return np.uint8 if self.factor is None and self.high <= np.iinfo(np.uint8).max else np.uint16

    def range_of(self, dtype: npt.DTypeLike) -> tuple[float, float]:
        """The least and the largest value of this type that a picture may have.

        All of a type of pixels are the same range: 255 of uint8 is 65535 of uint16 and 1 of a float. Where the training
        data were a user's own numbers, theirs are those of a float.
        """
        if np.dtype(dtype).kind != "f":
            return 0, np.iinfo(dtype).max
        if self.offset is None or self.factor is None:
            return 0.0, 1.0
        return self.offset, self.offset + np.iinfo(self.pixel_type).max / self.factor

    def of_type(self, dtype: npt.DTypeLike) -> tuple[float, float]:
        """The values of pixels of this type, uint8, uint16 or float, that become 0 and 1."""
        least, largest = self.range_of(dtype)
        step = (largest - least) / np.iinfo(self.pixel_type).max
        return least + self.low * step, least + self.high * step


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """The model of a completed cell, in evaluation mode on the CPU.

    Attributes:
        has_own_noise: whether the noise that it was trained with is that of pairs, and cannot be drawn.
    """

    record: Record
    config: ModelConfig
    module: DenoisingAutoencoder
    scale: Scale
    has_own_noise: bool = False

    @property
    def image(self) -> ImageShape:
        """The size of the images that it was trained on."""
        return self.config.image

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Denoised images (n, channels, height, width), as the noisy ones given, in [0, 1]."""
        with torch.inference_mode(), one_thread():
            batches = torch.split(torch.from_numpy(np.ascontiguousarray(images)), BATCH)
            denoised: npt.NDArray[np.float32] = torch.cat([self.module(batch) for batch in batches]).numpy()
        return denoised


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one core meanwhile: several wait for each other longer than such small layers take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose(sweep: Sweep, key: str | None = None) -> Record:
    """The record of the cell with this key; by default that of the best completed one, under the sweep's own noise.

    A key without a seed, such as ``DAE_5_13``, is that of the one cell that it fits.

    Raises:
        UserError: there is no such cell, or it is not completed; or none is.
    """
    if key is None:
        return rankings(sweep)[0].first.best
    name, keys = sweep.manifest.name, [cell.key for cell in sweep.manifest.grid.cells]
    if key not in keys and (seeds := [other for other in keys if other.rpartition("-s")[0] == key]):
        if len(seeds) > 1:
            raise UserError(f"{key} was trained with {len(seeds)} seeds: give one of {', '.join(seeds)}.")
        key = seeds[0]
    if key not in keys:
        near = difflib.get_close_matches(key, keys, n=3) or keys[:3]
        raise UserError(f"there is no cell {key} in {name}. Near ones: {', '.join(near)}.")
    if key in sweep.damaged:
        raise UserError(f"{key}: {sweep.damaged[key]}. {sweep.manifest.way_on()} trains the cell again.")
    status = sweep.status(Cell.from_key(key))
    if status is not Status.COMPLETED:
        is_over = status is Status.DIVERGED
        advice = "" if is_over else f": {sweep.manifest.way_on(status)} goes on with it"
        raise UserError(f"{key} is {status}, and only a completed cell has a model{advice}.")
    return sweep.records[key]


def load_model(sweep: Sweep, record: Record) -> TrainedModel:
    """The model of a completed cell.

    Raises:
        UserError: its weights are not there, or not those that were written.
    """
    config = sweep.manifest.settings.model(record.cell)
    module = DenoisingAutoencoder(config)
    try:
        weights = read_verified(sweep.store, CellFiles(record.key).weights, record.digests)
        module.load_state_dict(safetensors.torch.load(weights))
    except Damaged as error:
        raise UserError(f"{error}: it is damaged. {sweep.manifest.way_on()} trains the cell again.") from error
    except Exception as error:  # safetensors has its own exception class, torch a RuntimeError of many lines
        reason = str(error).splitlines()[0]
        raise UserError(f"the weights of {record.key} do not fit {record.architecture}: {reason}") from error
    manifest = sweep.manifest
    return TrainedModel(record, config, module.eval(), Scale.of(manifest), manifest.has_own_noise)
