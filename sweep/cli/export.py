"""The command that writes a model for other programs: `export`."""

import os
from pathlib import Path

import click

from dae.errors import UserError
from sweep.cli.chosen import sweep_at, warn_of
from sweep.cli.errors import debug_option
from sweep.cli.options import storage_option, which_cell, which_overwrite
from sweep.cli.parsing import output_path
from sweep.storage.store import Store, Unwritable
from sweep.trials.environment import environment

SILENT = {"ORT_DISABLE_TELEMETRY": "1"}
"""Without it onnxruntime tells its maker of every use, and keeps files in the home and temporary folders."""


@click.command()
@storage_option
@which_cell
@click.option(
    "--format",
    "format_name",
    required=True,
    metavar="FORMAT",
    help="onnx (needs the extra `export`), torchscript, pt2 or safetensors.",
)
@click.option(
    "--out",
    default=".",
    metavar="FILE|DIR",
    help="The file to write, with the ending of its format; any other name is a folder.  [default: the current folder]",
)
@which_overwrite
@debug_option
@click.argument("name", metavar="NAME")
def export(storage: str, name: str, cell: str | None, format_name: str, out: str, overwrite: bool) -> None:
    """Write a model of sweep NAME, a name or the path of its folder, to a file, and a model card beside it.

    The file is read again and compared: its images have to be those of the model.
    """
    sweep = sweep_at(name, storage)
    from sweep.models import export as exports
    from sweep.models.formats import FORMATS
    from sweep.models.trained import choose, load_model

    if format_name not in FORMATS:
        raise UserError(f"unknown format {format_name!r}. Known ones: {', '.join(FORMATS)}.")
    FORMATS[format_name].check()
    record = choose(sweep, cell)
    path = _target(out, f"{sweep.store.name}-{record.key}{FORMATS[format_name].suffix}", format_name)
    card = path.with_name(f"{path.name}.md")
    for file in (path, card):
        if os.path.lexists(file) and not overwrite:
            raise UserError(f"{file} is there already: give another --out, or --overwrite.")
    warn_of(sweep, record)
    with environment(SILENT):
        exported = exports.export(sweep, load_model(sweep, record), format_name, path.name)
    folder = Store(path.parent)
    try:
        folder.write_all({path.name: exported.content, card.name: exported.card.encode()})
    except Unwritable as refusal:
        raise UserError(f"--out {out}: {refusal}. Give a folder that can be made and written.") from refusal
    click.echo(f"{record.key}: {path}\nModel card: {card}")
    click.echo(f"Read again, its images differ from the model's by at most {exported.difference:.2g} (pixels 0 to 1).")


def _target(out: str, name: str, format_name: str) -> Path:
    """The file meant: one of this name in a folder, unless ``out`` has the ending of a format.

    Raises:
        UserError: it has that of another format.
    """
    from sweep.models.formats import FORMATS

    path = output_path(out)
    if out.endswith("/") or os.path.isdir(path):  # noqa: PTH112  (no error, whatever the path is)
        return path / name
    endings = {known.suffix: other for other, known in FORMATS.items()}
    meant = endings.get(path.suffix.lower())
    if meant is None:
        return path / name
    if meant != format_name:
        raise UserError(
            f"--out {out}: {path.suffix} is the ending of {meant}, and --format is {format_name}: give "
            f"{path.with_suffix(FORMATS[format_name].suffix).name}, a folder, or --format {meant}."
        )
    return path
