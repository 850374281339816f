"""The drill, what it compares with, and that it ends no process but its own."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import SMALL_GRID

from sweep.cli import main
from sweep.driver import drill as fire
from sweep.driver.drill import Comparison, DrillFailed, Driver, Fault, compare
from sweep.records.record import CellFiles, read_record
from sweep.storage.store import Store
from sweep.trials.processes import Process, descendants, trials, wait_gone

CELL = SMALL_GRID.cells[0]
FILES = CellFiles(CELL.key)

pytestmark = pytest.mark.usefixtures("own_signals")


def test_equal_sweeps_do_not_differ(undisturbed: Store, sweep_copy: Store) -> None:
    found = compare(undisturbed, sweep_copy)
    assert [cell.key for cell in found] == [cell.key for cell in SMALL_GRID.cells]
    assert all(cell.differs == () and cell.undisturbed == cell.disturbed for cell in found)


def test_every_difference_is_named(undisturbed: Store, sweep_copy: Store) -> None:
    record = read_record(sweep_copy, CELL)
    last = replace(record.history[-1], val_loss=record.history[-1].val_loss * (1 + 1e-12))
    changed = replace(record, history=(*record.history[:-1], last), test_loss=(record.test_loss or 0) * (1 + 1e-12))
    sweep_copy.write(FILES.record, changed.to_bytes())
    sweep_copy.write(FILES.weights, b"other")
    sweep_copy.delete(FILES.test)
    assert compare(undisturbed, sweep_copy)[0].differs == ("losses of epochs", "test loss", "weights", "outputs")
    sweep_copy.delete(FILES.record)
    assert compare(undisturbed, sweep_copy)[0].differs == ("it is missing",)


def test_an_epoch_that_is_there_twice_differs(undisturbed: Store, sweep_copy: Store) -> None:
    record = read_record(sweep_copy, CELL)
    sweep_copy.write(FILES.record, replace(record, history=record.history[:-1]).to_bytes())
    assert compare(undisturbed, sweep_copy)[0].differs == ("losses of epochs",)


def test_a_number_that_belongs_to_another_process_now_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        (process,) = [each for each in descendants(Process.of(child.pid).parent) if each.pid == child.pid]  # type: ignore[union-attr]
        earlier = replace(process, started=process.started - 1)
        assert not earlier.is_alive
        earlier.send(signal.SIGKILL)
        assert child.poll() is None
        assert process.is_alive
        process.send(signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL
        assert wait_gone([process], 5) == []
        process.send(signal.SIGKILL)


def test_trials_are_told_from_the_rest_of_ray() -> None:
    names = [
        "ray::ResourceTrainable.train", "ray::IDLE", "raylet --python_worker_command=python /x/default_worker.py --y",
        "ray::CellTrial", "python -c CellTrial", "/x/bin/python3 -u /x/default_worker.py --y",
    ]  # fmt: skip
    processes = [Process(number, 1, 1, name) for number, name in enumerate(names)]
    assert [process.pid for process in trials(processes)] == [0, 3], "a worker that starts runs none yet"


def test_a_run_that_ends_otherwise_fails_the_drill_with_its_last_words(tmp_path: Path) -> None:
    driver = Driver(tmp_path, ["--dataset", "mnist-5k", "--depths", "0"])
    with pytest.raises(DrillFailed, match=r"a run ended with 2, not 0:\n(.|\n)*depth 0 is out of range"):
        driver.finish()
    assert driver.clear() == []


@pytest.mark.parametrize(("differs", "code"), [((), 0), (("weights",), 1)], ids=["equal", "differs"])
def test_the_exit_code_says_whether_anything_differs(
    monkeypatch: pytest.MonkeyPatch, differs: tuple[str, ...], code: int
) -> None:
    answer = [Fault("a trial", "epoch 1 of 20", 0)], [Comparison("DAE_1_5-s0", 0.1, 0.1, differs)]
    monkeypatch.setattr(fire, "drill", lambda *_: answer)
    result = CliRunner().invoke(main, ["drill"])
    assert result.exit_code == code
    assert ("differs: weights" in result.output) == bool(differs)


@pytest.mark.slow
def test_the_drill_shows_that_nothing_is_lost(
    tmp_path: Path, clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        result = CliRunner().invoke(main, ["drill"])
        assert result.exit_code == 0, result.output
        assert "3 faults, nothing was lost, every number is the same" in result.output
        assert result.output.count(" equal\n") == 4
        assert "outlived" not in result.output, "what a killed driver started ends by itself"
        assert [line[:4] for line in result.output.splitlines()[:4]] == ["1/4 ", "2/4 ", "3/4 ", "4/4 "]
        assert bystander.poll() is None
        assert [entry.name for entry in tmp_path.iterdir()] == ["home"]
        left = [each for each in descendants(Process.of(bystander.pid).parent) if each.pid != bystander.pid]  # type: ignore[union-attr]
        assert not [each for each in left if "ray" in each.command or "sweep run" in each.command]
    finally:
        bystander.communicate(b"\n")
