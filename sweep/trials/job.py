"""What all trials of a run share. No torch: the driver does not need it."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sweep.records.grid import Settings
from sweep.storage.store import Store
from sweep.trials.shipped import COMMIT


@dataclass(frozen=True, slots=True)
class Job:
    """What all trials of a run share; small enough to travel to every worker.

    Attributes:
        device: ``cpu`` or ``cuda``.
        memory_share: part of a GPU's memory that a process of trials may take; torch enforces it, so that a cell which
            is too large fails by itself and not with other processes.
        git_commit: of the program, as the driver found it.
        is_search: whether the cells are trials of a search: each epoch is told, for another may not be worth it, and
            none is tested.
    """

    store: Store
    settings: Settings
    device: str
    memory_share: float
    git_commit: str | None
    is_search: bool = False


def git_commit() -> str | None:
    """The commit of the program's own checkout, with ``+`` if files differ from it; None outside a checkout.

    Of a program that `dae-sweep submit` has sent here it is the commit of the checkout that it came from.
    """
    if sent := os.environ.get(COMMIT):
        return sent
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", "--", Path(__file__).name):
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
