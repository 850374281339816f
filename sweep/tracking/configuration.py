"""What the user has told wandb in variables and files: mode, server, key. wandb itself is asked what they mean."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dae.errors import UserError
from sweep.tracking import service, wandb_private

MODES = ("auto", "online", "offline", "disabled")
MEANING = {
    "online": "online",
    "run": "online",
    "shared": "online",  # for several writers of one run, and ours have one
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
"""What wandb's modes are here."""
DEFAULT_PROJECT = "dae-sweep"
FORBIDDEN = "/\\#?%:"
LONGEST_PROJECT = 128


@dataclass(frozen=True, slots=True)
class Configuration:
    """What wandb would go by.

    Attributes:
        mode: online, offline or disabled; None where the user has said nothing.
        base_url: of the server.
        has_key: whether wandb has a key for it.
    """

    mode: str | None
    base_url: str
    has_key: bool


def base_url() -> str:
    """The server's, as wandb has it; also while a tracker is at work, whose wandb is left as it is.

    Raises:
        UserError: wandb does not take its settings.
    """
    try:
        return str(wandb_private.user_settings(service.wandb()).base_url)
    except Exception as error:
        raise UserError(f"W&B does not take its settings: {error}") from None


def read() -> Configuration:
    """Ask wandb, and have it forget the answer: not while a tracker is at work.

    Raises:
        Exception: any of wandb's, of a value that it does not take.
    """
    # An empty variable says nothing, and wandb would refuse it as a mode.
    before = service.set_environment(
        {"WANDB_SILENT": "true", "WANDB_SERVICE": None, "WANDB_MODE": os.environ.get("WANDB_MODE") or None}
    )
    wandb = service.wandb()
    try:
        settings = wandb_private.user_settings(wandb)
        mode = MEANING[settings.mode] if "mode" in settings.model_fields_set else None
        return Configuration(mode, settings.base_url, wandb_private.has_key(settings))
    finally:
        wandb.teardown()
        service.set_environment(before)


def resolve_mode(mode: str) -> str:
    """What ``auto`` means here: what wandb was told, else ``online`` when it has a key; other modes as they are.

    Raises:
        ValueError: ``mode`` is none of `MODES`.
    """
    if mode not in MODES:
        raise ValueError(f"--wandb {mode} is not known: choose one of {', '.join(MODES)}.")
    if mode != "auto":
        return mode
    if (wished := MEANING.get(os.environ.get("WANDB_MODE", ""))) is not None:
        return wished  # no file has a say then
    if not any(path.exists() for path in _files()):
        return "online" if _has_key_in_variables() else "offline"
    with suppress(Exception):
        configuration = read()
        return configuration.mode or ("online" if configuration.has_key else "offline")
    return "offline"


def has_key() -> bool:
    """Whether wandb would find a key; it is asked only if there is a file where it could."""
    if _has_key_in_variables():
        return True
    if any(path.exists() for path in _files()):
        with suppress(Exception):
            return read().has_key
    return False


def check_project(name: str, said: str = "--project ") -> None:
    """Refuse a name that wandb would refuse once training has begun; ``said`` is where it comes from.

    Raises:
        UserError: it would.
    """
    if not name:
        raise UserError(f"{said.strip()} is empty: give a name, or leave the option out.")
    if len(name) > LONGEST_PROJECT:
        raise UserError(f"{said}{name}: the name of a W&B project has at most {LONGEST_PROJECT} characters.")
    if any(character in FORBIDDEN for character in name):
        way_out = "give a name without them"
        team, _, project = name.partition("/")
        if team and project and not any(character in FORBIDDEN for character in team + project):
            way_out = f"a team is named by the variable WANDB_ENTITY: WANDB_ENTITY={team} and {said}{project}"
        raise UserError(f"{said}{name}: the name of a W&B project has none of {' '.join(FORBIDDEN)} in it; {way_out}.")


def check_environment(mode: str) -> None:
    """Refuse variables that wandb would refuse once training has begun, as far as ``mode`` lets them count.

    Raises:
        UserError: it would.
    """
    wished = os.environ.get("WANDB_MODE")
    if mode == "auto" and wished and wished not in MEANING:
        raise UserError(f"WANDB_MODE={wished} is no mode of W&B: set one of {', '.join(MEANING)}, or none.")
    if mode != "disabled" and (project := os.environ.get("WANDB_PROJECT")):
        check_project(project, "WANDB_PROJECT=")


def _has_key_in_variables() -> bool:
    return any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"))


def _files() -> Iterator[Path]:
    """Where wandb looks for settings and keys."""
    with suppress(RuntimeError):  # nobody knows where home is
        yield Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser() / "settings"
        yield from wandb_private.netrc_files()
    yield from (Path(folder, "settings") for folder in ("wandb", ".wandb"))
