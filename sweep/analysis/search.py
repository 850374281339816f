"""What came of a search: its best configurations, how much of the winner's lead was luck, the time it saved."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from statistics import fmean, stdev

from scipy import stats

from sweep.records.axes import value_text
from sweep.records.record import Record, Status, duration
from sweep.records.space import Point
from sweep.records.sweep import Sweep
from sweep.search.history import History, Tried
from sweep.search.importance import Importance, importances
from sweep.search.ranking import completed_trials, fresh, ranked

BEST_SHOWN = 10


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % t interval of a mean over seeds; None of fewer than two."""
    if len(values) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


@dataclass(frozen=True, slots=True)
class Finalist:
    """A configuration and what fresh seeds made of it.

    Attributes:
        trial: the record by which it was chosen.
        cells: completed ones with fresh seeds.
    """

    trial: Record
    cells: tuple[Record, ...]

    @property
    def val_losses(self) -> list[float]:
        """Of the fresh seeds."""
        return [record.val_loss for record in self.cells if record.val_loss is not None]

    @property
    def test_losses(self) -> list[float]:
        """Of the fresh seeds."""
        return [record.test_loss for record in self.cells if record.test_loss is not None]


def finalists_of(sweep: Sweep) -> list[Finalist]:
    """All configurations of the space that have fresh seeds, by the validation loss of their trial."""
    cells = fresh(sweep)
    return [Finalist(trial, tuple(cells[trial.cell])) for trial in completed_trials(sweep) if trial.cell in cells]


@dataclass(frozen=True, slots=True)
class Luck:
    """The lead of the winner over the runner-up, in the search and with fresh seeds.

    Attributes:
        lead: by which the winner was better in the search.
        fresh_leads: seed by seed.
        flattery: mean validation loss of the winner's fresh seeds less that of its trial.
    """

    winner: str
    runner_up: str
    lead: float
    fresh_leads: tuple[float, ...]
    flattery: float

    @property
    def share(self) -> float | None:
        """The part of the lead that fresh seeds do not confirm, above 1 where they turn it round; None of no lead."""
        return 1 - fmean(self.fresh_leads) / self.lead if self.lead > 0 else None

    def __str__(self) -> str:
        mean, bounds = fmean(self.fresh_leads), interval(self.fresh_leads)
        within = "" if bounds is None else f" (95 % interval {bounds[0]:+.5f} to {bounds[1]:+.5f})"
        text = (
            f"In the search {self.winner} led {self.runner_up} by {self.lead:.5f} in validation loss; with "
            f"{len(self.fresh_leads)} fresh seeds by {mean:+.5f}{within}. "
        )
        if self.share is not None:
            share = f"{100 * self.share:.0f} % of its lead was luck. "
            confirmed = "Fresh seeds confirm its lead in full. "
            text += "All of its lead was luck. " if self.share >= 1 else share if self.share > 0 else confirmed
        worse = "higher" if self.flattery > 0 else "lower"
        return text + f"Its own loss is {abs(self.flattery):.5f} {worse} on fresh seeds than where it was chosen."


def luck_of(sweep: Sweep) -> Luck | None:
    """How lucky the winner was; None before two finalists have the same fresh seed."""
    first, second = [*finalists_of(sweep), None, None][:2]
    if first is None or second is None:
        return None
    losses = {record.seed: record.val_loss or 0.0 for record in first.cells}
    leads = [(record.val_loss or 0.0) - losses[record.seed] for record in second.cells if record.seed in losses]
    if not leads:
        return None
    return Luck(
        name(first.trial),
        name(second.trial),
        (second.trial.val_loss or 0.0) - (first.trial.val_loss or 0.0),
        tuple(leads),
        fmean(first.val_losses) - (first.trial.val_loss or 0.0),
    )


def name(record: Record) -> str:
    """A configuration without its seed."""
    return record.key.rpartition("-")[0]


@dataclass(frozen=True, slots=True)
class Savings:
    """Training time of a search.

    Attributes:
        spent: seconds of its trials.
        saved: that trials ended early would have taken longer, at their own pace.
        finalists: seconds of the finalists.
        epochs, all_epochs: that trials were trained, and would have been without a scheduler.
    """

    spent: float
    saved: float
    finalists: float
    epochs: int
    all_epochs: int


