"""Whether a sweep and its records were made with the settings that a command asks for. No torch, no Ray."""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from dae.errors import UserError
from sweep.records.axes import AXES, value_text
from sweep.records.grid import Settings
from sweep.records.record import Record
from sweep.records.sweep import Manifest

MORE_EPOCHS = (
    " A finished cell cannot go on for more epochs: the state of its optimiser is not kept, and the cells of a sweep "
    "have to be trained equally long to be compared. Under another --name all are trained anew, to the numbers that "
    "they would have had at first."
)


def check_settings(record: Record, settings: Settings) -> None:
    """Check that a record was made with these settings, so that cells can be compared.

    Raises:
        UserError: it was made with others.
    """
    _refuse_difference(f"{record.key} was made", record.config, settings.config(record.cell))


def check_sweep(records: Collection[Record], settings: Settings, manifest: Manifest | None) -> None:
    """Check that all records of a sweep, and the sweep itself, were made with these settings.

    The sweep itself is checked since all of its cells may have axes, so that no record shows the sweep's settings.

    Args:
        records: those of the sweep.
        settings: those that a command asks for.
        manifest: the sweep's, None where it is lost.

    Raises:
        UserError: a record, or the sweep, was made with others.
    """
    for record in records:
        check_settings(record, settings)
    if records and manifest is not None:
        _refuse_difference(f"sweep {manifest.name} was begun", asdict(manifest.settings), asdict(settings))
    for record in records:
        for name, value in record.axes.items():
            if value == getattr(settings, name):
                raise UserError(
                    f"{record.key} was made in a sweep whose {name} was not the {value} that this command asks for. "
                    f"Give the --{_option(name)} of that sweep to go on with it, or another --name to begin a new one."
                )


def _refuse_difference(subject: str, made_with: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    differing = [name for name in asked if made_with.get(name) != asked[name]]
    if not differing:
        return
    if "image" in differing:
        raise UserError(
            f"{subject} with images of {made_with.get('image')}, those at hand are of {asked['image']}. Give another "
            "--name to begin a new sweep."
        )
    options = " ".join(f"--{_option(name)} {made_with.get(name)}" for name in differing)
    axes = [name for name in differing if name in AXES]
    new_cells = " ".join(f"--axis {_option(name)}={value_text(asked[name])}" for name in axes)
    raise UserError(
        f"{subject} with {', '.join(f'{name} {made_with.get(name)}' for name in differing)}, this command asks for "
        f"{', '.join(str(asked[name]) for name in differing)}. Give another --name to begin a new sweep, or "
        f"{options} to go on with this one"
        + (f", and {new_cells} for new cells beside the old ones." if axes else ".")
        + (MORE_EPOCHS if "epochs" in differing else "")
    )


def _option(name: str) -> str:
    return name.replace("_", "-")
