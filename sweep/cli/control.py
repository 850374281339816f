"""Commands that reach a run from outside, through the storage: `stop` and `pause`."""

import click

from dae.errors import UserError
from sweep.cli.errors import debug_option
from sweep.cli.options import storage_option
from sweep.cli.parsing import existing
from sweep.driver import control
from sweep.driver.signals import Signals


@click.command()
@storage_option
@debug_option
@click.argument("name", metavar="NAME")
@click.argument("cells", metavar="CELL...", nargs=-1)
def stop(storage: str, name: str, cells: tuple[str, ...]) -> None:
    """End cells of sweep NAME, from anywhere that sees its storage. They keep their epochs, and have no result.

    A cell that runs ends after its current epoch. Later commands leave it alone unless they say --revive.
    """
    sweep = existing(name, storage, name)
    if not cells:
        raise UserError(f"which cells? dae-sweep status lists those of {name}, such as DAE_1_5-s0.")
    Signals().install()
    click.echo(f"{', '.join(cells)}: {control.stop(sweep, cells)}")


@click.command()
@storage_option
@debug_option
@click.argument("name", metavar="NAME")
def pause(storage: str, name: str) -> None:
    """End the run of sweep NAME after its current epochs, from anywhere that sees its storage.

    The command that began it goes on.
    """
    control.pause(existing(name, storage, name))
    click.echo(f"{name}: its run is asked to end; the same command goes on")
