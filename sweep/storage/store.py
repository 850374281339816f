"""The files of a sweep in a folder; `sweep.storage.bucket` keeps them in a bucket.

Readers see a file as it was before or after a write, never a part of it: it is written aside, flushed and renamed.
"""

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self, TextIO

from sweep.storage import filelock
from sweep.storage.lease import LEASE_FOLDER, Held, Lease, holder
from sweep.storage.sealing import digest

LOCK_FILE = ".lock"
MARKER_FOLDER = ".preflight"
"""Holds what the nodes of a cluster write at the start of a run, to show that they can."""


class Unwritable(OSError):
    """A file could not be written: the storage is full, read-only or out of reach."""

    def __str__(self) -> str:
        return f"cannot write {self.filename}: {self.strerror}"


class Unreadable(OSError):
    """A file could not be read: the storage is out of reach or refuses."""

    def __str__(self) -> str:
        return f"cannot read {self.filename}: {self.strerror}"


@dataclass(frozen=True, slots=True)
class Store:
    """Files that are read and written whole. Names are paths below ``root``, with ``/`` between parts.

    This one is a folder, local or mounted; its subclass `ObjectStore` has the same methods for a bucket.

    Attributes:
        root: the sweep's folder.
        seconds_between_saves: how far apart optional writes, such as checkpoints, should be, since a write takes time.
    """

    root: Path
    seconds_between_saves: ClassVar[float] = 0.0

    @property
    def name(self) -> str:
        """The sweep's name, which is its folder's."""
        return self.root.name

    def uri(self, name: str = "") -> str:
        """The path or URI of the file, as messages give it."""
        return str(self.path(name))

    def below(self, name: str) -> Self:
        """The store of a folder in this one."""
        return replace(self, root=self.root / name)

    def beside(self, name: str) -> Self:
        """The store of a folder beside this one, in the same storage."""
        return replace(self, root=self.root.parent / name)

    def path(self, name: str) -> Path:
        """The file's path in its file system; `open` can use it only where the store is a folder."""
        return self.root / name

    def download(self, name: str) -> Path:
        """The path of a file on this machine with the same bytes.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return self.path(name)

    def impatient(self, patience_s: float = 0.0) -> "Store":
        """The same store, which reports after ``patience_s`` that it cannot be reached; a folder reports at once."""
        return self

    def unpacked(self) -> "Store":
        """The same store, which reads every file itself; a folder always does."""
        return self

    def snapshot(self) -> "Store":
        """The same store, to read many files from: a bucket is listed once, now; a folder is as it is."""
        return self

    def create(self) -> None:
        """Make the folder if it is missing.

        Raises:
            OSError: it cannot be made.
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
        """The bytes of those files that exist, by name."""
        contents = {}
        for name in names:
            with suppress(FileNotFoundError):
                contents[name] = self.read(name)
        return contents

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """SHA-256 of those files that exist, by name."""
        return {name: digest(data) for name in names for data in self.read_all([name]).values()}

    def pack(self, names: Iterable[str], seen: Iterable[str] = ()) -> None:
        """Nothing in a folder; a bucket lets later commands read these files in few requests."""

    def write(self, name: str, data: bytes) -> None:
        """Replace the file in one move; a crash leaves the old one or the new one.

        Raises:
            Unwritable: it failed; the old file is unchanged.
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

    def write_all(self, contents: Mapping[str, bytes]) -> None:
        """Replace these files, each as `write` does.

        Raises:
            Unwritable: one failed.
        """
        for name, data in contents.items():
            self.write(name, data)

    def delete(self, name: str) -> None:
        """Remove the file if it is there."""
        self.path(name).unlink(missing_ok=True)

    def discard(self, name: str) -> None:
        """Remove the folder if it is there and empty."""
        with suppress(OSError):
            self.path(name).rmdir()

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        return self.path(name).is_file()

    def names(self, name: str = "") -> list[str]:
        """Paths of all files and folders below ``name``, sorted; those of folders end with ``/``."""
        paths = self.path(name).rglob("*")
        return sorted(f"{path.relative_to(self.root)}{'/' * path.is_dir()}" for path in paths)

    def modified(self, name: str = "") -> dict[str, int]:
        """When each file in the folder ``name`` was written, in ns of the file system's clock."""
        times = {}
        for path in self.path(name).glob("*"):
            with suppress(FileNotFoundError):  # removed since
                times[f"{name}/{path.name}"] = path.stat().st_mtime_ns
        return times

    def folders(self, name: str = "") -> list[str]:
        """Names of the folders in ``name``, sorted, without hidden ones."""
        folder = self.path(name)
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))

    def log(self, name: str) -> AbstractContextManager[TextIO]:
        """The file, to add lines to; they are in the storage when the context ends, if not before."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", buffering=1)

    @contextmanager
    def spool(self, name: str) -> Iterator[Path]:
        """A folder on this machine that holds ``name``; the storage has all changes to it when the context ends.

        For programs, such as W&B, that write files and know no URIs.
        """
        yield self.root

    def sweep_up(self) -> None:
        """Remove partial files of writers that were killed. Only for the holder of the lock."""
        for partial in self.root.rglob(".*.partial"):
            if partial.parent.name != LEASE_FOLDER:  # where others may be writing that they want the sweep
                partial.unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[Callable[[], bool]]:
        """Hold the sweep for this process; the yielded function tells whether it still does.

        The kernel releases the lock of a folder when the process ends in any way. Where the file system has no locks,
        a `Lease` is held instead, as in a bucket.

        Raises:
            Held: another process holds it.
        """
        lease = Lease(self)
        with self.path(LOCK_FILE).open("a+") as file:
            try:
                if not filelock.take(file):
                    file.seek(0)
                    raise Held(file.read().strip() or "another process")
            except filelock.NoLocks:
                with lease:
                    yield lambda: lease.is_held
                return
            if (other := lease.other()) is not None:  # of a machine where the same folder has no locks
                raise Held(other)
            file.truncate(0)
            file.write(holder())
            file.flush()
            yield lambda: True

    def locked(self) -> bool:
        """Whether a live process holds the sweep; asking never refuses one that wants to."""
        return filelock.is_taken(self.path(LOCK_FILE)) or Lease(self).other() is not None
