"""References that are computed while cells train: the same as afterwards, and never in the way."""

import os
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from synthetic import make_sweep

from dae.data import Dataset
from sweep.driver.ahead import Ahead, idle_cores
from sweep.driver.request import Request
from sweep.driver.rounds import Resolving
from sweep.evaluation.pools import Pools
from sweep.records.grid import Grid, Settings
from sweep.records.quality import load_references
from sweep.records.sweep import gather
from sweep.storage.store import Store
from sweep.trials.processes import Process, descendants

CELLS = Grid.product((1, 3), (5, 8), (0,)).cells


def ask(**changes: Any) -> Request:
    plain = Request(
        store=Store(Path("nowhere")), grid=Grid.of(CELLS), settings=Settings(), data_dir=Path("nowhere"), cpus=8,
        gpus=0, trials_per_gpu=None, wandb_mode="disabled", project=None, evaluation=True,
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.mark.parametrize(
    ("changes", "count", "cores", "idle"),
    [
        ({}, 4, 8, 4),
        ({}, 9, 8, 0),
        ({}, 0, 8, 0),
        ({"gpus": 1}, 4, 8, 6),
        ({"gpus": 4}, 4, 8, 0),
        ({"gpus": 8}, 4, 8, 0),
        ({"evaluation": False}, 4, 8, 0),
        ({"address": "auto"}, 4, 8, 0),
        ({"resolving": Resolving(max_seeds=5)}, 4, 8, 0),
        ({"resolving": Resolving(max_seeds=5), "gpus": 1}, 4, 8, 6),
    ],
)
def test_cores_idle_that_no_trial_will_use(changes: dict[str, Any], count: int, cores: int, idle: int) -> None:
    cells = Grid.product((1,), (5,), range(count)).cells if count else ()
    assert idle_cores(ask(**changes), cells, cores) == idle


# ---- pools


def test_no_executor_has_more_tasks_than_processes() -> None:
    pools, running, most = Pools(), [0, 0], [0, 0]
    let_go = Event()

    class Counting(ThreadPoolExecutor):
        def __init__(self, place: int) -> None:
            super().__init__(16)
            self.place = place

        def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            def counted() -> Any:
                running[self.place] += 1
                most[self.place] = max(most[self.place], running[self.place])
                let_go.wait(10)
                running[self.place] -= 1
                return function(*args, **kwargs)

            return super().submit(counted)

    with Counting(0) as first, Counting(1) as second:
        pools.add(first, 1)
        futures = [pools.submit(pow, base, 2) for base in range(9)]
        time.sleep(0.1)
        assert running == [1, 0]
        pools.add(second, 2)
        time.sleep(0.1)
        assert running == [1, 2]
        let_go.set()
        assert [future.result(10) for future in futures] == [base**2 for base in range(9)]
    assert most == [1, 2]


def test_an_error_is_its_tasks_alone_and_what_waits_at_the_end_is_cancelled() -> None:
    pools, let_go = Pools(), Event()
    with ThreadPoolExecutor(1) as executor:
        pools.add(executor, 1)
        with pytest.raises(ZeroDivisionError):
            pools.submit(divmod, 1, 0).result(10)
        assert pools.submit(divmod, 7, 2).result(10) == (3, 1)
        pools.submit(let_go.wait, 10)
        waiting = pools.submit(divmod, 7, 2)
        pools.close()
        let_go.set()
        assert waiting.cancelled()
        with pytest.raises(CancelledError):
            pools.submit(divmod, 7, 2)


# ---- the whole


@pytest.fixture
def sweep_store(tmp_path: Path) -> Store:
    return make_sweep(tmp_path / "study", Grid.product((1,), (5,), (0,)))


def computing() -> list[Process]:
    return [process for process in descendants(os.getpid()) if "spawn_main" in process.command]


def test_its_processes_end_with_it_whatever_they_do(sweep_store: Store, tiny: Dataset) -> None:
    sweep, told = gather(sweep_store), []
    with Ahead(sweep, tiny, sweep.manifest.grid.cells, idle=1, cores=2, warn=told.append, tell=told.append) as ahead:
        ahead.begin()
        while not computing():
            time.sleep(0.02)
    begin = time.monotonic()
    while computing():
        assert time.monotonic() - begin < 5
        time.sleep(0.02)
    assert told == [], "of its own end"


def test_nothing_begins_without_a_core(sweep_store: Store, tiny: Dataset) -> None:
    sweep = gather(sweep_store)
    with Ahead(sweep, tiny, (), idle=0, cores=2, warn=pytest.fail, tell=pytest.fail) as ahead:
        ahead.begin()
        assert ahead.finish() is None
    assert load_references(sweep) is None
