"""The command that searches a space: `search`."""

import time
from typing import Any

import click

from sweep.cli.errors import debug_option
from sweep.cli.options import (
    Duration,
    storage_option,
    which_dataset,
    which_end,
    which_folder,
    which_machines,
    which_retries,
    which_revived,
    which_search,
    which_settings,
    which_tracking,
)
from sweep.cli.parsing import search_request_of
from sweep.driver.signals import Signals


@click.command()
@click.option("--name", metavar="NAME", help="Name of the search.  [default: the dataset's, with -search]")
@storage_option
@which_dataset
@which_folder
@which_search
@which_settings
@which_machines
@which_tracking
@which_retries
@which_revived
@click.option("--time-budget", type=Duration(), help="When to propose no more, e.g. 30m, 2h; the finalists follow.")
@click.option("--quiet", is_flag=True, help="Only the result, warnings and errors.")
@which_end
@debug_option
@click.pass_context
def search(ctx: click.Context, /, quiet: bool, **given: Any) -> None:
    """Propose configurations from a space, train them, and test the best with fresh seeds.

    What is chosen is chosen by the validation loss; only finalists are tested. The same command goes on where it was
    ended, in whatever way; with more --trials or another --space it goes on from there.
    """
    start = time.monotonic()
    signals = Signals().install()
    request = search_request_of(given, start)

    from sweep.cli.terminal import Terminal
    from sweep.driver import runner
    from sweep.search.ranking import wanted

    terminal = Terminal(quiet=quiet, start=start)
    outcome = runner.run(request, signals, terminal)
    terminal.show(outcome, has_report=request.report)
    sweep = outcome.sweep
    if outcome.stopped_because or any(not sweep.status(cell).is_final for cell in wanted(sweep)):
        ctx.exit(1)
