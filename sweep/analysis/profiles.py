"""What happens with depth at each latent size, and how deep is deep enough. No torch.

Depth moves parameters, receptive field and cost at once; in the facet of equal parameters (``--match-parameters``) it
no longer moves the parameters. Every difference is an `Effect` with its interval and verdict.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean

from dae.config import Latent
from sweep.analysis.arrays import Arrays
from sweep.analysis.claims import Contrast, Factor, Split
from sweep.analysis.comparer import Comparer
from sweep.analysis.results import Result, results
from sweep.analysis.statistics import over_seeds
from sweep.analysis.verdicts import Effect, Verdict, with_verdicts
from sweep.records.grid import Cell
from sweep.records.record import Record
from sweep.records.sweep import Sweep

LATE = 3
"""Epochs at the end, whose validation loss is compared with that of as many epochs before them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A mean over seeds with its 95 % interval, None with one seed."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthPoint:
    """One depth at one latent size, with a result.

    Attributes:
        result: has the test loss, its interval and marks such as *unconverged*.
        gap: validation loss less training loss at the last epoch. The training loss is a running mean under weights
            that are still improving, so that the gap is understated, and most so early in training.
        rise: mean validation loss of the last `LATE` epochs less that of as many before: above zero, training makes
            validation worse. None below 2 x `LATE` epochs.
        seconds: training time of a cell.
    """

    depth: int
    result: Result
    gap: Effect
    rise: Effect | None
    seconds: Measured

    @property
    def overfits(self) -> bool:
        """Whether both are supported: validation lies above training, and gets worse as training goes on."""
        effects = (self.gap, self.rise)
        return all(effect is not None and effect.verdict is Verdict.SUPPORTED for effect in effects)


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthStep:
    """From one depth to the next deeper one of the grid.

    Attributes:
        loss: test loss of the shallower less that of the deeper: above zero, the deeper one is
            better. None without shared seeds.
    """

    shallower: int
    deeper: int
    loss: Effect | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """What happens with depth at one latent size.

    Attributes:
        points: by depth; ``gap`` and ``rise`` are a family each.
        steps: between neighbours; their losses are a family.
        may_be_best: the depths that no other depth is shown to beat, tested on all pairs of depths at this latent size
            (one family): with 95 % they hold the best one. Empty where nothing could be tested.
        shown_worse: the depths that some other depth is shown to beat.
        untested: the depths that were in no test: one seed, no seed shared with another depth, or a collapsed cell.
    """

    latent: Latent
    points: tuple[DepthPoint, ...]
    steps: tuple[DepthStep, ...]
    may_be_best: tuple[int, ...]
    shown_worse: tuple[int, ...]
    untested: tuple[int, ...]

    @property
    def best(self) -> int:
        """The depth with the lowest mean test loss."""
        return min(self.points, key=lambda point: point.result.mean or 0.0).depth

    @property
    def overfits_from(self) -> int | None:
        """The shallowest depth that is shown to overfit; None where none is."""
        return next((point.depth for point in self.points if point.overfits), None)


def profiles(sweep: Sweep, arrays: Arrays) -> tuple[Profile, ...]:
    """A profile of each latent size that has results at two depths or more, in the grid's order."""
    comparer = Comparer(sweep, arrays)
    pairs = comparer.claim(Factor.DEPTH).pairs
    profiles = []
    for latent in sweep.manifest.grid.latents:
        row = {
            cell: result
            for cell, result in zip(sweep.manifest.grid.architectures, results(sweep, arrays), strict=True)
            if cell.latent == latent and result.records
        }
        if len(row) > 1:
            row_pairs = [pair for pair in pairs if pair.other_levels == (latent,) and pair.effects and pair.counted]
            profiles.append(_profile(latent, row, row_pairs, comparer))
    return tuple(profiles)


def _profile(latent: Latent, row: Mapping[Cell, Result], pairs: Sequence[Contrast], comparer: Comparer) -> Profile:
    by_depths = {
        (pair.cells[0].depth, pair.cells[1].depth): effect
        for pair, effect in zip(
            pairs, with_verdicts(_untested(pair.effects[Split.TEST]) for pair in pairs), strict=True
        )
    }
    neighbours = list(pairwise(cell.depth for cell in row))
    losses = [by_depths.get(neighbour) for neighbour in neighbours]
    gaps = [comparer.measure(_gap, cell) for cell in row]
    rises = [comparer.measure(_rise, cell) if _has_late(result) else None for cell, result in row.items()]
    points = zip(row.values(), _with_verdicts(gaps), _with_verdicts(rises), strict=True)
    steps = zip(neighbours, _with_verdicts([loss and _untested(loss) for loss in losses]), strict=True)
    tested = {pair: effect for pair, effect in by_depths.items() if effect.p is not None and not effect.withheld}
    depths = tuple(cell.depth for cell in row)
    compared, beaten = {depth for pair in tested for depth in pair}, _beaten(tested)
    return Profile(
        latent=latent,
        points=tuple(
            DepthPoint(
                depth=result.config.depth,
                result=result,
                gap=_relative_to(gap, _train_loss, result),
                rise=rise and _relative_to(rise, _late_loss, result),
                seconds=_seconds(result.records),
            )
            for result, gap, rise in points
            if gap is not None
        ),
        steps=tuple(DepthStep(shallower=one, deeper=other, loss=loss) for (one, other), loss in steps),
        may_be_best=tuple(depth for depth in depths if depth in compared - beaten),
        shown_worse=tuple(depth for depth in depths if depth in beaten),
        untested=tuple(depth for depth in depths if depth not in compared),
    )


def _with_verdicts(effects: Sequence[Effect | None]) -> list[Effect | None]:
    """The effects tested as one family, None staying None."""
    tested = iter(with_verdicts(effect for effect in effects if effect is not None))
    return [None if effect is None else next(tested) for effect in effects]


def _relative_to(effect: Effect, base: Callable[[Record], float], result: Result) -> Effect:
    reference = fmean(base(record) for record in result.records)
    return replace(effect, relative=effect.difference / reference if reference else None)


def _untested(effect: Effect) -> Effect:
    """The effect without its verdict, to be tested in another family."""
    return replace(effect, verdict=Verdict.ONE_SEED, adjusted_p=None, wide=None, open_level=None)


def _beaten(tested: Mapping[tuple[int, int], Effect]) -> set[int]:
    """The depths of pairs (shallower, deeper) whose loss is shown to be the higher one."""
    worse = {Verdict.SUPPORTED: 0, Verdict.CONTRADICTED: 1}
    return {pair[worse[effect.verdict]] for pair, effect in tested.items() if effect.verdict in worse}


def _gap(record: Record) -> float:
    return record.history[-1].val_loss - record.history[-1].train_loss


def _train_loss(record: Record) -> float:
    return record.history[-1].train_loss


def _has_late(result: Result) -> bool:
    return all(len(record.history) >= 2 * LATE for record in result.records)


def _late_loss(record: Record) -> float:
    return fmean(epoch.val_loss for epoch in record.history[-2 * LATE : -LATE])


def _rise(record: Record) -> float:
    return fmean(epoch.val_loss for epoch in record.history[-LATE:]) - _late_loss(record)


def _seconds(records: Sequence[Record]) -> Measured:
    values = [sum(epoch.seconds for epoch in record.history) for record in records]
    low, high = over_seeds(values).interval() if len(values) > 1 else (None, None)
    return Measured(mean=fmean(values), low=low, high=high)