def savings_of(sweep: Sweep) -> Savings:
    """What the scheduler saved."""
    epochs, spent, saved, trained, full = sweep.manifest.settings.epochs, 0.0, 0.0, 0, 0
    for key in sweep.proposals:
        if (record := sweep.records.get(key)) is None or not record.history:
            continue
        seconds = [epoch.seconds for epoch in record.history]
        spent, trained, full = spent + sum(seconds), trained + len(seconds), full + epochs
        if record.status is Status.PRUNED:
            saved += fmean(seconds) * (epochs - len(seconds))
    others = [record for key, record in sweep.records.items() if key not in sweep.proposals]
    finalists = sum(epoch.seconds for record in others for epoch in record.history)
    return Savings(spent, saved, finalists, trained, full)


@dataclass(frozen=True, slots=True)
class FullGrid:
    """A search against the training of every cell of its space in full, which it makes unnecessary.

    Attributes:
        cells: of the space; without end where a range is of real numbers.
        spent: seconds of the search's trials and finalists, one after the other.
        elapsed: seconds during which one of them ran.
        whole: seconds that a trial takes in full, on average at the trials' own pace.
    """

    cells: float
    spent: float
    elapsed: float
    whole: float

    def __str__(self) -> str:
        if math.isinf(self.cells):
            return "There is none: the space has a range of real numbers, and so no end."
        seconds = self.cells * self.whole
        elapsed = self.elapsed * seconds / self.spent
        return (
            f"All {self.cells:,.0f} cells of the space, each trained in full, would take about {duration(seconds)} of "
            f"training at the mean pace of these trials, {duration(elapsed)} with as many at a time; the search, with "
            f"its finalists, took {duration(self.spent)} of training in {duration(self.elapsed)}, "
            f"{100 * self.spent / seconds:.3g} % of the training of all cells."
        )


def full_grid_of(sweep: Sweep) -> FullGrid | None:
    """How the search compares with all of its space; None before a trial has an epoch."""
    assert sweep.manifest.search is not None
    epochs = [epoch for key in sweep.proposals if key in sweep.records for epoch in sweep.records[key].history]
    spent = sum(epoch.seconds for record in sweep.records.values() for epoch in record.history)
    if not epochs or not spent:
        return None
    attempts = [attempt for record in sweep.records.values() for attempt in record.attempts if attempt.ended_at]
    spans = sorted((_seconds_of(one.started_at), _seconds_of(one.ended_at or "")) for one in attempts)
    elapsed, until = 0.0, -math.inf
    for begin, end in spans:
        elapsed, until = elapsed + max(0.0, end - max(begin, until)), max(until, end)
    whole = sweep.manifest.settings.epochs * fmean(
        fmean(epoch.seconds for epoch in record.history)
        for key in sweep.proposals
        if (record := sweep.records.get(key)) is not None and record.history
    )
    return FullGrid(sweep.manifest.search.space.cells, spent, elapsed or spent, whole)


