"""Commands that read a sweep which is there: `status`, `report`, `verify`, `sync`; and `drill`, which makes its own."""

import errno
import time
from dataclasses import replace
from pathlib import Path

import click

from dae.errors import UserError
from dae.images.location import expanded
from sweep.cli.errors import debug_option
from sweep.cli.options import storage_option, which_existing
from sweep.cli.parsing import existing, sweep_in, sweep_name
from sweep.cli.settings import source_of, with_images
from sweep.driver.signals import Signals
from sweep.records.grid import Cell
from sweep.records.sweep import MANIFEST, Sweep, folders_of, gather, no_sweep_in
from sweep.records.words import counted, there_are
from sweep.storage.opening import open_storage, open_store
from sweep.storage.sealing import Damaged
from sweep.storage.store import Store, Unwritable


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@storage_option
@debug_option
def status(names: tuple[str, ...], storage: str) -> None:
    """List the sweeps of a storage folder, or those named, and the state of their cells.

    Weights and outputs are compared with their digests; in a bucket those that were compared before, and not put
    again since, are not read. Whether the numbers are right as well is what verify tells.
    """
    whole = open_storage(storage)
    folders = folders_of(whole)
    there = [name for name, is_sweep in folders.items() if is_sweep]
    for name, is_sweep in folders.items():
        if not is_sweep and whole.folders(f"{name}/cells"):
            click.echo(f"{name}: {no_sweep_in(whole.below(name))}", err=True)
    if not there:
        raise UserError(f"there is no sweep in {whole.uri()}. Begin one with dae-sweep run, or give --storage.")
    if missing := [name for name in names if name not in there]:
        raise UserError(f"there is no sweep {' or '.join(missing)} in {whole.uri()}; {there_are(there)}.")
    for name in dict.fromkeys(names or there):
        try:
            sweep = gather(open_store(storage, name), thorough=True)
        except (Damaged, UserError) as error:
            click.echo(f"{name}: {MANIFEST} cannot be read: {error}")
            continue
        click.echo(f"{name}: {sweep.tally}" + (", a run is at it" if sweep.store.locked() else ""))
        width = max((len(cell.key) for cell in sweep.manifest.grid.cells), default=0) + 1
        for cell in sweep.manifest.grid.cells:
            state = "damaged" if cell.key in sweep.damaged else sweep.status(cell)
            click.echo(f"  {cell.key:<{width}} {state:<12} {_detail(sweep, cell)}".rstrip())


def _detail(sweep: Sweep, cell: Cell) -> str:
    """How far a cell is, its losses and what went wrong."""
    record = sweep.records.get(cell.key)
    if record is None:
        return sweep.damaged.get(cell.key, "")
    detail = [f"epoch {len(record.history)}/{sweep.manifest.settings.epochs}"]
    detail += [] if record.test_loss is None else [f"test loss {record.test_loss:.5f}"]
    if sweep.manifest.is_trial(cell) and record.val_loss is not None:
        detail.append(f"validation loss {record.val_loss:.5f}")
    detail += ["its proposal.json is missing or damaged"] if cell.key in sweep.rebuilt else []
    return "  ".join([*detail, *([] if record.error is None else [record.error])])


@click.command()
@which_existing
@click.option("--output", metavar="DIR", help="Write it there, and nothing into the sweep, which may be another's.")
@debug_option
@click.pass_context
def report(ctx: click.Context, /, name: str | None, storage: str, dataset: str, output: str | None) -> None:
    """Rebuild the report of a sweep from its folder alone."""
    sweep = existing(name, storage, dataset)
    target = sweep.store.below("report") if output is None else Store(expanded(output).absolute())
    from sweep.report import page as pages

    try:
        pages.build(sweep, target)
    except pages.NothingCompleted as nothing:
        click.echo(f"Error: {nothing}", err=True)
        ctx.exit(1)
    except Unwritable as refusal:
        if output is not None:
            raise UserError(f"--output {output}: {refusal}. Give a folder that can be made and written.") from refusal
        if refusal.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(f"{refusal}. Give a folder that can be written: dae-sweep report --output DIR.") from refusal
    click.echo(f"{sweep.tally}\nReport: {target.uri('index.html')}")


