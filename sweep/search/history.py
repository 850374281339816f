"""What a search has tried, rebuilt from the records: all that its next proposal and its rungs follow from."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Self

from sweep.records.grid import Cell
from sweep.records.record import Record, Status
from sweep.records.search import Proposal, Search
from sweep.records.sweep import Sweep
from sweep.search.rungs import Losses


@dataclass(frozen=True, slots=True)
class Tried:
    """A proposal and what came of it.

    Attributes:
        status: of its cell; missing where no trial has begun.
        losses: validation losses after the epochs that have arrived.
        macs: of its model.
    """

    proposal: Proposal
    cell: Cell
    status: Status = Status.MISSING
    losses: Losses = ()
    macs: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it in this search."""
        return self.status.is_final or self.status is Status.FAILED

    def values(self, objectives: tuple[str, ...]) -> tuple[float, ...]:
        """What is minimised, where it has a loss."""
        known = {"val_loss": self.losses[-1], "macs": float(self.macs)}
        return tuple(known[name] for name in objectives)


@dataclass(slots=True)
class History:
    """All that a search has tried, by the number of the proposal.

    Attributes:
        arrived: number of epochs that have reached the driver in all.
        removed: keys of cells that a user took out, and that are not to be proposed again.
    """

    search: Search
    tried: dict[int, Tried] = field(default_factory=dict)
    arrived: int = 0
    removed: Collection[str] = ()

    @classmethod
    def of(cls, sweep: Sweep) -> Self:
        """That of a search's folder; it counts the epochs that reached a driver, as that driver did."""
        assert sweep.manifest.search is not None
        history = cls(sweep.manifest.search, removed=sweep.manifest.removed)
        for key, proposal in sweep.proposals.items():
            entry = Tried(proposal, Cell.from_key(key))
            if (record := sweep.records.get(key)) is not None:
                entry = with_record(entry, record)
            history.tried[proposal.number] = entry
            history.arrived = max(history.arrived, *(place + 1 for place in proposal.arrivals), 0)
        return history

    @property
    def next_number(self) -> int:
        """The number of the next proposal."""
        return next(number for number in count() if number not in self.tried)

    @property
    def in_order(self) -> Iterator[Tried]:
        """Everything tried, by number."""
        return (self.tried[number] for number in sorted(self.tried))

    def others(self, number: int) -> list[Losses]:
        """The losses of all trials but one."""
        return [entry.losses for other, entry in self.tried.items() if other != number]


def with_record(entry: Tried, record: Record) -> Tried:
    """With what the record says; of its epochs those that have arrived, all where its trial is over.

    One that had to begin anew keeps the losses that it had.
    """
    losses: Losses = tuple(epoch.val_loss for epoch in record.history)
    if not record.status.is_final:
        losses = max(losses[: len(entry.proposal.arrivals)], entry.losses, key=len)
    return replace(entry, status=record.status, losses=losses, macs=record.macs)
