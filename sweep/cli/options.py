"""The options that commands share, and the types of their values."""

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from dae.config import EMBEDDED, FEW_IMAGES, GAUSSIAN, LSUV, NOISES, Latent, parse_latent
from dae.errors import UserError
from sweep.records.axes import AXES, Value, axis_value
from sweep.records.grid import STUDY_DEPTHS
from sweep.records.search import SAMPLERS, SCHEDULERS
from sweep.records.space import DEFAULT_SPACE, PARAMETERS
from sweep.records.sweep import STORAGE
from sweep.trials.resources import TRIALS_PER_GPU

if TYPE_CHECKING:
    from click import ParamType as ParamType
else:  # click below 8.4 has no values to say the type of

    class ParamType(click.ParamType):
        """The type of an option's value; in brackets what it converts to."""

        def __class_getitem__(cls, _value: object) -> type:
            return cls


SMALL = f"{EMBEDDED} and fewer than {FEW_IMAGES:,} training images of your own"
"""Where a training has other defaults."""

MAX_VALUES = 100_000
"""Of one list: what is longer is a slip of the hand."""


class Numbers(ParamType[tuple[int, ...]]):
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
                values = range(int(first), int(last if dots else first) + 1)
            except ValueError:
                self.fail(f"{part!r} is not a whole number; a list looks like 1,3,5 or 1..9.", param, ctx)
            if not values:
                self.fail(f"{part!r} runs backwards; a range looks like 1..9.", param, ctx)
            if len(numbers) + len(values) > MAX_VALUES:
                self.fail(f"{value!r} is more than {MAX_VALUES:,} values.", param, ctx)
            numbers += values
        return tuple(numbers)


class Latents(ParamType[tuple[Latent, ...]]):
    """A list of latent sizes: whole numbers as in `Numbers`, or heights and widths such as ``8x5``."""

    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Latent, ...]:
        """The sizes, in the order given."""
        if isinstance(value, tuple):
            return value
        sizes: list[Latent] = []
        for part in filter(None, (part.strip() for part in value.split(","))):
            is_pair = re.fullmatch(r"\d+x\d+", part, re.ASCII)
            sizes += [parse_latent(part)] if is_pair else Numbers().convert(part, param, ctx)
        return tuple(sizes)


class Axis(ParamType[tuple[str, tuple[Value, ...]]]):
    """An axis and its values: ``alpha=0.25,0.5,0.75``."""

    name = "NAME=V1,V2,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[Value, ...]]:
        """The axis and its values, in the order given."""
        if isinstance(value, tuple):
            return value
        name, equals, values = value.partition("=")
        if not equals:
            self.fail(f"{value!r} has no values; an axis looks like alpha=0.25,0.5,0.75.", param, ctx)
        name = name.strip().replace("-", "_")
        texts = filter(None, (text.strip() for text in values.split(",")))
        try:
            return name, tuple(axis_value(name, text) for text in texts)
        except UserError as error:
            self.fail(str(error), param, ctx)


