"""What depth and latent size do, what that costs, and how deep is deep enough. No torch.

For a page: `effects` gives main effects and interaction, `front` loss against a cost with the Pareto front,
`profiles` what happens with depth at each latent size. All take one facet's sweep. Depth moves parameters, receptive
field and cost at once; in the facet of equal parameters (``--match-parameters``) it no longer moves the parameters.
Every difference is an `Effect` with its interval and verdict; what makes a family is said where it is judged.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from statistics import fmean

import numpy as np

from sweep.analysis.arrays import Arrays
from sweep.analysis.claims import Claim, Comparer, Contrast, Factor, Split
from sweep.analysis.results import Result, results
from sweep.analysis.statistics import over_seeds
from sweep.analysis.verdicts import Effect, Verdict, with_verdicts
from sweep.records.grid import Cell
from sweep.records.record import Record
from sweep.records.sweep import Sweep

LATE = 3
"""Epochs at the end, and as many before them, between which validation is looked at for a rise."""


# ---- main effects and interaction


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """How the variance among the architectures' mean test losses divides; parts of 1."""

    depth: float
    latent: float
    interaction: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Effects:
    """Main effects and interaction on the test loss (study, section 5.1).

    Attributes:
        depth, latent: the claims; their ``averages`` are the main effects, adjacent levels and others.
        interaction: for adjacent levels of both, how much larger the increase is at the shallower depth; one family.
        corners: the same from the largest to the smallest latent, of the shallowest against the deepest: one number.
        shares: None where an architecture has no result.
    """

    depth: Claim
    latent: Claim
    interaction: tuple[Contrast, ...]
    corners: Contrast | None
    shares: Shares | None


def effects(sweep: Sweep, arrays: Arrays) -> Effects:
    """Main effects and interaction of one facet."""
    comparer = Comparer(sweep, arrays)
    return Effects(
        depth=comparer.claim(Factor.DEPTH),
        latent=comparer.claim(Factor.LATENT),
        interaction=comparer.interaction(),
        corners=comparer.corners(),
        shares=_shares(sweep),
    )


def _shares(sweep: Sweep) -> Shares | None:
    grid = sweep.manifest.grid
    means = {(each.config.depth, each.config.latent): each.mean for each in results(sweep)}
    table = np.array([[means.get((depth, size)) or np.nan for size in grid.latents] for depth in grid.depths])
    if np.isnan(table).any() or min(table.shape) < 2 or not np.ptp(table):
        return None
    centred = table - table.mean()
    by_depth, by_latent = centred.mean(axis=1, keepdims=True), centred.mean(axis=0, keepdims=True)
    total = float((centred**2).mean())
    rest = centred - by_depth - by_latent
    depth, latent, interaction = (float((part**2).mean()) / total for part in (by_depth, by_latent, rest))
    return Shares(depth=depth, latent=latent, interaction=interaction)


# ---- loss against cost


class Cost(StrEnum):
    """What a lower loss is paid with."""

    COMPRESSION = "compression rate"
    """Latent elements as a part of the image's pixels."""
    PARAMETERS = "parameters"
    MACS = "MACs per image"


