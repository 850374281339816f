"""Rounds of ``dae-sweep run --resolve``: a look at what is there, then more seeds or the end."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from sweep.records.grid import Cell
from sweep.records.record import Status, duration
from sweep.records.sweep import MANIFEST, Sweep, gather
from sweep.records.words import counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolving:
    """How far seeds are added while the order of architectures is undecided.

    Attributes:
        max_seeds: no architecture gets more.
        deadline: when the time budget ends, by `time.monotonic`; None without one.
    """

    max_seeds: int
    deadline: float | None = None

    @property
    def left_s(self) -> float:
        """What is left of the time budget."""
        return math.inf if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def is_late(self) -> bool:
        """Whether the time budget is over."""
        return self.left_s == 0


def after_look(sweep: Sweep, resolving: Resolving | None, slots: int, tell: Callable[[str], None]) -> tuple[Cell, ...]:
    """Record a look, if one is due, and say what comes next.

    Args:
        sweep: as the last round has left it.
        resolving: None without ``--resolve``: a sweep that was looked at before is so once more, and that is all.
        slots: trials that run at the same time.
        tell: told why it goes on, or ends.

    Returns:
        Cells to train next; none at the end, or while cells of the last round are unfinished.
    """
    from sweep.analysis.arrays import load_arrays
    from sweep.analysis.resolve import comparisons, next_step, with_look

    has_ended = all(
        status.is_final or status is Status.FAILED for status in map(sweep.status, sweep.manifest.grid.cells)
    )
    if not has_ended or not (resolving or sweep.manifest.looks):
        return ()
    if (manifest := with_look(sweep)) != sweep.manifest:
        sweep.store.write(MANIFEST, manifest.to_bytes())
        sweep = gather(sweep.store)
    if resolving is None:
        return ()
    step = next_step(sweep, comparisons(sweep, load_arrays(sweep)), resolving.max_seeds)
    message, count, expected_s = f"{sweep.manifest.name}: {step.because}", len(step.cells), step.seconds / slots
    if expected_s > resolving.left_s:
        tell(
            f"{message}, but another {counted(count, 'cell')} would take about {duration(expected_s)}, and "
            f"{duration(resolving.left_s)} of --time-budget are left"
        )
        return ()
    tell(f"{message}; {counted(count, 'more cell')}, about {duration(expected_s)}" if count else message)
    return step.cells
