"""The command that says what there would be to train: `plan`."""

from copy import copy
from dataclasses import replace
from typing import Any

import click

from dae.architecture import (
    Layer,
    encoder_layers,
    mac_count,
    parameter_count,
    receptive_fields,
    step_bytes,
)
from dae.config import ModelConfig
from sweep.cli.errors import debug_option
from sweep.cli.options import which_dataset, which_grid, which_settings, which_space, which_sweep
from sweep.cli.parsing import (
    as_of_search,
    check_has_no_search,
    check_kind,
    check_limits,
    grid_of,
    manifest_of,
    resolving_of,
    search_name,
    search_of,
    slots_of,
    sweep_name,
)
from sweep.cli.run import run
from sweep.cli.settings import settings_of, skips_unreadable, source_of, with_images
from sweep.driver.removal import check_none_removed
from sweep.records.agreement import check_sweep
from sweep.records.axes import suffix, value_text
from sweep.records.grid import Cell, Grid, Settings
from sweep.records.matching import WIDTH
from sweep.records.record import Status
from sweep.records.sweep import Sweep, gather
from sweep.records.words import counted
from sweep.storage.opening import open_store
from sweep.storage.sealing import Damaged
from sweep.storage.store import Store

OF_MODELS = (WIDTH, "latent_channels")
"""The axes that make another model."""


@click.command()
@which_sweep
@which_dataset
@which_grid
@which_settings
@which_space
@debug_option
def plan(**given: Any) -> None:
    """Show the grid asked for, the study's Table 1 for it, and what is done of it. Trains nothing.

    With --space, or of a search that was begun: the size of its space, and how long it may take; --seeds is then the
    number of fresh seeds of a finalist.
    """
    named = search_name if given["space"] else sweep_name
    store = open_store(given["storage"], named(given["name"], given["dataset"]))
    manifest = manifest_of(store)
    settings = with_images(
        settings_of(given, manifest),
        source_of(given, manifest),
        manifest,
        skip_unreadable=skips_unreadable(given, manifest),
        thorough=True,
    )
    if given["space"] or (manifest is not None and manifest.search is not None):
        from sweep.cli.search_plan import show

        check_kind(manifest, "search")
        show(search_of(as_of_search(given), settings, manifest), settings, store, slots_of(given))
        return
    check_has_no_search(given)
    grid = grid_of(given, settings, manifest)
    check_limits(given)
    if manifest is not None:
        check_none_removed(grid, store, manifest.removed)
    resolving_of(given, grid, start=0.0)

    _show_models(grid, settings)
    _show_axes(grid, settings, match_parameters=given["match_parameters"])
    _show_done(store, grid, settings)


def _show_models(grid: Grid, settings: Settings) -> None:
    """The study's Table 1 for the grid, and the layers."""
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
            f"({model.latent_channels}, {', '.join(map(str, model.latent_sides))})",
            f"{model.compression:.2%}",
            f"{cell.depth} + {cell.depth}",
            f"{parameter_count(model):,}",
            f"{mac_count(model):,}",
            f"{_sides(receptive_fields(model))} px",
        )
    Console().print(table)
    click.echo(f"\nlayers of the encoder, for images of {settings.shape}; the decoder mirrors them")
    for name, cell in _models(grid).items():
        model, batch_size = settings.model(cell), settings.at(cell).batch_size
        click.echo(f"{name}: {_layers(model)}; a step takes about {step_bytes(model, batch_size) / 2**20:,.0f} MiB")


def _show_axes(grid: Grid, settings: Settings, *, match_parameters: bool) -> None:
    for axis, values in grid.axes.items():
        if match_parameters and axis == WIDTH:
            shallowest = min(cell.depth for cell in grid.cells if cell.depth > 1)
            click.echo(
                f"equal parameters: width solved to come nearest to depth {shallowest} at width {settings.width}"
            )
        else:
            default = f", beside the sweep's {value_text(getattr(settings, axis))}" if grid.keeps_own(axis) else ""
            click.echo(f"{axis.replace('_', ' ')}: {', '.join(map(value_text, values))}{default}")


def _show_done(store: Store, grid: Grid, settings: Settings) -> None:
    """How many cells are done, and how many are left."""
    sweep = _find(store)
    if sweep is not None:
        check_sweep(sweep.records.values(), settings, sweep.manifest)
    statuses = [Status.MISSING if sweep is None else sweep.status(cell) for cell in grid.cells]
    endings = {status: statuses.count(status) for status in Status if status.is_final}
    counts = "".join(f"{count} {status}, " for status, count in endings.items() if count or status is Status.COMPLETED)
    to_continue = sum(status in {Status.RUNNING, Status.INTERRUPTED} for status in statuses)
    click.echo(
        f"\n{counted(len(grid.cells), 'cell')} of {store.name}: {counts}"
        f"{to_continue} to continue, {len(statuses) - sum(endings.values()) - to_continue} to train"
    )


def _take_options_of_run() -> None:
    """So that a command's `run` can be replaced by `plan`; what does not change the plan is not in its help."""
    known = {parameter.name for parameter in plan.params}
    for option in map(copy, run.params):
        if isinstance(option, click.Option) and option.name not in known:
            option.hidden = True
            plan.params.append(option)


_take_options_of_run()


def _models(grid: Grid) -> dict[str, Cell]:
    """One cell of each model of the grid, by name; of the axes two make another model."""
    named = ((cell, tuple(axis for axis in cell.axes if axis[0] in OF_MODELS)) for cell in grid.architectures)
    return {f"{cell.architecture}{suffix(axes)}": replace(cell, axes=axes) for cell, axes in named}


def _layers(model: ModelConfig) -> str:
    """Such as ``28x28x1 > 13x13x16 (4x4, stride 2) > 5x5x4 (5x5, stride 2)``; body layers in one."""
    texts = list(map(_layer, encoder_layers(model)))
    steps = [
        text if count == 1 else f"{count} times {text}"
        for text, count in ((text, texts.count(text)) for text in dict.fromkeys(texts))
    ]
    image = model.image
    return " > ".join([f"{image.height}x{image.width}x{image.channels}", *steps])


def _layer(layer: Layer) -> str:
    height, width = layer.sizes_out
    stride = "" if layer.strides == (1, 1) else f", stride {_sides(layer.strides)}"
    return f"{height}x{width}x{layer.channels_out} ({'x'.join(map(str, layer.kernels))}{stride})"


def _sides(sides: tuple[int, int]) -> str:
    """One number where both are equal."""
    return str(sides[0]) if sides[0] == sides[1] else "x".join(map(str, sides))


def _find(store: Store) -> Sweep | None:
    try:
        return gather(store, thorough=True)
    except (FileNotFoundError, NotADirectoryError, Damaged):
        return None
