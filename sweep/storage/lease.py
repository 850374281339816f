"""The lock of a sweep in a bucket, or in a folder whose file system has no locks.

A process that wants the sweep puts an entry and then lists the entries. It holds the sweep if there is no other entry;
else it deletes its entry again. Of two that come at the same time both may give up, but they never both hold it:
whichever lists last sees the other's entry. This needs a store whose lists show everything put before; S3, Google
Cloud Storage and file systems promise that.

The holder puts its entry again every `BEAT_S`. An entry that was not renewed for `EXPIRY_S` belongs to a dead process
and is removed. Its age is the difference of two times of the store's clock, so that the clocks of the machines do not
matter. A holder that could not reach the store for that long lists again before it goes on: if another process has
taken over, it no longer holds the sweep. It may have written in the meantime; the attempt token of a cell is what
makes a trial stop then.
"""

import json
import os
import random
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

LEASE_FOLDER = ".lease"
"""Holds the entries of those who hold the sweep or want it."""
BEAT_S = 5.0
EXPIRY_S = 30.0
QUICK_TRIES = 3
"""Tries with a short random pause between them, for processes that come at the same time."""


class Held(Exception):
    """Another live process holds the lock; the message names it."""


def holder() -> str:
    """The name of this process, for messages to others that find the sweep held."""
    return f"process {os.getpid()} on {socket.gethostname()}"


class Objects(Protocol):
    """What a lease needs of the store that it is kept in."""

    def read(self, name: str) -> bytes:
        """The file's bytes; FileNotFoundError where there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Put the file; OSError where the store does not answer."""

    def delete(self, name: str) -> None:
        """Remove the file if it is there."""

    def modified(self, name: str) -> dict[str, int]:
        """When each file below ``name`` was put, in ns of the store's clock; 0 for folders."""

    def impatient(self, patience_s: float = ...) -> "Objects":
        """The same store, which gives up after ``patience_s`` without an answer."""


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    put_at_ns: int


class Lease:
    """The lock of a sweep, held by this process while the context lasts.

    Attributes:
        is_held: whether no other process has taken it over.

    Raises:
        Held: another process holds it, or wants it at the same moment.
    """

    def __init__(self, store: Objects) -> None:
        self._store = store
        self._name = f"{LEASE_FOLDER}/{uuid.uuid4().hex}"
        self._ended = threading.Event()
        self.is_held = False

    def __enter__(self) -> Self:
        seen: dict[str, int] = {}
        give_up = time.monotonic() + EXPIRY_S + 2 * BEAT_S
        tries = 0
        while True:
            self._put()
            others = self._others()
            if not others:
                break
            self._store.delete(self._name)
            tries += 1
            is_renewed = any(seen.get(entry.name, entry.put_at_ns) != entry.put_at_ns for entry in others)
            if is_renewed or time.monotonic() > give_up:
                raise Held(self._holder_of(others[0]))
            seen |= {entry.name: entry.put_at_ns for entry in others}
            # The others are alive, or dead but not expired yet, or processes that want the sweep like this one.
            time.sleep(random.uniform(0.5, 1.5) if tries < QUICK_TRIES else BEAT_S / 2)
        self.is_held = True
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(OSError):  # it expires by itself
            if self.is_held:
                self._store.impatient().delete(self._name)

    def other(self) -> str | None:
        """Who else has an entry that is not expired by the clock of this machine, and is not known to be dead."""
        oldest_ns = time.time_ns() - EXPIRY_S * 1e9
        entries = (entry for entry in self._entries() if entry.name != self._name and entry.put_at_ns > oldest_ns)
        return next((self._holder_of(entry) for entry in entries if not self._is_dead(entry)), None)

    def _beat(self) -> None:
        store, last = self._store.impatient(0), time.monotonic()
        while not self._ended.wait(BEAT_S):
            try:
                self._put(store)
                if time.monotonic() - last > EXPIRY_S - BEAT_S and self._others():
                    self.is_held = False
                    store.delete(self._name)
                    return
                last = time.monotonic()
            except OSError:
                continue  # the sweep reports it when its own requests fail

    def _put(self, store: Objects | None = None) -> None:
        owner = {"holder": holder(), "host": socket.gethostname(), "boot": _boot_id(), "pid": os.getpid()}
        (store or self._store).write(self._name, json.dumps(owner).encode())

    def _entries(self) -> list[_Entry]:
        return [_Entry(name, put_at) for name, put_at in self._store.modified(LEASE_FOLDER).items() if put_at]

    def _others(self) -> list[_Entry]:
        """Entries of other processes that may be alive; those of dead ones are removed."""
        entries = {entry.name: entry for entry in self._entries()}
        mine = entries.pop(self._name, None)
        now_ns = mine.put_at_ns if mine else 0
        alive = []
        for entry in entries.values():
            if now_ns - entry.put_at_ns > EXPIRY_S * 1e9 or self._is_dead(entry):
                self._store.delete(entry.name)
            else:
                alive.append(entry)
        return alive

    def _is_dead(self, entry: _Entry) -> bool:
        """Whether it names a process of this machine that has ended; nothing is known of other machines."""
        owner = self._read(entry)
        if (owner.get("host"), owner.get("boot")) != (socket.gethostname(), _boot_id()):
            return False
        try:
            os.kill(int(str(owner.get("pid"))), 0)
        except ProcessLookupError:
            return True
        except (OSError, ValueError):
            return False
        return False

    def _holder_of(self, entry: _Entry) -> str:
        return str(self._read(entry).get("holder", "another process"))

    def _read(self, entry: _Entry) -> dict[str, object]:
        try:
            owner: dict[str, object] = json.loads(self._store.read(entry.name))
        except (FileNotFoundError, ValueError):
            return {}
        return owner


def _boot_id() -> str:
    """Of this machine since its start, and of this container: process numbers mean nothing outside either."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
