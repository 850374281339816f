"""Opens the store of a sweep from the ``--storage`` that a user gives."""

import re
from pathlib import Path

from dae.errors import UserError
from dae.images.location import expanded
from sweep.storage.store import Store

MAX_NAME_BYTES = 255
"""Longest name of a folder in the usual file systems."""


def open_store(storage: str | Path, name: str) -> Store:
    """The store of sweep ``name`` in ``storage``, a folder or a URI; nothing is created yet.

    Raises:
        UserError: the name is not one of a folder, or the storage is no valid URI or a bucket that cannot be reached.
    """
    if not name.isprintable() or not name or name.startswith((".", "-")) or any(c in '/\\:#?%*"<>|\0\n' for c in name):
        raise UserError(
            f"{name!r} cannot name a sweep: a name is one folder below the storage, without path separators, "
            'none of :#?%*"<>| and no leading dot or dash. Try --name my-sweep.'
        )
    if len(name.encode()) > MAX_NAME_BYTES:
        raise UserError(f"the name {name[:20]!r}... is too long: at most {MAX_NAME_BYTES} bytes make a folder's name.")
    return open_storage(storage, name)


def open_storage(storage: str | Path, name: str = "") -> Store:
    """The whole storage, or ``name`` in it.

    Raises:
        UserError: it is no valid URI or a bucket that cannot be reached.
    """
    scheme, is_uri, rest = str(storage).partition("://")
    if not is_uri and re.match("[a-z0-9]{2,}:/", str(storage)):
        raise UserError(f"--storage {storage} is no folder and no URI: one begins like s3://BUCKET/FOLDER.")
    if is_uri and scheme != "file":
        from sweep.storage import bucket  # imports pyarrow, which takes long

        return bucket.open_bucket(str(storage), name)
    folder = expanded(rest if is_uri else storage).absolute()
    if long := next((part for part in folder.parts if len(part.encode()) > MAX_NAME_BYTES), None):
        raise UserError(
            f"--storage: the name {long[:20]!r}... is too long: at most {MAX_NAME_BYTES} bytes make a folder's name."
        )
    return Store(folder / name)
