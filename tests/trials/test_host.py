"""Trials of a GPU whose work is done by threads of one process: ``dae-sweep run --gpus 1``, but on the CPU.

Everything is real but the device, so the bits of every cell must be those of cells trained one after the other,
whatever dies meanwhile.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL

import pytest
from conftest import make_undisturbed

from sweep.driver.drill import compare
from sweep.records.grid import Grid, Settings
from sweep.records.record import CellFiles, Record
from sweep.records.sweep import gather
from sweep.storage.store import Store
from sweep.trials.processes import Process, descendants, marked, trials, wait_gone
from sweep.trials.watchdog import MARK

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean_environment")]

GRID = Grid.product((1, 3), (5, 8), (0,))
SETTINGS = Settings.usual("mnist-5k", epochs=40, train_fraction=0.1, batch_size=32)
OPTIONS = [
    "run", "--dataset", "mnist-5k", "--depths", "1,3", "--latents", "5,8", "--train-fraction", "0.1",
    "--gpus", "1", "--cpus", "2", "--wandb", "disabled", "--no-report",
]  # fmt: skip

DRIVER = """
import sys
from sweep import cli
from sweep.driver import training
from sweep.trials import machine
job = training._job
training._job = lambda sweep, device, share: job(sweep, "cpu", share)
machine.gpu_count = lambda: 2
sys.argv[0] = "dae-sweep"
cli.main()
"""


def start(storage: Path, *options: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    del environment["CUDA_VISIBLE_DEVICES"]  # Ray takes an empty one at its word
    command = [sys.executable, "-c", DRIVER, *OPTIONS, "--storage", str(storage), *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def complete(storage: Path, kill: Callable[[list[Process]], list[Process]] | None = None, gpus: int = 1) -> str:
    """What a run of two trials at a time prints; one of its processes is killed once two cells are under way."""
    driver = start(storage, "--epochs", str(SETTINGS.epochs), "--gpus", str(gpus), "--trials-per-gpu", str(2 // gpus))
    if kill is not None:
        while sum(len(record.history) > 1 for record in records(storage)) < 2:
            assert driver.poll() is None
            time.sleep(0.02)
        kill(descendants(driver.pid))[0].send(SIGKILL)
    said, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, said
    return said


def records(storage: Path) -> list[Record]:
    try:
        return list(gather(Store(storage / "mnist-5k")).records.values())
    except FileNotFoundError:
        return []


def hosts(processes: list[Process]) -> list[Process]:
    return [each for each in processes if "spawn_main" in each.command]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("truth") / "mnist-5k")
    make_undisturbed(store, GRID, SETTINGS)
    return store


def assert_true(storage: Path, truth: Store) -> None:
    assert [cell.differs for cell in compare(truth, Store(storage / "mnist-5k"))] == [()] * len(GRID.cells)


@pytest.mark.parametrize("gpus", [1, 2])
def test_cells_trained_side_by_side_have_the_bits_of_cells_trained_alone(
    tmp_path: Path, truth: Store, gpus: int
) -> None:
    complete(tmp_path, gpus=gpus)
    assert_true(tmp_path, truth)
    store = Store(tmp_path / "mnist-5k")
    for cell in GRID.cells:
        lines = store.read(CellFiles(cell.key).log).decode().splitlines()
        assert len(lines) == SETTINGS.epochs + 1, "its own log, with nothing of its neighbour"
        assert f"{cell.key} begins after epoch 0 on cpu" in lines[0]
        assert all(f" epoch {number}: " in line for number, line in enumerate(lines[1:], start=1))


def test_cells_lost_with_their_host_go_on_at_the_next_one(tmp_path: Path, truth: Store) -> None:
    said = complete(tmp_path, hosts)
    assert_true(tmp_path, truth)
    lost = [record for record in records(tmp_path) if len(record.attempts) > 1]
    assert 1 <= len(lost) <= 2, "those that it was at"
    for record in lost:
        assert len(record.attempts) == 2
        assert "the host of this GPU's trials ended" in (record.attempts[0].reason or "")
        assert f"{record.key}  its process was lost" in said


def test_a_host_that_dies_as_it_starts_is_replaced_at_once(tmp_path: Path) -> None:
    driver = start(tmp_path, "--epochs", "1", "--trials-per-gpu", "2")
    while not (found := hosts(descendants(driver.pid))):
        time.sleep(0.01)
    found[0].send(SIGKILL)
    said, _ = driver.communicate(timeout=50)
    assert driver.returncode == 0, said
    assert "4 of 4 completed" in said


def test_a_trial_that_dies_costs_its_neighbour_nothing(tmp_path: Path, truth: Store) -> None:
    complete(tmp_path, trials)
    assert_true(tmp_path, truth)
    assert sorted(len(record.attempts) for record in records(tmp_path)) == [1, 1, 1, 2]


def test_a_host_ends_with_its_driver(tmp_path: Path) -> None:
    driver = start(tmp_path, "--epochs", "4000")
    while not any(record.history for record in records(tmp_path)):
        assert driver.poll() is None
        time.sleep(0.02)
    (host,) = hosts(descendants(driver.pid))
    process = Process.of(driver.pid)
    assert process is not None
    driver.kill()
    driver.communicate()
    assert wait_gone([host], 10) == []
    assert wait_gone(marked(f"{MARK}={process.name}"), 15) == []


def test_how_many_trials_a_gpu_takes_is_measured_at_its_host(tmp_path: Path) -> None:
    driver = start(tmp_path, "--epochs", "12", "--trials-per-gpu", "auto")
    said, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, said
    assert "mnist-5k: measuring how many trials a GPU should take" in said
    assert "3 a GPU; the sweep is too short to measure more (epochs a second by trials on a GPU: 1: " in said
    assert len(records(tmp_path)) == len(GRID.cells)
