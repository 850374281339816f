"""Environment variables that are set for a time: what Ray and the processes below it read."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

PREFIXES = ("RAY_", "TUNE_", "PYTHONBREAKPOINT")
"""Of variables that Ray sets by itself."""


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set the variables; at the end these and all of Ray's are what they were. Other threads may have set others."""

    def concerned() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name in variables or name.startswith(PREFIXES)}

    before = concerned()
    os.environ |= variables
    try:
        yield
    finally:
        for name in concerned().keys() - before.keys():
            del os.environ[name]
        os.environ |= before
