"""The sweep and the model that `best`, `denoise` and `export` are asked for."""

import os
from pathlib import Path

import click

from dae.errors import UserError
from sweep.cli.parsing import sweep_in
from sweep.cli.settings import is_given
from sweep.records.record import Record
from sweep.records.sweep import Sweep
from sweep.storage.opening import open_storage
from sweep.storage.store import Store


def sweep_at(text: str, storage: str) -> Sweep:
    """The sweep of this name in the storage, or the one whose folder or URI this is.

    Raises:
        UserError: there is none, or its manifest is damaged.
    """
    return sweep_in(_store_at(text, storage))


def _store_at(text: str, storage: str) -> Store:
    if "/" not in text and text not in (".", ".."):
        return open_storage(storage, text)
    if is_given("storage"):
        raise UserError(f"{text} is the path of a sweep: leave --storage out, or give the sweep's name alone.")
    if "://" not in text:
        try:
            text = os.path.abspath(Path(text).expanduser())  # noqa: PTH100  (it takes ".." out, as Path does not)
        except RuntimeError as error:  # of a user that is not there
            raise UserError(f"there is no sweep in {text}: {str(error).rstrip('.')}.") from error
    folder, _, name = text.rstrip("/").rpartition("/")
    return open_storage(folder or "/", name)


def warn_of(sweep: Sweep, record: Record) -> None:
    """Say on standard error what is wrong with a model: it collapsed, or does worse than what is done without one."""
    from sweep.analysis.without_model import alternatives, warning  # and with it numpy

    if record.collapsed:
        click.echo(f"Warning: {record.key} collapsed: it is no better than the mean training image.", err=True)
    if warned := warning(record, alternatives(sweep, record)):
        click.echo(f"Warning: {warned}", err=True)
