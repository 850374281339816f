"""Whole sweeps as a user gives them: real digits, real Ray, real W&B files, real kills.

Each Ray session takes some seconds to start, so there are few; what can be seen without Ray is in `test_runner.py` and
`test_cli.py`. The bits that every history has to end with are those of the same cells trained without Ray.
"""

import csv
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tracked
from conftest import SMALL, SMALL_GRID, make_undisturbed
from tracked import Run

from sweep.records.grid import Cell, Grid, Settings
from sweep.records.record import CellFiles, Record, Status, read_record, read_verified
from sweep.records.sweep import gather
from sweep.storage.store import Store
from sweep.trials import ray_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SMALL_RUN = ("run", "--dataset", "mnist-5k", "--train-fraction", "0.1", "--epochs", "3", "--depths", "1,3",
             "--latents", "5,8", "--cpus", "2", "--gpus", "0")  # fmt: skip
"""The command whose sweep is `SMALL_GRID` under `SMALL`."""

LONG = Settings.usual("mnist-5k", train_fraction=0.5, epochs=24, batch_size=32)
LONG_GRID = Grid.product((3,), (5, 8), (0,))
LONG_RUN = ("run", "--dataset", "mnist-5k", "--train-fraction", "0.5", "--epochs", "24", "--depths", "3",
            "--latents", "5,8", "--cpus", "2", "--gpus", "0", "--no-report")  # fmt: skip
"""The command whose sweep is `LONG_GRID` under `LONG`: some seconds in which to interrupt it."""

MARK = "DAE_SWEEP_TEST"


