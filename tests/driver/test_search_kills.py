"""A search on Ray whose driver is killed; `test_search` ends one at every write, without Ray."""

import random
from pathlib import Path

import pytest

from sweep.driver.drill import Driver, compare, epochs
from sweep.records.sweep import gather
from sweep.storage.store import Store

pytest.importorskip("optuna")
pytestmark = pytest.mark.slow

SEARCH = ("--dataset", "mnist-5k", "--name", "mnist-5k", "--train-fraction", "0.1", "--epochs", "4", "--trials", "10",
          "--space", "lr=log:1e-3..2e-2", "--space", "latent=4..13", "--space", "depth=1", "--scheduler", "asha",
          "--finalists", "1", "--seeds", "1", "--cpus", "1", "--gpus", "0", "--wandb", "disabled",
          "--no-report")  # fmt: skip


def test_a_search_whose_driver_is_killed_is_the_same_search(tmp_path: Path) -> None:
    dice, drivers = random.Random(1), list[Driver]()

    def start(storage: str) -> Driver:
        drivers.append(Driver(tmp_path / storage, SEARCH, program="search"))
        return drivers[-1]

    try:
        peace = start("peace")
        peace.finish()
        for _ in range(2):
            driver = start("war")
            due = epochs(driver.store) + dice.randint(1, 6)
            assert driver.wait_until(lambda driver=driver, due=due: epochs(driver.store) >= due, f"epoch {due}")  # type: ignore[misc]
            driver.kill()
        last = start("war")
        last.finish()
    finally:
        for driver in drivers:
            driver.clear()
    assert [cell.differs for cell in compare(peace.store, last.store)] == [()] * 11
    assert proposals(peace.store) == proposals(last.store)


def proposals(store: Store) -> object:
    return list(gather(store).proposals.items())
