"""What a search has tried, rebuilt from the records: all that its next proposal and its rungs follow from."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

from sweep.records.grid import Cell
from sweep.records.record import Record, Status
from sweep.records.search import Proposal, Search
from sweep.records.sweep import Sweep, removed_proposals
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
    """All that a search has tried, by the key of the cell.

    Attributes:
        next_number: the number of the next proposal: none is given twice, not even that of a removed one.
        told: by key what `study` has made for a sampler, with what it was made of.
        arrived: number of epochs that have reached the driver in all.
        removed: keys of cells that a user took out, and that are not to be proposed again.
    """

    search: Search
    tried: dict[str, Tried] = field(default_factory=dict)
    arrived: int = 0
    removed: Collection[str] = ()
    next_number: int = 0
    told: dict[str, tuple[Tried, Search, Any, Any]] = field(default_factory=dict, compare=False, repr=False)

    def note(self, entry: Tried) -> None:
        """Take in a proposal, or what came of it since."""
        self.tried[entry.cell.key] = entry
        self.next_number = max(self.next_number, entry.proposal.number + 1)

    @classmethod
    def of(cls, sweep: Sweep) -> Self:
        """That of a search's folder; it counts the epochs that reached a driver, as that driver did."""
        assert sweep.manifest.search is not None
        history = cls(sweep.manifest.search, removed=sweep.manifest.removed)
        for key, proposal in sweep.proposals.items():
            entry = Tried(proposal, Cell.from_key(key))
            if (record := sweep.records.get(key)) is not None:
                entry = with_record(entry, record)
            history.note(entry)
            history.arrived = max(history.arrived, *(place + 1 for place in proposal.arrivals), 0)
        numbers = (proposal.number for proposal in removed_proposals(sweep).values())
        history.next_number = max(history.next_number, *(number + 1 for number in numbers), 0)
        return history

    @property
    def in_order(self) -> Iterator[Tried]:
        """Everything tried, by number."""
        return iter(sorted(self.tried.values(), key=lambda entry: (entry.proposal.number, entry.cell.key)))

    def others(self, key: str) -> list[Losses]:
        """The losses of all trials but one."""
        return [entry.losses for other, entry in self.tried.items() if other != key]


def with_record(entry: Tried, record: Record) -> Tried:
    """With what the record says; of its epochs those that have arrived, all where its trial is over.

    One that had to begin anew keeps the losses that it had.
    """
    losses: Losses = tuple(epoch.val_loss for epoch in record.history)
    if not record.status.is_final:
        losses = max(losses[: len(entry.proposal.arrivals)], entry.losses, key=len)
    return replace(entry, status=record.status, losses=losses, macs=record.macs)
