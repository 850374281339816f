"""What is said before a training that the memory may not hold."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import InProcess, Silent, request_for

from dae import data
from dae.architecture import step_bytes
from dae.config import ModelConfig
from dae.data import Dataset
from sweep.driver import memory
from sweep.driver.runner import run
from sweep.driver.signals import Signals
from sweep.records.grid import Cell, Grid, Settings
from sweep.storage.store import Store
from sweep.trials import machine

SETTINGS = Settings.usual("mnist-5k", epochs=1, batch_size=32)
CELLS = Grid.product((1, 5), (13, 5), (0,)).cells
GIB = 2**30


@pytest.fixture
def gib(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The memory of the machine, to be changed."""
    size = [64.0]
    monkeypatch.setattr(machine, "memory_bytes", lambda: int(size[0] * GIB))
    return size


@pytest.mark.parametrize(
    ("size", "batch_size", "trials", "said"),
    [
        (64, 32, 8, None),
        (2, 32, 2, None),
        (2, 32, 4, "--cpus 2 would"),
        (1, 32, 4, "--cpus 1 takes the least"),
        (4, 4096, 4, "--cpus 3 would"),
        (1, 4096, 1, "Lower batch size or width, or train on smaller images"),
    ],
)
def test_it_is_said_with_numbers(
    tiny: Dataset, gib: list[float], size: float, batch_size: int, trials: int, said: str | None
) -> None:
    gib[0] = size
    text = memory.shortage(CELLS, replace(SETTINGS, batch_size=batch_size), tiny, trials)
    if said is None:
        assert text is None
        return
    assert text is not None
    assert text.endswith(said)
    assert f"may not fit into {size}.0 GiB" in text
    assert "DAE_5_13" in text
    step = step_bytes(ModelConfig(depth=5, latent=13), batch_size)
    number = f"{step / GIB:.1f} GiB" if step > GIB / 10 else f"{step / 2**20:.0f} MiB"
    assert f"{number} of it for a training step with batches of {batch_size}" in text


def test_images_count_twice_and_trials_by_their_own_size(tiny: Dataset, gib: list[float]) -> None:
    """One large cell beside small ones is no large one on every core."""
    gib[0] = 2.9
    cells, settings = CELLS[:1] + CELLS[-1:], replace(SETTINGS, batch_size=6000)
    sizes = [machine.trial_bytes(tiny, step_bytes(settings.model(cell), 6000)) for cell in cells]
    assert sum(sizes) < machine.memory_for_trials(tiny) < 2 * max(sizes)
    assert memory.shortage(cells, settings, tiny, 2) is None
    assert memory.shortage(cells[-1:], settings, tiny, 2) is not None, "more follow that are as large"
    large = replace(tiny, train=np.broadcast_to(tiny.train[:1], (400_000, 28, 28)))
    assert memory.shortage(cells, settings, large, 2) is not None


def test_cells_of_a_search_that_fail_at_once_are_not_spoken_of_again(tiny: Dataset, gib: list[float]) -> None:
    huge, usual = Cell(depth=50_000, latent=4, seed=0), CELLS[0]
    gib[0] = 16
    assert "DAE_50000_4 may not fit" in (memory.shortage([huge, usual], SETTINGS, tiny, 2) or "")
    assert memory.shortage([huge, usual], SETTINGS, tiny, 2, is_search=True) is None
    assert memory.shortage([huge], SETTINGS, tiny, 2, is_search=True) is None
    assert "--cpus 31 would" in (memory.shortage([huge, usual], SETTINGS, tiny, 40, is_search=True) or "")


def test_a_run_says_it_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Dataset, in_process: InProcess, gib: list[float]
) -> None:
    gib[0] = 1
    monkeypatch.setattr(data, "load", lambda *_, **__: tiny)
    warnings: list[str] = []
    display = Silent()
    display.warn = lambda message: warnings.append(f"{message} after {len(in_process.rounds)} rounds")
    request = request_for(Store(tmp_path / "mnist-5k"), Grid.of(CELLS[:1]), replace(SETTINGS, batch_size=16))
    run(request, Signals(), display)
    assert len(warnings) == 1
    assert "DAE_1_13 may not fit into 1.0 GiB" in warnings[0]
    assert warnings[0].endswith("after 0 rounds")
