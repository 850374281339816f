"""What libraries want of the user's account: a home folder, a name, and a folder for caches that nobody else can write.

Compiled code is loaded from caches under names that can be guessed, so they never lie in a folder that others share.
"""

import atexit
import os
import pwd
import shutil
import stat
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from dae.errors import UserError

CACHES = {"MPLCONFIGDIR": "matplotlib", "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "torchinductor"}
"""Environment variables for matplotlib (fonts), Triton and torch (compiled code), and the folder of each."""

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""Where Python's `getpass` looks for the user's name before it asks the system."""


def variables() -> dict[str, str]:
    """Of the account, those that the user's environment lacks.

    Raises:
        UserError: no folder can be written to.
    """
    lacking = {name: folder for name, folder in CACHES.items() if not os.environ.get(name)}
    answer = {name: str(_caches() / folder) for name, folder in lacking.items()} if lacking else {}
    if not os.environ.get("HOME"):
        answer["HOME"] = str(home() or _temporary())
    if not any(os.environ.get(name) for name in NAMES):
        answer["LOGNAME"] = _name()
    return answer


def home() -> Path | None:
    """The user's home folder; None for one whom the system does not know and whose environment does not say."""
    with suppress(RuntimeError):
        return Path.home()
    return None


def _name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid{os.geteuid()}"


def _caches() -> Path:
    """A folder of this user's alone: below ``XDG_CACHE_HOME`` or ``~/.cache``, or a temporary one."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    at_home = home()
    parent = Path(given) if Path(given).is_absolute() else at_home and at_home / ".cache"
    # The home of an account that the system does not know is the temporary folder itself, or /.
    if parent is not None and (folder := _private(parent / "dae-sweep")) is not None:
        return folder
    return _temporary()


def _private(folder: Path) -> Path | None:
    """The folder, made if need be, closed to others; None if it is not ours or cannot be written."""
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return None
        if status.st_mode & 0o077:
            folder.chmod(0o700)
    except OSError:
        return None
    return folder if _is_writable(folder) else None


def _is_writable(folder: Path) -> bool:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


@cache
def _temporary() -> Path:
    """A folder that ends with this process.

    Raises:
        UserError: there is no place for one.
    """
    try:
        folder = tempfile.mkdtemp(prefix="dae-sweep-")
    except OSError:
        raise UserError(
            "there is no folder for temporary files that can be written: set TMPDIR to one, with some room in it."
        ) from None
    atexit.register(_remove, folder, os.getpid())
    return Path(folder)


def _remove(folder: str, pid: int) -> None:
    if os.getpid() == pid:  # a fork inherits what is to be done at the end
        shutil.rmtree(folder, ignore_errors=True)