@click.command()
@which_existing
@click.option("--data-dir", default="data", show_default=True, metavar="DIR", help="Where the dataset's files are.")
@debug_option
@click.pass_context
def verify(ctx: click.Context, /, name: str | None, storage: str, dataset: str, data_dir: str) -> None:
    """Compute every test loss anew from weights and dataset, and check all files of a sweep."""
    Signals().install()
    sweep = sweep_in(existing(name, storage, dataset).store.unpacked())
    from dae import data
    from sweep.evaluation import verify as checks

    settings = sweep.manifest.settings
    source = source_of(ctx.params, sweep.manifest)
    with_images(settings, source, sweep.manifest, skip_unreadable=True)
    images = data.load(
        source or settings.dataset,
        Path(data_dir),
        settings.train_fraction,
        patch=settings.patch,
        skip_unreadable=True,
        tell=lambda message: click.echo(message, err=True),
    )
    images = replace(images, name=settings.dataset)
    disagreements = checks.verify(
        sweep, images, tell=lambda key: click.echo(f"{key}  test loss computed anew", err=True)
    )
    if disagreements:
        width = max(len(disagreement.where) for disagreement in disagreements)
        for disagreement in disagreements:
            click.echo(f"{disagreement.where:<{width}}  {disagreement.what}")
        cells = [cell for cell in sweep.manifest.grid.cells if cell.key not in sweep.damaged]
        wrong = len(disagreements) - sum(not sweep.status(cell).is_final for cell in cells)
        click.echo(f"{counted(wrong, 'disagreement')} in {sweep.store.uri()}; {sweep.tally}")
        ctx.exit(1)
    click.echo(f"{sweep.tally}: every test loss, file and number agrees with weights and dataset.")


@click.command()
@which_existing
@debug_option
@click.pass_context
def sync(ctx: click.Context, /, name: str | None, storage: str, dataset: str) -> None:
    """Upload the sweep's offline W&B runs; what is uploaded is left alone."""
    Signals().install()
    from sweep.tracking import sync as upload

    store = open_store(storage, sweep_name(name, dataset))
    done = upload.sync(store)
    runs = "run" if done.now == 1 else "runs"
    click.echo(f"{done.now} {runs} uploaded, {done.before} had been before, {len(done.missing)} missing")
    for folder in done.missing:
        click.echo(f"  {folder}")
    if done.missing:
        click.echo(f"Error: wandb sync said: {done.problem}\nSync again to upload what is missing.", err=True)
        ctx.exit(1)


@click.command()
@debug_option
@click.pass_context
def drill(ctx: click.Context) -> None:
    """Kill a tiny sweep again and again, and show that nothing is lost. About two minutes on two cores."""
    Signals().install()
    import tempfile

    from sweep.driver import drill as fire

    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dae-sweep-drill-") as folder:
        try:
            faults, cells = fire.drill(Path(folder), lambda line: click.echo(f"{line}  ({_since(start)})"))
        except fire.DrillFailed as failure:
            click.echo(f"Error: {failure}", err=True)
            ctx.exit(1)
    for fault in faults:
        left = f"; {fault.left} processes of Ray's outlived it and were ended" if fault.left else ""
        click.echo(f"killed {fault.what} at {fault.at}{left}")
    click.echo(f"\n{'cell':<14} {'undisturbed':<22} {'with faults':<22} bit for bit")
    for cell in cells:
        same = "differs: " + ", ".join(cell.differs) if cell.differs else "equal"
        click.echo(f"{cell.key:<14} {cell.undisturbed!s:<22} {cell.disturbed!s:<22} {same}")
    differing = sum(bool(cell.differs) for cell in cells)
    verdict = f"{differing} of {len(cells)} cells differ" if differing else "nothing was lost, every number is the same"
    click.echo(f"{len(faults)} faults, {verdict}; {_since(start)}")
    if differing or not cells:
        ctx.exit(1)


def _since(start: float) -> str:
    return f"{time.monotonic() - start:.0f} s"
