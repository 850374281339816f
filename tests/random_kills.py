"""Kill trials and drivers of one sweep at random until it is complete; it must equal one that was left in peace.

Run by hand: ``python -m tests.random_kills --kills 50 --seed 1``. Takes some ten minutes on two cores. With
``--search 40`` it is a search of 40 trials, one at a time: proposals and prunings must be the same too. Options of the
command itself may follow after ``--``, such as ``-- --dataset photos --patch 32``.
"""

import argparse
import random
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sweep.driver import drill
from sweep.driver.drill import Driver, compare, epochs, records
from sweep.records.record import CellFiles
from sweep.records.search import Proposal
from sweep.records.sweep import gather
from sweep.storage.store import Store
from sweep.trials.processes import Process
from tests.tracked import epochs_by_cell

START_S = 15.0
"""A driver is killed up to so long after its start: Ray's own start, declaring and first epochs lie within."""


@dataclass
class Siege:
    """One sweep under fire.

    Attributes:
        zombies: trials that were stopped before their driver was killed, to wake up beside the next one.
        outlived: how many of these were alive when they were woken.
    """

    storage: Path
    options: list[str]
    program: str
    dice: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    zombies: list[Process] = field(default_factory=list)
    outlived: int = 0
    drivers: int = 0
    leftovers: int = 0

    def start(self) -> Driver:
        self.drivers += 1
        return Driver(self.storage, self.options, program=self.program)

    def run(self, num_kills: int) -> Store:
        """Kill so often, or until the sweep is complete; then let it end."""
        while sum(self.kills.values()) < num_kills:
            driver = self.start()
            try:
                self.harass(driver, num_kills)
            finally:
                self.leftovers += len(driver.clear())
            if driver.process.returncode == 0:
                print(f"complete after {sum(self.kills.values())} kills")
                return driver.store
        driver = self.start()
        try:
            driver.wait_until(lambda: bool(driver.trials), "a trial")
            self.wake()
            driver.finish()
        finally:
            self.leftovers += len(driver.clear())
        return driver.store

    def harass(self, driver: Driver, num_kills: int) -> None:
        """Up to eight trials are killed, then the driver, unless it ends before."""
        if self.dice.random() < 0.15:
            time.sleep(self.dice.uniform(0, START_S))
            self.kill_driver(driver)
            return
        for _ in range(min(self.dice.randint(2, 8), num_kills - sum(self.kills.values()) - 1)):
            if not self.wait_for_work(driver):
                return
            self.wake()
            time.sleep(self.dice.uniform(0, 1.5))
            if found := driver.trials:
                self.dice.choice(found).send(signal.SIGKILL)
                self.note(driver, "trial")
        if self.wait_for_work(driver):
            time.sleep(self.dice.uniform(0, 1.5))
            self.kill_driver(driver)

    def wait_for_work(self, driver: Driver) -> bool:
        """Wait for a trial, mostly for an epoch too: a sweep that is killed whenever it starts never ends."""
        before = epochs(driver.store)
        if self.dice.random() < 0.25:
            return driver.wait_until(lambda: bool(driver.trials), "a trial")
        return driver.wait_until(lambda: bool(driver.trials) and epochs(driver.store) > before, "an epoch")

    def kill_driver(self, driver: Driver) -> None:
        if (found := driver.trials) and self.dice.random() < 0.5:
            zombie = self.dice.choice(found)
            zombie.send(signal.SIGSTOP)
            self.zombies.append(zombie)
            # Not among those that `clear` ends: it is to wake up beside the next driver.
            driver.spared.add((zombie.pid, zombie.started))
            self.note(driver, "driver, its writer stopped")
        else:
            self.note(driver, "driver")
        self.leftovers += len(driver.kill())

    def wake(self) -> None:
        for zombie in self.zombies:
            self.outlived += zombie.is_alive
            zombie.send(signal.SIGCONT)
        self.zombies.clear()

    def note(self, driver: Driver, what: str) -> None:
        self.kills[what] += 1
        number = sum(self.kills.values())
        print(f"kill {number:3}  {what:<28} with {epochs(driver.store):4} epochs on disk", flush=True)


