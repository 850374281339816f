"""The command that denoises picture files: `denoise`."""

from collections import Counter

import click

from dae.errors import UserError
from sweep.cli.errors import debug_option
from sweep.cli.options import ADDED_AS_TRAINED, Strength, storage_option, which_cell, which_overwrite
from sweep.cli.parsing import existing, output_path
from sweep.storage.store import Store, Unwritable


@click.command()
@click.option("--sweep", "name", required=True, metavar="NAME", help="The sweep whose model is used.")
@storage_option
@which_cell
@click.option(
    "--out", required=True, metavar="DIR", help="The folder for the denoised pictures, under their own names."
)
@which_overwrite
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
def denoise(
    name: str, storage: str, cell: str | None, out: str, overwrite: bool, noise: float | None, compare: bool,
    pictures: tuple[str, ...],
) -> None:  # fmt: skip
    """Denoise picture files of any size with a model of a sweep.

    PNG, JPEG, TIFF, BMP and WebP of 8 or 16 bit, grey or colour; each is written in its own format. Pictures larger
    than the images of the training are denoised in overlapping tiles of that size.
    """
    if not pictures:
        raise UserError("which pictures? Give image files, or folders of them.")
    output = output_path(out)
    from sweep.models import files

    routes = files.routes(pictures, output, overwrite=overwrite, compare=compare)
    sweep = existing(name, storage, name)
    from sweep.models import denoising
    from sweep.models import pictures as picture_files
    from sweep.models.trained import choose, load_model

    record = choose(sweep, cell)
    for route in routes:
        picture_files.read(route.source)  # nothing is written where one of them cannot be read
    model = load_model(sweep, record)
    if noise is not None:
        denoising.check_drawn(model)
    if record.collapsed:
        click.echo(f"Warning: {record.key} collapsed: it is no better than the mean training image.", err=True)
    strength = float(record.config["alpha"]) if noise == ADDED_AS_TRAINED else noise
    click.echo(f"Model: {record.key} of {name}, images of {model.image}.")
    folder, notes = Store(output), Counter[str]()
    for route in routes:
        picture = picture_files.read(route.source)
        result = denoising.denoise(model, picture.pixels, noise=strength, draw=f"picture {route.source.name}")
        contents = {str(route.target): picture_files.encode(picture.with_pixels(result.pixels))}
        if compare:
            contents[str(route.comparison)] = picture_files.encode(picture_files.side_by_side(result.panels))
        try:
            folder.write_all(contents)
        except Unwritable as refusal:
            raise UserError(f"--out {out}: {refusal}. Give a folder that can be made and written.") from refusal
        losses = "" if result.mse_before is None else f"  MSE {result.mse_before:.5f} -> {result.mse_after:.5f}"
        click.echo(f"{route.source} -> {output / route.target}{losses}")
        notes.update({*picture.notes, *result.notes})
    for note, count in notes.items():
        click.echo(f"Note{f' on {count} of {len(routes)} pictures' if len(routes) > 1 else ''}: {note}.")
