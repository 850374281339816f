"""A fire drill: kill a tiny sweep's trials and drivers, let the same command go on, compare with one left in peace.

Everything goes through the command line, in processes of the drill's own, and through SIGKILL.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweep.records.record import CellFiles, Record
from sweep.records.sweep import gather
from sweep.storage.opening import open_store
from sweep.storage.sealing import digest
from sweep.storage.store import Store
from sweep.trials.processes import Process, descendants, trials, wait_gone

NAME = "mnist-5k"
GRID = ("--dataset", NAME, "--depths", "1,3", "--latents", "13,5", "--epochs", "5", "--train-fraction", "0.3")
PATIENCE_S = 180.0
"""How long a driver may take to get where it is to be killed."""
GRACE_S = 8.0
"""How long what a killed driver leaves behind may take to end; its watchdog waits less."""

Tell = Callable[[str], None]


class DrillFailed(Exception):
    """A command of the drill did not do what it had to; the message holds its last words."""


class Driver:
    """A `dae-sweep run` in a process of its own.

    Args:
        storage: where its sweep lives; what it prints goes to a log beside it.
        options: what it is asked for.
        program: `run`, or another command that trains.
    """

    def __init__(
        self,
        storage: Path,
        options: Sequence[str],
        environment: dict[str, str] | None = None,
        program: str = "run",
    ) -> None:
        storage.mkdir(parents=True, exist_ok=True)
        self.store = open_store(storage, NAME)
        self.log = storage / "driver.log"
        command = [sys.executable, "-P", "-m", "sweep", program, "--storage", str(storage), *options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | (environment or {}),
            )
        self._seen: dict[tuple[int, int], Process] = {}
        self.spared: set[tuple[int, int]] = set()
        """Processes, by number and start, that `clear` leaves alone."""

    @property
    def below(self) -> list[Process]:
        """The processes that it and its children have started and that live; nearest first."""
        processes = descendants(self.process.pid)
        self._seen |= {(process.pid, process.started): process for process in processes}
        return processes

    @property
    def trials(self) -> list[Process]:
        """Those in which trials run."""
        return trials(self.below)

    def wait_until(self, condition: Callable[[], bool], what: str) -> bool:
        """Wait for a condition; whether it came true while the driver still ran.

        Raises:
            DrillFailed: it took too long.
        """
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if condition():
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.02)
        raise DrillFailed(f"{what} did not come within {PATIENCE_S:.0f} s:\n{self.last_words}")

    def finish(self, expected: int = 0) -> None:
        """Wait for its end.

        Raises:
            DrillFailed: it took too long, or ended otherwise than expected.
        """
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise DrillFailed(f"a run did not end within {PATIENCE_S:.0f} s:\n{self.last_words}") from None
        if code != expected:
            raise DrillFailed(f"a run ended with {code}, not {expected}:\n{self.last_words}")

    def kill(self) -> list[Process]:
        """End it by SIGKILL; returns what it left behind and had to be ended after it."""
        _ = self.below
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return self.clear()

    def clear(self) -> list[Process]:
        """End what is left of it, however it ended; returns that."""
        if self.process.poll() is None:
            return self.kill()
        left = wait_gone((process for name, process in self._seen.items() if name not in self.spared), GRACE_S)
        for process in left:
            process.send(signal.SIGKILL)
        return left

    @property
    def last_words(self) -> str:
        """The end of what it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])


def records(store: Store) -> dict[str, Record]:
    """The readable records of a sweep; empty before it is declared."""
    try:
        return dict(gather(store).records)
    except FileNotFoundError:
        return {}


def epochs(store: Store) -> int:
    """Finished epochs of all cells."""
    return sum(len(record.history) for record in records(store).values())


@dataclass(frozen=True, slots=True)
class Comparison:
    """A cell with and without faults; ``differs`` names what is not the same, to the bit."""

    key: str
    undisturbed: float | None
    disturbed: float | None
    differs: tuple[str, ...]


def compare(undisturbed: Store, disturbed: Store) -> list[Comparison]:
    """Every cell of the first sweep with the same one of the second."""
    ours, theirs = records(undisturbed), records(disturbed)
    comparisons = []
    for key, record in ours.items():
        other = theirs.get(key)
        differs = ["it is missing"] if other is None else list(_differences(undisturbed, disturbed, record, other))
        comparisons.append(
            Comparison(key, record.test_loss, None if other is None else other.test_loss, tuple(differs))
        )
    return comparisons


def _differences(undisturbed: Store, disturbed: Store, ours: Record, theirs: Record) -> list[str]:
    def losses(record: Record) -> list[tuple[int, float, float]]:
        return [(epoch.epoch, epoch.train_loss, epoch.val_loss) for epoch in record.history]

    files = CellFiles(ours.key)
    differs = [] if ours.status is theirs.status else [f"it is {theirs.status}"]
    differs += [] if losses(ours) == losses(theirs) else ["losses of epochs"]
    differs += [] if ours.test_loss == theirs.test_loss else ["test loss"]
    for what, name in (("weights", files.weights), ("outputs", files.test)):
        here, there = (digest(store.read(name)) if store.exists(name) else None for store in (undisturbed, disturbed))
        differs += [] if here == there else [what]
    return differs


@dataclass(frozen=True, slots=True)
class Fault:
    """What was killed, how far the sweep was, and how many processes had to be ended after it."""

    what: str
    at: str
    left: int


def drill(folder: Path, tell: Tell) -> tuple[list[Fault], list[Comparison]]:
    """The whole drill in an empty folder.

    Raises:
        DrillFailed: a run did not do what it had to.
    """
    drivers: list[Driver] = []

    def start(storage: str) -> Driver:
        drivers.append(Driver(folder / storage, [*GRID, "--wandb", "offline", "--no-report"]))
        return drivers[-1]

    try:
        tell("1/4  a sweep of 4 cells, left in peace")
        peaceful = start("undisturbed")
        peaceful.finish()
        tell("2/4  the same sweep: a trial is killed, then the driver")
        first = start("disturbed")
        faults = [_kill_trial(first), _kill_driver(first, 6)]
        tell("3/4  the same command again: the driver is killed once more")
        second = start("disturbed")
        faults.append(_kill_driver(second, epochs(second.store) + 4))
        tell("4/4  the same command again, to the end")
        last = start("disturbed")
        last.finish()
        return faults, compare(peaceful.store, last.store)
    finally:
        for driver in drivers:
            driver.clear()


def _kill_trial(driver: Driver) -> Fault:
    trials: list[Process] = []

    def is_at_work() -> bool:
        trials[:] = driver.trials
        return bool(trials) and epochs(driver.store) >= 1

    if not driver.wait_until(is_at_work, "the first epoch"):
        raise DrillFailed(f"the run ended before a trial could be killed:\n{driver.last_words}")
    at = epochs(driver.store)
    trials[0].send(signal.SIGKILL)
    return Fault("a trial", f"epoch {at} of 20", 0)


def _kill_driver(driver: Driver, at: int) -> Fault:
    if not driver.wait_until(lambda: epochs(driver.store) >= at, f"epoch {at}"):
        raise DrillFailed(f"the run ended before it could be killed:\n{driver.last_words}")
    reached = epochs(driver.store)
    return Fault("the driver", f"epoch {reached} of 20", len(driver.kill()))
