"""From the options of a command to what it is asked for: grid, search, budget, the sweep it reads."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dae.config import usual_latents
from dae.errors import UserError
from dae.images.location import expanded, name_of
from sweep.cli.options import AUTO, DEFAULT_SEEDS
from sweep.cli.settings import is_given, settings_of, skips_unreadable, source_of, with_images
from sweep.records.axes import Value, value_text
from sweep.records.grid import Grid, Settings
from sweep.records.matching import arm
from sweep.records.search import Search
from sweep.records.space import Space, default_space
from sweep.records.sweep import MANIFEST, Manifest, Sweep, gather, no_sweep_in, way_to_repair
from sweep.storage.opening import open_store
from sweep.storage.sealing import Damaged
from sweep.storage.store import Store
from sweep.tracking.configuration import check_environment, check_project

if TYPE_CHECKING:
    from sweep.driver.request import Request
    from sweep.driver.rounds import Resolving

GRID_OPTIONS = ("depths", "latents", "seeds", "axes", "match_parameters")


def manifest_of(store: Store) -> Manifest | None:
    """The manifest of the sweep that was begun there; None where there is none, or none that can be read."""
    try:
        return Manifest.from_bytes(store.read(MANIFEST))
    except (FileNotFoundError, NotADirectoryError, Damaged):
        return None


def sweep_name(name: str | None, dataset: str) -> str:
    """The dataset's, where none is given; an empty one is given, and refused where the sweep is opened."""
    return name_of(dataset) if name is None else name


def search_name(name: str | None, dataset: str) -> str:
    """The name of a search, where none is given."""
    return f"{name_of(dataset)}-search" if name is None else name


def command_of(words: Sequence[str]) -> tuple[str, list[str]]:
    """The command that is submitted, and its options: `run`, unless they begin with the word ``search``."""
    return ("search", list(words[1:])) if words[:1] and words[0] == "search" else ("run", list(words))


def output_path(out: str) -> Path:
    """The file or folder that ``--out`` names.

    Raises:
        UserError: it is a URI.
    """
    if "://" in out:
        raise UserError(f"--out {out}: give a file or folder of this machine.")
    return expanded(out).absolute()


def existing(name: str | None, storage: str, dataset: str) -> Sweep:
    """The sweep that a command is to read.

    Raises:
        UserError: there is none, or its manifest is damaged.
    """
    return sweep_in(open_store(storage, sweep_name(name, dataset)))


def sweep_in(store: Store) -> Sweep:
    """The sweep that is there.

    Raises:
        UserError: there is none, or its manifest is damaged.
    """
    try:
        return gather(store)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(no_sweep_in(store)) from None
    except Damaged as error:
        raise UserError(f"{store.uri(MANIFEST)} is damaged: {error}. {way_to_repair(store)} writes it anew.") from None
    except OSError as error:  # a name that no folder can have
        raise UserError(f"there is no sweep in {store.uri()}: {error.strerror or error}.") from error


def grid_of(given: Mapping[str, Any], settings: Settings, manifest: Manifest | None = None) -> Grid:
    """The grid among a command's options, its cells named as in a sweep with these settings.

    Of depths, latent sizes and seeds those that the command does not name are the sweep's, or the study's in a new
    one. Seeds alone are meant for all that the sweep has declared, on its axes too.

    Raises:
        UserError: a list is empty or repeats a value, a value is out of range, or options contradict each other.
    """
    declared = None if manifest is None else manifest.grid
    named = set(filter(is_given, GRID_OPTIONS))
    if declared is not None and not named:
        return declared
    axes: dict[str, tuple[Value, ...]] = {}
    for name, values in given["axes"]:
        if name in axes:
            raise UserError(
                f"--axis {name} is given twice: give all its values at once, {_joined(name, axes[name] + values)}."
            )
        axes[name] = values
    levels = dict(given)
    if given["latents"] is None:
        levels["latents"] = usual_latents(settings.shape)
    if declared is not None:
        levels |= {name: getattr(declared, name) for name in ("depths", "latents", "seeds") if name not in named}
    grid = Grid.product(levels["depths"], levels["latents"], levels["seeds"], axes, settings.shape)
    if declared is not None and named == {"seeds"}:
        cells = (replace(cell, seed=seed) for cell in declared.architectures for seed in grid.seeds)
        return Grid.of(cells, settings.shape)
    for name, values in axes.items():
        option, default = f"--{name.replace('_', '-')}", getattr(settings, name)
        if is_given(name) and default not in values:
            raise UserError(
                f"{option} {value_text(default)} is not among {_joined(name, values)}, but it is what cells without "
                f"this axis have. Add it, {_joined(name, (default, *values))}, or leave {option} out."
            )
    for cell in grid.architectures:
        settings.at(cell)
    grid = Grid.of(map(settings.plain, grid.cells), settings.shape)
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


def search_of(given: Mapping[str, Any], settings: Settings, manifest: Manifest | None) -> Search:
    """The search among a command's options; what it does not say, the begun search says, else the defaults.

    Raises:
        UserError: an option is out of range, options contradict each other or what was begun.
    """
    begun = None if manifest is None else manifest.search
    fields: dict[str, Any] = {name: given[name] for name in SEARCH_FIELDS if given.get(name) is not None}
    if given["objective"] is not None:
        fields["objectives"] = tuple(name.strip() for name in given["objective"].split(","))
    if given["space"] or begun is None:
        fields["space"] = Space.parse(given["space"] or default_space(settings.shape))
    search = Search(**fields) if begun is None else replace(begun, **fields)
    search.check(settings.epochs)
    for name in search.space.parameters:
        if name in Settings.__slots__ and is_given(name):
            option = name.replace("_", "-")
            raise UserError(f"--{option} and --space {name} contradict each other: leave one out.")
    search.space.check(settings)
    if begun is not None and manifest is not None:
        search.check_continues(begun.origin, manifest.name)
    return search


