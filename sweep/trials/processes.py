"""Which processes a driver has started, read from /proc. Nothing here ends a process that is not among them."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sweep.trials.ray_private import TITLE, is_trial, is_worker


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told from others that get its number later by the time of its start."""

    pid: int
    parent: int
    started: int
    command: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process of this number, if there is one that lives."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except (OSError, ValueError):
            return None
        state, parent, *rest = stat.rpartition(")")[2].split()
        return None if state in "ZX" else cls(pid, int(parent), int(rest[17]), command)

    @property
    def name(self) -> str:
        """A name that no other process of this machine gets."""
        return f"{self.pid}:{self.started}"

    @property
    def is_alive(self) -> bool:
        """Whether it is still there, and not yet another one with its number."""
        now = Process.of(self.pid)
        return now is not None and now.started == self.started

    @property
    def owner(self) -> int | None:
        """The number of the user who runs it; None once it is gone."""
        with suppress(OSError):
            return Path(f"/proc/{self.pid}").stat().st_uid
        return None

    @property
    def environment(self) -> list[bytes]:
        """What it was started with, as ``NAME=value``; nothing for a process of another user."""
        try:
            return Path(f"/proc/{self.pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return []

    @property
    def files(self) -> set[str]:
        """What it has open, as /proc names it; nothing for a process of another user."""
        names = set()
        with suppress(OSError):
            for entry in Path(f"/proc/{self.pid}/fd").iterdir():
                with suppress(OSError):
                    names.add(str(entry.readlink()))
        return names

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it is still there."""
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def everyone() -> list[Process]:
    """All processes of this machine that we see."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [process for pid in pids if (process := Process.of(pid)) is not None]


def marked(mark: str) -> list[Process]:
    """Those that were started with ``mark``, as ``NAME=value``, in their environment."""
    return [process for process in everyone() if mark.encode() in process.environment]


def descendants(pid: int) -> list[Process]:
    """All processes below this one, nearest first."""
    processes, below, parents = everyone(), [], {pid}
    while parents:
        children = [process for process in processes if process.parent in parents]
        below += children
        parents = {process.pid for process in children}
    return below


def trials(processes: Iterable[Process]) -> list[Process]:
    """Those of them in which Ray runs a trial; if Ray gave none of them a title, those that could."""
    processes = list(processes)
    is_one = is_trial if any(process.command.startswith(TITLE) for process in processes) else is_worker
    return [process for process in processes if is_one(process.command)]


def wait_gone(processes: Iterable[Process], timeout_s: float) -> list[Process]:
    """Wait for them to end by themselves; those that did not."""
    deadline, left = time.monotonic() + timeout_s, list(processes)
    while (left := [process for process in left if process.is_alive]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""With these a batch system says to all processes of a job that its time ends; the driver alone has an answer."""


@contextmanager
def deaf(*others: signal.Signals) -> Iterator[None]:
    """What is started meanwhile does not hear `WARNINGS` and ``others``, of which it would die."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*WARNINGS, *others})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def belong_to_driver() -> None:
    """Call this first in a spawned process."""
    for number in (signal.SIGINT, *WARNINGS):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver ends what it started
    threading.Thread(target=_end_with_driver, daemon=True).start()


def _end_with_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)
