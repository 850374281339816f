"""From the options of a command to what it is asked for: settings, grid, budget, the sweep it reads."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from dae.config import check_dataset
from dae.errors import UserError
from sweep.records.grid import Grid, Settings, Value, value_text
from sweep.records.matching import arm
from sweep.records.sweep import MANIFEST, Manifest, Sweep, gather
from sweep.storage.opening import open_store
from sweep.storage.sealing import Damaged
from sweep.storage.store import Store
from sweep.tracking.configuration import check_environment, check_project

if TYPE_CHECKING:
    from sweep.driver.request import Request
    from sweep.driver.rounds import Resolving
from sweep.cli.options import AUTO, DEFAULT_SEEDS

GRID_OPTIONS = ("depths", "latents", "seeds", "axes", "match_parameters")


def is_given(option: str) -> bool:
    """Whether the command line, or the environment, says something of an option of the command that runs."""
    source = click.get_current_context().get_parameter_source(option)
    return source in {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}


def settings_of(given: Mapping[str, Any], manifest: Manifest | None = None) -> Settings:
    """The settings among a command's options; what it does not say, the sweep's manifest says, else the defaults.

    Raises:
        UserError: a value is out of range.
    """
    if manifest is not None:
        return replace(manifest.settings, **{name: given[name] for name in Settings.__slots__ if is_given(name)})
    check_dataset(given["dataset"])
    values = {name: given[name] for name in Settings.__slots__ if given[name] is not None}
    return Settings.usual(**values)


def manifest_of(store: Store) -> Manifest | None:
    """The manifest of the sweep that was begun there; None where there is none, or none that can be read."""
    try:
        return Manifest.from_bytes(store.read(MANIFEST))
    except (FileNotFoundError, NotADirectoryError, Damaged):
        return None


def sweep_name(name: str | None, dataset: str) -> str:
    """The dataset's, where none is given; an empty one is given, and refused where the sweep is opened."""
    return dataset if name is None else name


def output_path(out: str) -> Path:
    """The file or folder that ``--out`` names.

    Raises:
        UserError: it is a URI.
    """
    if "://" in out:
        raise UserError(f"--out {out}: give a file or folder of this machine.")
    return Path(out).expanduser().absolute()


def existing(name: str | None, storage: str, dataset: str) -> Sweep:
    """The sweep that a command is to read.

    Raises:
        UserError: there is none, or its manifest is damaged.
    """
    store = open_store(storage, sweep_name(name, dataset))
    try:
        return gather(store)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"there is no sweep in {store.uri()}; dae-sweep status --storage DIR lists some.") from None
    except Damaged as error:
        raise UserError(f"{store.uri(MANIFEST)} is damaged: {error}. dae-sweep run writes it anew.") from None


def grid_of(given: Mapping[str, Any], settings: Settings, manifest: Manifest | None = None) -> Grid:
    """The grid among a command's options, its cells named as in a sweep with these settings.

    A command that names no grid means all that the sweep has declared, or the study's grid.

    Raises:
        UserError: a list is empty or repeats a value, a value is out of range, or options contradict each other.
    """
    if manifest is not None and not any(map(is_given, GRID_OPTIONS)):
        return manifest.grid
    axes: dict[str, tuple[Value, ...]] = {}
    for name, values in given["axes"]:
        if name in axes:
            raise UserError(
                f"--axis {name} is given twice: give all its values at once, {_joined(name, axes[name] + values)}."
            )
        axes[name] = values
    grid = Grid.product(given["depths"], given["latents"], given["seeds"], axes)
    for name, values in axes.items():
        option, default = f"--{name.replace('_', '-')}", getattr(settings, name)
        if is_given(name) and default not in values:
            raise UserError(
                f"{option} {value_text(default)} is not among {_joined(name, values)}, but it is what cells without "
                f"this axis have. Add it, {_joined(name, (default, *values))}, or leave {option} out."
            )
    for cell in grid.architectures:
        settings.at(cell)
    grid = Grid.of(map(settings.plain, grid.cells))
    return grid.union(arm(grid, settings)) if given["match_parameters"] else grid


def _joined(name: str, values: tuple[Value, ...]) -> str:
    return f"--axis {name}={','.join(map(value_text, dict.fromkeys(values)))}"