SEARCH_FIELDS = ("trials", "sampler", "scheduler", "seed", "finalists", "finalist_seeds")


def as_of_search(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a command takes for a grid and for a search, as those of the search.

    Raises:
        UserError: one names cells, which a search proposes itself.
    """
    for option in ("depths", "latents", "axes", "match_parameters", "resolve", "max_seeds"):
        if is_given(option):
            raise UserError(
                f"--{'axis' if option == 'axes' else option.replace('_', '-')} belongs to a grid, and a search "
                "proposes its cells from --space, for example --space depth=1..5: leave it out."
            )
    if not is_given("seeds"):
        return dict(given)
    if len(given["seeds"]) != 1:
        raise UserError("--seeds of a search is the number of fresh seeds of a finalist: give one, such as --seeds 3.")
    return {**given, "finalist_seeds": given["seeds"][0]}


def check_has_no_search(given: Mapping[str, Any]) -> None:
    """Refuse options of a search where there is none.

    Raises:
        UserError: one is given.
    """
    for option in ("objective", *SEARCH_FIELDS):
        if given.get(option) is not None:
            raise UserError(
                f"--{option.replace('_', '-')} belongs to a search: give its --space, or the --name of one that was "
                "begun. Without them the plan is that of a grid."
            )


def check_kind(manifest: Manifest | None, command: str) -> None:
    """Refuse to run a search, or to search a sweep.

    Raises:
        UserError: the command is not that of the sweep.
    """
    if manifest is None:
        return
    name, is_search = manifest.name, manifest.search is not None
    if command == "run" and is_search:
        raise UserError(f"{name} is a search: dae-sweep search --name {name} goes on with it. Or give another --name.")
    if command == "search" and not is_search:
        raise UserError(
            f"{name} is a sweep of listed cells: dae-sweep run --name {name} goes on with it. Give another --name for "
            "a search."
        )


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
    check_kind(manifest, "run")
    source, skips = source_of(given, manifest), skips_unreadable(given, manifest)
    settings = with_images(settings_of(given, manifest), source, manifest, skip_unreadable=skips)
    grid = grid_of(given, settings, manifest)
    resolving = resolving_of(given, grid, start)
    return _request(given, store, settings, source=source, skip_unreadable=skips, grid=grid, resolving=resolving)


def search_request_of(given: dict[str, Any], start: float) -> "Request":
    """What `search` is asked for. ``start`` is when the command began, by `time.monotonic`.

    Raises:
        UserError: as `request_of`.
    """
    store = open_store(given["storage"], search_name(given["name"], given["dataset"]))
    manifest = manifest_of(store)
    check_kind(manifest, "search")
    source, skips = source_of(given, manifest), skips_unreadable(given, manifest)
    settings = with_images(settings_of(given, manifest), source, manifest, skip_unreadable=skips)
    search = search_of(given, settings, manifest)
    budget_s = given["time_budget"]
    if budget_s == 0:
        raise UserError("--time-budget 0 leaves no time: give more, for example 30m.")
    from sweep.search.sampling import check_installed

    if search.sampler != "grid":
        check_installed()
    deadline = None if budget_s is None else start + budget_s
    images = {"source": source, "skip_unreadable": skips}
    none = Grid.of((), settings.shape)
    request = _request(given, store, settings, **images, grid=none, search=search, deadline=deadline)
    if request.address is None and not request.gpus:
        _check_memory(search.space, settings)
    return request


def _check_memory(space: Space, settings: Settings) -> None:
    """Check that a training step of some cell of the space fits into this machine; warn where one does not.

    Raises:
        UserError: none does.
    """
    from dae.architecture import step_bytes
    from sweep.trials.machine import memory_bytes

    cheapest, dearest = (
        step_bytes(settings.model(cell), settings.at(cell).batch_size) for cell in space.cells_at_ends(settings, seed=0)
    )
    memory = memory_bytes()
    takes = "of the space takes about {:,.1f} GiB a training step, and this machine or its container allows {:,.1f}"
    if cheapest > memory:
        raise UserError(
            f"even the cheapest cell {takes.format(cheapest / 2**30, memory / 2**30)}: lower depth, width, latent or "
            "batch size in --space."
        )
    if dearest > memory:
        click.echo(
            f"Warning: the dearest cell {takes.format(dearest / 2**30, memory / 2**30)}: trials that do not fit fail.",
            err=True,
        )


def slots_of(given: Mapping[str, Any]) -> int:
    """Trials that would run at the same time, as far as is known without a cluster."""
    from sweep.trials import machine
    from sweep.trials.resources import TRIALS_PER_GPU

    gpus = machine.gpu_count() if given["gpus"] is None else given["gpus"]
    sharing = TRIALS_PER_GPU if given["trials_per_gpu"] in (None, AUTO) else given["trials_per_gpu"]
    return int(gpus * sharing or given["cpus"] or machine.cpu_count())


def _request(given: Mapping[str, Any], store: Store, settings: Settings, **asked: Any) -> "Request":
    check_limits(given)
    check_environment(given["wandb_mode"])
    cpus, gpus = given["cpus"], given["gpus"]
    if given["address"] is None:  # a cluster's are known once it was joined
        cpus, gpus = _of_this_machine(cpus, gpus)
    from sweep.driver.request import Request

    return Request(
        store=store,
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
        revive=given["revive"],
        evaluation=not (given["no_report"] or given["no_evaluation"]),
        report=not given["no_report"],
        temp_dir=None if given["temp_dir"] is None else Path(given["temp_dir"]),
        **asked,
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
    return cores if cpus is None else cpus, gpus
