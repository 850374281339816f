"""What users ask of a run from outside, through the storage: to pause it, or to stop one of its cells."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from dae.errors import UserError
from sweep.driver.holding import holding
from sweep.records.grid import Cell
from sweep.records.record import CellFiles, Status, ended_early
from sweep.records.sweep import CONTROL, Sweep
from sweep.storage.store import Store

PAUSE = f"{CONTROL}/pause"
STOP = f"{CONTROL}/stop"

LOOK_EVERY_S = 1.0
"""How often a run looks; each look at a bucket is a request."""

PAUSED = "dae-sweep pause ended it; the same command goes on"


class Control:
    """The wishes that reach a run. What was asked of an earlier one is forgotten."""

    def __init__(self, store: Store) -> None:
        self._store = store.impatient()
        self._asked: set[str] = set()
        self._looked_at = 0.0
        self.clear()

    @property
    def is_paused(self) -> bool:
        """Whether the run is to end."""
        self._look()
        return PAUSE in self._asked

    def stops(self, key: str) -> bool:
        """Whether the cell is to end."""
        self._look()
        return f"{STOP}/{key}" in self._asked

    def clear(self) -> None:
        """Forget what was asked."""
        with suppress(OSError):
            for name in self._store.names(CONTROL):
                if not name.endswith("/"):
                    self._store.delete(name)

    def _look(self) -> None:
        if time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            with suppress(OSError):  # the next look may reach it
                self._asked = set(self._store.names(CONTROL))
            self._looked_at = time.monotonic()


def pause(sweep: Sweep) -> None:
    """Ask the run that is at the sweep to end.

    Raises:
        UserError: there is none.
    """
    if not sweep.store.locked():
        raise UserError(f"no run is at {sweep.manifest.name} that could be paused.")
    sweep.store.write(PAUSE, b"")


def stop(sweep: Sweep, keys: Sequence[str]) -> str:
    """End cells of the sweep, in its run or without one; what becomes of them.

    Raises:
        UserError: one is none of the sweep's, has ended, or has not begun while there is no run.
    """
    declared = {cell.key: cell for cell in sweep.manifest.grid.cells}
    for key in keys:
        if key not in declared:
            raise UserError(f"{key} is no cell of {sweep.manifest.name}; dae-sweep status lists them.")
        if (status := sweep.status(declared[key])).is_final:
            raise UserError(f"{key} is {status}: there is nothing to stop.")
    if sweep.store.locked():
        for key in keys:
            sweep.store.write(f"{STOP}/{key}", b"")
        return "asked to stop: a cell that runs ends after its current epoch, one that waits after its first"
    if waiting := [key for key in keys if sweep.status(declared[key]) is Status.MISSING]:
        leave_out = "leave it out of the next one, or " if sweep.manifest.search is None else ""
        raise UserError(
            f"{', '.join(waiting)} has not begun, and no run is at {sweep.manifest.name}: {leave_out}take it out with "
            f"dae-sweep remove {sweep.manifest.name} {' '.join(waiting)}."
        )
    with holding(sweep.store, "Give the command again."):
        for key in keys:
            record = sweep.records[key]
            record = ended_early(record, Status.STOPPED, f"stopped after epoch {len(record.history)}")
            sweep.store.write(CellFiles(key).record, record.to_bytes())
    return "stopped"


def revive(sweep: Sweep, cells: Sequence[Cell]) -> None:
    """Let those of the cells go on that were pruned or stopped; the caller holds the sweep."""
    for cell in cells:
        if sweep.status(cell) in {Status.PRUNED, Status.STOPPED}:
            record = replace(sweep.records[cell.key], status=Status.RUNNING, finished_at=None)
            sweep.store.write(CellFiles(cell.key).record, record.to_bytes())
            if (proposal := sweep.proposals.get(cell.key)) is not None:
                revived = replace(proposal, pruning=None, revived=True)
                sweep.store.write(CellFiles(cell.key).proposal, revived.to_bytes())