class Command:
    """`dae-sweep` in a process group of its own, with an empty home folder and an empty working folder.

    Everything it starts inherits a mark in its environment, by which it is found.
    """

    def __init__(self, folder: Path, *words: object, program: Path = ROOT, **variables: str) -> None:
        self.home, self.cwd, self.mark = folder / "home", folder / "cwd", uuid.uuid4().hex
        # Ray's sockets need a short path.
        self.temporary = Path(tempfile.gettempdir()) / f"d{secrets.token_hex(2)}"
        for place in (self.home, self.cwd, self.temporary):
            place.mkdir(parents=True, exist_ok=True)
        foreign = ("RAY_", "TUNE_", "WANDB", "XDG_", "COV", "PYTEST", "NETRC", "MPL", "TMP")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environment |= {"HOME": str(self.home), "TMPDIR": str(self.temporary), MARK: self.mark}
        environment |= {"PYTHONPATH": str(program), "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment |= variables
        self.output: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sweep", *map(str, words)],
            cwd=self.cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def read_until(self, pattern: str, timeout_s: float = 300) -> str:
        """Read lines until one matches; that line."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not select.select([self.process.stdout], [], [], 1)[0]:
                continue
            line = self.process.stdout.readline()
            assert line, f"it ended before {pattern!r}:\n{self.text}"
            self.output.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError(f"{pattern!r} did not come within {timeout_s} s:\n{self.text}")

    def wait(self, timeout_s: float = 300) -> int:
        """Its exit code."""
        self.output.append(self.process.communicate(timeout=timeout_s)[0])
        return self.process.returncode

    @property
    def text(self) -> str:
        return "".join(self.output)

    def processes(self) -> dict[int, str]:
        """What runs of it and of all that it started, by process id: the command line or Ray's title."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()
            except OSError:
                continue
        return found

    def left_after(self, timeout_s: float) -> dict[int, str]:
        """Processes that are still there after so long; waits no longer than it must."""
        deadline = time.monotonic() + timeout_s
        while (found := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def clean_up(self) -> None:
        """End whatever it started, by its id."""
        for _ in range(3):
            for number in self.processes():
                try:
                    os.kill(number, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.1)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        shutil.rmtree(self.temporary, ignore_errors=True)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Starts commands; ends what they left."""
    commands: list[Command] = []

    def start(*words: object, **named: Any) -> Command:
        commands.append(Command(tmp_path, *words, **named))
        return commands[-1]

    yield start
    for command in commands:
        command.clean_up()


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_same_bits(store: Store, undisturbed: Store, cells: tuple[Cell, ...]) -> None:
    """The cells are completed, sound, and to the last bit what they are without Ray and without disturbance."""
    for cell in cells:
        files, found, expected = CellFiles(cell.key), read_record(store, cell), read_record(undisturbed, cell)
        assert found.status is Status.COMPLETED, found.error
        assert read_verified(store, files.weights, found.digests) == undisturbed.read(files.weights), cell.key
        assert read_verified(store, files.test, found.digests)
        assert found.test_loss == expected.test_loss
        assert [replace(epoch, seconds=0) for epoch in found.history] == [
            replace(epoch, seconds=0) for epoch in expected.history
        ]
        assert not store.exists(files.checkpoint)


def logged_epochs(run: Run) -> list[tuple[int, float, float]]:
    return [(row["epoch"], row["train/loss"], row["val/loss"]) for row in run.rows if "epoch" in row]


def epochs_of(record: Record) -> list[tuple[int, float, float]]:
    return [(epoch.epoch, epoch.train_loss, epoch.val_loss) for epoch in record.history]


@pytest.fixture(scope="session")
def long_undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("long") / "mnist-5k")
    make_undisturbed(store, LONG_GRID, LONG)
    return store


# ---- a sweep that nothing disturbs


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Command, Store]]:
    """The command that made a sweep, and the sweep. Not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("finished")
    words = [*SMALL_RUN, "--storage", folder / "sweeps", "--wandb", "offline"]
    command = Command(folder, *words, WANDB_API_KEY=tracked.KEY, **{ray_folder.KEEP: "1"})
    try:
        code = command.wait()
        assert code == 0, command.text
        yield command, Store(folder / "sweeps" / "mnist-5k")
    finally:
        command.clean_up()


@pytest.fixture
def copy(finished: tuple[Command, Store], tmp_path: Path) -> Store:
    """The finished sweep, to do anything with, below ``tmp_path / "sweeps"``."""
    shutil.copytree(finished[1].root, tmp_path / "sweeps" / "mnist-5k", symlinks=True)
    return Store(tmp_path / "sweeps" / "mnist-5k")


def test_every_cell_is_completed_with_the_bits_it_has_without_ray(
    finished: tuple[Command, Store], undisturbed: Store
) -> None:
    _, store = finished
    sweep = gather(store)
    assert (sweep.manifest.grid, sweep.manifest.settings, sweep.damaged) == (SMALL_GRID, SMALL, {})
    assert_same_bits(store, undisturbed, SMALL_GRID.cells)
    assert all(len(record.attempts) == 1 for record in sweep.completed)


def test_it_says_every_epoch_once_and_then_the_results(finished: tuple[Command, Store]) -> None:
    command, store = finished
    lines = command.text.splitlines()
    for record in gather(store).completed:
        told = [line.split("  ")[1] for line in lines if line.startswith(f"{record.key}  ")]
        assert told == ["epoch 1/3", "epoch 2/3", "epoch 3/3", f"completed, test loss {record.test_loss:.5f}"]
    assert "4 of 4 completed in " in command.text
    assert f"Report: {store.path('report/index.html')}" in command.text
    assert f"W&B runs: {store.path('wandb')}" in command.text
    assert "Warning" not in command.text


def test_the_report_is_there_and_its_tables_are_the_records(finished: tuple[Command, Store]) -> None:
    _, store = finished
    names = {path.name for path in store.path("report").iterdir()}
    assert {"index.html", "results.csv", "history.csv"} < names
    assert {path.removesuffix(".png") for path in names if path.endswith(".png")} == {
        "corruption", "cost", "curves", "denoised", "effects", "example", "test_loss",
    }  # fmt: skip
    records = gather(store).records
    with store.path("report/results.csv").open(newline="") as file:
        results = {row["key"]: row for row in csv.DictReader(file)}
    assert list(results) == [cell.key for cell in SMALL_GRID.cells]
    for key, row in results.items():
        assert (row["status"], float(row["test_loss"])) == ("completed", records[key].test_loss)
        assert int(row["parameters"]) == records[key].parameters
    with store.path("report/history.csv").open(newline="") as file:
        history = list(csv.DictReader(file))
    for key, record in records.items():
        rows = [row for row in history if row["key"] == key]
        assert [(int(row["epoch"]), float(row["train_loss"]), float(row["val_loss"])) for row in rows] == epochs_of(
            record
        )


def test_wandb_has_a_run_a_cell_with_every_epoch_once_and_one_for_the_report(
    finished: tuple[Command, Store],
) -> None:
    _, store = finished
    records, runs = gather(store).records, tracked.runs(store.root)
    assert sorted(runs) == sorted([*records, "mnist-5k report"])
    for key, record in records.items():
        assert logged_epochs(runs[key]) == epochs_of(record)
        assert (runs[key].start["run_group"], runs[key].start["job_type"]) == ("mnist-5k", "cell")


def test_nothing_is_written_anywhere_else(finished: tuple[Command, Store]) -> None:
    command, store = finished
    assert [path.name for path in command.home.iterdir()] == [".cache"]
    assert [path.name for path in (command.home / ".cache").iterdir()] == ["dae-sweep"]
    assert list(command.cwd.rglob("*")) == []
    assert [path.name for path in store.root.parent.iterdir()] == ["mnist-5k"]
    assert sorted(path.name for path in store.root.iterdir() if not path.name.startswith(".")) == [
        "cells", "report", "samples.npz", "sweep.json", "wandb",
    ]  # fmt: skip
    assert not list(store.root.rglob("*.partial"))
    (rays,) = command.temporary.iterdir()
    assert rays.name.startswith(ray_folder.PREFIX), "what is Ray's, kept for these tests, and nothing of ours"


def test_the_key_of_wandb_is_in_no_file_and_no_log(finished: tuple[Command, Store]) -> None:
    command, store = finished
    assert tracked.KEY not in command.text
    tracked.assert_no_key(store.root)
    assert any(path.name == "raylet.out" for path in command.temporary.rglob("*")), "Ray's logs are looked through too"
    tracked.assert_no_key(command.temporary)


def test_ray_starts_what_trials_need_and_no_process_in_vain(finished: tuple[Command, Store]) -> None:
    logs = {path.name for path in finished[0].temporary.rglob("session_*/logs/*")}
    assert {"gcs_server.out", "raylet.out", "runtime_env_agent.log"} <= logs
    assert [name for name in logs if re.match(r"(dashboard|monitor|log_monitor)\.", name)] == []
    workers = [name for name in logs if name.startswith("python-core-worker-")]
    assert len(workers) < 4, "the two trials ran in the processes that Ray had waiting"


def test_no_process_outlives_the_command(finished: tuple[Command, Store]) -> None:
    assert finished[0].left_after(30) == {}


def test_the_same_command_again_trains_nothing(start: Any, copy: Store) -> None:
    before = snapshot(copy.path("cells"))
    command = start(*SMALL_RUN, "--storage", copy.root.parent)
    assert command.wait() == 0
    assert list(command.temporary.iterdir()) == []
    assert snapshot(copy.path("cells")) == before
    assert "4 of 4 completed" in command.text
    assert " epoch " not in command.text
    runs = tracked.runs(copy.root)
    assert [logged_epochs(runs[cell.key]) for cell in SMALL_GRID.cells] == [
        epochs_of(record) for record in gather(copy).completed
    ]


def test_damage_is_mended_while_the_sweep_is_extended(start: Any, copy: Store, undisturbed: Store) -> None:
    """One session: a damaged record, damaged weights, and a seed more; the cell that is sound is not touched."""
    damaged = [CellFiles("DAE_3_8-s0"), CellFiles("DAE_3_5-s0")]
    copy.write(damaged[0].record, copy.read(damaged[0].record)[:-40])
    copy.write(damaged[1].weights, copy.read(damaged[1].weights)[:-40])
    sound = {name: copy.path(f"cells/{name}") for name in ("DAE_1_8-s0", "DAE_1_5-s0")}
    before = {name: snapshot(folder) for name, folder in sound.items()}
    command = start(*SMALL_RUN, "--cpus", "1", "--depths", "3", "--seeds", "0,1", "--storage", copy.root.parent)
    assert command.wait() == 0, command.text
    warnings = [line for line in command.text.splitlines() if line.startswith("Warning: ")]
    assert len(warnings) == 2
    assert sum("DAE_3_8-s0" in line and "record.json" in line for line in warnings) == 1
    assert sum("DAE_3_5-s0" in line and "model.safetensors" in line for line in warnings) == 1
    assert {name: snapshot(folder) for name, folder in sound.items()} == before
    assert_same_bits(copy, undisturbed, SMALL_GRID.cells)
    sweep = gather(copy)
    extension = Grid.product((3,), (8, 5), (1,))
    assert sweep.manifest.grid == SMALL_GRID.union(extension)
    assert len(sweep.completed) == 6
    losses = {record.key: record.test_loss for record in sweep.completed}
    assert losses["DAE_3_5-s1"] != losses["DAE_3_5-s0"]
    runs = tracked.runs(copy.root)
    for record in sweep.completed:
        assert logged_epochs(runs[record.key]) == epochs_of(record)


# ---- sweeps that are disturbed


def test_signals_a_lost_process_and_a_killed_driver_on_the_way_to_the_same_bits(
    start: Any, tmp_path: Path, long_undisturbed: Store
) -> None:
    """Three signals; a trial killed, then the driver with all of Ray; to the end: five times the same command."""
    store = Store(tmp_path / "sweeps" / "mnist-5k")
    first, second = (cell.key for cell in LONG_GRID.cells)
    # One trial at a time, so that one cell is completed when the driver is killed and the other one at work.
    words = [*LONG_RUN, "--cpus", "1", "--storage", store.root.parent]
    num_epochs = 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)):
        command = start(*words)
        command.read_until(rf"{first}  epoch")
        # A terminal sends Ctrl-C, a batch system SIGTERM to every process of the group, Ray's among them.
        os.killpg(command.process.pid, number)
        assert command.wait() == code, command.text
        # Where Ray's processes end too, Tune may wait for them without end, until the command has no more patience.
        if number is signal.SIGINT:
            assert "SIGINT: every finished epoch is kept; the same command continues." in command.text
        assert "Traceback" not in command.text
        assert "Unhandled error" not in command.text
        assert command.left_after(30) == {}
        found = gather(store).records[first]
        assert found.status is Status.INTERRUPTED
        assert num_epochs < len(found.history) < 24
        told = [int(epoch) for epoch in re.findall(rf"{first}  epoch (\d+)/24", command.text)]
        assert told == list(range(num_epochs + 1, told[-1] + 1)), "it goes on where it was"
        assert len(found.history) >= told[-1], "what was told is kept"
        num_epochs = len(found.history)

    command = start(*words)
    command.read_until(rf"{second}  epoch [3-9]/24")
    workers = [
        number for number, title in command.processes().items() if re.match(r"ray::\w*(Trainable|CellTrial)", title)
    ]
    assert workers, command.processes()
    os.kill(workers[0], signal.SIGKILL)
    command.read_until(r"its process was lost \(.*\); continued by another")
    command.read_until(rf"{second}  epoch 1\d/24")
    os.killpg(command.process.pid, signal.SIGKILL)
    assert command.wait() == -signal.SIGKILL
    assert command.left_after(30) == {}
    sweep = gather(store)
    assert [sweep.status(cell) for cell in LONG_GRID.cells] == [Status.COMPLETED, Status.INTERRUPTED]
    kept = snapshot(store.path(f"cells/{first}"))

    command = start(*words)
    assert command.wait() == 0, command.text
    assert "2 of 2 completed" in command.text
    assert int(re.findall(rf"{second}  epoch (\d+)/24", command.text)[0]) > 10, "it continued"
    assert snapshot(store.path(f"cells/{first}")) == kept, "a completed cell is not touched"
    assert_same_bits(store, long_undisturbed, LONG_GRID.cells)
    runs = tracked.runs(store.root)
    assert [logged_epochs(runs[cell.key]) for cell in LONG_GRID.cells] == [
        epochs_of(read_record(store, cell)) for cell in LONG_GRID.cells
    ]
    reasons = [(attempt.reason or "")[:6] for attempt in read_record(store, LONG_GRID.cells[1]).attempts]
    assert reasons == ["lost: ", "interr", "comple"]
    assert command.left_after(30) == {}


