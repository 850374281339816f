"""The files of W&B runs below a sweep folder, and what is uploaded of them. Does not import wandb."""

import os
import shutil
from pathlib import Path

from sweep.tracking import wandb_private

FINISHED = "wandb/.finished"


def of_run(folder: Path, run_id: str) -> list[Path]:
    """The files of all runs with this id in a sweep's folder, oldest first."""
    # wandb puts the id into the folder's name, so that the folders of a thousand other runs need not be looked into. A
    # number follows where another one of the same second has that name.
    return sorted((folder / "wandb").glob(f"*run-*{run_id}*/run-{run_id}.wandb"))


def offline(folder: Path) -> list[Path]:
    """The files of all offline runs in a sweep's folder, oldest first."""
    return sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))


def finished_marker(folder: Path, run_id: str) -> Path:
    """Is there once a run has ended as its cell did; ``wandb clean`` leaves it alone."""
    return folder / FINISHED / run_id


def remove_unsynced(folder: Path, run_id: str) -> None:
    """Remove what was written of a run and not uploaded."""
    for file in of_run(folder, run_id):
        if not is_synced(file):
            shutil.rmtree(file.parent)


def remove_dangling_links(folder: Path) -> None:
    """Remove the links of ended runs to the log of wandb's process, which went with its cache."""
    for link in (folder / "wandb").glob("*run-*/logs/*"):  # a name without a wildcard is looked for behind the link
        if link.is_symlink() and not link.exists():
            link.unlink()


def _marker(file: Path) -> Path:
    """What ``wandb sync`` leaves beside a run that it has uploaded."""
    return file.with_name(f"{file.name}.synced")


def is_synced(file: Path) -> bool:
    """Whether all of the file was uploaded; a run can be synced while it is still being written."""
    marker = _marker(file)
    return marker.exists() and marker.stat().st_mtime >= file.stat().st_mtime


def may_be_uploaded(file: Path) -> bool:
    """Whether a server may know of the file."""
    return _marker(file).exists() or not file.parent.name.startswith("offline-")


def last_epoch(file: Path) -> int | None:
    """The last epoch in a run's file, 0 without one; None where wandb cannot tell.

    Only the file itself says what a sync of it has uploaded.
    """
    # What reads it leaves its temporary folders behind.
    cache = file.parents[1] / ".cache"
    cache.mkdir(parents=True, exist_ok=True)
    return wandb_private.last_epoch(file, os.environ | {"WANDB_MODE": "offline", "TMPDIR": str(cache)})
