"""Results by architecture, over its seeds. No torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

from dae.architecture import mac_count, parameter_count, receptive_fields
from dae.config import ModelConfig, Size
from sweep.analysis.arrays import Arrays, Outputs, loss_by_image, usable_records
from sweep.analysis.statistics import Estimate, crossed, over_seeds
from sweep.records.grid import Cell
from sweep.records.record import Record, Status
from sweep.records.sweep import Sweep


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one architecture reached, over its seeds. Losses are mean squared errors per pixel.

    Attributes:
        statuses: how far each seed has come.
        records: the completed ones.
        estimate: the mean test loss with its uncertainty; None below two seeds.
    """

    config: ModelConfig
    statuses: Mapping[int, Status]
    records: tuple[Record, ...]
    estimate: Estimate | None = None

    @property
    def name(self) -> str:
        """The study's name of the architecture."""
        return self.config.name

    @cached_property
    def losses(self) -> tuple[float, ...]:
        """Test loss of each completed seed, in the order of ``records``."""
        return tuple(record.test_loss for record in self.records if record.test_loss is not None)

    @property
    def mean(self) -> float | None:
        """Test loss, mean over seeds; None where no seed is completed."""
        return fmean(self.losses) if self.losses else None

    @property
    def sd(self) -> float | None:
        """Standard deviation of the test loss over seeds, None below two of them."""
        return stdev(self.losses) if len(self.losses) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean test loss, None below two seeds.

        Two that overlap may well be told apart: see the paired differences of `sweep.analysis.claims`.
        """
        return None if self.estimate is None else self.estimate.interval()

    @property
    def psnr(self) -> float | None:
        """PSNR of the mean test loss in dB, for a pixel range of 1."""
        return None if self.mean is None else psnr(self.mean)

    @property
    def total(self) -> float | None:
        """The study's loss: squared error summed over the pixels of an image (section 3.1)."""
        return None if self.mean is None else self.mean * self.config.image.numbers

    @property
    def marks(self) -> tuple[str, ...]:
        """What a reader must know beside the numbers: holes, collapsed and unconverged seeds, dead channels."""
        holes = [str(status) for status in self.statuses.values() if status is not Status.COMPLETED]
        flags = [flag for record in self.records for flag in flags_of(record)]
        return (
            tuple(
                word if len(self.statuses) == 1 else f"{words.count(word)} of {len(self.statuses)} seeds {word}"
                for words in (holes, flags)
                for word in dict.fromkeys(words)
            )
            + self._dead_channels
        )

    @property
    def _dead_channels(self) -> tuple[str, ...]:
        dead = [record.dead_latent_channels for record in self.records if record.dead_latent_channels]
        if not dead:
            return ()
        if len(self.statuses) == 1:
            return (f"{dead[0]} of {self.config.latent_channels} latent channels dead",)
        return (f"{len(dead)} of {len(self.statuses)} seeds with dead channels",)

    @property
    def layers(self) -> str:
        """The layers in the words of the study's Table 1."""
        return f"{self.config.depth} Conv2D + {self.config.depth} ConvTranspose2d"

    @property
    def field(self) -> int | Size:
        """Receptive field of a latent element in pixels: its side, or height and width where they differ."""
        height, width = receptive_fields(self.config)
        return height if height == width else Size(height, width)

    @property
    def parameters(self) -> int:
        """Trainable parameters."""
        return parameter_count(self.config)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image forward."""
        return mac_count(self.config)


def results(sweep: Sweep, arrays: Arrays | None = None) -> list[Result]:
    """The result of every architecture of the grid, also of those without a completed cell, in the grid's order.

    With ``arrays`` the intervals are for other seeds and other test images, without for other seeds alone.
    """
    usable = {record.key: record for record in usable_records(sweep)}
    cells_of: dict[str, list[Cell]] = {}
    for cell in sweep.manifest.grid.cells:
        cells_of.setdefault(cell.architecture, []).append(cell)
    by_architecture = []
    for architecture in sweep.manifest.grid.architectures:
        cells = cells_of[architecture.architecture]
        records = tuple(usable[cell.key] for cell in cells if cell.key in usable)
        by_architecture.append(
            Result(
                config=sweep.manifest.settings.model(architecture),
                statuses={cell.seed: sweep.status(cell) for cell in cells},
                records=records,
                estimate=_estimate(records, {} if arrays is None else arrays.outputs),
            )
        )
    return by_architecture


def _estimate(records: Sequence[Record], outputs: Mapping[str, Outputs]) -> Estimate | None:
    if len(records) < 2:
        return None
    table = loss_by_image([record.key for record in records], outputs)
    if table is None:
        return over_seeds([record.test_loss for record in records if record.test_loss is not None])
    return crossed(table)


def flags_of(record: Record) -> list[str]:
    """``collapsed`` and ``unconverged``, where the record says so."""
    return [flag for flag in ("collapsed", "unconverged") if getattr(record, flag)]


def loss_table(sweep: Sweep) -> list[list[str]]:
    """Test losses as text, for a terminal: a heading row, then a row a depth and a column a latent size.

    A cell is ``0.01009``, over several seeds ``0.01009 ± 0.00012 (3)`` (mean, standard deviation, seeds), with a
    star where `loss_notes` has more to say; a hole says why it is one and what the grid leaves out is empty.
    """
    grid = sweep.manifest.grid
    texts = {(result.config.depth, result.config.latent): _loss_text(result) for result in results(sweep)}
    heading = ["depth", *(f"latent {latent}" for latent in grid.latents)]
    return [heading, *([str(depth), *(texts.get((depth, size), "") for size in grid.latents)] for depth in grid.depths)]


def _loss_text(result: Result) -> str:
    numbers = [] if result.mean is None else [f"{result.mean:.5f}"]
    if result.sd is not None:
        numbers.append(f"± {result.sd:.5f} ({len(result.losses)})")
    if not numbers:
        return ", ".join(result.marks)
    return " ".join([*numbers, "*"] if result.marks else numbers)


def loss_notes(sweep: Sweep) -> list[str]:
    """What the stars of `loss_table` mean, such as ``unconverged: DAE_1_8, DAE_1_5``."""
    architectures: dict[str, list[str]] = {}
    for result in results(sweep):
        for mark in result.marks if result.mean is not None else ():
            architectures.setdefault(mark, []).append(result.name)
    return [f"{mark}: {', '.join(names)}" for mark, names in architectures.items()]


def psnr(loss: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error, for a pixel range of 1."""
    return math.inf if loss == 0 else -10 * math.log10(loss)
