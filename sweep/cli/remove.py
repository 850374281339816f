"""The command that takes cells out of a sweep, and back in: `remove`."""

import click

from dae.errors import UserError
from sweep.cli.errors import debug_option
from sweep.cli.options import storage_option
from sweep.cli.parsing import existing
from sweep.driver import removal
from sweep.driver.holding import holding
from sweep.driver.signals import Signals
from sweep.records.sweep import where
from sweep.records.words import counted


@click.command()
@storage_option
@click.option("--restore", is_flag=True, help="Take removed cells back in; all of them where none is named.")
@debug_option
@click.argument("name", metavar="NAME")
@click.argument("cells", metavar="CELL...", nargs=-1)
def remove(storage: str, name: str, cells: tuple[str, ...], restore: bool) -> None:
    """Take cells out of sweep NAME, which keeps their files and says in its report that they were removed.

    To remove cells for how they came out is to choose the result.
    """
    store = existing(name, storage, name).store
    if not cells and not restore:
        raise UserError(f"which cells? dae-sweep status lists those of {name}, such as DAE_1_5-s0.")
    Signals().install()
    with holding(store, f"Wait for it, or end it: dae-sweep pause {name}{where(store)}."):
        manifest = (removal.restore if restore else removal.remove)(store, cells)
    now_removed = f"{len(manifest.removed)} removed" + (f" ({', '.join(manifest.removed)})" if manifest.removed else "")
    click.echo(f"{name}: {counted(len(manifest.grid.cells), 'cell')}, {now_removed}")
    again = f"dae-sweep report --name {name}{where(store)}"
    click.echo(f"A report written before shows the cells as they were: {again} writes it anew.")