class Duration(ParamType[float]):
    """A time such as ``30m``, ``2h``, ``1h30m`` or ``90s``, in seconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", value.strip())
        if match is None or not any(match.groups()):
            self.fail(f"{value!r} is not a time; one looks like 30m, 2h, 1h30m or 90s.", param, ctx)
        hours, minutes, seconds = (int(group or 0) for group in match.groups())
        return float(3600 * hours + 60 * minutes + seconds)


class Limit(ParamType[tuple[str, float]]):
    """The most that a model may have of something: ``macs=3e6``."""

    name = "WHAT=N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """What is limited, and its limit."""
        if isinstance(value, tuple):
            return value
        name, _, number = value.partition("=")
        if name not in LIMITS:
            self.fail(f"{value!r} is no limit: one looks like macs=3e6; known are {', '.join(LIMITS)}.", param, ctx)
        try:
            return name, float(number)
        except ValueError:
            self.fail(f"{number!r} is not a number; a limit looks like {name}=3e6.", param, ctx)


LIMITS = ("macs", "parameters", "latent")
"""What of a model can be limited: numbers of its record."""

ADDED_AS_TRAINED = -1.0
"""Stands for the strength of noise that a model was trained with."""


class Strength(ParamType[float]):
    """The strength of noise to add."""

    name = "ALPHA"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The strength, or `ADDED_AS_TRAINED`."""
        if isinstance(value, float):
            return value
        try:
            strength = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number; where a picture follows, write --add-noise=0.5.", param, ctx)
        if not 0 <= strength < math.inf:
            self.fail(f"{value} is out of range: it must be at least 0.", param, ctx)
        return strength


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


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def options(*several: Decorator) -> Decorator:
    """Decorate with all of them, in the order in which help shows them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(several):
            function = option(function)
        return function

    return decorate


storage_option = click.option(
    "--storage",
    default=STORAGE,
    show_default=True,
    metavar="DIR|URI",
    help="What holds the sweeps: a folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER.",
)


which_sweep = options(
    click.option("--name", metavar="NAME", help="Name of the sweep.  [default: the dataset's]"), storage_option
)


which_dataset = options(
    click.option(
        "--dataset",
        default="mnist",
        show_default=True,
        metavar="NAME|PATH",
        help="mnist, fashion-mnist, kmnist, mnist-5k (no download), or the folder or file of your own images.",
    ),
    click.option("--patch", type=int, metavar="N", help="Cut your own images into tiles of N x N pixels."),
    click.option(
        "--skip-unreadable", is_flag=True, help="Leave out files that are no images, or damaged ones, and count them."
    ),
)
which_folder = click.option(
    "--data-dir", default="data", show_default=True, metavar="DIR", help="Where the dataset's files are."
)
which_axis = click.option(
    "--axis",
    "axes",
    type=Axis(),
    multiple=True,
    help=f"Cross the grid with values of {', '.join(AXES)}; may be repeated, once an axis.",
)


which_arm = click.option(
    "--match-parameters",
    is_flag=True,
    help="Add cells whose width gives every depth from 2 on the parameters of the shallowest of them.",
)


which_grid = options(
    click.option("--depths", type=Numbers(), default=STUDY_DEPTHS, help="Convolutions of one side.  [default: 1,3,5]"),
    click.option(
        "--latents",
        type=Latents(),
        help="Latent sizes, of the shorter side of the images, the longer in proportion; or height by width, such as "
        "13x8.  [default: 13,8,5; of other images in proportion]",
    ),
    click.option("--seeds", type=Numbers(), default=(0,), help="One cell an architecture and seed.  [default: 0]"),
    which_axis,
    which_arm,
)


which_settings = options(
    click.option("--train-fraction", type=float, default=1.0, show_default=True, help="Share of the training split."),
    click.option(
        "--epochs",
        type=int,
        default=15,
        help="Passes over the training split.  [default: 15; up to 150 for few images of your own]",
    ),
    click.option("--batch-size", type=int, help=f"Images a step.  [default: 128; 32 on {SMALL}]"),
    click.option("--lr", type=float, help=f"Adam's learning rate.  [default: 1e-3; 4e-3 on {SMALL}]"),
    click.option("--alpha", type=float, default=0.5, show_default=True, help="Strength of the noise."),
    click.option("--noise", default=GAUSSIAN, show_default=True, help=f"Kind of noise: {', '.join(NOISES)}."),
    click.option("--width", type=int, default=16, show_default=True, help="Channels between stem and neck."),
    click.option("--latent-channels", type=int, default=4, show_default=True, help="Channels of the latent space."),
    click.option(
        "--initialisation",
        default=LSUV,
        show_default=True,
        help="Start of the weights: lsuv brings every channel to unit variance on data, he is the plain draw.",
    ),
    click.option(
        "--warmup",
        type=int,
        help=f"Epochs in which the learning rate rises to --lr.  [default: 0; 300 steps on {SMALL}]",
    ),
    click.option(
        "--averaging",
        type=float,
        help=f"Decay a step of the moving average of the weights that is tested.  [default: 0; 0.99 on {SMALL}]",
    ),
    click.option("--latent-bias", type=float, default=0.0, hidden=True, help="Of older sweeps, with he."),
)


DEFAULT_SEEDS = 10


which_machines = options(
    click.option(
        "--address", metavar="ADDRESS", help="Use the Ray cluster at auto or ip:port, from one of its machines."
    ),
    click.option("--allow-autoscaling", is_flag=True, help="The cluster grows: do not check what it has now."),
    click.option("--gpus", type=int, help="GPUs the sweep may use in all.  [default: all there are]"),
    click.option(
        "--trials-per-gpu",
        type=Sharing(),
        default=str(TRIALS_PER_GPU),
        show_default=True,
        help="Trials that share a GPU, each asks for 1/k of it; auto: measure how many get most done.",
    ),
    click.option("--cpus", type=int, help="CPU cores the sweep may use in all.  [default: all there are]"),
    click.option("--temp-dir", metavar="DIR", help="Where Ray's sockets and logs go.  [default: $TMPDIR, or /tmp]"),
)
which_tracking = options(
    click.option(
        "--wandb",
        "wandb_mode",
        type=click.Choice(["auto", "online", "offline", "disabled"]),
        default="auto",
        show_default=True,
        help="auto: what W&B is configured to; else online where it has a key, offline where not.",
    ),
    click.option("--project", help="W&B project.  [default: what W&B is configured to, else dae-sweep]"),
)
which_retries = click.option(
    "--max-retries",
    type=int,
    default=3,
    show_default=True,
    help="How often a cell goes on after its process or node died.",
)
which_rounds = options(
    click.option("--resolve", is_flag=True, help="Add seeds while the order of architectures is undecided."),
    click.option(
        "--max-seeds", type=int, help=f"With --resolve: most seeds of an architecture.  [default: {DEFAULT_SEEDS}]"
    ),
    click.option("--time-budget", type=Duration(), help="With --resolve: when to end at the latest, e.g. 30m, 2h."),
)
which_revived = click.option(
    "--revive", is_flag=True, help="Go on also with cells that were pruned by a search or stopped by hand."
)
which_space = options(
    click.option(
        "--space",
        multiple=True,
        metavar="PARAM=RANGE",
        help=f"What a parameter may be: a list a,b,c, whole numbers 8..64, numbers 1e-4..1e-2; log: before a range "
        f"spreads it by factors. Once for each of {', '.join(PARAMETERS)}.  [default: {' '.join(DEFAULT_SPACE)}; of "
        "small images no latent larger than they are]",
    ),
    click.option("--trials", type=int, help="Configurations to try in all.  [default: 50]"),
    click.option("--sampler", type=click.Choice(SAMPLERS), help="What proposes them.  [default: tpe]"),
    click.option("--scheduler", type=click.Choice(SCHEDULERS), help="What ends hopeless ones.  [default: none]"),
    click.option(
        "--objective", help="val_loss, or val_loss,macs: the front of loss against cost.  [default: val_loss]"
    ),
    click.option("--seed", type=int, help="Of the sampler, and of every trial.  [default: 0]"),
    click.option("--finalists", type=int, help="Best configurations to train anew and to test.  [default: 3]"),
)
which_search = options(
    which_space,
    click.option("--seeds", "finalist_seeds", type=int, help="Fresh seeds of each finalist.  [default: 3]"),
)
which_end = options(
    click.option("--no-report", is_flag=True, help="Train only."),
    click.option(
        "--no-evaluation",
        is_flag=True,
        envvar="DAE_SWEEP_NO_EVALUATION",
        help="No baselines, readability, similarity and robustness: the report has test losses only.",
    ),
)
which_cell = click.option(
    "--cell", metavar="KEY", help="The cell whose model is used, such as DAE_5_13-s0.  [default: the best one]"
)
which_overwrite = click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
which_existing = options(
    which_sweep, click.option("--dataset", default="mnist", help="The sweep of this dataset, where no --name is given.")
)
