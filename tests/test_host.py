"""Trials of a GPU whose work is done by threads of one process. Real Ray; where there is no GPU, its GPU is a number.

On a CPU the bits of every cell must be those of cells trained one after the other, whatever dies meanwhile.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_undisturbed

from sweep.drill import compare
from sweep.grid import Grid, Settings
from sweep.records import CellFiles, gather
from sweep.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean_environment")]

GRID = Grid.product((1, 3), (5, 8), (0,))
SETTINGS = Settings(dataset="mnist-5k", epochs=12, train_fraction=0.1, batch_size=32)

SCRIPT = r"""
import os, sys, threading, time
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/tests"]
os.environ.pop("CUDA_VISIBLE_DEVICES", None)
from signal import SIGKILL
from sweep import host, session, tuning  # before Ray
from rich.console import Console
from conftest import request_for
from dae import data
from sweep.declaration import declare
from sweep.desk import Desk
from sweep.job import Job
from sweep.processes import descendants, trials
from sweep.progress import Progress
from sweep.records import gather
from sweep.store import Store
from sweep.tracking import Tracker
from test_host import GRID, SETTINGS

root = Path(sys.argv[1])
dataset = data.load(SETTINGS.dataset, Path("nowhere"), SETTINGS.train_fraction)
resources = session.Resources(cpus=2, gpus=1, trials_per_gpu=2)

def disturb(store, choose):
    while sum(len(record.history) > 1 for record in gather(store).records.values()) < 2:
        time.sleep(0.02)
    choose(descendants(os.getpid()))[0].send(SIGKILL)

def hosts_of(processes):
    return [each for each in processes if "spawn_main" in each.command]

def sweep(name, choose=None):
    store = Store(root / name)
    job = Job(store, SETTINGS, "cpu", 1.0, None)
    declared = declare(request_for(store, GRID, SETTINGS), dataset, print)
    with host.hosting(1, job, dataset, [GRID.cells[0]]) as hosts:
        if choose is not None:
            threading.Thread(target=disturb, args=(store, choose), daemon=True).start()
        progress = Progress(Console(), GRID.cells, {}, SETTINGS, 2, quiet=True)
        tracker = Tracker(declared.manifest, root, mode="disabled", project="", warn=print)
        desk = Desk(declared, progress, tracker, print)
        tuning.run_trials(list(GRID.cells), job, dataset, resources, desk, lambda: False, max_retries=3, hosts=hosts)
        print(name, len(hosts_of(descendants(os.getpid()))), flush=True)

with session.local_cluster(resources, 2**20, lambda: None):
    sweep("calm")
    sweep("host_killed", hosts_of)
    sweep("trial_killed", trials)
assert not hosts_of(descendants(os.getpid()))
"""


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("truth") / "mnist-5k")
    make_undisturbed(store, GRID, SETTINGS)
    return store


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sweeps: left alone, its host killed, a trial's own process killed."""
    folder = tmp_path_factory.mktemp("hosted")
    command = [sys.executable, "-c", SCRIPT, str(folder), str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("calm", "host", "trial"))] == [
        "1", "1", "1",
    ]  # fmt: skip
    return folder


@pytest.mark.parametrize("name", ["calm", "host_killed", "trial_killed"])
def test_cells_trained_side_by_side_have_the_bits_of_cells_trained_alone(name: str, hosted: Path, truth: Store) -> None:
    assert [cell.differs for cell in compare(truth, Store(hosted / name))] == [()] * len(GRID.cells)


def test_each_cell_has_its_own_log(hosted: Path) -> None:
    store = Store(hosted / "calm")
    for cell in GRID.cells:
        lines = store.read(CellFiles(cell.key).log).decode().splitlines()
        assert len(lines) == SETTINGS.epochs + 1
        assert f"{cell.key} begins after epoch 0 on cpu" in lines[0]
        assert all(f" epoch {number}: " in line for number, line in enumerate(lines[1:], start=1))


def test_who_was_lost_with_a_host_says_so_and_goes_on_where_it_was(hosted: Path) -> None:
    attempts = {key: record.attempts for key, record in gather(Store(hosted / "host_killed")).records.items()}
    lost = [each for each in attempts.values() if len(each) > 1]
    assert 1 <= len(lost) <= 2, "the two that it was at"
    assert all("the host of this GPU's trials ended" in (each[0].reason or "") for each in lost)
    assert all(len(each) == 2 for each in lost)
    attempts = {key: record.attempts for key, record in gather(Store(hosted / "trial_killed")).records.items()}
    assert sorted(map(len, attempts.values())) == [1, 1, 1, 2], "its neighbour notices nothing"
