"""A sweep in a bucket: ``s3://`` and ``gs://`` through pyarrow.

An object is put whole or not at all, so that readers see the old one or the new one. Three things that a file system
has are built on that: the lock is a lease (`lease`), lines are added to a log by putting the whole log again, and
programs that know only files work in a folder on this machine that is copied.

A store that does not answer is asked again for `PATIENCE_S`, at the start of a command for `FIRST_PATIENCE_S` only. A
refusal is reported at once.
"""

import io
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import ClassVar, TextIO, TypeVar

from pyarrow import fs

from dae.errors import UserError
from sweep.storage import pack, uris
from sweep.storage.lease import Lease
from sweep.storage.pack import Pack
from sweep.storage.requests import (
    FIRST_PATIENCE_S,
    PATIENCE_S,
    answer,
    reason,
    uninterruptible,
)
from sweep.storage.sealing import digest
from sweep.storage.store import Store, Unreadable, Unwritable

WORKERS = 16
"""Requests that are made side by side."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class ObjectStore(Store):
    """The files of a sweep as objects; ``root`` is ``bucket/folder/name``.

    Attributes:
        scheme: ``s3`` or ``gs``.
        options: arguments of pyarrow's file system, sorted; the same on every node.
        patience_s: for how long requests without an answer are repeated, in seconds.
        uses_pack: whether files may be read from the `Pack`.
        pack_then: of a snapshot, the pack and the bucket's list as they were when it was taken.
    """

    scheme: str = "s3"
    options: tuple[tuple[str, str], ...] = ()
    patience_s: float = field(default=PATIENCE_S, compare=False)
    uses_pack: bool = field(default=True, compare=False)
    pack_then: Pack | None = field(default=None, compare=False, repr=False)
    seconds_between_saves: ClassVar[float] = 2.0

    @property
    def filesystem(self) -> fs.FileSystem:
        """Pyarrow's file system, made once in a process."""
        with _making:
            return uris.filesystem(self.scheme, self.options)

    def uri(self, name: str = "") -> str:
        """The URI of the file, as messages give it."""
        return f"{self.scheme}://{self.path(name)}"

    def download(self, name: str) -> Path:
        """A copy of the file on this machine, deleted when this process ends."""
        path = _scratch() / uuid.uuid4().hex / name  # of its own, which no other thread or store writes
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.read(name))
        return path

    def impatient(self, patience_s: float = FIRST_PATIENCE_S) -> "ObjectStore":
        """The same store, which gives up after ``patience_s`` without an answer."""
        return replace(self, patience_s=patience_s)

    def unpacked(self) -> "ObjectStore":
        """The same store, which reads every file itself."""
        return replace(self, uses_pack=False, pack_then=None)

    def snapshot(self) -> "ObjectStore":
        """The same store as it is now: lists, and reading of many files, follow from one list and are not asked again.

        Files that are written later are not in it.
        """
        return replace(self, pack_then=Pack.of(self, is_used=self.uses_pack))

    def create(self) -> None:
        """A bucket has no folders to make; the lease is the first write."""

    def read(self, name: str) -> bytes:
        """The file's bytes; two requests."""

        def get() -> bytes:
            # Not a stream, which would take many requests for a large object.
            with self.filesystem.open_input_file(self._key(name)) as file:
                data: bytes = file.readall()
                return data

        return self._ask(get, name, Unreadable)

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """The bytes of those files that exist, by name; many from the `Pack`, the others `WORKERS` at a time."""
        names = list(names)
        if len(names) <= pack.FEW:  # whose own requests are as fast
            return self.read_each(names)
        packed = self._pack_now()
        contents = packed.read(names)
        contents |= self.read_each(packed.missing(names, contents))
        return {name: contents[name] for name in names if name in contents}

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """SHA-256 of those files that exist; of many those that are not as the `Pack` saw them are read."""
        names = list(names)
        if len(names) <= pack.FEW:
            return {name: digest(data) for name, data in self.read_each(names).items()}
        packed = self._pack_now()
        digests = {name: packed.entries[name].sha256 for name in names if name in packed.entries}
        rest = packed.missing(names, digests)
        for start in range(0, len(rest), pack.AT_ONCE):
            contents = self.read_each(rest[start : start + pack.AT_ONCE])
            digests |= {name: digest(data) for name, data in contents.items()}
        return digests

    def _pack_now(self) -> Pack:
        return self.pack_then or Pack.of(self, is_used=self.uses_pack)

    def read_each(self, names: Iterable[str]) -> dict[str, bytes]:
        """The bytes of those files that exist, each by requests of its own, `WORKERS` files at a time."""
        names = list(names)

        def get(name: str) -> bytes | None:
            try:
                return self.read(name)
            except FileNotFoundError:
                return None

        with ThreadPoolExecutor(WORKERS) as readers:
            return {name: data for name, data in zip(names, readers.map(get, names), strict=True) if data is not None}

    def write(self, name: str, data: bytes) -> None:
        """Put the object; a crash leaves the old one or the new one."""

        def put() -> None:
            file = self.filesystem.open_output_stream(self._key(name))
            file.write(data)
            file.close()

        self._ask(put, name, Unwritable)

    def write_all(self, contents: Mapping[str, bytes]) -> None:
        """Put these files, `WORKERS` at a time."""
        with ThreadPoolExecutor(WORKERS) as writers:
            list(writers.map(self.write, contents, contents.values()))

    def pack(self, names: Iterable[str], seen: Iterable[str] = ()) -> None:
        """Let later commands read these files, and know the digests of those ``seen``, in few requests."""
        pack.write(replace(self, pack_then=None), list(names), list(seen), last=self.pack_then)

    def delete(self, name: str) -> None:
        """Remove the file if it is there."""

        def delete() -> None:
            try:
                self.filesystem.delete_file(self._key(name))
            except FileNotFoundError:
                return

        self._ask(delete, name, Unwritable)

    def discard(self, name: str) -> None:
        """Do nothing: a folder is gone with its last object."""

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        info = self._ask(lambda: self.filesystem.get_file_info(self._key(name)), name, Unreadable)
        return bool(info.type == fs.FileType.File)

    def names(self, name: str = "") -> list[str]:
        """Paths of all that is below ``name``, sorted; those of folders end with ``/``."""
        return sorted(self.modified(name))

    def modified(self, name: str = "") -> dict[str, int]:
        """When each file below ``name`` was put, in ns of the store's clock; 0 for folders (``name/``)."""
        return {path: put_at_ns for path, (put_at_ns, _) in self.listed(name).items()}

    def listed(self, name: str) -> dict[str, tuple[int, int]]:
        """When each file below ``name`` was put, in ns of the store's clock, and its size in bytes; 0 of folders.

        A folder is there while a file is in it: pyarrow leaves an empty object in place of the last one deleted.
        """
        if self.pack_then is not None:
            above = f"{name}/" if name else ""
            return {
                path: entry for path, entry in self.pack_then.there.items() if path.startswith(above) and path != above
            }
        entries: dict[str, tuple[int, int]] = {}
        for info in self._list(name, recursive=True):
            if not info.is_file:
                continue
            path = info.path.removeprefix(f"{self.root}/")
            entries[path] = (info.mtime_ns or 0, info.size)
            folder = path.rpartition("/")[0]
            while len(folder) > len(name) and f"{folder}/" not in entries:
                entries[f"{folder}/"] = (0, 0)
                folder = folder.rpartition("/")[0]
        return entries

    def folders(self, name: str = "") -> list[str]:
        """Names of the folders in ``name``, sorted; hidden ones left out."""
        if name or self.scheme == "gs" or self.pack_then is not None:
            paths = [PurePosixPath(path).relative_to(name) for path in self.modified(name) if path.endswith("/")]
            folders = {path.parts[0] for path in paths}
        else:
            folders = {info.base_name for info in self._list(name, recursive=False) if not info.is_file}
        return sorted(folder for folder in folders if not folder.startswith("."))

    def _list(self, name: str, *, recursive: bool) -> list[fs.FileInfo]:
        selector = fs.FileSelector(self._key(name), recursive=recursive, allow_not_found=True)
        infos: list[fs.FileInfo] = self._ask(lambda: self.filesystem.get_file_info(selector), name, Unreadable)
        return infos

    @contextmanager
    def log(self, name: str) -> Iterator[TextIO]:
        """The file, to add lines to; it is put when the context ends."""
        uri = self.uri(name)
        if _log.uri != uri:
            _log.uri, _log.text = uri, self.read_all([name]).get(name, b"").decode(errors="replace")
        lines = io.StringIO(_log.text)
        lines.seek(0, io.SEEK_END)
        yield lines
        if lines.getvalue() != _log.text:
            self.write(name, lines.getvalue().encode())
            _log.text = lines.getvalue()

    @contextmanager
    def spool(self, name: str) -> Iterator[Path]:
        """A copy of ``name`` in a folder on this machine; what changed is copied back when the context ends."""
        with tempfile.TemporaryDirectory(prefix="dae-sweep-") as folder:
            root = Path(folder)
            there = {file: put_at_ns for file, put_at_ns in self.modified(name).items() if put_at_ns}
            for file, data in self.read_all(there).items():
                path = root / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                # W&B compares its files by age.
                os.utime(path, ns=(there[file], there[file]))
            try:
                yield root
            finally:
                paths = [path for path in (root / name).rglob("*") if path.is_file()]
                here = {str(path.relative_to(root)): path.stat().st_mtime_ns for path in paths}
                for file in sorted(here, key=lambda file: here[file]):
                    if here[file] != there.get(file):
                        self.write(file, (root / file).read_bytes())
                for file in there.keys() - here.keys():
                    self.delete(file)

    def sweep_up(self) -> None:
        """Do nothing: a put that was interrupted leaves no object."""

    @contextmanager
    def lock(self) -> Iterator[Callable[[], bool]]:
        """Hold the sweep for this process by a `Lease`; the yielded function tells whether it still does."""
        with Lease(self) as lease:
            yield lambda: lease.is_held

    def locked(self) -> bool:
        """Whether a live process holds the sweep, as far as this machine's clock can tell."""
        return Lease(self).other() is not None

    def _key(self, name: str) -> str:
        return str(self.path(name))

    def _ask(self, request: Callable[[], Answer], name: str, error_class: type[OSError]) -> Answer:
        return answer(request, self.uri(name), error_class, self.patience_s)