def trained(store: Store) -> int:
    """Epochs that were trained, those that were lost and trained again included."""
    logs = (store.path(CellFiles(key).log).read_text(errors="replace") for key in records(store))
    return sum(line.split(" ", 1)[-1].startswith("epoch ") for log in logs for line in log.splitlines())


def proposals(store: Store) -> dict[str, Proposal]:
    """What a search proposed, by cell, with the order in which epochs arrived."""
    return dict(gather(store).proposals)


def check_nothing_doubled(store: Store, trials: int) -> None:
    """Every number was proposed once, every epoch arrived once."""
    found = list(proposals(store).values())
    assert [proposal.number for proposal in found] == list(range(trials))
    places = sorted(place for proposal in found for place in proposal.arrivals)
    assert places == list(range(len(places)))
    ended = [records(store)[key] for key in proposals(store)]
    assert len(places) == sum(len(record.history) for record in ended)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--search", type=int, metavar="TRIALS", help="a search, not a grid")
    parser.add_argument("--at-a-time", type=int, default=1, help="trials of a search")
    parser.add_argument("options", nargs="*", help="of the command, after --")
    asked = parser.parse_args()
    options = ["--name", "mnist-5k", "--no-report"]
    program = "run" if asked.search is None else "search"
    if program == "run":
        options += ["--depths", "1,3", "--latents", "13,5"]
    else:
        space = ("lr=log:1e-3..2e-2", "width=4..16", "latent=4..13", "depth=1..3")
        options += ["--trials", str(asked.search), "--cpus", str(asked.at_a_time)]
        options += ["--gpus", "0", "--scheduler", "asha", *(word for values in space for word in ("--space", values))]
    options += ["--epochs", str(asked.epochs), "--wandb", "offline", "--max-retries", "1000"]
    options += asked.options or ["--dataset", "mnist-5k", "--train-fraction", "0.1"]
    begin = time.monotonic()
    drill.PATIENCE_S = 1800  # its own sweep is a tiny one
    with tempfile.TemporaryDirectory(prefix="dae-sweep-kills-") as folder:
        peace = Driver(Path(folder) / "peace", options, program=program)
        try:
            peace.finish()
        finally:
            peace.clear()
        print(f"undisturbed: {time.monotonic() - begin:.0f} s", flush=True)
        siege = Siege(Path(folder) / "siege", options, program, random.Random(asked.seed))
        store = siege.run(asked.kills)
        cells, tracked = compare(peace.store, store), epochs_by_cell(store.root)
        bad = 0
        if program == "search":
            same_proposals = proposals(peace.store) == proposals(store)
            bad += not same_proposals and asked.at_a_time == 1
            print(f"proposals, order of epochs and prunings: {'identical' if same_proposals else 'DIFFERENT'}")
            check_nothing_doubled(store, asked.search)
            if asked.at_a_time > 1:  # what is proposed depends on which of two ends first
                cells = compare(store, store)
        print(f"\n{'cell':<14} {'test loss':<22} {'record, weights, outputs':<26} {'W&B':<24} attempts")
        for cell in cells:
            runs = tracked.get(cell.key, [])
            due = [[epoch.epoch for epoch in records(store)[cell.key].history]]
            wandb = "every epoch once" if runs == due else f"WRONG: {[len(run) for run in runs]}"
            bad += bool(cell.differs) or runs != due
            same = "DIFFER: " + ", ".join(cell.differs) if cell.differs else "bit-identical"
            attempts = len(records(store)[cell.key].attempts)
            print(f"{cell.key:<14} {cell.disturbed!s:<22} {same:<26} {wandb:<24} {attempts}")
        needed = epochs(store)
        again = trained(store) - needed
        print(
            f"\n{sum(siege.kills.values())} kills ({', '.join(f'{n} {what}' for what, n in siege.kills.items())}), "
            f"{siege.drivers} drivers, {siege.outlived} writers outlived theirs; {siege.leftovers} processes of Ray's "
            f"had to be ended\n{again} epochs of {needed} were trained again; "
            f"{time.monotonic() - begin:.0f} s"
        )
    return 1 if bad or not cells else 0


if __name__ == "__main__":
    raise SystemExit(main())
