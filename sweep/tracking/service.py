"""wandb itself: the library, its settings, the environment it goes by, the process behind it. Imported when used."""

import importlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sweep.tracking import wandb_private

CACHE = "wandb/.cache"
TEMPORARY = ".temporary"
_TEMPORARY_LOCK = threading.RLock()
INIT_TIMEOUT_S = 10.0
UPLOAD_TIMEOUT_S = 30.0


def own_environment(folder: Path) -> dict[str, str | None]:
    """The variables that wandb and its process go by; None for those that must not be there."""
    cache = str(folder / CACHE)
    return {
        "WANDB_CACHE_DIR": cache,
        "WANDB_DATA_DIR": cache,
        "WANDB_ARTIFACT_DIR": cache,
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
        # Meant for a script that is one run, or the address of somebody else's service.
        "WANDB_SERVICE": None,
        "WANDB_RESUME": None,
        "WANDB_SWEEP_ID": None,
    }


def set_environment(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    """Set them, and return what they were."""
    before = {name: os.environ.get(name) for name in variables}
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    return before


def wandb() -> Any:
    """The library; the first call imports it, which takes up to a second."""
    if "wandb" not in sys.modules:
        if (folder := _temporary()) is not None:
            shutil.rmtree(folder, ignore_errors=True)
        with _temporary_in_the_sweep():
            importlib.import_module("wandb")
    return sys.modules["wandb"]


def start() -> Any:
    """Start the process behind it, if it does not run; the settings it got from the user's variables and files."""
    with _temporary_in_the_sweep():
        return wandb().setup().settings


def _temporary() -> Path | None:
    cache = os.environ.get("WANDB_CACHE_DIR")
    return None if cache is None else Path(cache).with_name(TEMPORARY)


@contextmanager
def _temporary_in_the_sweep() -> Iterator[None]:
    """Where wandb's temporary folders are made, some for as long as the process lives.

    Where that is killed they are left: in the sweep's folder, not elsewhere, and until the next process comes.
    """
    with _TEMPORARY_LOCK:  # the process has one place for them, and a driver may import wandb beside a tracker
        before, folder = tempfile.tempdir, _temporary()
        try:
            if folder is not None:
                with suppress(OSError):  # who writes there will say it better
                    folder.mkdir(parents=True, exist_ok=True)
                    tempfile.tempdir = str(folder)
            yield
        finally:
            tempfile.tempdir = before
            if folder is not None:
                with suppress(OSError):  # not while there is something in it
                    folder.rmdir()


def settings() -> Any:
    """Of every run: nothing asked, printed, measured or copied that the sweep did not hand over."""
    return wandb().Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        finish_timeout=UPLOAD_TIMEOUT_S,
        finish_timeout_raises=True,
        init_timeout=INIT_TIMEOUT_S,
        silent=True,
        # The stop button of one run would otherwise send Ctrl-C to the whole sweep.
        stop_fn=lambda: None,
        symlink=False,
        use_dot_wandb=False,
        **wandb_private.known_settings(wandb().Settings),
    )


def kill() -> None:
    """End the process behind wandb, and remove its socket."""
    if "wandb" in sys.modules:
        for pid in wandb_private.kill_service(wandb()):
            for socket in Path(tempfile.gettempdir()).glob(f"wandb-{os.getpid()}-{pid}-*"):
                shutil.rmtree(socket, ignore_errors=True)
