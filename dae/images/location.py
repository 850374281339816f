"""Where a user's own images are: told from the name of a dataset, and made into the name of a sweep."""

import os
import re
from pathlib import Path

from dae.config import DATASETS

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
    """The place, as it is named from any folder."""
    return Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100  (it takes ".." out, as Path does not)


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
