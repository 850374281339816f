"""What the commands share: their options, the sweep they read, and a sentence for whatever goes wrong."""

from collections.abc import Callable
from typing import Any

import click

from dae.config import GAUSSIAN, NOISES, check_dataset, default_batch_size
from dae.errors import UserError
from sweep.cli_axes import which_arm, which_axis
from sweep.grid import STUDY_DEPTHS, STUDY_LATENTS, Settings
from sweep.records import MANIFEST, Sweep, gather
from sweep.signals import Interrupted
from sweep.store import Damaged, Unreadable, Unwritable, open_store

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
which_existing = options(
    which_sweep, click.option("--dataset", default="mnist", help="The sweep of this dataset, where no --name is given.")
)


def settings_of(given: dict[str, Any]) -> Settings:
    """The settings among a command's options."""
    check_dataset(given["dataset"])
    if given["batch_size"] is None:
        given["batch_size"] = default_batch_size(given["dataset"])
    return Settings(**{name: given[name] for name in Settings.__dataclass_fields__})


def sweep_name(name: str | None, dataset: str) -> str:
    """The dataset's, where none is given; an empty one is given, and refused where the sweep is opened."""
    return dataset if name is None else name


def existing(name: str | None, storage: str, dataset: str) -> Sweep:
    """The sweep that a command is to read.

    Raises:
        UserError: there is none, or its manifest is damaged.
    """
    store = open_store(storage, sweep_name(name, dataset))
    try:
        return gather(store)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"there is no sweep in {store.at()}; dae-sweep status --storage DIR lists some.") from None
    except Damaged as error:
        raise UserError(f"{store.at(MANIFEST)} is damaged: {error}. dae-sweep run writes it anew.") from None
