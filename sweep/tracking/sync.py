"""Upload the offline W&B runs of a sweep with wandb's own ``wandb sync``. Which are left is read from its markers."""

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from dae.errors import UserError
from sweep.records.sweep import no_sweep_in
from sweep.storage.store import Store
from sweep.tracking import configuration
from sweep.tracking.files import is_synced, offline

REACH_TIMEOUT_S = 10.0
SYNC_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Uploaded:
    """How a sync went.

    Attributes:
        before: offline runs that had been uploaded already.
        now: those that this sync has uploaded.
        missing: folders of those that are not uploaded.
        problem: the last words of ``wandb sync`` where something is missing.
    """

    before: int
    now: int
    missing: tuple[Path, ...]
    problem: str


def sync(store: Store) -> Uploaded:
    """Upload what is not uploaded yet. What is has a marker and is left alone, so that nothing is there twice.

    Raises:
        UserError: there is no sweep, a run is at it, no key is configured, or the server does not answer.
    """
    if not store.names():
        raise UserError(no_sweep_in(store))
    if store.locked():
        raise UserError(
            f"a run is at the sweep in {store.uri()} and still writes its W&B runs: sync when it has ended."
        )
    with store.spool("wandb") as folder:
        return _sync(folder)


def _sync(folder: Path) -> Uploaded:
    runs = offline(folder)
    todo = [file for file in runs if not is_synced(file)]
    if not todo:
        return Uploaded(len(runs), 0, (), "")
    if not configuration.has_key():
        raise UserError(
            f"{len(todo)} of {len(runs)} runs are to be uploaded, but no W&B key is configured: "
            "run `wandb login` once, or set WANDB_API_KEY, and sync again."
        )
    try:
        url = configuration.read().base_url
    except Exception as error:
        raise UserError(f"W&B does not take its settings: {error}") from None
    check_reachable(url)
    problem = _wandb_sync(folder, todo, url)
    if len(todo) > 1:  # one file that it cannot read makes it upload none
        for file in todo:
            if not is_synced(file):
                problem = _wandb_sync(folder, [file], url)
    _clear_up(folder)
    missing = tuple(file.parent for file in todo if not is_synced(file))
    return Uploaded(len(runs) - len(todo), len(todo) - len(missing), missing, problem if missing else "")


def check_reachable(url: str) -> None:
    """Refuse a server that does not answer; wandb would try again for many minutes.

    Raises:
        UserError: it does not.
    """
    try:
        urllib.request.urlopen(url, timeout=REACH_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return  # whatever it answers, it answers
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"W&B at {url} does not answer ({reason}). The runs stay where they are: sync again once it does, "
            "or set WANDB_BASE_URL to your own server."
        ) from None


def _clear_up(folder: Path) -> None:
    """Remove what wandb's command leaves beside the runs."""
    for name in (".cache", "logs"):
        shutil.rmtree(folder / "wandb" / name, ignore_errors=True)
    for log in (folder / "wandb").glob("debug-cli*"):
        log.unlink(missing_ok=True)


def _wandb_sync(folder: Path, runs: list[Path], url: str) -> str:
    """Run it; the last line it wrote."""
    cache = str(folder / "wandb/.cache")
    environment = os.environ | {
        "WANDB_CACHE_DIR": cache,
        "WANDB_DATA_DIR": cache,
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_DIR": str(folder),
        "WANDB_BASE_URL": url,  # the user's folder may name it, and the command runs in another
        "WANDB_MODE": "online",  # offline would upload nothing
        "NO_COLOR": "1",
    }
    command = [sys.executable, "-P", "-m", "wandb", "sync", "--include-synced", *(str(file.parent) for file in runs)]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SYNC_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"wandb sync took longer than {SYNC_TIMEOUT_S:.0f} s"
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"wandb sync ended with {done.returncode}"
