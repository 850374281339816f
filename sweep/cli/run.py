"""Commands that train a sweep, or say what there would be to train: `run` and `plan`."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dae.architecture import mac_count, parameter_count, receptive_field
from dae.errors import UserError
from sweep.cli.errors import debug_option
from sweep.cli.options import ParamType, which_data, which_grid, which_rounds, which_settings, which_sweep
from sweep.cli.parsing import grid_of, resolving_of, settings_of, sweep_name
from sweep.driver.request import Request
from sweep.driver.signals import Signals
from sweep.records.facets import facets
from sweep.records.grid import AXES, Cell, Grid, axes_text, suffix, value_text
from sweep.records.matching import WIDTH
from sweep.records.record import Status
from sweep.records.sweep import Sweep, check_sweep, gather
from sweep.storage.opening import open_store
from sweep.storage.sealing import Damaged
from sweep.storage.store import Store
from sweep.trials.resources import TRIALS_PER_GPU

if TYPE_CHECKING:
    from rich.console import Console


AUTO = "auto"


class Sharing(ParamType[int | str]):
    """A number, or that it is to be measured."""

    name = "K|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """The number, or `AUTO`."""
        try:
            return AUTO if value == AUTO else int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number of trials nor auto.", param, ctx)


@click.command()
@which_sweep
@which_data
@click.option("--data-dir", default="data", show_default=True, metavar="DIR", help="Where the dataset's files are.")
@which_grid
@which_settings
@click.option("--address", metavar="ADDRESS", help="Use the Ray cluster at auto or ip:port, from one of its machines.")
@click.option("--allow-autoscaling", is_flag=True, help="The cluster grows: do not check what it has now.")
@click.option("--gpus", type=int, help="GPUs the sweep may use in all.  [default: all there are]")
@click.option(
    "--trials-per-gpu",
    type=Sharing(),
    default=str(TRIALS_PER_GPU),
    show_default=True,
    help="Trials that share a GPU, each asks for 1/k of it; auto: measure how many get most done.",
)
@click.option("--cpus", type=int, help="CPU cores the sweep may use in all.  [default: all there are]")
@click.option(
    "--wandb",
    "wandb_mode",
    type=click.Choice(["auto", "online", "offline", "disabled"]),
    default="auto",
    show_default=True,
    help="auto: online where a key is configured, else offline.",
)
@click.option("--project", default="dae-sweep", show_default=True, help="W&B project.")
@click.option(
    "--max-retries",
    type=int,
    default=3,
    show_default=True,
    help="How often a cell goes on after its process or node died.",
)
@which_rounds
@click.option("--quiet", is_flag=True, help="Only the result, warnings and errors.")
@click.option("--no-report", is_flag=True, help="Train only.")
@click.option(
    "--no-evaluation",
    is_flag=True,
    envvar="DAE_SWEEP_NO_EVALUATION",
    help="No baselines, readability, similarity and robustness: the report has test losses only.",
)
@debug_option
@click.pass_context
def run(ctx: click.Context, /, quiet: bool, no_report: bool, no_evaluation: bool, **given: Any) -> None:
    """Train every depth with every latent size and seed, then report.

    Completed cells are left alone, interrupted ones continue after their last finished epoch: to resume, to extend
    or to repeat a sweep is the same command.
    """
    start = time.monotonic()
    signals = Signals().install()
    settings = settings_of(given)
    grid = grid_of(given, settings)
    store = open_store(given["storage"], sweep_name(given["name"], given["dataset"]))
    from sweep.driver import runner
    from sweep.trials import machine

    address = given["address"]
    if address is not None and "://" in address:
        raise UserError(
            f"--address {address}: a Ray client address would move the driver, and with it W&B and the progress shown "
            "here, into the cluster. Run this on a machine of the cluster with --address auto or ip:port, or hand the "
            "sweep in from anywhere with dae-sweep submit."
        )
    # A cluster's are known once it was joined.
    cpus = machine.cpu_count() if given["cpus"] is None and address is None else given["cpus"]
    gpus = machine.gpu_count() if given["gpus"] is None and address is None else given["gpus"]
    trials_per_gpu = None if given["trials_per_gpu"] == AUTO else given["trials_per_gpu"]
    for option, value, least in (
        ("cpus", cpus, 1),
        ("gpus", gpus, 0),
        ("trials-per-gpu", trials_per_gpu, 1),
        ("max-retries", given["max_retries"], 0),
    ):
        if value is not None and value < least:
            raise UserError(f"--{option} {value} is out of range: it must be at least {least}.")
    if address is None:
        machine.check_gpus(gpus)
        if cpus > machine.cpu_count():
            warn(f"--cpus {cpus}: this machine has {machine.cpu_count()}; trials take turns on them")

    from rich.console import Console

    from sweep.driver.progress import Progress, duration

    console = Console()
    request = Request(
        store=store,
        grid=grid,
        settings=settings,
        data_dir=Path(given["data_dir"]),
        cpus=cpus,
        gpus=gpus,
        trials_per_gpu=trials_per_gpu,
        wandb_mode=given["wandb_mode"],
        project=given["project"],
        max_retries=given["max_retries"],
        address=address,
        allow_autoscaling=given["allow_autoscaling"],
        resolving=resolving_of(given, grid, start),
        evaluation=not (no_report or no_evaluation),
    )
    outcome = runner.run(
        request,
        signals,
        make_progress=lambda sweep, slots: Progress(
            console, sweep.manifest.grid.cells, sweep.records, settings, slots, quiet=quiet, start=start
        ),
        warn=warn,
        tell=lambda message: None if quiet else click.echo(message),
        make_report=None if no_report else _report,
    )
    print_results(console, outcome.sweep)
    unsuccessful = [record for record in outcome.sweep.records.values() if record.error]
    closing = f"{outcome.sweep.tally} in {duration(time.monotonic() - start)}{':' * bool(unsuccessful)}"
    for line in (closing, *(f"  {each.key}  {each.status}: {each.error}" for each in unsuccessful)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if outcome.stopped_because:
        click.echo(f"Stopped early: {outcome.stopped_because}.", err=True)
    if outcome.sweep.completed and not no_report:
        click.echo(f"Report: {store.uri('report/index.html')}")
    if outcome.tracked_at:
        click.echo(f"W&B runs: {outcome.tracked_at}")
    if len(outcome.sweep.completed) < len(outcome.sweep.manifest.grid.cells):
        ctx.exit(1)


@click.command()
@which_sweep
@which_data
@which_grid
@which_settings
@debug_option
def plan(**given: Any) -> None:
    """Show the grid asked for, the study's Table 1 for it, and what is done of it. Trains nothing."""
    settings = settings_of(given)
    grid = grid_of(given, settings)
    store = open_store(given["storage"], sweep_name(given["name"], given["dataset"]))

    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("name", no_wrap=True)
    for heading in ("latent space", "compression", "layers", "parameters", "MACs/image", "sees"):
        table.add_column(heading, justify="right")
    for name, cell in _models(grid).items():
        model = settings.model(cell)
        table.add_row(
            name,
            f"({model.latent_channels}, {cell.latent}, {cell.latent})",
            f"{model.compression:.2%}",
            f"{cell.depth} + {cell.depth}",
            f"{parameter_count(model):,}",
            f"{mac_count(model):,}",
            f"{receptive_field(model)} px",
        )
    Console().print(table)
    for axis, values in grid.axes.items():
        if given["match_parameters"] and axis == WIDTH:
            shallowest = min(cell.depth for cell in grid.cells if cell.depth > 1)
            click.echo(
                f"equal parameters: width solved to come nearest to depth {shallowest} at width {settings.width}"
            )
        else:
            own = f", beside the sweep's {value_text(getattr(settings, axis))}" if grid.keeps_own(axis) else ""
            click.echo(f"{axis.replace('_', ' ')}: {', '.join(map(value_text, values))}{own}")
    found = _find(store)
    if found is not None:
        check_sweep(found.records.values(), settings, found.manifest)
    status = [Status.MISSING if found is None else found.status(cell) for cell in grid.cells]
    completed, ended = status.count(Status.COMPLETED), status.count(Status.DIVERGED)
    to_continue = sum(each in {Status.RUNNING, Status.INTERRUPTED} for each in status)
    click.echo(
        f"\n{len(grid.cells)} cell{'s' * (len(grid.cells) != 1)} of {store.name}: {completed} completed, "
        + (f"{ended} diverged, " if ended else "")
        + f"{to_continue} to continue, {len(status) - completed - ended - to_continue} to train"
    )