_COSTS: dict[Cost, Callable[[Result], float]] = {
    Cost.COMPRESSION: lambda result: result.config.compression,
    Cost.PARAMETERS: lambda result: result.parameters,
    Cost.MACS: lambda result: result.macs,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """An architecture by its cost; ``result`` has the mean loss and its interval.

    Attributes:
        on_front: no other architecture has a mean loss as low at a cost as low (Pareto).
    """

    result: Result
    cost: float
    on_front: bool


def front(found: Sequence[Result], cost: Cost) -> tuple[Point, ...]:
    """The architectures with a result, by rising cost and falling loss, those of the Pareto front marked."""
    of = _COSTS[cost]
    points, lowest = [], float("inf")
    ranked = sorted((each for each in found if each.mean is not None), key=lambda each: (of(each), each.mean or 0.0))
    for result in ranked:
        mean = result.mean or 0.0
        points.append(Point(result=result, cost=of(result), on_front=mean < lowest))
        lowest = min(lowest, mean)
    return tuple(points)


# ---- how deep before it stops helping


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A mean over seeds with its 95 % interval, None with one seed."""

    mean: float
    low: float | None
    high: float | None
    seeds: int


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
        both = (self.gap, self.rise)
        return all(each is not None and each.verdict is Verdict.SUPPORTED for each in both)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """From one depth to the next deeper one of the grid.

    Attributes:
        loss: test loss of the shallower less that of the deeper: above zero, depth pays. None without shared seeds.
        gap: gap of the deeper less that of the shallower: above zero, the gap widens.
    """

    shallower: int
    deeper: int
    loss: Effect | None
    gap: Effect | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """What happens with depth at one latent size.

    Attributes:
        points: by depth; ``gap`` and ``rise`` are a family each.
        steps: between neighbours; ``loss`` and ``gap`` are a family each.
        enough: the shallowest depth that no deeper one of the grid is shown to improve on, judged by all pairs of
            depths at this latent size (one family); None with fewer than two depths or one seed.
        may_gain: the most, as a part of its loss, that a deeper model might still improve on ``enough``: the largest
            upper end of the family's 95 % intervals.
    """

    latent: int
    points: tuple[DepthPoint, ...]
    steps: tuple[Step, ...]
    enough: int | None
    may_gain: float | None

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
            own = [pair for pair in pairs if pair.at == (latent,) and pair.effects and pair.counted]
            profiles.append(_profile(latent, row, own, comparer))
    return tuple(profiles)


def _profile(latent: int, found: Mapping[Cell, Result], pairs: Sequence[Contrast], comparer: Comparer) -> Profile:
    cells, row = list(found), list(found.values())
    neighbours = list(pairwise(cells))
    by_depths = {
        (pair.cells[0].depth, pair.cells[1].depth): effect
        for pair, effect in zip(pairs, with_verdicts(_plain(pair.effects[Split.TEST]) for pair in pairs), strict=True)
    }
    losses = [by_depths.get((one.depth, other.depth)) for one, other in neighbours]
    gaps = [comparer.measure(_gap, {cell: 1.0}) for cell in cells]
    rises = [
        comparer.measure(_rise, {cell: 1.0}) if _has_late(each) else None for cell, each in zip(cells, row, strict=True)
    ]
    widenings = [comparer.measure(_gap, {deeper: 1.0, shallower: -1.0}) for shallower, deeper in neighbours]
    points = zip(row, _family(gaps), _family(rises), strict=True)
    steps = zip(neighbours, _family([each and _plain(each) for each in losses]), _family(widenings), strict=True)
    enough, may_gain = _enough(row, by_depths)
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
        steps=tuple(
            Step(shallower=one.depth, deeper=other.depth, loss=loss, gap=gap) for (one, other), loss, gap in steps
        ),
        enough=enough,
        may_gain=may_gain,
    )


def _family(effects: Sequence[Effect | None]) -> list[Effect | None]:
    """The effects judged as one family, holes staying where they are."""
    judged = iter(with_verdicts(effect for effect in effects if effect is not None))
    return [None if effect is None else next(judged) for effect in effects]


def _relative_to(effect: Effect, base: Callable[[Record], float], result: Result) -> Effect:
    reference = fmean(base(record) for record in result.records)
    return replace(effect, relative=effect.difference / reference if reference else None)


def _plain(effect: Effect) -> Effect:
    """As before it was judged, to be judged in another family."""
    return replace(effect, verdict=Verdict.ONE_SEED, adjusted_p=None, wide=None, open_level=None)


def _enough(row: Sequence[Result], by_depths: dict[tuple[int, int], Effect]) -> tuple[int | None, float | None]:
    if not any(effect.p is not None for effect in by_depths.values()):
        return None, None
    for result in row:
        beyond = [effect for (shallower, _), effect in by_depths.items() if shallower == result.config.depth]
        if not any(effect.verdict is Verdict.SUPPORTED for effect in beyond):
            most = max((effect.wide[1] for effect in beyond if effect.wide is not None), default=None)
            return result.config.depth, None if most is None or not result.mean else most / result.mean
    return None, None


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
    return Measured(mean=fmean(values), low=low, high=high, seeds=len(values))
