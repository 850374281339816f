"""The small files of many cells once more, in a few objects of the same bucket: reading them takes few requests.

The files themselves remain what counts. An entry of the pack is used only where the bucket's own list says that its
file is the one that was packed: put at the same time, with the same size. A pack that is lost or damaged costs only
time.
"""

import io
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol, Self

from dae.errors import UserError
from sweep.storage.sealing import Damaged, digest, dump_json, load_json

FOLDER = ".pack"
INDEX = f"{FOLDER}/index.json"
SCHEMA = 1
FEW = 32
"""So many files are read, or left out of the pack, one by one."""
MOST_BYTES = 512 * 2**20
"""Of a volume, which is held in memory; of larger ones the digests alone are kept."""
AT_ONCE = 64
"""So many files are held in memory of which only the digests are wanted."""
CLOCK_STEP_NS = 2 * 10**9
"""Buckets give the time of a put in whole seconds: of one put within so long, two puts cannot be told apart."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as it was packed: when it was put (ns of the bucket's clock), its size in bytes and its SHA-256."""

    put_at_ns: int
    size: int
    sha256: str

    def is_of(self, listed: tuple[int, int] | None) -> bool:
        """Whether the file is the one that was packed, by what the bucket's list says of it."""
        return listed == (self.put_at_ns, self.size)


class Bucket(Protocol):
    """What is needed of a bucket."""

    def read_each(self, names: Iterable[str]) -> dict[str, bytes]:
        """Those files that exist, each read by requests of its own."""

    def write_all(self, contents: Mapping[str, bytes]) -> None:
        """Put these files."""

    def listed(self, name: str) -> dict[str, tuple[int, int]]:
        """When each file below ``name`` was put, and its size."""


@dataclass(frozen=True, slots=True)
class Pack:
    """What was packed of a bucket's files and still holds.

    Attributes:
        there: when the files that existed when the bucket was listed were put, and their sizes.
        entries: by file, of those that were then as they are packed.
    """

    bucket: Bucket
    there: Mapping[str, tuple[int, int]]
    entries: Mapping[str, Entry] = field(default_factory=dict)

    @classmethod
    def of(cls, bucket: Bucket, *, is_used: bool = True) -> Self:
        """The pack as it holds now; without entries where it is not to be used."""
        there = bucket.listed("")
        index = _index(bucket) if is_used and INDEX in there else {}
        return cls(bucket, there, {name: entry for name, entry in index.items() if entry.is_of(there.get(name))})

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The content of those of the files that are packed."""
        wanted: dict[str, list[str]] = {}
        for name in names:
            if name in self.entries:
                wanted.setdefault(_volume(name), []).append(name)
        volumes = self.bucket.read_each(wanted)
        contents: dict[str, bytes] = {}
        for volume, data in volumes.items():
            contents |= _unpacked(data, wanted[volume])
        return {name: data for name, data in contents.items() if digest(data) == self.entries[name].sha256}

    def missing(self, names: Iterable[str], known: Collection[str]) -> list[str]:
        """Those of the files that are not known and exist."""
        return [name for name in names if name not in known and name in self.there]


def write(bucket: Bucket, names: Collection[str], seen: Collection[str], last: Pack | None) -> None:
    """Pack these files, unless few of them are missing in the pack that there is.

    Args:
        bucket: where they are.
        names: of files to pack.
        seen: of files that are too large for that, whose digests alone are kept.
        last: the pack as it was known before, which tells at once where nothing is to be done; None where it may be
            that files were written since.
    """
    everything = {*names, *seen}
    if len(everything) <= FEW or (last is not None and len(everything & last.there.keys() - last.entries) <= FEW):
        return
    packed = Pack.of(bucket)
    there = packed.there
    names = _of_small_volumes(names, there)
    # Of what was put a moment ago, a second put might look the same.
    settled_ns = max((put_at_ns for put_at_ns, _ in there.values()), default=0) - CLOCK_STEP_NS
    settled = [name for name in sorted(everything & there.keys()) if there[name][0] <= settled_ns]
    holds = {name: packed.entries[name] for name in settled if name in packed.entries}
    if len(settled) - len(holds) <= FEW:
        return
    contents = packed.read(names & holds.keys())
    rest = [name for name in settled if name not in (contents if name in names else holds)]
    entries = dict(holds)
    for start in range(0, len(rest), AT_ONCE):
        for name, data in bucket.read_each(rest[start : start + AT_ONCE]).items():
            entries[name] = Entry(*there[name], digest(data))
            contents |= {name: data} if name in names else {}
    volumes: dict[str, dict[str, bytes]] = {}
    for name, data in sorted(contents.items()):
        volumes.setdefault(_volume(name), {})[name] = data
    bucket.write_all({volume: _packed(files) for volume, files in volumes.items()})
    files = {name: [entry.put_at_ns, entry.size, entry.sha256] for name, entry in sorted(entries.items())}
    bucket.write_all({INDEX: dump_json({"schema": SCHEMA, "files": files})})


def _of_small_volumes(names: Collection[str], there: Mapping[str, tuple[int, int]]) -> set[str]:
    """Those of the files whose volume is not too large to be made, and read, at once."""
    sizes: Counter[str] = Counter()
    for name in names:
        sizes[_volume(name)] += there[name][1] if name in there else 0
    return {name for name in names if sizes[_volume(name)] <= MOST_BYTES}


def _volume(name: str) -> str:
    """The object in which a file is packed: one for all files that are called the same."""
    return f"{FOLDER}/{PurePosixPath(name).name}.zip"


def _index(bucket: Bucket) -> dict[str, Entry]:
    try:
        document: Any = load_json(bucket.read_each([INDEX])[INDEX], schema=SCHEMA)
        return {name: Entry(*values) for name, values in document["files"].items()}
    except (KeyError, TypeError, AttributeError, Damaged, UserError):  # of another version, too
        return {}


def _packed(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _unpacked(data: bytes, names: Iterable[str]) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            there = set(archive.namelist())
            return {name: archive.read(name) for name in names if name in there}
    except (zipfile.BadZipFile, EOFError, NotImplementedError):
        return {}
