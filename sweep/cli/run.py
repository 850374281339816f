"""The command that trains a sweep: `run`."""

import time
from typing import Any

import click

from sweep.cli.errors import debug_option
from sweep.cli.options import (
    which_dataset,
    which_end,
    which_folder,
    which_grid,
    which_machines,
    which_retries,
    which_revived,
    which_rounds,
    which_settings,
    which_sweep,
    which_tracking,
)
from sweep.cli.parsing import request_of
from sweep.driver.signals import Signals
from sweep.records.record import Status


@click.command()
@which_sweep
@which_dataset
@which_folder
@which_grid
@which_settings
@which_machines
@which_tracking
@which_retries
@which_rounds
@which_revived
@click.option("--quiet", is_flag=True, help="Only the result, warnings and errors.")
@which_end
@debug_option
@click.pass_context
def run(ctx: click.Context, /, quiet: bool, **given: Any) -> None:
    """Train every depth with every latent size and seed, then report.

    Completed cells are left alone, interrupted ones continue after their last finished epoch: to resume, to extend
    or to repeat a sweep is the same command.
    """
    start = time.monotonic()
    signals = Signals().install()
    request = request_of(given, start)

    from sweep.cli.terminal import Terminal
    from sweep.driver import runner

    terminal = Terminal(quiet=quiet, start=start)
    outcome = runner.run(request, signals, terminal)
    terminal.show(outcome, has_report=request.report)
    asked = request.grid if request.resolving is None else outcome.sweep.manifest.grid
    if any(outcome.sweep.status(cell) is not Status.COMPLETED for cell in asked.cells):
        ctx.exit(1)