def resolving_of(given: dict[str, Any], grid: Grid, start: float) -> "Resolving | None":
    """The budget among a command's options; None without ``--resolve``. ``start`` is when the command began.

    Raises:
        UserError: the options contradict each other or are out of range.
    """
    resolve, max_seeds, budget_s = (given.pop(name) for name in ("resolve", "max_seeds", "time_budget"))
    if not resolve:
        for option, value in (("max-seeds", max_seeds), ("time-budget", budget_s)):
            if value is not None:
                raise UserError(f"--{option} is a limit of --resolve: give both, or neither.")
        return None

    from sweep.analysis.statistics import MOST_SEEDS  # and scipy, for which a run without --resolve need not wait
    from sweep.driver.rounds import Resolving

    num_given = len(grid.seeds)
    if max_seeds is None:
        max_seeds = max(DEFAULT_SEEDS, num_given)
    if not LEAST_SEEDS <= max_seeds <= MOST_SEEDS:
        raise UserError(f"--max-seeds {max_seeds} is out of range: it must be {LEAST_SEEDS} to {MOST_SEEDS}.")
    if max_seeds < num_given:
        raise UserError(
            f"--max-seeds {max_seeds} is below the {num_given} seeds given: raise it, or give fewer --seeds."
        )
    if budget_s == 0:
        raise UserError("--time-budget 0 leaves no time: give more, for example 30m.")
    if len({(cell.architecture, cell.axes) for cell in grid.cells}) < 2:
        raise UserError("--resolve compares architectures, and only one is given: give more --depths or --latents.")
    return Resolving(max_seeds=max_seeds, deadline=None if budget_s is None else start + budget_s)


LEAST_SEEDS = 3
"""Two seeds leave a t interval one degree of freedom: it says next to nothing."""


def request_of(given: dict[str, Any], start: float) -> "Request":
    """What `run` is asked for. ``start`` is when the command began, by `time.monotonic`.

    Raises:
        UserError: an option is out of range, options contradict each other, or this machine or storage lacks what
            they ask for.
    """
    store = open_store(given["storage"], sweep_name(given["name"], given["dataset"]))
    manifest = manifest_of(store)
    settings = settings_of(given, manifest)
    grid = grid_of(given, settings, manifest)
    check_limits(given)
    check_environment(given["wandb_mode"])
    cpus, gpus = given["cpus"], given["gpus"]
    if given["address"] is None:  # a cluster's are known once it was joined
        cpus, gpus = _of_this_machine(cpus, gpus)
    from sweep.driver.request import Request

    return Request(
        store=store,
        grid=grid,
        settings=settings,
        data_dir=Path(given["data_dir"]),
        cpus=cpus,
        gpus=gpus,
        trials_per_gpu=None if given["trials_per_gpu"] == AUTO else given["trials_per_gpu"],
        wandb_mode=given["wandb_mode"],
        project=given["project"],
        max_retries=given["max_retries"],
        address=given["address"],
        allow_autoscaling=given["allow_autoscaling"],
        resolving=resolving_of(given, grid, start),
        evaluation=not (given["no_report"] or given["no_evaluation"]),
        report=not given["no_report"],
        temp_dir=None if given["temp_dir"] is None else Path(given["temp_dir"]),
    )


def check_limits(given: Mapping[str, Any]) -> None:
    """Refuse numbers of machines and retries that no machine could have, and names that W&B would refuse.

    Raises:
        UserError: one is out of range.
    """
    address = given["address"]
    if address is not None and "://" in address:
        raise UserError(
            f"--address {address}: a Ray client address would move the driver, and with it W&B and the progress shown "
            "here, into the cluster. Run this on a machine of the cluster with --address auto or ip:port, or hand the "
            "sweep in from anywhere with dae-sweep submit."
        )
    for option, least in (("cpus", 1), ("gpus", 0), ("trials-per-gpu", 1), ("max-retries", 0)):
        value = given[option.replace("-", "_")]
        if value not in (None, AUTO) and value < least:
            raise UserError(f"--{option} {value} is out of range: it must be at least {least}.")
    if given["project"] is not None:
        check_project(given["project"])


def _of_this_machine(cpus: int | None, gpus: int | None) -> tuple[int, int]:
    """The cores and GPUs asked for, by default all that there are.

    Raises:
        UserError: there are fewer GPUs.
    """
    from sweep.trials import machine

    cores = machine.cpu_count()
    if gpus is None:
        gpus = machine.gpu_count()
    machine.check_gpus(gpus)
    if cpus is not None and cpus > cores:
        click.echo(f"Warning: --cpus {cpus}: this machine has {cores}; trials take turns on them.", err=True)
    chosen = cores if cpus is None else cpus
    if not gpus and chosen > (fitting := machine.trials_in_memory()):
        click.echo(
            f"Warning: {chosen} trials at a time may not fit into {machine.memory_bytes() / 2**30:.1f} GiB, all that "
            f"this machine or its container allows: --cpus {fitting} would.",
            err=True,
        )
    return chosen, gpus
