"""The command line: parse, build dataclasses, call, print."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dae.architecture import mac_count, parameter_count, receptive_field
from dae.config import GAUSSIAN, NOISES, check_dataset, default_batch_size
from dae.errors import UserError
from sweep import __version__, caches
from sweep.cli_axes import grid_of, which_arm, which_axis
from sweep.cli_resolve import resolving_of, which_rounds
from sweep.grid import AXES, STUDY_DEPTHS, STUDY_LATENTS, Cell, Grid, Settings, axes_text, suffix, value_text
from sweep.matching import WIDTH
from sweep.records import MANIFEST, Status, Sweep, check_sweep, facets, gather
from sweep.signals import Interrupted, Signals
from sweep.store import Damaged, Store, Unreadable, Unwritable, open_storage, open_store

if TYPE_CHECKING:
    from rich.console import Console


MAX_VALUES = 100_000
"""Of one list: what is longer is a slip of the hand."""


class Numbers(click.ParamType[tuple[int, ...]]):
    """A list of whole numbers: ``1,3,5``, ``1..9``, or both: ``0,2..4``."""

    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers, in the order given."""
        if isinstance(value, tuple):
            return value
        numbers: list[int] = []
        for part in filter(None, (part.strip() for part in value.split(","))):
            first, dots, last = part.partition("..")
            try:
                found = range(int(first), int(last if dots else first) + 1)
            except ValueError:
                self.fail(f"{part!r} is not a whole number; a list looks like 1,3,5 or 1..9.", param, ctx)
            if not found:
                self.fail(f"{part!r} runs backwards; a range looks like 1..9.", param, ctx)
            if len(numbers) + len(found) > MAX_VALUES:
                self.fail(f"{value!r} is more than {MAX_VALUES:,} values.", param, ctx)
            numbers += found
        return tuple(numbers)


