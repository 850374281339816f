"""All that is used of wandb and not promised by it: each use beside its reason, and what is done without it."""

import json
import netrc
import os
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dae.private import lookup

PROGRAM = "wandb-core"

CLOUD = "api.wandb.ai"
"""W&B's own server, under which keys are filed whatever newer address wandb has for it."""

FLUSH_INTERVAL_S = 1.0
"""How much a killed process can lose of its offline runs; wandb's own is 15 s, which it is without this setting."""

SETTINGS = {
    # Of the machine, of its load and of its packages, wandb would show more than the sweep has handed over.
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": FLUSH_INTERVAL_S,
}
"""Settings that wandb calls experimental; it refuses those that it does not know."""


def known_settings(settings_class: Any) -> dict[str, Any]:
    """Those of `SETTINGS` that this wandb has."""
    known = getattr(settings_class, "model_fields", {})
    return {name: value for name, value in SETTINGS.items() if name in known}


def user_settings(wandb: Any) -> Any:
    """What wandb makes of the user's variables and files.

    Its public `setup` starts a process for it, which writes a log into the user's cache.
    """
    return (lookup("wandb.sdk.wandb_setup:singleton") or wandb.setup)().settings


def has_key(settings: Any) -> bool:
    """Whether wandb has a key for the server of its settings, without asking the user for one.

    The library's public `login` would ask. Without its own look-up it is looked for in the places where that looks.
    """
    authenticate = lookup("wandb.sdk.lib.wbauth:authenticate_session")
    if authenticate is not None:
        with suppress(TypeError):  # it takes other arguments
            found = authenticate(host=settings.base_url, source="dae-sweep", prompt=False, update_session=False)
            return found is not None
    if settings.api_key or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    server = urlsplit(settings.base_url).netloc
    names = {server, CLOUD} if settings.base_url == type(settings)().base_url else {server}
    # wandb reads the first that is there.
    for path in [path for path in netrc_files() if path.exists()][:1]:
        with suppress(OSError, netrc.NetrcParseError):
            keys = netrc.netrc(path)
            return any((entry := keys.authenticators(name)) is not None and entry[2] for name in names)
    return False


def netrc_files() -> list[Path]:
    """Where ``wandb login`` may have written a key, first that which counts."""
    paths = [given] if (given := os.environ.get("NETRC")) else ["~/.netrc", "~/_netrc"]
    return [Path(path).expanduser() for path in paths]


def kill_service(wandb: Any) -> list[int]:
    """End the process behind wandb, which has no public way to end one that hangs; the ids of what was ended.

    Without wandb's own handle of it, it is our child of that name.
    """
    try:
        process = wandb.setup()._connection._proc._process
    except AttributeError:
        pids = []
        for children in Path("/proc/self/task").glob("*/children"):
            for pid in children.read_text().split():
                with suppress(OSError):  # it ends just now
                    if Path(f"/proc/{pid}/comm").read_text().strip() == PROGRAM:
                        os.kill(int(pid), signal.SIGKILL)
                        pids.append(int(pid))
        return pids
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(1)
    return [process.pid]


def last_epoch(file: Path, environment: dict[str, str]) -> int | None:
    """The last epoch in a run's file, 0 without one; None where wandb cannot tell.

    Asked of the program that ``wandb leet inspect`` runs: the command itself imports wandb first, for a second. It is
    asked where that program answers otherwise.
    """
    package = find_spec("wandb")
    assert package is not None and package.origin is not None  # noqa: PT018  (a dependency)
    core = str(Path(package.origin).parent / "bin" / PROGRAM)
    inspect = ["leet", "inspect", "--json"]
    for command in (
        [core, *inspect, "--no-observability", "--run-file", str(file), str(file.parent)],
        [sys.executable, "-P", "-m", "wandb", *inspect, str(file)],
    ):
        with suppress(OSError, subprocess.SubprocessError, ValueError, AttributeError):
            answer = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True).stdout
            epochs = [
                json.loads(line).get("history", {}).get("item", {}).get("epoch", 0) for line in answer.splitlines()
            ]
            if epochs:
                return int(max(epochs))
    return None
