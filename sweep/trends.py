"""How test loss, train-validation gap and time change with depth, latent size by latent size. No torch."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sweep.analysis import Verdict
from sweep.claims import Factor, Split
from sweep.findings import Findings
from sweep.records import Record
from sweep.statistics import over_seeds

MIN_DEPTHS = 4
"""Fewer depths make no curve."""


@dataclass(frozen=True, slots=True)
class Point:
    """A mean over seeds at one depth; the 95 % interval is None with one seed."""

    depth: int
    mean: float
    low: float | None
    high: float | None
    num_seeds: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend:
    """What depth does at one latent size.

    Attributes:
        lowest: the depth with the lowest mean test loss.
        enough: the shallowest depth that no deeper one is shown to beat; None where there is one seed.
        worse: depths beyond ``lowest`` shown to have a higher loss than it.
    """

    latent: int
    losses: tuple[Point, ...]
    gaps: tuple[Point, ...]
    seconds: tuple[Point, ...]
    lowest: int
    enough: int | None
    worse: tuple[int, ...]


def trends(findings: Findings) -> list[Trend]:
    """One for each latent size that has enough depths, large latents first."""
    found = []
    for latent in findings.sweep.manifest.grid.latents:
        column = [each for each in findings.results if each.config.latent == latent and each.losses]
        if len(column) < MIN_DEPTHS:
            continue
        losses = tuple(
            Point(each.config.depth, fmean(each.losses), *(each.interval or (None, None)), len(each.losses))
            for each in column
        )
        records = {each.config.depth: each.records for each in column}
        found.append(
            Trend(
                latent=latent,
                losses=losses,
                gaps=_points(records.items(), gap_of),
                seconds=_points(records.items(), lambda record: sum(epoch.seconds for epoch in record.history)),
                lowest=min(losses, key=lambda point: point.mean).depth,
                **_steps(findings, latent, losses),
            )
        )
    return found


def gap_of(record: Record) -> float:
    """How far the validation loss lies above the training loss at the last epoch, as a part of the latter."""
    last = record.history[-1]
    return (last.val_loss - last.train_loss) / last.train_loss if last.train_loss else 0.0


def _points(records: Iterable[tuple[int, Sequence[Record]]], measure: Callable[[Record], float]) -> tuple[Point, ...]:
    points = []
    for depth, cells in records:
        values = [measure(record) for record in cells]
        low, high = over_seeds(values).interval() if len(values) > 1 else (None, None)
        points.append(Point(depth, fmean(values), low, high, len(values)))
    return tuple(points)


def _steps(findings: Findings, latent: int, losses: Sequence[Point]) -> dict[str, Any]:
    """Where more depth stops paying, from the verdicts on pairs of depths at this latent size."""
    claim = next(claim for claim in findings.claims if claim.factor is Factor.DEPTH)
    verdicts = {
        (pair.cells[0].depth, pair.cells[1].depth): pair.effects[Split.TEST].verdict
        for pair in claim.judged()
        if pair.at == (latent,)
    }
    if not verdicts or Verdict.ONE_SEED in verdicts.values():
        return {"enough": None, "worse": ()}
    depths = [point.depth for point in losses]
    lowest = min(losses, key=lambda point: point.mean).depth
    enough = next(
        depth
        for depth in depths
        if not any(verdicts.get((depth, deeper)) is Verdict.SUPPORTED for deeper in depths if deeper > depth)
    )
    worse = tuple(depth for depth in depths if verdicts.get((lowest, depth)) is Verdict.CONTRADICTED)
    return {"enough": enough, "worse": worse}
