"""The trials of a search: which cell is next, and which one is ended early. What a replay needs goes to the storage."""

from collections.abc import Callable
from dataclasses import replace

from sweep.records.grid import Cell
from sweep.records.record import CellFiles, Record, Status, ended_early
from sweep.records.search import Proposal, Pruning
from sweep.records.sweep import Sweep
from sweep.search.history import History, Tried, with_record
from sweep.search.rungs import pruning_of
from sweep.search.sampling import propose


class Proposals:
    """A `Source` of cells for trials.

    Args:
        sweep: the search as its folder tells it.
        is_late: whether no more cells are to be proposed, for want of time.

    Attributes:
        history: all that was tried.
        is_exhausted: whether every cell of the space was tried.
    """

    def __init__(self, sweep: Sweep, is_late: Callable[[], bool]) -> None:
        self._sweep, self._is_late = sweep, is_late
        self.history = History.of(sweep)
        self.is_exhausted = False
        self._note_unseen_ends()
        unfinished = [entry for entry in self.history.in_order if not entry.status.is_final]
        self._unfinished = [entry.cell for entry in unfinished]
        self._ahead: tuple[Proposal, Cell] | None = None

    @property
    def left(self) -> int:
        """How many trials are to begin or to go on, at most."""
        return len(self._unfinished) + (0 if self.is_exhausted else self._to_propose)

    @property
    def _to_propose(self) -> int:
        return max(0, self.history.search.trials - len(self.history.tried))

    @property
    def is_incomplete(self) -> bool:
        """Whether trials are left that have not begun, or not ended."""
        is_short = self._to_propose > 0 and not self.is_exhausted
        return is_short or any(not entry.is_over for entry in self.history.in_order)

    def look_ahead(self) -> None:
        """Find out whether there is a next cell, for which machines would be started."""
        if not self.is_over and not self._unfinished:
            self._ahead = propose(self.history, self._sweep.manifest.settings)
            self.is_exhausted = self._ahead is None

    @property
    def is_over(self) -> bool:
        """Whether no more cells will come."""
        return self._is_late() or not self.left

    def next_cell(self) -> Cell | None:
        """An unfinished one of an earlier run, or the next proposal; None where no more will come."""
        if self.is_over:
            return None
        if self._unfinished:
            return self._unfinished.pop(0)
        found, self._ahead = self._ahead or propose(self.history, self._sweep.manifest.settings), None
        if found is None:
            self.is_exhausted = True
            return None
        proposal, cell = found
        self._write(Tried(proposal, cell))
        return cell

    def pruned(self, record: Record) -> Record:
        """Take in the epochs that are new; the record, pruned where one of them ends its trial."""
        entry = self.history.tried[record.key]
        may_end = record.status is Status.RUNNING and not entry.proposal.revived
        begun = len(entry.proposal.arrivals)
        for epoch in range(begun + 1, len(record.history) + 1):
            entry = self._arrived(entry, 1)
            if may_end and (pruning := self._pruning(entry, record, epoch)) is not None:
                entry = replace(entry, proposal=replace(entry.proposal, pruning=pruning))
                break
        pruning = entry.proposal.pruning
        if may_end and pruning is not None and len(record.history) >= pruning.epoch:
            record = replace(record, history=record.history[: pruning.epoch])
            record = ended_early(record, Status.PRUNED, str(pruning))
        # The proposal first: a trial whose record is behind is ended again when it comes back.
        self._write(with_record(entry, record), is_new=len(entry.proposal.arrivals) > begun)
        if record.status is Status.PRUNED:
            self._sweep.store.write(CellFiles(record.key).record, record.to_bytes())
        return record

    def _pruning(self, entry: Tried, record: Record, epoch: int) -> Pruning | None:
        losses = [finished.val_loss for finished in record.history[:epoch]]
        others, epochs = self.history.others(record.key), self._sweep.manifest.settings.epochs
        return pruning_of(self.history.search.scheduler, epochs, losses, others)

    def _arrived(self, entry: Tried, count: int) -> Tried:
        places = range(self.history.arrived, self.history.arrived + count)
        self.history.arrived += count
        return replace(entry, proposal=entry.proposal.arrived(places))

    def _note_unseen_ends(self) -> None:
        """Give a place to the last epochs of trials that ended while no driver listened any more."""
        for entry in list(self.history.in_order):
            if entry.status.is_final and (unseen := len(entry.losses) - len(entry.proposal.arrivals)) > 0:
                self._write(self._arrived(entry, unseen))

    def _write(self, entry: Tried, *, is_new: bool = True) -> None:
        self.history.note(entry)
        # In a bucket a write is dear: there a trial that goes on is noted with its end, or with what follows a kill.
        if is_new and (entry.status is not Status.RUNNING or not self._sweep.store.seconds_between_saves):
            self._sweep.store.write(CellFiles(entry.cell.key).proposal, entry.proposal.to_bytes())
