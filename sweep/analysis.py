"""What the records say: results by architecture, the arrays behind them, intervals and verdicts. No torch."""

import io
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from statistics import fmean, stdev

import numpy as np

from dae.architecture import mac_count, parameter_count, receptive_field
from dae.config import IMAGE_SIZE, ModelConfig
from sweep.records import CellFiles, Record, Status, Sweep, read_verified
from sweep.statistics import LEVEL, Array, Estimate, Needed, crossed, holm, needed, over_seeds
from sweep.store import Damaged

# ---- results by architecture


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

        Two that overlap may well be told apart: see the paired differences of `sweep.claims`.
        """
        return None if self.estimate is None else self.estimate.interval()

    @property
    def psnr(self) -> float | None:
        """PSNR of the mean test loss in dB, for a pixel range of 1."""
        return None if self.mean is None else psnr(self.mean)

    @property
    def total(self) -> float | None:
        """The study's loss: squared error summed over the pixels of an image (section 3.1)."""
        return None if self.mean is None else self.mean * IMAGE_SIZE**2

    @property
    def marks(self) -> tuple[str, ...]:
        """What a reader must know beside the numbers: holes, collapsed and unconverged seeds, dead channels."""
        holes = [str(status) for status in self.statuses.values() if status is not Status.COMPLETED]
        flags = [flag for record in self.records for flag in flags_of(record)]
        return (
            tuple(
                word if len(self.statuses) == 1 else f"{words.count(word)} of {len(self.statuses)} {word}"
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
        return (f"{len(dead)} of {len(self.statuses)} with dead channels",)

    @property
    def layers(self) -> str:
        """The layers in the words of the study's Table 1."""
        return f"{self.config.depth} Conv2D + {self.config.depth} ConvTranspose2d"

    @property
    def field(self) -> int:
        """Receptive field of a latent element in pixels."""
        return receptive_field(self.config)

    @property
    def parameters(self) -> int:
        """Trainable parameters."""
        return parameter_count(self.config)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image forward."""
        return mac_count(self.config)


def results(sweep: Sweep, arrays: "Arrays | None" = None) -> list[Result]:
    """The result of every architecture of the grid, also of those without a completed cell, in the grid's order.

    With ``arrays`` the intervals are for other seeds and other test images, without for other seeds alone.
    """
    usable = {record.key: record for record in usable_records(sweep)}
    found = []
    for architecture in sweep.manifest.grid.architectures:
        cells = [cell for cell in sweep.manifest.grid.cells if cell.architecture == architecture.architecture]
        records = tuple(usable[cell.key] for cell in cells if cell.key in usable)
        found.append(
            Result(
                config=sweep.manifest.settings.model(architecture),
                statuses={cell.seed: sweep.status(cell) for cell in cells},
                records=records,
                estimate=_estimate(records, {} if arrays is None else arrays.outputs),
            )
        )
    return found


def _estimate(records: Sequence[Record], outputs: "Mapping[str, Outputs]") -> Estimate | None:
    if len(records) < 2:
        return None
    table = loss_by_image([record.key for record in records], outputs)
    if table is None:
        return over_seeds([record.test_loss for record in records if record.test_loss is not None])
    return crossed(table)


def loss_by_image(keys: Sequence[str], outputs: "Mapping[str, Outputs]") -> Array | None:
    """Test losses (cells, images) of these cells; None where one cannot be read or has other images."""
    losses = [outputs[key].loss for key in keys if key in outputs]
    if len(losses) < len(keys) or len({each.shape for each in losses}) != 1:
        return None
    return np.stack(losses).astype(np.float64)


def usable_records(sweep: Sweep) -> list[Record]:
    """Completed records that carry a test loss and a history, in the grid's order."""
    return [record for record in sweep.completed if record.test_loss is not None and record.history]


def flags_of(record: Record) -> list[str]:
    """``collapsed`` and ``unconverged``, where the record says so."""
    return [flag for flag in ("collapsed", "unconverged") if getattr(record, flag)]


def loss_table(sweep: Sweep) -> list[list[str]]:
    """Test losses as text, for a terminal: a heading row, then a row a depth and a column a latent size.

    A cell is ``0.01009``, over several seeds ``0.01009 ± 0.00012 (3)`` (mean, standard deviation, seeds), with a
    star where `loss_notes` has more to say; a hole says why it is one and what the grid leaves out is empty.
    """
    grid = sweep.manifest.grid
    texts = {(each.config.depth, each.config.latent): _loss_text(each) for each in results(sweep)}
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
    named: dict[str, list[str]] = {}
    for result in results(sweep):
        for mark in result.marks if result.mean is not None else ():
            named.setdefault(mark, []).append(result.name)
    return [f"{mark}: {', '.join(names)}" for mark, names in named.items()]


def psnr(loss: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error, for a pixel range of 1."""
    return math.inf if loss == 0 else -10 * math.log10(loss)


# ---- the arrays that cells leave behind


@dataclass(frozen=True, slots=True)
class Samples:
    """The sweep's ten sample images, one of each class, and what averages they are held against."""

    clean: Array
    noisy: Array
    labels: Array
    mean_image: Array
    class_means: Array


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one completed cell made of the test set; losses and distances are per image, MSE per pixel."""

    loss: Array
    samples: Array
    class_means: Array
    to_mean: Array


@dataclass(frozen=True, slots=True)
class Arrays:
    """Everything readable; ``damaged`` gives the reason for what is not, by file."""

    samples: Samples | None
    outputs: Mapping[str, Outputs]
    damaged: Mapping[str, str]


_IMAGES = (10, IMAGE_SIZE, IMAGE_SIZE)
_SAMPLE_SHAPES = {
    "clean": _IMAGES,
    "noisy": _IMAGES,
    "labels": (10,),
    "mean_image": _IMAGES[1:],
    "class_means": _IMAGES,
}
_OUTPUT_SHAPES = {"loss": (None,), "samples": _IMAGES, "class_means": _IMAGES, "to_mean": (None,)}


def load_arrays(sweep: Sweep) -> Arrays:
    """The sample images and every completed cell's outputs; a file that cannot be trusted is left out and named."""
    samples, outputs, damaged = None, {}, {}
    try:
        samples = Samples(**_read_npz(sweep, sweep.manifest.samples, sweep.manifest.digests, _SAMPLE_SHAPES))
    except Damaged as error:
        damaged[sweep.manifest.samples] = str(error)
    for record in usable_records(sweep):
        name = CellFiles(record.key).test
        try:
            outputs[record.key] = _agreeing(Outputs(**_read_npz(sweep, name, record.digests, _OUTPUT_SHAPES)), record)
        except Damaged as error:
            damaged[name] = str(error)
    return Arrays(samples, outputs, damaged)


def _read_npz(
    sweep: Sweep, name: str, digests: Mapping[str, str], shapes: Mapping[str, tuple[int | None, ...]]
) -> dict[str, Array]:
    data = read_verified(sweep.store, name, digests)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in shapes}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise Damaged(f"{name} does not hold the arrays it should: {error}") from error
    for key, shape in shapes.items():
        found = arrays[key].shape
        if len(found) != len(shape) or any(want not in (None, have) for want, have in zip(shape, found, strict=True)):
            raise Damaged(f"{name}: {key} has shape {found}")
        if 0 in found or not np.isfinite(arrays[key]).all():
            raise Damaged(f"{name}: {key} is empty or not finite")
    return arrays


def _agreeing(outputs: Outputs, record: Record) -> Outputs:
    mean = float(outputs.loss.mean(dtype=np.float64))
    if record.test_loss is None or not math.isclose(mean, record.test_loss, rel_tol=1e-3):
        raise Damaged(f"{CellFiles(record.key).test}: mean loss {mean:.5f}, but the record says {record.test_loss}")
    return outputs


# ---- verdicts


class Verdict(StrEnum):
    """What paired differences over seeds come to, after correction for the family and for the looks taken."""

    SUPPORTED = "supported"
    NOT_RESOLVED = "not resolved"
    WITHHELD = "no verdict"
    CONTRADICTED = "contradicted"
    ONE_SEED = "one seed: no verdict"


@dataclass(frozen=True, slots=True)
class Effect:
    """A difference of losses that the claim says is positive, over ``seeds``.

    Attributes:
        difference: mean over seeds, MSE per pixel.
        relative: the same as a part of the loss that is claimed to be lower; None where that has no meaning.
        low, high: 95 % interval of ``difference`` alone, not corrected; None with one seed.
        p: two-sided p value of the paired t test, not corrected; None with one seed.
        valid_p: the same, corrected for the looks taken (`dae-sweep run --resolve`); ``p`` where there was one.
        adjusted_p: ``valid_p`` after Holm's correction for the family: below `LEVEL` there is a verdict.
        wide: interval that holds with 95 % for all of the family and all looks together (Bonferroni); Holm's step-down
            is sharper, so that it may reach across zero where there is a verdict.
        estimate: mean, variances and degrees of freedom behind the interval; None with one seed.
        open_level: what is left of `LEVEL` for this one; only where the verdict is *not resolved* for want of seeds.
        seconds_a_seed: training time of one more seed, for all cells of the comparison one after the other.
        withheld: why there is no verdict whatever the p value; empty where there is one.
        share: which part of `LEVEL` the latest look may spend; 1 where the number of seeds was fixed in advance.
    """

    difference: float
    relative: float | None
    seeds: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    p: float | None = None
    verdict: Verdict = Verdict.ONE_SEED
    valid_p: float | None = None
    adjusted_p: float | None = None
    wide: tuple[float, float] | None = None
    estimate: Estimate | None = None
    open_level: float | None = None
    seconds_a_seed: float | None = None
    withheld: str = ""
    share: float = 1.0

    @property
    def holds(self) -> bool:
        """Whether the sign is the claimed one."""
        return self.difference > 0

    @property
    def needed(self) -> Needed | None:
        """What would resolve it; None where the verdict is another than *not resolved*."""
        if self.open_level is None or self.estimate is None:
            return None
        found = needed(self.estimate, self.open_level, looked=self.share < 1)
        if found.more is None or self.seconds_a_seed is None:
            return found
        return replace(found, seconds=found.more * self.seconds_a_seed)


def judge(effects: Iterable[Effect]) -> list[Effect]:
    """The effects of one family with their verdicts; those of one seed stay without."""
    effects = list(effects)
    family = [effect for effect in effects if effect.p is not None]
    valid = [effect.p if effect.valid_p is None else effect.valid_p for effect in family]
    adjusted = holm([p for p in valid if p is not None])
    num_open = sum(p >= LEVEL or bool(effect.withheld) for p, effect in zip(adjusted, family, strict=True))
    judged = iter([_with_verdict(*each, len(family), num_open) for each in zip(family, adjusted, strict=True)])
    return [effect if effect.p is None else next(judged) for effect in effects]


def _with_verdict(effect: Effect, adjusted_p: float, num_family: int, num_open: int) -> Effect:
    estimate = effect.estimate
    wide = None if estimate is None else estimate.interval(LEVEL * effect.share / num_family)
    effect = replace(effect, adjusted_p=adjusted_p, wide=wide)
    if effect.withheld:
        return replace(effect, verdict=Verdict.WITHHELD)
    if adjusted_p >= LEVEL:
        return replace(effect, verdict=Verdict.NOT_RESOLVED, open_level=LEVEL / num_open)
    return replace(effect, verdict=Verdict.SUPPORTED if effect.holds else Verdict.CONTRADICTED)