def test_sigterm_while_ray_starts_is_an_interrupt_too(start: Any, tmp_path: Path) -> None:
    command = start(*LONG_RUN, "--storage", tmp_path / "sweeps", "--wandb", "disabled")
    deadline = time.monotonic() + 300
    while not any("gcs_server" in line for line in command.processes().values()):
        assert time.monotonic() < deadline, "Ray did not start"
        time.sleep(0.01)
    os.kill(command.process.pid, signal.SIGTERM)
    assert command.wait() == 143, command.text
    assert "SIGTERM: every finished epoch is kept" in command.text
    assert command.left_after(30) == {}


SABOTAGE = """

def _sabotaged(self):
    if {condition}:
        raise RuntimeError("made to fail")
    return _sound(self)


_sound, Training.test = Training.test, _sabotaged
"""


def sabotaged(program: Path, condition: str) -> Path:
    """A copy of the program that raises where a model is tested of which the condition is true."""
    for package in ("dae", "sweep"):
        shutil.copytree(ROOT / package, program / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (program / "dae" / "training.py").open("a") as file:
        file.write(SABOTAGE.format(condition=condition))
    return program


def test_cells_shorter_than_the_start_of_a_process_do_not_cost_processes(start: Any, tmp_path: Path) -> None:
    words = ["run", "--dataset", "mnist-5k", "--depths", "1", "--latents", "5", "--seeds", "0..23", "--epochs", "1",
             "--train-fraction", "0.02", "--batch-size", "64", "--cpus", "3", "--gpus", "0", "--no-report",
             "--wandb", "disabled", "--storage", tmp_path / "sweeps"]  # fmt: skip
    command = start(*words)
    assert command.wait() == 0, command.text
    logs = {path.name for path in command.temporary.rglob("session_*/logs/*")}
    assert len([name for name in logs if name.startswith("python-core-worker-")]) <= 4
    assert len(gather(Store(tmp_path / "sweeps" / "mnist-5k")).completed) == 24


def test_one_cell_diverges_one_fails_and_the_others_go_on(start: Any, tmp_path: Path) -> None:
    store = Store(tmp_path / "sweeps" / "wild")
    # Of these cells only the first kernel of depth 1, latent 5 is so large.
    program = sabotaged(tmp_path / "program", 'self.weights()["encoder.0.weight"].shape[-1] == 8')
    words = [
        *SMALL_RUN,
        "--cpus",
        "1",
        "--lr",
        "1e12",
        "--name",
        "wild",
        "--storage",
        store.root.parent,
    ]  # too much for depth 3 only
    command = start(*words, program=program)
    assert command.wait() == 1, command.text
    assert "Traceback" not in command.text
    sweep = gather(store)
    assert {cell.key: sweep.status(cell) for cell in SMALL_GRID.cells} == {
        "DAE_1_8-s0": Status.COMPLETED,
        "DAE_1_5-s0": Status.FAILED,
        "DAE_3_8-s0": Status.DIVERGED,
        "DAE_3_5-s0": Status.DIVERGED,
    }
    closing = command.text.split("1 of 4 completed, 2 diverged, 1 failed in ")[1]
    assert "DAE_3_8-s0  diverged: epoch 1: training loss nan" in closing
    assert "DAE_1_5-s0  failed: RuntimeError: made to fail" in closing
    log = store.path(CellFiles("DAE_1_5-s0").log).read_text()
    assert log.count("RuntimeError: made to fail") == 2, "it was tried once more"
    assert "in _sabotaged" in log
    assert store.path("report/index.html").is_file()
    assert not list(store.root.glob("cells/DAE_3_*/checkpoint.pt")), "nothing goes on from them"
    runs = tracked.runs(store.root)
    assert sorted(runs) == sorted([*sweep.records, "wild report"])
    assert logged_epochs(runs["DAE_3_8-s0"]) == []
    assert logged_epochs(runs["DAE_1_5-s0"]) == epochs_of(sweep.records["DAE_1_5-s0"])


def test_an_error_that_a_second_cell_repeats_stops_the_sweep(start: Any, tmp_path: Path) -> None:
    store = Store(tmp_path / "sweeps" / "mnist-5k")
    words = [*SMALL_RUN, "--cpus", "1", "--wandb", "disabled", "--storage", store.root.parent]
    command = start(*words, program=sabotaged(tmp_path / "program", "True"))
    assert command.wait() == 1, command.text
    assert "Traceback" not in command.text
    assert (
        "Stopped early: DAE_3_5-s0 and DAE_3_8-s0 failed with the same error: RuntimeError: made to fail."
        in command.text
    )
    assert "0 of 4 completed, 2 failed, 2 missing in " in command.text
    assert not store.path("report").exists()
    sweep = gather(store)
    assert {key: len(record.history) for key, record in sweep.records.items()} == {"DAE_3_8-s0": 3, "DAE_3_5-s0": 3}
    assert command.left_after(30) == {}