def _seconds_of(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def shown_best(sweep: Sweep) -> list[tuple[str, Record]]:
    """The best trials, and all others that have fresh seeds, each with its place; off the front it has none."""
    places = {record.key: place for place, record in enumerate(ranked(sweep), start=1)}
    tested = {finalist.trial.key for finalist in finalists_of(sweep)}
    return [
        (str(places.get(record.key, "")), record)
        for record in completed_trials(sweep)
        if record.key in tested or places.get(record.key, BEST_SHOWN + 1) <= BEST_SHOWN
    ]


def best_table(sweep: Sweep) -> list[list[str]]:
    """The best configurations, headings first: their trials, and the finalists' fresh seeds."""
    search = sweep.manifest.search
    assert search is not None
    varied = search.space.varied
    rows = [["", "configuration", *(parameter.replace("_", " ") for parameter in varied), "validation", "MACs",
             "fresh seeds: validation", "test"]]  # fmt: skip
    finalists = {finalist.trial.key: finalist for finalist in finalists_of(sweep)}
    for place, record in shown_best(sweep):
        finalist, point = finalists.get(record.key), sweep.proposals[record.key].point
        rows.append(
            [
                place,
                name(record),
                *(_shown(point, parameter, record.depth) for parameter in varied),
                f"{record.val_loss:.5f}",
                f"{record.macs:,}",
                "" if finalist is None else with_interval(finalist.val_losses),
                "" if finalist is None else with_interval(finalist.test_losses),
            ]
        )
    return rows


def _shown(point: Point, parameter: str, depth: int) -> str:
    """The value of a parameter; none of width at depth 1, which has no layer of that width."""
    return value_text(point[parameter]) if parameter in point and (parameter, depth) != ("width", 1) else ""


def with_interval(values: Sequence[float]) -> str:
    """A mean and half the width of its interval, such as ``0.01234 ± 0.00012``."""
    if not values:
        return ""
    bounds = interval(values)
    return f"{fmean(values):.5f}" + ("" if bounds is None else f" ± {(bounds[1] - bounds[0]) / 2:.5f}")


class SearchFindings:
    """What a page tells of a search.

    Attributes:
        tried: everything that has a loss and lies in the space, by number.
    """

    def __init__(self, sweep: Sweep) -> None:
        assert sweep.manifest.search is not None
        self.sweep, self.search, self.space = sweep, sweep.manifest.search, sweep.manifest.search.space
        self.history = History.of(sweep)
        settings = sweep.manifest.settings
        self._points = {
            entry.proposal.number: point
            for entry in self.history.in_order
            if (point := self.space.point_of(entry.proposal.point, settings)) is not None
        }
        self.tried = [
            entry
            for entry in self.history.in_order
            if entry.losses and entry.is_over and entry.proposal.number in self._points
        ]

    def point(self, entry: Tried) -> Point:
        """Where a trial lies in the space as it is now."""
        return self._points[entry.proposal.number]

    @cached_property
    def varied(self) -> list[str]:
        """The parameters with more than one value."""
        return self.space.varied

    @cached_property
    def ranked(self) -> list[Record]:
        """The best trials, best first."""
        return ranked(self.sweep)

    @cached_property
    def importances(self) -> list[Importance]:
        """Of the parameters; none of few trials, or without Optuna."""
        try:
            return importances(self.history, self.sweep.manifest.settings)
        except ImportError:
            return []

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The two most important pairs of parameters."""
        names = [importance.parameter for importance in self.importances]
        return [(names[0], other) for other in names[1:3]] if names else []


def cell_rows(findings: SearchFindings) -> list[dict[str, object]]:
    """A row a trial or finalist."""
    rows = []
    sweep = findings.sweep
    for cell in sweep.manifest.grid.cells:
        record, proposal = sweep.records.get(cell.key), sweep.proposals.get(cell.key)
        row: dict[str, object] = {"key": cell.key, "trial": "" if proposal is None else proposal.number + 1}
        row |= {"depth": cell.depth, "latent": cell.latent, "seed": cell.seed, "status": str(sweep.status(cell))}
        if record is not None:
            row |= {name: record.config[name] for name in findings.space.parameters if name in record.config}
            row |= {"epochs": len(record.history), "val_loss": record.val_loss, "test_loss": record.test_loss}
            row |= {"parameters": record.parameters, "macs": record.macs}
        rows.append(row)
    return rows


def epoch_rows(findings: SearchFindings) -> list[dict[str, object]]:
    """A row a cell and epoch, with its place in the order in which epochs reached the driver."""
    sweep, rows = findings.sweep, []
    for key, record in sweep.records.items():
        arrivals = sweep.proposals[key].arrivals if key in sweep.proposals else ()
        for epoch in record.history:
            arrival = arrivals[epoch.epoch - 1] if epoch.epoch <= len(arrivals) else ""
            rows.append(
                {
                    "key": key,
                    "epoch": epoch.epoch,
                    "train_loss": epoch.train_loss,
                    "val_loss": epoch.val_loss,
                    "seconds": epoch.seconds,
                    "arrival": arrival,
                }
            )
    return rows
