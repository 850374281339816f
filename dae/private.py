"""Names that a dependency does not promise to keep: looked up when they are used, each with something to do without."""

from functools import reduce
from importlib import import_module
from typing import Any


def lookup(path: str) -> Any:
    """What ``module:dotted.name`` stands for; None where there is no such module or name."""
    module, _, names = path.partition(":")
    try:
        return reduce(getattr, names.split("."), import_module(module))
    except (ImportError, AttributeError):
        return None