def _models(grid: Grid) -> dict[str, Cell]:
    """One cell of each model of the grid, by name; of the axes width alone makes another model."""
    named = ((cell, tuple(each for each in cell.axes if each[0] == "width")) for cell in grid.architectures)
    return {f"{cell.architecture}{suffix(width)}": replace(cell, axes=width) for cell, width in named}


def print_results(console: "Console", sweep: Sweep) -> None:
    """The test losses, a row a depth and a column a latent size; a table for each point on the axes."""
    from rich.table import Table

    from sweep.analysis.results import loss_notes, loss_table

    for point, facet in facets(sweep):
        heading, *rows = loss_table(facet)
        title = "test loss (MSE per pixel)" + (f", {axes_text(point)}" if point else "")
        console.print(title, style="italic", highlight=False, soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in heading:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
        for note in loss_notes(facet):
            console.print(f"* {note}", highlight=False, markup=False)


def warn(message: str) -> None:
    """Tell of what goes on although it should not have been."""
    click.echo(f"Warning: {message.rstrip('.')}.", err=True)


def _report(sweep: Sweep) -> tuple[list[dict[str, object]], list[Path]]:
    from sweep.report import page as pages

    pages.build(sweep)
    rows: list[dict[str, object]] = [
        {
            "cell": record.key,
            "depth": record.depth,
            "latent": record.latent,
            "seed": record.seed,
            **{name: record.config[name] for name in AXES},
            "test_loss": record.test_loss,
            "test_psnr_db": record.test_psnr_db,
            "parameters": record.parameters,
            "macs": record.macs,
        }
        for record in sweep.completed
    ]
    figures = [name for name in sweep.store.names("report") if name.endswith(".png")]
    return rows, [sweep.store.download(name) for name in figures]


def _find(store: Store) -> Sweep | None:
    try:
        return gather(store, thorough=True)
    except (FileNotFoundError, NotADirectoryError, Damaged):
        return None