class Commands(click.Group):
    """Turns what can go wrong into a sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command: 2 is a request that cannot be carried out, 130 and 143 are signals, 1 is all else."""
        try:
            return super().invoke(ctx)
        except Interrupted as interrupt:
            click.echo(f"\n{interrupt}: every finished epoch is kept; the same command continues.", err=True)
            ctx.exit(interrupt.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.meta.get("debug"):
                raise
            if isinstance(error, UserError):
                click.echo(f"Error: {error}", err=True)
                ctx.exit(2)
            if isinstance(error, Unwritable | Unreadable):
                click.echo(
                    f"Error: {error}. What was finished is kept; free or repair the storage and run it again.", err=True
                )
                ctx.exit(1)
            click.echo(f"Error: {type(error).__name__}: {error}\nRun it with --debug to see where.", err=True)
            ctx.exit(1)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def options(*several: Decorator) -> Decorator:
    """Decorate with all of them, in the order in which help shows them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(several):
            function = option(function)
        return function

    return decorate


def _remember(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    ctx.meta["debug"] = value


debug_option: Decorator = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_remember, help="Show Python's traceback of an error."
)
storage_option = click.option(
    "--storage",
    default="sweeps",
    show_default=True,
    metavar="DIR|URI",
    help="What holds the sweeps: a folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER.",
)
which_sweep = options(
    click.option("--name", metavar="NAME", help="Name of the sweep.  [default: the dataset's]"), storage_option
)
which_grid = options(
    click.option("--depths", type=Numbers(), default=STUDY_DEPTHS, help="Convolutions of one side.  [default: 1,3,5]"),
    click.option("--latents", type=Numbers(), default=STUDY_LATENTS, help="Latent sizes, 1 to 28.  [default: 13,8,5]"),
    click.option("--seeds", type=Numbers(), default=(0,), help="One cell an architecture and seed.  [default: 0]"),
    which_axis,
    which_arm,
)
which_data = click.option(
    "--dataset", default="mnist", show_default=True, help="mnist, fashion-mnist, kmnist, or mnist-5k (no download)."
)
which_settings = options(
    click.option("--train-fraction", type=float, default=1.0, show_default=True, help="Share of the training split."),
    click.option("--epochs", type=int, default=15, show_default=True, help="Passes over the training split."),
    click.option("--batch-size", type=int, help="Images a step.  [default: 128; 32 on mnist-5k]"),
    click.option("--lr", type=float, default=1e-3, show_default=True, help="Adam's learning rate."),
    click.option("--alpha", type=float, default=0.5, show_default=True, help="Strength of the noise."),
    click.option("--noise", default=GAUSSIAN, show_default=True, help=f"Kind of noise: {', '.join(NOISES)}."),
    click.option("--width", type=int, default=16, show_default=True, help="Channels between stem and neck."),
    click.option("--latent-channels", type=int, default=4, show_default=True, help="Channels of the latent space."),
    click.option(
        "--latent-bias",
        type=float,
        default=0.0,
        show_default=True,
        help="What the latent's biases begin at; 0.5 keeps its ReLUs alive.",
    ),
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Sweeps of denoising autoencoders: what do depth and latent size change?"""
    caches.keep_beside_ray()


@main.command()
@which_sweep
@which_data
@click.option("--data-dir", default="data", show_default=True, metavar="DIR", help="Where the dataset's files are.")
@which_grid
@which_settings
@click.option("--address", metavar="ADDRESS", help="Use the Ray cluster at auto or ip:port, from one of its machines.")
@click.option("--allow-autoscaling", is_flag=True, help="The cluster grows: do not check what it has now.")
@click.option("--gpus", type=int, help="GPUs the sweep may use in all.  [default: all there are]")
@click.option("--trials-per-gpu", type=int, help="Trials that share a GPU; each asks for 1/k of it.  [default: 3]")
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
    store = open_store(given["storage"], given["name"] or given["dataset"])
    from sweep import machine, runner

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
    trials_per_gpu = 3 if given["trials_per_gpu"] is None else given["trials_per_gpu"]
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

    from rich.console import Console

    from sweep.progress import Progress, duration

    console = Console()
    request = runner.Request(
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
        warn=lambda message: click.echo(f"Warning: {message.rstrip('.')}.", err=True),
        tell=lambda message: None if quiet else click.echo(message),
        make_report=None if no_report else _report,
    )
    print_results(console, outcome.sweep)
    unsuccessful = [record for record in outcome.sweep.records.values() if record.error]
    closing = f"{tally(outcome.sweep)} in {duration(time.monotonic() - start)}{':' * bool(unsuccessful)}"
    for line in (closing, *(f"  {each.key}  {each.status}: {each.error}" for each in unsuccessful)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if outcome.stopped_because:
        click.echo(f"Stopped early: {outcome.stopped_because}.", err=True)
    if outcome.sweep.completed and not no_report:
        click.echo(f"Report: {store.at('report/index.html')}")
    if outcome.tracked_at:
        click.echo(f"W&B runs: {outcome.tracked_at}")
    if len(outcome.sweep.completed) < len(outcome.sweep.manifest.grid.cells):
        ctx.exit(1)


@main.command()
@which_sweep
@which_data
@which_grid
@which_settings
@debug_option
def plan(**given: Any) -> None:
    """Show the grid asked for, the study's Table 1 for it, and what is done of it. Trains nothing."""
    settings = settings_of(given)
    grid = grid_of(given, settings)
    store = open_store(given["storage"], given["name"] or given["dataset"])

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
            own = "" if () not in grid.points else f", beside the sweep's {value_text(getattr(settings, axis))}"
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


@main.command()
@storage_option
@debug_option
def status(storage: str) -> None:
    """List the sweeps of a storage folder and the state of their cells.

    Every file is compared with its digest; whether the numbers are right as well is what verify tells.
    """
    whole = open_storage(storage)
    names = [name for name in whole.folders() if whole.exists(f"{name}/{MANIFEST}")]
    if not names:
        raise UserError(f"there is no sweep in {whole.at()}. Begin one with dae-sweep run, or give --storage.")
    for name in names:
        try:
            sweep = gather(open_store(storage, name), thorough=True)
        except (Damaged, UserError) as error:
            click.echo(f"{name}: {MANIFEST} cannot be read: {error}")
            continue
        click.echo(f"{name}: {tally(sweep)}" + (", a run is at it" if sweep.store.locked() else ""))
        epochs = sweep.manifest.settings.epochs
        width = max((len(cell.key) for cell in sweep.manifest.grid.cells), default=0) + 1
        for cell in sweep.manifest.grid.cells:
            record = sweep.records.get(cell.key)
            state = "damaged" if cell.key in sweep.damaged else sweep.status(cell)
            detail = sweep.damaged.get(cell.key, "")
            if record is not None:
                detail = f"epoch {len(record.history)}/{epochs}"
                detail += "" if record.test_loss is None else f"  test loss {record.test_loss:.5f}"
                detail += "" if record.error is None else f"  {record.error}"
            click.echo(f"  {cell.key:<{width}} {state:<12} {detail}".rstrip())


@main.command()
@which_sweep
@click.option("--dataset", default="mnist", help="The sweep of this dataset, where no --name is given.")
@debug_option
@click.pass_context
def report(ctx: click.Context, /, name: str | None, storage: str, dataset: str) -> None:
    """Rebuild the report of a sweep from its folder alone."""
    sweep = existing(name, storage, dataset)
    store = sweep.store
    from sweep.report import NothingCompleted

    try:
        _report(sweep)
    except NothingCompleted as nothing:
        click.echo(f"Error: {nothing}", err=True)
        ctx.exit(1)
    click.echo(f"{tally(sweep)}\nReport: {store.at('report/index.html')}")


def settings_of(given: dict[str, Any]) -> Settings:
    """The settings among a command's options."""
    check_dataset(given["dataset"])
    if given["batch_size"] is None:
        given["batch_size"] = default_batch_size(given["dataset"])
    return Settings(**{name: given[name] for name in Settings.__dataclass_fields__})


def _models(grid: Grid) -> dict[str, Cell]:
    """One cell of each model of the grid, by name; of the axes width alone makes another model."""
    named = ((cell, tuple(each for each in cell.axes if each[0] == "width")) for cell in grid.architectures)
    return {f"{cell.architecture}{suffix(width)}": replace(cell, axes=width) for cell, width in named}


def tally(sweep: Sweep) -> str:
    """Such as ``7 of 9 completed, 1 diverged, 1 failed``."""
    cells = sweep.manifest.grid.cells
    states = ["damaged" if cell.key in sweep.damaged else str(sweep.status(cell)) for cell in cells]
    others = [
        f"{states.count(each)} {each}" for each in (*Status, "damaged") if each != Status.COMPLETED and each in states
    ]
    return ", ".join([f"{states.count(Status.COMPLETED)} of {len(states)} completed", *others])


def print_results(console: "Console", sweep: Sweep) -> None:
    """The test losses, a row a depth and a column a latent size; a table for each point on the axes."""
    from rich.table import Table

    from sweep.analysis import loss_notes, loss_table

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


def _report(sweep: Sweep) -> tuple[list[dict[str, object]], list[Path]]:
    from sweep import report as pages

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
    return rows, [sweep.store.local(name) for name in figures]


def _find(store: Store) -> Sweep | None:
    try:
        return gather(store, thorough=True)
    except (FileNotFoundError, NotADirectoryError, Damaged):
        return None


def existing(name: str | None, storage: str, dataset: str) -> Sweep:
    """The sweep that a command is to read.

    Raises:
        UserError: there is none, or its manifest is damaged.
    """
    store = open_store(storage, name or dataset)
    try:
        return gather(store)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"there is no sweep in {store.at()}; dae-sweep status --storage DIR lists some.") from None
    except Damaged as error:
        raise UserError(f"{store.at(MANIFEST)} is damaged: {error}. dae-sweep run writes it anew.") from None


which_existing = options(
    which_sweep, click.option("--dataset", default="mnist", help="The sweep of this dataset, where no --name is given.")
)


@main.command()
@which_existing
@click.option("--data-dir", default="data", show_default=True, metavar="DIR", help="Where the dataset's files are.")
@debug_option
@click.pass_context
def verify(ctx: click.Context, /, name: str | None, storage: str, dataset: str, data_dir: str) -> None:
    """Compute every test loss anew from weights and dataset, and check all files of a sweep."""
    Signals().install()
    sweep = existing(name, storage, dataset)
    from dae import data
    from sweep import verify as checks

    settings = sweep.manifest.settings
    images = data.load(settings.dataset, Path(data_dir), settings.train_fraction)
    found = checks.verify(sweep, images, tell=lambda key: click.echo(f"{key}  test loss computed anew", err=True))
    if found:
        width = max(len(each.where) for each in found)
        for each in found:
            click.echo(f"{each.where:<{width}}  {each.what}")
        click.echo(f"{len(found)} disagreement{'s' * (len(found) != 1)} in {sweep.store.at()}; {tally(sweep)}")
        ctx.exit(1)
    click.echo(f"{tally(sweep)}: every test loss, file and number agrees with weights and dataset.")


@main.command()
@which_existing
@debug_option
@click.pass_context
def sync(ctx: click.Context, /, name: str | None, storage: str, dataset: str) -> None:
    """Upload the sweep's offline W&B runs; what is uploaded is left alone."""
    Signals().install()
    from sweep import sync as upload

    store = open_store(storage, name or dataset)
    done = upload.sync(store)
    runs = "run" if done.now == 1 else "runs"
    click.echo(f"{done.now} {runs} uploaded, {done.before} had been before, {len(done.missing)} missing")
    for folder in done.missing:
        click.echo(f"  {folder}")
    if done.missing:
        click.echo(f"Error: wandb sync said: {done.problem}\nSync again to upload what is missing.", err=True)
        ctx.exit(1)


@main.command()
@debug_option
@click.pass_context
def drill(ctx: click.Context) -> None:
    """Kill a tiny sweep again and again, and show that nothing is lost. About two minutes on two cores."""
    Signals().install()
    import tempfile

    from sweep import drill as fire

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


import sweep.cli_cluster  # noqa: E402, F401  (adds submit and jobs, which are made of the options and the run above)