def open_bucket(uri: str, name: str) -> ObjectStore:
    """The store of ``name`` at a URI, after a request that showed that its bucket exists.

    Raises:
        UserError: the URI is not valid, or there is no such bucket, or it cannot be reached.
    """
    store = parse(uri, name)
    bucket = store.root.parts[0]
    shown = f"{store.scheme}://{bucket}"
    try:
        uninterruptible(lambda: store.filesystem)  # may ask for the bucket's region
        info = store.impatient()._ask(lambda: store.filesystem.get_file_info(bucket), "", Unreadable)
    except OSError as error:
        why = error.strerror if isinstance(error, Unreadable) else reason(error)[0]
        advice = uris.advice(store.scheme, store.options, why or "")
        raise UserError(f"cannot use the storage {shown}: {why}. {advice}") from error
    if info.type == fs.FileType.NotFound:
        raise UserError(
            f"there is no bucket {bucket!r} at {uris.endpoint(store.scheme, store.options)}. Make it first, "
            "or give another --storage."
        )
    return store


def parse(uri: str, name: str) -> ObjectStore:
    """The store of ``name`` at a URI, without any request.

    Raises:
        UserError: the URI is not valid.
    """
    scheme, folder, options = uris.parse(uri)
    return ObjectStore(folder / name, scheme, options)


_making = threading.Lock()
"""Held while something is made that all threads of the process share."""


def _scratch() -> Path:
    """A folder for copies of files, deleted when this process ends."""
    with _making:
        return Path(_temporary_folder().name)


@cache
def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="dae-sweep-")


class _Log(threading.local):
    """The log that this thread writes, and its content so far; a GPU's host works on a cell in each of its threads."""

    uri = ""
    text = ""


_log = _Log()
