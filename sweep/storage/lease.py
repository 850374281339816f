"""Who holds a sweep in a bucket, where no kernel watches over it.

A process that wants the sweep puts an entry of its own and then lists the entries. It holds the sweep if no other one
is there; else it takes its own away. Of two that come at the same time both may leave, but never both stay: whichever
lists last sees the other. That rests on one promise of the store, that a list shows what was put before it; S3 and
Google Cloud Storage give it.

The holder puts its entry again every `BEAT_S`. One that was not for `EXPIRY_S` belongs to a dead process and is
removed. Its age is the difference of two times of the store's own clock, so that the clocks of the machines do not
matter. A holder that could not reach the store for so long lists again before it goes on: where it was replaced, it
holds no more. Best effort is what lies between: it may have written in the meantime, and each cell's attempt token is
what stops that writer.
"""

import json
import os
import random
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sweep.storage.store import LEASE_FOLDER, Held, holder

if TYPE_CHECKING:
    from sweep.storage.bucket import ObjectStore

BEAT_S = 5.0
EXPIRY_S = 30.0
TRIES = 3
"""Of processes that come at the same time."""


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    put_at_ns: int


class Lease:
    """The sweep, for this process, as long as the context lasts.

    Raises:
        Held: another process has it, or wants it at the same moment.
    """

    def __init__(self, store: "ObjectStore") -> None:
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
            is_renewed = any(seen.get(each.name, each.put_at_ns) != each.put_at_ns for each in others)
            if is_renewed or time.monotonic() > give_up:
                raise Held(self._holder_of(others[0]))
            seen |= {each.name: each.put_at_ns for each in others}
            # Alive, dead since less than it takes to be sure, or asking like this one.
            time.sleep(random.uniform(0.5, 1.5) if tries < TRIES else BEAT_S / 2)
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

    def is_held_by_another(self) -> bool:
        """Whether an entry is there that was put lately by the clock of this machine, by a process not known dead."""
        now_ns = time.time_ns()
        return any(now_ns - each.put_at_ns < EXPIRY_S * 1e9 and not self._is_dead(each) for each in self._entries())

    def _beat(self) -> None:
        store, last = replace(self._store, patience_s=0), time.monotonic()
        while not self._ended.wait(BEAT_S):
            try:
                self._put(store)
                if time.monotonic() - last > EXPIRY_S - BEAT_S and self._others():
                    self.is_held = False
                    store.delete(self._name)
                    return
                last = time.monotonic()
            except OSError:
                continue  # the sweep itself will say it, if it lasts

    def _put(self, store: "ObjectStore | None" = None) -> None:
        entry = {"holder": holder(), "host": socket.gethostname(), "boot": _boot_id(), "pid": os.getpid()}
        (store or self._store).write(self._name, json.dumps(entry).encode())

    def _entries(self) -> list[_Entry]:
        return [_Entry(name, put_at) for name, put_at in self._store.modified(LEASE_FOLDER).items() if put_at]

    def _others(self) -> list[_Entry]:
        """Entries of other processes that may be alive; those of dead ones are removed."""
        entries = self._entries()
        own_ns = next((each.put_at_ns for each in entries if each.name == self._name), 0)
        alive = []
        for each in entries:
            if each.name == self._name:
                continue
            if own_ns - each.put_at_ns > EXPIRY_S * 1e9 or self._is_dead(each):
                self._store.delete(each.name)
            else:
                alive.append(each)
        return alive

    def _is_dead(self, entry: _Entry) -> bool:
        """Whether it names a process of this machine that is no more; nothing is known of other machines."""
        found = self._read(entry)
        if (found.get("host"), found.get("boot")) != (socket.gethostname(), _boot_id()):
            return False
        try:
            os.kill(int(str(found.get("pid"))), 0)
        except ProcessLookupError:
            return True
        except (OSError, ValueError):
            return False
        return False

    def _holder_of(self, entry: _Entry) -> str:
        return str(self._read(entry).get("holder", "another process"))

    def _read(self, entry: _Entry) -> dict[str, object]:
        try:
            found: dict[str, object] = json.loads(self._store.read(entry.name))
        except (FileNotFoundError, ValueError):
            return {}
        return found


def _boot_id() -> str:
    """Of this machine since it was started; containers on it that share a name do not share process numbers."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
