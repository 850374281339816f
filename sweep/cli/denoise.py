"""The command that denoises picture files: `denoise`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dae.config import check_strength
from dae.errors import UserError
from sweep.cli.chosen import sweep_at, warn_of
from sweep.cli.errors import debug_option
from sweep.cli.options import ADDED_AS_TRAINED, Strength, storage_option, which_cell, which_overwrite
from sweep.cli.parsing import output_path
from sweep.records.words import counted
from sweep.storage.store import Store, Unwritable

if TYPE_CHECKING:
    from sweep.models.files import Route, Routes
    from sweep.models.trained import TrainedModel

NAMED = 3
"""Pictures that were left out and are named."""


@click.command()
@click.option(
    "--sweep",
    "name",
    required=True,
    metavar="NAME|PATH",
    help="The sweep whose model is used: its name, or its folder.",
)
@storage_option
@which_cell
@click.option(
    "--out", required=True, metavar="DIR", help="The folder for the denoised pictures, under their own names."
)
@which_overwrite
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Leave out pictures whose denoised ones are there: goes on after an interrupt.",
)
@click.option(
    "--skip-unreadable", is_flag=True, help="Leave out files that are no pictures, or damaged ones, and count them."
)
@click.option(
    "--add-noise",
    "noise",
    type=Strength(),
    is_flag=False,
    flag_value=ADDED_AS_TRAINED,
    help="Add noise first, to see it removed; of this strength, by default that of the training.",
)
@click.option("--compare", is_flag=True, help="Write also a picture of before and after, NAME.compare.png.")
@debug_option
@click.argument("pictures", metavar="IMAGE|FOLDER...", nargs=-1)
@click.pass_context
def denoise(
    ctx: click.Context, /, name: str, storage: str, cell: str | None, out: str, overwrite: bool, skip_existing: bool,
    skip_unreadable: bool, noise: float | None, compare: bool, pictures: tuple[str, ...],
) -> None:  # fmt: skip
    """Denoise picture files of any size with a model of a sweep.

    PNG, JPEG, TIFF, BMP and WebP of 8 or 16 bit, grey or colour; each is written in its own format. Pictures larger
    than the images of the training are denoised in overlapping tiles of that size. A photograph is turned upright
    for the model, and written as it was held.
    """
    if not pictures:
        raise UserError("which pictures? Give image files, or folders of them.")
    if overwrite and skip_existing:
        raise UserError("--overwrite and --skip-existing contradict each other: leave one out.")
    output = output_path(out)
    sweep = sweep_at(name, storage)
    from sweep.models import denoising, files
    from sweep.models.trained import choose, load_model

    record = choose(sweep, cell)
    found = files.routes(pictures, output, overwrite=overwrite, skip_existing=skip_existing, compare=compare)
    routes, unreadable = _readable(found.todo, skip_unreadable=skip_unreadable)
    model = load_model(sweep, record)
    if noise is not None:
        denoising.check_drawn(model)
    warn_of(sweep, record)
    strength = float(record.config["alpha"]) if noise == ADDED_AS_TRAINED else noise
    if strength is not None:
        check_strength(str(record.config["noise"]), strength)
    click.echo(f"Model: {record.key} of {sweep.store.name}, images of {model.image}.")
    notes: Counter[str] = Counter()
    written = 0
    try:
        for route in routes:
            notes.update(_denoise(model, route, output, noise=strength, compare=compare, out=out))
            written += 1
    except KeyboardInterrupt:
        click.echo(
            f"\nInterrupted: {written} of {len(routes)} pictures are written; the same command with --skip-existing "
            "goes on.",
            err=True,
        )
        ctx.exit(130)
    for note, count in notes.items():
        click.echo(f"Note{f' on {count} of {len(routes)} pictures' if len(routes) > 1 else ''}: {note}.")
    _tell_of_left_out(found, unreadable)


def _readable(routes: "Sequence[Route]", *, skip_unreadable: bool) -> "tuple[list[Route], list[Path]]":
    """Those that can be read, and the others; nothing is written where there are such and they are not skipped.

    Raises:
        UserError: one cannot be read; or where they are skipped, none can.
    """
    from sweep.models import pictures

    readable, unreadable = [], []
    for route in routes:
        try:
            pictures.read(route.source)
            readable.append(route)
        except UserError as error:
            if not skip_unreadable:
                if len(routes) > 1:
                    raise UserError(f"{error} --skip-unreadable leaves such files out.") from error
                raise
            unreadable.append(route.source)
            last = error
    if unreadable and not readable:
        raise UserError(f"none of the {len(unreadable):,} pictures can be read, the last since {last}")
    return readable, unreadable


def _denoise(
    model: "TrainedModel", route: "Route", output: Path, *, noise: float | None, compare: bool, out: str
) -> set[str]:
    """Denoise a picture, write it and say so; what else the user should know.

    Raises:
        UserError: it cannot be written.
    """
    from sweep.models import denoising, pictures

    picture = pictures.read(route.source)
    result = denoising.denoise(model, picture.pixels, noise=noise, draw=f"picture {route.source.name}")
    contents = {}
    if compare:  # first, so that where the denoised picture is there, all of it is
        contents[str(route.comparison)] = pictures.encode(pictures.side_by_side(result.panels))
    contents[str(route.target)] = pictures.encode(picture.with_pixels(result.pixels))
    try:
        Store(output).write_all(contents)
    except Unwritable as refusal:
        raise UserError(f"--out {out}: {refusal}. Give a folder that can be made and written.") from refusal
    losses = "" if result.mse_before is None else f"  MSE {result.mse_before:.5f} -> {result.mse_after:.5f}"
    click.echo(f"{route.source} -> {output / route.target}{losses}")
    return {*picture.notes, *result.notes}


def _tell_of_left_out(found: "Routes", unreadable: Sequence[Path]) -> None:
    if unreadable:
        more = f" and {len(unreadable) - NAMED:,} more" * (len(unreadable) > NAMED)
        click.echo(f"Skipped {len(unreadable):,} unreadable: {', '.join(map(str, unreadable[:NAMED]))}{more}.")
    if found.done:
        click.echo(f"Skipped {found.done:,} that {'is' if found.done == 1 else 'are'} denoised already.")
    for kind, count in found.others.items():
        click.echo(f"Left out {counted(count, 'file')} {kind}, by name.")
