"""What the terminal shows while a sweep runs: one live table, or one line an epoch where there is no terminal."""

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dae.architecture import mac_count
from sweep.records.grid import Cell, Settings
from sweep.records.record import Record, Status, duration
from sweep.records.sweep import Sweep

LIVE_ROWS = 24
"""Rows of the live table; of larger sweeps it shows the cells that are at work, and counts the others."""

STEP_OVERHEAD_MACS = 500_000
"""What a training image costs beside its MACs, in MACs: fits depth 1 to 5 on CPU and GPU within a third."""

STYLE = {
    Status.COMPLETED: "green",
    Status.RUNNING: "bold",
    Status.DIVERGED: "red",
    Status.FAILED: "red",
    Status.PRUNED: "cyan",
    Status.STOPPED: "yellow",
    Status.INTERRUPTED: "yellow",
    Status.MISSING: "dim",
}


class Display(Protocol):
    """Who is told how a run goes."""

    def progress(self, sweep: Sweep, slots: int) -> "Progress":
        """What shows a round of trials, for a sweep and the number of trials that run at the same time."""

    def tell(self, message: str) -> None:
        """Something begins or has ended."""

    def warn(self, message: str) -> None:
        """Something goes on although it should not have been."""


@dataclass(slots=True)
class _Row:
    cell: Cell
    cost: int
    status: Status
    epoch: int = 0
    train_loss: float | None = None
    val_loss: float | None = None
    epoch_s: float | None = None
    images_per_s: float | None = None


class Progress:
    """Follows the cells of a run and shows them.

    Args:
        cells: all cells of the grid, in its order.
        records: what is known of them when the run begins.
        settings: gives the number of epochs and each cell's cost.
        slots: trials that run at the same time.
        start: when the command began, by ``clock``.
    """

    def __init__(
        self,
        console: Console,
        cells: Sequence[Cell],
        records: Mapping[str, Record],
        settings: Settings,
        slots: int,
        *,
        quiet: bool = False,
        start: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._settings, self._slots, self._clock = console, settings, slots, clock
        self._is_live = console.is_terminal and console.is_interactive and not quiet
        self._is_quiet = quiet
        self._rows = {cell.key: _Row(cell, _cost(cell, settings), Status.MISSING) for cell in cells}
        for key, record in records.items():
            if key in self._rows:
                row = self._rows[key]
                # Nobody is at a cell before it is started in this run, whatever a killed one left behind.
                row.status = Status.INTERRUPTED if record.status is Status.RUNNING else record.status
                row.epoch = len(record.history)
        self._start = clock() if start is None else start
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_live:
            self._live.stop()

    def started(self, key: str) -> None:
        """A process has been given the cell; of a search it may be a new one."""
        if key not in self._rows:
            cell = Cell.from_key(key)
            self._rows[key] = _Row(cell, _cost(cell, self._settings), Status.RUNNING)
        self._rows[key].status = Status.RUNNING

    def progressed(self, record: Record, images_per_s: float) -> None:
        """Take in all epochs that are new."""
        row = self._rows[record.key]
        if not (self._is_live or self._is_quiet):
            for epoch in record.history[row.epoch :]:
                self._print(
                    f"{record.key}  epoch {epoch.epoch}/{self._settings.epochs}  train {epoch.train_loss:.5f}  "
                    f"validation {epoch.val_loss:.5f}  {epoch.seconds:.2f} s"
                )
            if record.status is Status.COMPLETED:
                is_tested = record.test_loss is not None
                shown = f"test loss {record.test_loss:.5f}" if is_tested else f"validation loss {record.val_loss:.5f}"
                self._print(f"{record.key}  completed, {shown}")
            if record.status in {Status.PRUNED, Status.STOPPED}:
                self._print(f"{record.key}  {record.attempts[-1].reason}")
        if record.status in {Status.FAILED, Status.DIVERGED}:
            self.note(f"{record.key}  {record.status}: {record.error}")
        row.status, row.epoch, row.images_per_s = record.status, len(record.history), images_per_s
        if record.history:
            last = record.history[-1]
            row.train_loss, row.val_loss = last.train_loss, last.val_loss
            row.epoch_s = sum(epoch.seconds for epoch in record.history[-3:]) / len(record.history[-3:])

    def lost(self, key: str, reason: str, *, is_final: bool) -> None:
        """The cell's process died."""
        self._rows[key].status = Status.FAILED if is_final else Status.INTERRUPTED
        self.note(f"{key}  its process was lost ({reason}); " + ("given up" if is_final else "continued by another"))

    def note(self, message: str) -> None:
        """A line that stays, above the live table."""
        self._print(message)

    def _print(self, message: str) -> None:
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def eta_s(self) -> float | None:
        """Seconds until the last cell ends, or None before any epoch was measured.

        Cells not yet begun are taken to cost what the measured ones do, in proportion to their MACs; all are laid on
        the slots in the order in which they will be taken.
        """
        measured = [row.epoch_s / row.cost for row in self._rows.values() if row.epoch_s]
        if not measured:
            return None
        rate = sum(measured) / len(measured)
        open_rows = [row for row in self._rows.values() if not row.status.is_final and row.status != Status.FAILED]
        remaining = {
            row.cell.key: (self._settings.epochs - row.epoch) * (row.epoch_s or rate * row.cost) for row in open_rows
        }
        ends = [remaining[row.cell.key] for row in open_rows if row.status is Status.RUNNING]
        heapq.heapify(ends)
        for row in sorted(open_rows, key=lambda row: -row.cost):
            if row.status is not Status.RUNNING:
                begins = heapq.heappop(ends) if len(ends) >= self._slots else 0.0
                heapq.heappush(ends, begins + remaining[row.cell.key])
        return max(ends, default=0.0)

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("cell")
        table.add_column("status")
        for name in ("epoch", "train loss", "val loss", "images/s"):
            table.add_column(name, justify="right")
        rows = list(self._rows.values())
        shown = rows if len(rows) <= LIVE_ROWS else [row for row in rows if row.status is Status.RUNNING][:LIVE_ROWS]
        for row in shown:
            table.add_row(
                row.cell.key,
                Text("waiting" if row.status is Status.MISSING else str(row.status), STYLE[row.status]),
                f"{row.epoch}/{self._settings.epochs}" if row.epoch else "",
                "" if row.train_loss is None else f"{row.train_loss:.5f}",
                "" if row.val_loss is None else f"{row.val_loss:.5f}",
                f"{row.images_per_s:,.0f}" if row.images_per_s and row.status is Status.RUNNING else "",
            )
        total = len(rows) * self._settings.epochs
        done = sum(self._settings.epochs if row.status is Status.COMPLETED else row.epoch for row in rows)
        completed = sum(row.status is Status.COMPLETED for row in rows)
        eta = self.eta_s()
        line = Table.grid(padding=(0, 2))
        line.add_row(
            ProgressBar(total=total, completed=done, width=30),
            f"{completed} of {len(rows)} completed",
            f"elapsed {duration(self._clock() - self._start)}",
            "" if eta is None else f"about {duration(eta)} to go",
        )
        return Group(table, Text(), line)


def _cost(cell: Cell, settings: Settings) -> int:
    """Of a training image, in MACs."""
    return mac_count(settings.model(cell)) + STEP_OVERHEAD_MACS
