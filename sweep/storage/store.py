"""Where the bytes of a sweep live: in a folder here, in a bucket in `sweep.storage.bucket`.

A file is either wholly there or not there at all: it is written aside, flushed and moved into place.
"""

import fcntl
import os
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TextIO

LOCK_FILE = ".lock"
LEASE_FOLDER = ".lease"
"""Stands for the lock in a bucket."""
MARKER_FOLDER = ".preflight"
"""What the nodes of a cluster write to show that they can."""


class Unwritable(OSError):
    """The storage takes no more: it is full, read-only or gone."""

    def __str__(self) -> str:
        return f"cannot write {self.filename}: {self.strerror}"


class Unreadable(OSError):
    """The storage gives nothing: it is gone, or refuses."""

    def __str__(self) -> str:
        return f"cannot read {self.filename}: {self.strerror}"


class Held(Exception):
    """Another live process holds the lock; the message names it."""


@dataclass(frozen=True, slots=True)
class Store:
    """Files that are read and written whole. Names are paths below ``root``, with ``/`` between parts.

    This one is a folder, local or mounted; an `ObjectStore` keeps the same promises in a bucket.

    Attributes:
        root: the sweep's place in its file system.
        seconds_between_saves: what a write costs, for those who could write less often.
    """

    root: Path
    seconds_between_saves: ClassVar[float] = 0.0

    @property
    def name(self) -> str:
        """The sweep's name: its folder's."""
        return self.root.name

    def uri(self, name: str = "") -> str:
        """Where the file is, as people are told; a file system's path or a URI."""
        return str(self.path(name))

    def path(self, name: str) -> Path:
        """The file's place in its file system; only for a folder is that one which `open` knows."""
        return self.root / name

    def download(self, name: str) -> Path:
        """A file on this machine with the bytes of this one.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return self.path(name)

    def impatient(self) -> "Store":
        """The same, for who would rather know at once that it cannot be reached."""
        return self

    def create(self) -> None:
        """Make the place where it is missing.

        Raises:
            OSError: it cannot be made, or not be written.
        """
        self.root.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> bytes:
        """The file's bytes.

        Raises:
            FileNotFoundError: there is no such file.
            Unreadable: the storage is out of reach.
        """
        return self.path(name).read_bytes()

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """The bytes of those files that are there, by name."""
        found = {}
        for name in names:
            with suppress(FileNotFoundError):
                found[name] = self.read(name)
        return found

    def write(self, name: str, data: bytes) -> None:
        """Replace the file in one move; a crash leaves the old one or the new one.

        Raises:
            Unwritable: the storage refuses; the old file is as it was.
        """
        path = self.path(name)
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with aside.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                aside.replace(path)
            finally:
                aside.unlink(missing_ok=True)
        except OSError as error:
            raise Unwritable(error.errno, error.strerror or str(error), str(path)) from error

    def delete(self, name: str) -> None:
        """Remove the file if it is there."""
        self.path(name).unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        return self.path(name).is_file()

    def names(self, name: str = "") -> list[str]:
        """Paths of all that is below ``name``, sorted; those of folders end with ``/``."""
        found = self.path(name).rglob("*")
        return sorted(f"{path.relative_to(self.root)}{'/' * path.is_dir()}" for path in found)

    def folders(self, name: str = "") -> list[str]:
        """Names of the folders in ``name``, sorted; hidden ones left out."""
        folder = self.path(name)
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))

    def log(self, name: str) -> AbstractContextManager[TextIO]:
        """The file, to add lines to; they are in it once the context ends, if not before."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", buffering=1)

    @contextmanager
    def spool(self, name: str) -> Iterator[Path]:
        """A folder on this machine in which ``name`` is as in the storage, and for which it is so in the end.

        For programs that write files of their own and know no URIs.
        """
        yield self.root

    def sweep_up(self) -> None:
        """Remove what writers that were killed half-way left aside. Only for the holder of the lock."""
        for partial in self.root.rglob(".*.partial"):
            partial.unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[Callable[[], bool]]:
        """Hold the place for this process; what is yielded tells whether it still does.

        The kernel lets go of a folder when the process dies, however it dies.

        Raises:
            Held: another process holds it.
        """
        with self.path(LOCK_FILE).open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise Held(file.read().strip() or "another process") from None
            file.truncate(0)
            file.write(holder())
            file.flush()
            yield lambda: True

    def locked(self) -> bool:
        """Whether a live process holds the place."""
        try:
            with self.path(LOCK_FILE).open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False


def holder() -> str:
    """This process, for those who find the place held."""
    return f"process {os.getpid()} on {socket.gethostname()}"
