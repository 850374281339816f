"""Where the bytes of a sweep live: in a folder, or in a bucket (`sweep.objects`).

A file is either wholly there or not there at all: it is written aside, flushed and moved into place.
"""

import fcntl
import hashlib
import json
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TextIO

from dae.errors import UserError

LOCK_FILE = ".lock"
LEASE_FOLDER = ".lease"
"""Stands for the lock in a bucket."""
MARKER_FOLDER = ".preflight"
"""What the nodes of a cluster write to show that they can."""

MAX_NAME_BYTES = 255
"""What the file systems of today allow for one folder."""


class Damaged(Exception):
    """A file is there but is not what was written."""


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

    def at(self, name: str = "") -> str:
        """Where the file is, as people are told; a file system's path or a URI."""
        return str(self.path(name))

    def path(self, name: str) -> Path:
        """The file's place in its file system; only for a folder is that one which `open` knows."""
        return self.root / name

    def local(self, name: str) -> Path:
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


def open_store(storage: str | Path, name: str) -> Store:
    """The store of sweep ``name`` in ``storage``, a folder or a URI; nothing is created yet.

    Raises:
        UserError: the name could leave the storage, or the storage is no folder and no bucket within reach.
    """
    if not name.isprintable() or not name or name.startswith((".", "-")) or any(c in '/\\:#?%*"<>|\0\n' for c in name):
        raise UserError(
            f"{name!r} cannot name a sweep: a name is one folder below the storage, without path separators, "
            'none of :#?%*"<>| and no leading dot or dash. Try --name my-sweep.'
        )
    if len(name.encode()) > MAX_NAME_BYTES:
        raise UserError(f"the name {name[:20]!r}... is too long: at most {MAX_NAME_BYTES} bytes make a folder's name.")
    return open_storage(storage, name)


def open_storage(storage: str | Path, name: str = "") -> Store:
    """The whole storage, or ``name`` in it.

    Raises:
        UserError: it is no folder and no bucket within reach.
    """
    scheme, is_uri, rest = str(storage).partition("://")
    if not is_uri and re.match("[a-z0-9]{2,}:/", str(storage)):
        raise UserError(f"--storage {storage} is no folder and no URI: one begins like s3://BUCKET/FOLDER.")
    if is_uri and scheme != "file":
        from sweep import objects  # and with it pyarrow

        return objects.open_bucket(str(storage), name)
    return Store(Path(rest if is_uri else storage).expanduser().absolute() / name)


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def seal(data: bytes) -> bytes:
    """``data`` behind a line with its digest, for files that nothing else vouches for."""
    return digest(data).encode() + b"\n" + data


def unseal(data: bytes) -> bytes:
    """What was sealed.

    Raises:
        Damaged: not one byte more or less, or other than was sealed.
    """
    seal_line, _, payload = data.partition(b"\n")
    if seal_line != digest(payload).encode():
        raise Damaged("its content does not match its digest")
    return payload


def dump_json(document: dict[str, object]) -> bytes:
    """The document as readable JSON that carries its own digest."""
    return _dump(document | {"sha256": digest(_dump(document))})


def load_json(data: bytes, *, schema: int) -> dict[str, object]:
    """The document that `dump_json` wrote.

    Raises:
        Damaged: truncated or changed since.
        UserError: written by another version of the program.
    """
    try:
        document: dict[str, object] = json.loads(data)
        claimed, content = document.pop("sha256"), _dump(document)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged("it is not the JSON that was written") from error
    if claimed != digest(content):
        raise Damaged("its content does not match its digest")
    if document.get("schema") != schema:
        raise UserError(
            f"this sweep was written with schema {document.get('schema')}, this version reads schema {schema}: "
            "use the version of dae-sweep that wrote it, or another --name."
        )
    return document


def _dump(document: dict[str, object]) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
