"""Environment variables that are set, or set aside, for a time: what libraries and child processes read."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PREFIXES = ("RAY_", "TUNE_", "PYTHONBREAKPOINT")
"""Of variables that Ray sets by itself."""

SET_ASIDE = (
    "GOMP_CPU_AFFINITY",  # these four would bind the threads of all trials to the same core
    "KMP_AFFINITY",
    "OMP_PLACES",
    "OMP_PROC_BIND",
    "MPLBACKEND",  # notebooks set one that a terminal lacks; the report needs none
    "PYTHONINSPECT",  # children would wait for a prompt
    "PYTHONWARNINGS",  # of libraries, in children, they would be errors
)
"""Variables of other programs under which a command breaks or crawls."""

OF_RAY = re.compile(r"RAY_[A-Z]")
"""Variables of Ray that say how and where it runs; those in lower case tune its parts."""

HONOURED = (
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
    "RAY_BACKEND_LOG_LEVEL",
    "RAY_TLS_CA_CERT",
    "RAY_TLS_SERVER_CERT",
    "RAY_TLS_SERVER_KEY",
    "RAY_TMPDIR",
    "RAY_USE_TLS",
)
"""Those of them that a Ray of a command's own obeys."""


@contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set the variables, and take those away that are None; at the end these and all of Ray's are what they were.

    Other threads may have set others.
    """

    def concerned() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name in variables or name.startswith(PREFIXES)}

    before = concerned()
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    try:
        yield
    finally:
        for name in concerned().keys() - before.keys():
            del os.environ[name]
        os.environ |= before


def set_aside() -> dict[str, None]:
    """Variables of other programs that are there and that no command obeys."""
    names = [name for name in SET_ASIDE if name in os.environ]
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is not None and not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", threads.strip()):
        names.append("OMP_NUM_THREADS")
    return dict.fromkeys(names)


def tune_set_aside() -> dict[str, None]:
    """Variables of Ray Tune, of which a user of dae-sweep need not know: some end a run, some delay its news."""
    return {name: None for name in os.environ if name.startswith("TUNE_")}


def ray_set_aside() -> dict[str, None]:
    """Variables meant for another Ray than one of a command's own: its address, its resources, its hooks."""
    return {name: None for name in os.environ if OF_RAY.match(name) and name not in HONOURED}


def isolated() -> dict[str, str]:
    """Variables under which Python processes import nothing from the current folder, and still find this program."""
    root = Path(__file__).resolve().parents[2]
    variables = {"PYTHONSAFEPATH": "1"}
    # A site folder is on the path anyway; in front, it would hide parts of Python's own library.
    if root.name not in ("site-packages", "dist-packages"):
        given = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(root), *given]))
    return variables
