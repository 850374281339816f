"""Where a user's own images are: told from the name of a dataset, and made into the name of a sweep."""

import os
import re
from pathlib import Path

from dae.config import DATASETS
from dae.errors import UserError

MAX_NAME_BYTES = 100
"""Of the name that is made of a path; a sweep may have a longer one of its own."""

_NO_PART_OF_A_NAME = re.compile(r'[/\\:#?%*"<>|\x00-\x1f\x7f]+')


def is_path(text: str) -> bool:
    """Whether ``--dataset`` names a place: it has a separator, or is a file or folder that is no dataset's name."""
    if text in DATASETS or not text:
        return False
    if os.sep in text or text in (".", "..", "~"):
        return True
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long for a file's name, or not of a file's letters
        return False


def absolute(text: str) -> Path:
    """The place, as it is named from any folder.

    Raises:
        UserError: it is in the home folder of nobody who is known here.
    """
    return Path(os.path.abspath(expanded(text)))  # noqa: PTH100  (it takes ".." out, as Path does not)


def expanded(text: str | Path) -> Path:
    """The path with the folder that a ``~`` or ``~user`` at its beginning stands for.

    Raises:
        UserError: nobody knows which it is.
    """
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:
        raise UserError(
            f"{text}: the home folder that {path.parts[0]} stands for is not known here. Give the path in full; a "
            f"folder of that name is ./{path.parts[0]}."
        ) from None


def exists(path: Path) -> bool:
    """Whether there is such a file or folder.

    Raises:
        UserError: nobody can say, for example since its name is too long.
    """
    try:
        return path.exists()
    except OSError as error:
        raise UserError(f"cannot look for {path}: {error.strerror}. Give another path.") from error


def name_of(text: str) -> str:
    """The name of a dataset, and by default of its sweep: the last part of its path, without the ending of an array.

    What no sweep may be named is left out or becomes a dash. No path has the name of a dataset that has one already.
    """
    if text in DATASETS:
        return text
    last = absolute(text).name if is_path(text) else text
    last = re.sub(r"\.(npz|npy|gz)$", "", last)
    name = _NO_PART_OF_A_NAME.sub("-", "".join(letter if letter.isprintable() else "-" for letter in last))
    name = name.encode("utf-8", "replace")[:MAX_NAME_BYTES].decode("utf-8", "ignore").lstrip(".-").strip() or "images"
    return f"own-{name}" if name in DATASETS else name
