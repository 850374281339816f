"""Where the Ray of a command keeps its sockets and logs: a private folder of its own, gone at its end."""

import fcntl
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dae.errors import UserError
from dae.images.location import expanded

PREFIX, OWNER, SESSIONS = "ray-", "owner", "s"
"""Of such a folder: its name, the file that its command has locked, and what Ray is given. Ray opens that to everyone,
so that it lies one below."""

KEEP = "DAE_SWEEP_KEEP_RAY_LOGS"
"""Environment variable under which nothing is removed, for who looks for a fault in Ray."""

LONGEST_SOCKET = "/ray-0000/s/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store"
MOST_BYTES = 107
"""Of a socket's path, in Linux."""

LEAST_FREE = 32 * 2**20

FALLBACKS = ("/tmp", "/var/tmp")


@contextmanager
def session_folder(chosen: Path | None) -> Iterator[Path]:
    """A new folder for a Ray; what killed commands of this user have left beside it is removed.

    It stays after an error, for its logs, until the next Ray starts.

    Args:
        chosen: where to make it; None for the folder of temporary files, or one that Ray can use.

    Raises:
        UserError: Ray cannot work there.
    """
    place = _place(chosen)
    _sweep_up(place)
    folder = _make(place)
    owner = os.open(folder / OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sessions = folder / SESSIONS
        try:
            yield sessions
        except Exception:  # its logs may say more
            raise
        except BaseException:
            _remove(folder)
            raise
        _remove(folder)
    finally:
        os.close(owner)


def _place(chosen: Path | None) -> Path:
    if chosen is not None:
        place = expanded(chosen).absolute()
        if reason := _unfit(place):
            raise UserError(f"--temp-dir {chosen}: {reason}")
        return place
    places = [Path(os.environ["RAY_TMPDIR"]).absolute()] if os.environ.get("RAY_TMPDIR") else []
    with suppress(OSError):
        places.append(Path(tempfile.gettempdir()).absolute())
    places += [Path(name) for name in FALLBACKS if Path(name) not in places]
    reasons = {place: _unfit(place) for place in places}
    for place, reason in reasons.items():
        if reason is None:
            return place
    first, reason = next(iter(reasons.items()))
    raise UserError(
        f"Ray has no place for its files: {first} {reason}. Give --temp-dir DIR, a folder with a short name on a disk "
        "of this machine that can be written."
    )


def _unfit(place: Path) -> str | None:
    """Why Ray cannot work there; None where it can."""
    if not str(place).isascii():
        return "has letters in its name that are not ASCII, which Ray cannot use"
    if too_many := max(0, len(str(place) + LONGEST_SOCKET) - MOST_BYTES):
        return f"has a name too long for Ray's sockets, by {too_many} bytes of {MOST_BYTES}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="r", dir=place) as folder, socket.socket(socket.AF_UNIX) as end:
            end.bind(f"{folder}/s")
        free = shutil.disk_usage(place).free
    except OSError as error:
        return f"cannot be used for Ray's files and sockets ({error.strerror or error})"
    return f"has {free >> 20} MiB free, and Ray needs {LEAST_FREE >> 20}" if free < LEAST_FREE else None


def _make(place: Path) -> Path:
    while True:
        folder = place / f"{PREFIX}{secrets.token_hex(2)}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            return folder


def _sweep_up(place: Path) -> None:
    """Remove the folders of this user's commands that do not live any more."""
    for folder in place.glob(f"{PREFIX}????"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            owner = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while its command lives
                _remove(folder)
            finally:
                os.close(owner)


def _remove(folder: Path) -> None:
    if not os.environ.get(KEEP):
        shutil.rmtree(folder, ignore_errors=True)


CAUSES = {
    "Too many open files": "This user may not open so many files: raise the limit (ulimit -n).",
    "No space left on device": "A disk is full: make room, or give --temp-dir DIR on another one.",
    "Cannot allocate memory": "The machine has no memory left.",
    "Resource temporarily unavailable": "The machine allows no more processes or threads: raise the limit "
    "(ulimit -u, or that of the container), or give fewer --cpus.",
    "can't start new thread": "The machine allows no more processes or threads: raise the limit "
    "(ulimit -u, or that of the container), or give fewer --cpus.",
    "Read-only file system": "A folder cannot be written: give --temp-dir DIR that can.",
    "Permission denied": "A folder cannot be written: give --temp-dir DIR that can.",
    "Operation not permitted": "The system forbids what Ray does (seccomp, or a container without rights).",
}
"""What Ray, or its logs, say of a start that failed, and what it means."""


def cause(reason: str, sessions: Path) -> str | None:
    """What a start that failed had as its cause, by its message and by the logs; None where none of them says so."""
    logs = [path for path in sorted(sessions.glob("session_*/logs/*")) if path.is_file() and not path.is_symlink()]
    texts = [reason]
    for path in logs:
        with suppress(OSError):
            texts.append(path.read_text(errors="replace")[-20_000:])
    return next((meaning for sign, meaning in CAUSES.items() for text in texts if sign.lower() in text.lower()), None)
