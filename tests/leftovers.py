"""What a test run leaves behind: a process, or a file outside its own folder, fails the run as a failed test does.

Everything that a test starts inherits a mark in its environment, by which it is found. The run has a temporary folder
of its own, in which pytest and Ray may leave theirs, and an empty home folder, which has to stay empty. Where xdist
shares the tests out, each of its workers is such a run inside the whole one, and tells it what was found.
"""

import multiprocessing.resource_tracker
import os
import shutil
import signal
import tempfile
import time
import uuid
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sweep.trials.processes import Process, everyone

MARK = "DAE_SWEEP_TEST_RUN"
WORKER = "w"
"""What the names of workers' folders begin with; short, for Ray's sockets lie in them."""

GRACE_S = 10.0
"""How long a process may take to end by itself: Ray's agents look after their raylet every few seconds."""

RUN = pytest.StashKey["Run"]()
FOUND = pytest.StashKey[list[str]]()
"""What was left behind, a line each; known at the end."""


class Run:
    """The folders and the mark of one test run."""

    def __init__(self, working_folder: Path, *, is_worker: bool, has_workers: bool) -> None:
        # A worker's holds that of the whole run, which so finds what a worker that died has left.
        self.mark = (os.environ[MARK] if is_worker else "") + uuid.uuid4().hex
        self.is_worker, self.has_workers, self.working_folder = is_worker, has_workers, working_folder
        self.before = self._names(working_folder)
        self.temporary = Path(tempfile.mkdtemp(prefix=WORKER if is_worker else "t"))  # short: Ray's sockets lie in it
        self.home = self.temporary / "home"
        self.home.mkdir()
        os.environ |= {MARK: self.mark, "HOME": str(self.home), "TMPDIR": str(self.temporary)}
        tempfile.tempdir = None  # decided anew

    @staticmethod
    def _names(folder: Path) -> set[str]:
        return {entry.name for entry in folder.iterdir() if not entry.name.startswith((".", "__pycache__"))}

    def look(self) -> list[str]:
        """Find what is left, a line each, and end what still runs."""
        deadline = time.monotonic() + GRACE_S
        while (processes := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for number in processes:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        # Folders that a library keeps as long as this very process lives.
        living = {str(peeked[2][0]) for each in weakref.finalize._registry if (peeked := each.peek()) and peeked[2]}
        names = ["home", "cache", "ray", "ray-????", "pytest-of-*"] + [f"{WORKER}*"] * self.has_workers
        allowed = {*(path for name in names for path in self.temporary.glob(name)), *map(Path, living)}
        files = [path for path in self.temporary.iterdir() if path not in allowed]
        files += self.home.iterdir()
        if not self.is_worker:  # another one may be at it
            files += [self.working_folder / name for name in self._names(self.working_folder) - self.before]
        found = [f"process {number}: {command}" for number, command in processes.items()]
        return found + [f"file {path}" for path in sorted(files)]

    def _processes(self) -> dict[int, str]:
        # Ray's give themselves titles, which are written over their environment; but their logs are open in our folder.
        mark = f"{MARK}={self.mark}".encode()  # what it begins with
        ours = [each for each in everyone() if mark in each.environment or self._uses(each)]
        found = {each.pid: each.command for each in ours if each.pid != os.getpid()}
        # Python's own, which cleans up after processes and ends with this one.
        tracker = multiprocessing.resource_tracker._resource_tracker._pid
        return {number: command for number, command in found.items() if number != tracker}

    def _uses(self, process: Process) -> bool:
        with suppress(OSError):
            for file in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(OSError):
                    if file.readlink().is_relative_to(self.temporary):
                        return True
        return False


def pytest_configure(config: pytest.Config) -> None:
    is_worker = hasattr(config, "workerinput")
    if is_worker:
        config.option.basetemp = None  # it was given one outside of its own folder
    has_workers = bool(config.getoption("numprocesses", None))
    config.stash[RUN] = Run(Path.cwd(), is_worker=is_worker, has_workers=has_workers)
    config.stash[FOUND] = []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    found = node.config.stash[FOUND]
    found += [line for line in getattr(node, "workeroutput", {}).get(MARK, []) if line not in found]


@pytest.hookimpl(trylast=True)  # after the last fixtures have gone
def pytest_sessionfinish(session: pytest.Session) -> None:
    run, found = session.config.stash[RUN], session.config.stash[FOUND]
    found += [line for line in run.look() if line not in found]
    if found and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[MARK] = found
    if session.exitstatus == pytest.ExitCode.OK:
        shutil.rmtree(run.temporary, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if found := config.stash[FOUND]:
        terminalreporter.section("left behind", red=True)
        for line in found:
            terminalreporter.line(line)
