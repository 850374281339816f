"""What `dae-sweep run` prints."""

import sys
import time

import click
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from sweep.analysis.results import loss_notes, loss_table
from sweep.driver.progress import Progress
from sweep.driver.runner import Outcome
from sweep.records.axes import axes_text
from sweep.records.facets import facets
from sweep.records.record import duration
from sweep.records.sweep import Sweep

WIDEST = 10_000
"""Columns of a terminal that no table fills."""


class Terminal:
    """The `Display` of a run in a terminal, or in a file.

    Args:
        quiet: print the result, warnings and errors only.
        start: when the command began, by `time.monotonic`.
    """

    def __init__(self, *, quiet: bool, start: float) -> None:
        # FORCE_COLOR asks for colours in a file, not for a table that is drawn there four times a second.
        interactive = None if sys.stdout.isatty() else False
        self._console, self._is_quiet, self._start = Console(force_interactive=interactive), quiet, start

    def progress(self, sweep: Sweep, slots: int) -> Progress:
        """A live table, or a line an epoch where there is no terminal."""
        manifest = sweep.manifest
        return Progress(
            self._console, manifest.grid.cells, sweep.records, manifest.settings, slots,
            quiet=self._is_quiet, start=self._start,
        )  # fmt: skip

    def tell(self, message: str) -> None:
        """Print a line, unless only the result is wanted."""
        if not self._is_quiet:
            click.echo(message)

    def warn(self, message: str) -> None:
        """Print a line on standard error."""
        click.echo(f"Warning: {message.rstrip('.')}.", err=True)

    def show(self, outcome: Outcome, *, has_report: bool) -> None:
        """The results of a run, and where everything is."""
        sweep = outcome.sweep
        if sweep.manifest.search is None:
            self._show_losses(sweep)
        else:
            self._show_search(sweep)
        unsuccessful = [record for record in sweep.records.values() if record.error]
        self._print(f"{sweep.tally} in {duration(time.monotonic() - self._start)}{':' * bool(unsuccessful)}")
        for record in unsuccessful:
            self._print(f"  {record.key}  {record.status}: {record.error}")
        if outcome.stopped_because:
            click.echo(f"Stopped early: {outcome.stopped_because}.", err=True)
        if has_report and sweep.completed:
            click.echo(f"Report: {sweep.store.uri('report/index.html')}")
        if outcome.tracked_at:
            click.echo(f"W&B runs: {outcome.tracked_at}")

    def _show_losses(self, sweep: Sweep) -> None:
        """The test losses, a row a depth and a column a latent size; a table for each point on the axes."""
        for point, facet in facets(sweep):
            heading, *rows = loss_table(facet)
            title = "test loss (MSE per pixel)" + (f", {axes_text(point)}" if point else "")
            title += ", mean ± sd (seeds)" * (len(facet.manifest.grid.seeds) > 1)
            self._console.print(title, style="italic", highlight=False, soft_wrap=True)
            table = Table(box=None, pad_edge=False, header_style="dim")
            for name in heading:
                table.add_column(name, justify="right")
            for row in rows:
                table.add_row(*row)
            self._print_whole(table)
            for note in loss_notes(facet):
                self._console.print(f"* {note}", highlight=False, markup=False)

    def _show_search(self, sweep: Sweep) -> None:
        """The best configurations by validation loss, and what fresh seeds made of the finalists."""
        from sweep.analysis.search import best_table, luck_of  # and scipy, which a run without a search does not need

        heading, *rows = best_table(sweep)
        if not rows:
            return
        objectives = [] if sweep.manifest.search is None else sweep.manifest.search.objectives
        title = "front of validation loss and MACs" if len(objectives) > 1 else "best configurations"
        self._console.print(title, style="italic", highlight=False)
        table = Table(box=None, pad_edge=False, header_style="dim")
        for index, name in enumerate(heading):
            table.add_column(name, justify="right" if index > 1 else "left")
        for row in rows:
            table.add_row(*row)
        self._print_whole(table)
        if (luck := luck_of(sweep)) is not None:
            self._console.print(str(luck), highlight=False, markup=False, soft_wrap=True)

    def _print_whole(self, table: Table) -> None:
        """As wide as it is: a terminal that is narrower wraps it, where rich would cut numbers off."""
        width = Measurement.get(self._console, self._console.options.update(max_width=WIDEST), table).maximum
        Console(width=max(self._console.width, width)).print(table)

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
