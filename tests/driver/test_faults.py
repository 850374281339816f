"""Faults of every kind, made for real, through the command line: what was finished stays, and the numbers are the same.

Those that concern processes run on Ray; the others run their trials in this process (`in_process`).
"""

import io
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import InProcess, make_undisturbed
from rich.console import Console
from tracked import epochs_by_cell

from sweep.cli import main
from sweep.driver.drill import GRACE_S, Driver, compare, epochs
from sweep.driver.progress import Progress
from sweep.records.grid import Grid, Settings
from sweep.records.record import LOST, CellFiles, Failure, Status, read_record
from sweep.records.sweep import MANIFEST, gather
from sweep.storage.sealing import seal, unseal
from sweep.storage.store import Store
from sweep.tracking.tracker import Tracker
from sweep.trials.processes import Process, wait_gone
from sweep.trials.ray_private import is_worker

GRID = Grid.product((1, 3), (5,), (0,))
SETTINGS = Settings.usual("mnist-5k", epochs=4, train_fraction=0.1, batch_size=32)
OPTIONS = ["--dataset", "mnist-5k", "--depths", "1,3", "--latents", "5", "--epochs", "4", "--train-fraction", "0.1"]
LONGER = replace(SETTINGS, epochs=24)
LONGER_OPTIONS = [*OPTIONS, "--epochs", str(LONGER.epochs)]
"""Long enough to be disturbed, and completed after it."""
LONG = [*OPTIONS, "--epochs", "400", "--wandb", "disabled", "--no-report", "--cpus", "1"]
"""Long enough to be killed at leisure."""

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean_environment")]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The sweep as no fault has touched it."""
    store = Store(tmp_path_factory.mktemp("truth") / "mnist-5k")
    make_undisturbed(store, GRID, SETTINGS)
    return store


@pytest.fixture(scope="module")
def longer_truth(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("longer") / "mnist-5k")
    make_undisturbed(store, GRID, LONGER)
    return store


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "sweeps"


def run(storage: Path, *options: str, wandb: str = "disabled", expected: int = 0) -> Result:
    command = ["run", "--storage", str(storage), *OPTIONS, "--cpus", "1", "--gpus", "0", "--wandb", wandb, *options]
    result = CliRunner().invoke(main, [*command, "--no-report", "--quiet"])
    assert result.exit_code == expected, result.output
    assert "Traceback" not in result.output
    return result


def assert_true(storage: Path, truth: Store) -> None:
    assert [cell.differs for cell in compare(truth, Store(storage / "mnist-5k"))] == [()] * len(GRID.cells)


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Driver]]:
    monkeypatch.setattr("sweep.driver.drill.PATIENCE_S", 600.0)
    drivers: list[Driver] = []

    def start(options: list[str], *, storage: Path = tmp_path / "sweeps", **environment: str) -> Driver:
        drivers.append(Driver(storage, options, environment))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.clear()


# ---- the storage


@pytest.fixture
def small_disk(storage: Path) -> Iterator[Path]:
    """The sweep's folder, a disk of 4 MB."""
    folder = storage / "mnist-5k"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, free: int) -> Path:
    """Leave so many bytes on the disk."""
    filler = disk / "filler"
    space = os.statvfs(disk)
    filler.write_bytes(b"\0" * max(space.f_bavail * space.f_frsize - free, 0))
    return filler


@pytest.mark.parametrize("free_kb", [120, 260], ids=lambda kb: f"{kb} KB left")
def test_a_full_disk_stops_the_sweep_and_the_same_command_goes_on(
    in_process: InProcess, storage: Path, small_disk: Path, truth: Store, free_kb: int
) -> None:
    filler = fill(small_disk, free_kb * 1024)
    result = run(storage, expected=1)
    assert "No space left on device" in result.output
    assert "kept" in result.output
    filler.unlink()
    run(storage)
    assert_true(storage, truth)
    assert not list(storage.rglob("*.partial"))


def test_a_disk_that_fills_up_under_ray_stops_the_sweep_and_the_same_command_goes_on(
    launch: Callable[..., Driver], storage: Path, small_disk: Path, longer_truth: Store, in_process: InProcess
) -> None:
    driver = launch([*LONGER_OPTIONS, "--wandb", "disabled", "--no-report"])
    assert driver.wait_until(lambda: epochs(driver.store) > 6, "epochs")
    filler = fill(small_disk, 0)
    driver.finish(expected=1)
    finished = epochs(driver.store)
    assert finished < 2 * LONGER.epochs
    assert "No space left on device" in driver.last_words
    assert "Stopped early: cannot write" in driver.last_words
    assert "Free or repair the storage; what was finished is kept" in driver.last_words
    filler.unlink()
    in_process.before = lambda _key: trained_again.append(epochs(driver.store))
    trained_again: list[int] = []
    run(storage, "--epochs", str(LONGER.epochs))
    assert trained_again[0] == finished, "every finished epoch was kept"
    assert_true(storage, longer_truth)


def test_a_storage_that_turns_read_only_stops_the_sweep_and_the_same_command_goes_on(
    in_process: InProcess, storage: Path, small_disk: Path, truth: Store
) -> None:
    calls: list[str] = []
    cells = small_disk / "cells"

    def turn_read_only(key: str) -> None:
        calls.append(key)
        if len(calls) == 3:
            subprocess.run(["mount", "--bind", str(cells), str(cells)], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", str(cells)], check=True)

    in_process.before = turn_read_only
    try:
        result = run(storage, expected=1)
    finally:
        subprocess.run(["umount", "-l", str(cells)], check=True)
    assert "Read-only file system" in result.output
    assert len(calls) == 3, "nothing is trained that cannot be kept"
    in_process.before = lambda _key: None
    run(storage)
    assert_true(storage, truth)


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"\x13" * len(data)], ids=["cut", "noise"]
)
@pytest.mark.parametrize("which", ["manifest", "record", "checkpoint"])
def test_a_file_damaged_between_two_runs_costs_at_most_its_cell(
    in_process: InProcess, storage: Path, truth: Store, which: str, damage: Callable[[bytes], bytes]
) -> None:
    store = interrupted(in_process, storage)
    files = CellFiles(GRID.cells[1].key)  # the deeper cell is taken first
    name = {"manifest": MANIFEST, "record": files.record, "checkpoint": files.checkpoint}[which]
    store.write(name, damage(store.read(name)))
    result = run(storage, wandb="offline")
    assert "damaged" in result.output
    assert_true(storage, truth)
    assert epochs_by_cell(store.root) == {cell.key: [[1, 2, 3, 4]] for cell in GRID.cells}


def interrupted(in_process: InProcess, storage: Path) -> Store:
    """A sweep whose first cell was stopped by Ctrl-C after two epochs."""
    calls: list[str] = []

    def interrupt(key: str) -> None:
        calls.append(key)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    in_process.before = interrupt
    run(storage, wandb="offline", expected=130)
    in_process.before = lambda _key: None
    return Store(storage / "mnist-5k")


def test_a_driver_that_cannot_write_or_show_anything_does_not_end_the_sweep(truth: Store, storage: Path) -> None:
    """An exception in one of Tune's callbacks would."""
    from sweep.driver.events import TrialEvents

    store = Store(storage / "mnist-5k")
    shutil.copytree(truth.root, store.root)
    sweep, key = gather(store), GRID.cells[0].key
    shutil.rmtree(store.path(f"cells/{key}"))
    store.path(f"cells/{key}").write_text("in the way")
    with (storage / "closed").open("w") as screen:
        pass
    told: list[str] = []
    tracker = Tracker(sweep.manifest, store.root, mode="disabled", project="", warn=told.append)
    visible, invisible = (Progress(Console(file=file), GRID.cells, {}, SETTINGS, 1) for file in (io.StringIO(), screen))
    events = TrialEvents(sweep, visible, tracker, told.append)
    events.lost(key, "SIGKILL", is_final=False)
    events.lost(key, "SIGKILL", is_final=True)
    events = TrialEvents(sweep, invisible, tracker, told.append)
    other = sweep.records[GRID.cells[1].key]
    events.progressed(other, 1.0)
    events.progressed(replace(other, status=Status.FAILED, failure=Failure.MEMORY, test_loss=None), 1.0)
    assert sorted(line.split(":")[0].rsplit(" ", 1)[1] for line in told) == ["NotADirectoryError", "ValueError"]
    assert events.again_alone == [GRID.cells[1]], "what the display does not take is not lost"


# ---- cells that cannot be trained


def test_a_loss_that_is_not_finite_ends_its_cell_only(in_process: InProcess, storage: Path) -> None:
    result = run(storage, "--lr", "1e12", expected=1)
    assert "diverged" in result.output
    records = gather(Store(storage / "mnist-5k")).records
    assert Status.DIVERGED in {record.status for record in records.values()}
    assert all(record.test_loss is None for record in records.values() if record.status is Status.DIVERGED)
    assert "diverged" in run(storage, "--lr", "1e12", expected=1).output, "it is not tried again"


def test_a_cell_that_is_too_large_is_tried_alone_and_given_up_and_the_others_go_on(
    in_process: InProcess, storage: Path
) -> None:
    result = run(storage, "--width", "400000", expected=1)  # depth 1 has no layer that is so wide
    assert "1 of 2 completed, 1 failed" in result.output
    store = Store(storage / "mnist-5k")
    record = read_record(store, GRID.cells[1])
    assert (record.status, record.failure) == (Status.FAILED, Failure.MEMORY)
    assert record.error is not None
    assert "lower --batch-size or --width" in record.error
    assert in_process.rounds == [[GRID.cells[1].key, GRID.cells[0].key], [GRID.cells[1].key]]


def break_checkpoint(store: Store, key: str) -> None:
    """One that says it belongs to the cell, and does not: what restores it raises."""
    import torch

    files = CellFiles(key)
    state = torch.load(io.BytesIO(unseal(store.read(files.checkpoint))), weights_only=True)
    state["training"]["engine"]["flat"] = torch.zeros(7)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    store.write(files.checkpoint, seal(buffer.getvalue()))


def test_a_trial_that_raises_is_tried_once_more_and_fails_alone(in_process: InProcess, storage: Path) -> None:
    store = interrupted(in_process, storage)
    key = GRID.cells[1].key
    break_checkpoint(store, key)
    result = run(storage, expected=1)
    assert "1 of 2 completed, 1 failed" in result.output
    record = gather(store).records[key]
    assert record.failure is Failure.PROGRAM
    assert [attempt.reason for attempt in record.attempts[1:]] == [record.error, record.error]
    assert "Traceback" in store.read(CellFiles(key).log).decode()


# ---- W&B


def test_a_wandb_that_never_answers_costs_the_upload_and_no_key_is_written(
    in_process: InProcess, storage: Path, truth: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "feedbeef" * 5
    monkeypatch.setattr("sweep.tracking.service.INIT_TIMEOUT_S", 2.0)
    monkeypatch.setenv("WANDB_API_KEY", key)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        result = run(storage, wandb="online")
    # A trial in this process has the terminal while it works; what is said meanwhile stands in its log.
    logs = [path.read_text() for path in storage.rglob("log.txt")]
    assert sum("tracked offline" in said for said in (result.output, *logs)) == 1
    assert_true(storage, truth)
    assert epochs_by_cell(storage / "mnist-5k") == {cell.key: [[1, 2, 3, 4]] for cell in GRID.cells}
    assert key not in result.output
    assert not any(key.encode() in path.read_bytes() for path in storage.rglob("*") if path.is_file())


def test_a_cell_that_ended_while_wandb_was_not_told_is_told_later(in_process: InProcess, storage: Path) -> None:
    run(storage, wandb="disabled")
    run(storage, wandb="offline")
    run(storage, wandb="offline")
    assert epochs_by_cell(storage / "mnist-5k") == {cell.key: [[1, 2, 3, 4]] for cell in GRID.cells}


# ---- drivers and writers that are killed at a bad moment


def kill_when(process: "subprocess.Popen[bytes]", condition: Callable[[], bool]) -> bool:
    """SIGKILL it at the first moment the condition holds; whether that came before its end."""
    while process.poll() is None:
        if condition():
            process.kill()
            process.wait()
            return True
        time.sleep(0.001)
    return False


HELD = """
import glob, sys, time
def hold(event, arguments):
    if event in ("open", "os.rename") and glob.glob({pattern!r}):
        time.sleep(60)
sys.addaudithook(hold)
"""


def in_background(code: str, *words: str, held_at: str = "") -> "subprocess.Popen[bytes]":
    """Run the code; once there is a file of this pattern it opens and renames none for a minute."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", HELD.format(pattern=held_at) + code, *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("name", ["index.html", ".*.partial"])
def test_a_driver_killed_while_it_writes_the_report_writes_it_whole_the_next_time(
    truth: Store, storage: Path, name: str
) -> None:
    shutil.copytree(truth.root, storage / "mnist-5k")
    report = storage / "mnist-5k" / "report"
    words = ["run", "--storage", str(storage), *OPTIONS, "--wandb", "disabled", "--quiet"]
    command = ["from sweep.cli import main; main()", *words]
    assert kill_when(in_background(*command, held_at=str(report / name)), lambda: any(report.glob(name)))
    assert in_background(*command).wait() == 0
    names = {path.name for path in report.iterdir()}
    assert {"index.html", "results.csv", "history.csv"} <= names
    assert not list(report.glob(".*"))
    assert (report / "history.csv").read_text().count("\n") == 1 + 2 * SETTINGS.epochs
    assert_true(storage, truth)


WRITER = """
import sys; sys.path[:0] = [{root!r}, {root!r} + "/tests", {root!r} + "/tests/driver"]
from pathlib import Path
from conftest import make_undisturbed
from test_faults import GRID, SETTINGS
from sweep.storage.store import Store
make_undisturbed(Store(Path({folder!r})), GRID, SETTINGS)
"""


@pytest.mark.parametrize("name", [".record.json.*", ".checkpoint.pt.*", ".model.safetensors.*", "checkpoint.pt"])
def test_a_trial_killed_while_it_writes_goes_on_with_the_same_numbers(
    in_process: InProcess, truth: Store, storage: Path, name: str
) -> None:
    cells = storage / "mnist-5k" / "cells"
    script = WRITER.format(root=str(Path(__file__).parents[2]), folder=str(storage / "mnist-5k"))
    assert kill_when(in_background(script, held_at=str(cells / "*" / name)), lambda: any(cells.glob(f"*/{name}")))
    run(storage)
    assert_true(storage, truth)
    assert not list(storage.rglob("*.partial"))


def test_a_writer_that_was_overtaken_writes_no_more(storage: Path, truth: Store, one_thread: None) -> None:
    """The one that outlives its driver, held up between two epochs while the next run takes its cell."""
    from dae import data
    from dae.training import Images
    from sweep.trials.job import Job
    from sweep.trials.trial import Superseded, Trial

    store = Store(storage / "mnist-5k")
    shutil.copytree(truth.root, store.root)
    shutil.rmtree(store.path("cells"))
    images = Images(data.load("mnist-5k", Path("nowhere"), SETTINGS.train_fraction), SETTINGS.alpha, "cpu")
    job, cell = Job(store, SETTINGS, "cpu", 1.0, None), GRID.cells[0]
    old, new = Trial(job, cell, images), Trial(job, cell, images)
    old.advance(0)
    new.advance(0)
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file() and path.name != "log.txt"}
    with pytest.raises(Superseded, match="has taken over"):
        old.advance(0)
    assert before == {path: path.read_bytes() for path in before}
    new.advance(float("inf"))
    Trial(job, GRID.cells[1], images).advance(float("inf"))
    assert_true(storage, truth)


# ---- processes, on Ray


def test_a_run_leaves_no_process_and_no_file_elsewhere_and_neither_does_an_interrupted_one(
    launch: Callable[..., Driver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    own = {"TMPDIR": str(tmp_path / "tmp"), "RAY_TMPDIR": tempfile.gettempdir()}
    driver = launch([*LONG, "--wandb", "offline"], **own)
    assert driver.wait_until(lambda: epochs(driver.store) > 4 and bool(driver.trials), "epochs")
    assert len(driver.below) > 5
    addresses = listening([driver.process.pid, *(each.pid for each in driver.below)])
    # The second is the first as IPv6 writes it.
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}, "nobody but this machine can reach it"
    assert "127.0.0.1" in addresses
    second = subprocess.run(
        [sys.executable, "-m", "sweep", "run", "--storage", str(driver.store.root.parent), *LONG],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 2
    assert f"process {driver.process.pid} on {socket.gethostname()} is already at the sweep" in second.stderr
    driver.process.send_signal(signal.SIGTERM)
    assert driver.process.wait(300) == 143
    assert wait_gone(driver._seen.values(), 30) == []
    assert "the same command continues" in driver.last_words
    finished = epochs(driver.store)
    again = launch([*LONG, "--wandb", "offline"], **own)
    assert again.wait_until(lambda: epochs(again.store) > finished + 12, "more epochs")
    again.process.send_signal(signal.SIGINT)
    again.process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    again.process.send_signal(signal.SIGINT)
    assert again.process.wait(60) == 130
    assert wait_gone(again._seen.values(), 15) == [], "a second Ctrl-C ends at once, with all it started"
    assert list(Path.home().iterdir()) == []
    assert list((tmp_path / "here").iterdir()) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert gather(again.store).damaged == {}


@pytest.mark.parametrize(
    ("script", "title"),
    [("dashboard/agent.py", "ray::DashboardAgent"), ("workers/default_worker.py", "ray::")],
    ids=["agents", "workers"],
)
def test_a_driver_killed_while_ray_starts_leaves_nothing(
    launch: Callable[..., Driver], script: str, title: str
) -> None:
    driver = launch([*LONG, "--wandb", "disabled"])

    def is_one(command: str) -> bool:
        # A fast one has its title before it is seen; the raylet's own command line names the script as well.
        return command.startswith(title) or (script in command and "raylet/raylet " not in command)

    assert driver.wait_until(
        lambda: any(is_one(each.command) for each in driver.below), "processes that would outlive it"
    )
    started = driver.below
    driver.process.kill()
    assert driver.process.wait(10) == -signal.SIGKILL
    assert wait_gone(started, GRACE_S) == []


def test_a_worker_that_dies_while_ray_starts_is_replaced(launch: Callable[..., Driver], truth: Store) -> None:
    driver = launch([*OPTIONS, "--cpus", "2", "--gpus", "0", "--wandb", "disabled", "--no-report"])
    workers: list[Process] = []

    def has_started_one() -> bool:
        workers[:] = [process for process in driver.below if is_worker(process.command)]
        return bool(workers) or bool(driver.trials)

    assert driver.wait_until(has_started_one, "a worker")
    for worker in workers[:1]:
        worker.send(signal.SIGKILL)
    driver.finish()
    assert_true(driver.store.root.parent, truth)


def test_agents_of_a_killed_driver_are_found_whatever_else_is_in_the_environment(launch: Callable[..., Driver]) -> None:
    # Ray's agents give themselves a title, for which an environment of this size had to make room.
    driver = launch([*LONG, "--wandb", "disabled"], **{f"EXTRA_{number}": "x" for number in range(30)})
    assert driver.wait_until(lambda: epochs(driver.store) > 1, "an epoch")
    started = driver.below
    driver.process.kill()
    assert driver.process.wait(10) == -signal.SIGKILL
    assert wait_gone(started, GRACE_S) == []


def listening(pids: Sequence[int]) -> set[str]:
    """The IPv4 and IPv6 addresses on which these processes listen."""
    sockets = set()
    for entry in (entry for pid in pids for entry in Path("/proc").glob(f"{pid}/fd/*")):
        with suppress(FileNotFoundError):  # closed or ended meanwhile
            sockets.add(str(entry.readlink()))
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, _, _, _, _, _, inode, *_ = line.split()
            if state == "0A" and f"socket:[{inode}]" in sockets:
                words = struct.unpack(f">{len(local.split(':')[0]) // 8}I", bytes.fromhex(local.split(":")[0]))
                found.add(socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words)))
    return found


def test_a_cell_that_runs_out_of_memory_beside_others_is_completed_alone(launch: Callable[..., Driver]) -> None:
    """The system refuses memory to the processes of the first round; those of the second one may have it."""
    wide = ["--depths", "1,2", "--width", "1500", "--epochs", "1", "--train-fraction", "0.05", "--cpus", "2"]
    wide += ["--batch-size", "128"]
    driver = launch([*LONG, *wide])
    large = CellFiles("DAE_2_5-s0")
    assert driver.wait_until(driver.store.path(large.log).is_file, "the large cell")
    for process in driver.trials:
        limit = address_space(process.pid) + 220 * 2**20  # enough for what is imported; a layer's output takes 130 MB
        resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
    driver.finish()
    first, second = gather(driver.store).records["DAE_2_5-s0"].attempts
    assert (first.reason or "").startswith("out of memory (")
    assert second.reason == "completed"
    assert "DAE_2_5-s0  failed: out of memory" in driver.log.read_text()
    assert "2 of 2 completed" in driver.last_words


def address_space(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def test_processes_that_die_again_and_again_are_counted_and_given_up(launch: Callable[..., Driver]) -> None:
    driver = launch([*LONG, "--latents", "5", "--depths", "1", "--max-retries", "1"])
    for number in (1, 2):
        assert driver.wait_until(
            lambda number=number: _attempts(driver.store) >= number and bool(driver.trials), "a trial"
        )
        time.sleep(0.3)
        driver.trials[0].send(signal.SIGKILL)
    driver.finish(expected=1)
    record = gather(driver.store).records["DAE_1_5-s0"]
    assert (record.status, record.failure, record.times_lost) == (Status.FAILED, Failure.LOST, 2)
    assert all((attempt.reason or "").startswith(LOST) for attempt in record.attempts)
    assert "0 of 1 completed, 1 failed" in driver.log.read_text()


IDLE = """
import os, signal, sys
from pathlib import Path
from dae import data
from sweep.records.grid import Cell, Settings
from sweep.storage.store import Store
from sweep.trials import session
from sweep.trials.job import Job
from sweep.trials.processes import descendants, trials, wait_gone
from sweep.trials.resources import Resources

class Cells:
    left, is_over = ["DAE_1_5-s0", "DAE_1_5-s1", "DAE_1_5-s2"], False

    def next_cell(self):
        idle = trials(descendants(os.getpid()))
        for process in idle:
            process.send(signal.SIGKILL)
        print("killed", len(idle), wait_gone(idle, 10))
        self.is_over = len(self.left) <= 1
        return Cell.from_key(self.left.pop(0)) if self.left else None

class Listener:
    def started(self, key): ...
    def decided(self, record): return record
    def progressed(self, record, images_per_s): print(record.key, record.status)
    def lost(self, key, reason, *, is_final): print("lost", key, is_final)

resources = Resources(cpus=1, gpus=0, trials_per_gpu=1)
dataset = data.load("mnist-5k", Path("nowhere"), 0.1)
settings = Settings.usual("mnist-5k", train_fraction=0.1, batch_size=32, epochs=2)
with session.local_cluster(resources, 2**20, lambda: None):
    from sweep.trials import tuning
    tuning.run_trials(
        Cells(), Job(Store(Path(sys.argv[1])), settings, "cpu", 1.0, None), dataset, resources, Listener(),
        lambda: False, max_retries=1,
    )
"""


def test_a_process_that_dies_between_two_cells_costs_neither_of_them(storage: Path) -> None:
    done = subprocess.run([sys.executable, "-c", IDLE, storage], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("killed 1 []") >= 2
    assert [line for line in done.stdout.splitlines() if "completed" in line] == [
        f"DAE_1_5-s{seed} completed" for seed in range(3)
    ]


def _attempts(store: Store) -> int:
    try:
        return sum(len(record.attempts) for record in gather(store).records.values())
    except FileNotFoundError:
        return 0


CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
#include <sys/time.h>
static const long BACK = 86400;
int clock_gettime(clockid_t id, struct timespec *t) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(id, t);
  if (id == CLOCK_REALTIME) t->tv_sec -= BACK;
  return result;
}
time_t time(time_t *t) { struct timespec n; clock_gettime(CLOCK_REALTIME, &n); if (t) *t = n.tv_sec; return n.tv_sec; }
"""


WITHOUT_RAY = """
import sys; sys.path[:0] = [{root!r}, {root!r} + "/tests", {root!r} + "/tests/driver"]
from contextlib import nullcontext
import torch
from conftest import InProcess
from sweep.trials import session, tuning
from sweep.cli import main
session.local_cluster, tuning.run_trials = lambda *_: nullcontext(), InProcess().run_trials
torch.set_num_threads(1)
torch.set_flush_denormal(True)
main({arguments!r})
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a compiler to turn the clock of one process back")
def test_a_clock_that_goes_back_a_day_between_two_runs_changes_nothing(
    in_process: InProcess, storage: Path, truth: Store, tmp_path: Path
) -> None:
    # Not with Ray: its waits would have to be turned back too.
    (tmp_path / "clock.c").write_text(CLOCK)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "clock.so", tmp_path / "clock.c", "-ldl"], check=True)
    store = interrupted(in_process, storage)
    arguments = ["run", "--storage", str(storage), *OPTIONS, "--gpus", "0", "--wandb", "offline", "--no-report"]
    script = WITHOUT_RAY.format(root=str(Path(__file__).parents[2]), arguments=arguments)
    environment = os.environ | {"LD_PRELOAD": str(tmp_path / "clock.so")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_true(storage, truth)
    first, second = read_record(store, GRID.cells[1]).attempts
    assert second.started_at < first.started_at, "the clock did go back"
    assert epochs_by_cell(store.root) == {cell.key: [[1, 2, 3, 4]] for cell in GRID.cells}


TWO_NODES = r"""
import sys, threading, time
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/tests", sys.argv[2] + "/tests/driver"]
from sweep.trials import session  # before Ray
import ray
from ray.cluster_utils import Cluster
from rich.console import Console
from test_faults import GRID, LONGER
from dae import data
from sweep.trials import tuning
from sweep.driver.events import TrialEvents
from sweep.driver.drill import compare
from sweep.trials.job import Job
from sweep.driver.progress import Progress
from sweep.records.sweep import gather
from sweep.driver.declaration import declare
from sweep.driver.request import Request
from sweep.storage.store import Store
from sweep.tracking.tracker import Tracker

folder = Path(sys.argv[1])
store = Store(folder / "mnist-5k")
dataset = data.load("mnist-5k", Path("nowhere"), LONGER.train_fraction)
request = Request(store=store, grid=GRID, settings=LONGER, data_dir=Path("nowhere"), cpus=2, gpus=0,
                  trials_per_gpu=1, wandb_mode="disabled", project="")
sweep = declare(request, dataset, print)
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
node = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

def lose_a_node():
    while sum(len(record.history) > 1 for record in gather(store).records.values()) < 2:
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)
    print("node killed", flush=True)

progress = Progress(Console(), sweep.manifest.grid.cells, {}, LONGER, 2, quiet=True)
tracker = Tracker(sweep.manifest, store.root, mode="disabled", project="", warn=print)
events = TrialEvents(sweep, progress, tracker, print)
resources = session.Resources(cpus=2, gpus=0, trials_per_gpu=1)
threading.Thread(target=lose_a_node, daemon=True).start()
tuning.run_trials(list(GRID.cells), Job(store, LONGER, "cpu", 1.0, None), dataset, resources, events,
                  lambda: False, max_retries=3)
ray.shutdown()
cluster.shutdown()
for cell in compare(Store(Path(sys.argv[3])), store):
    record = gather(store).records[cell.key]
    print("RESULT", record.times_lost, len(record.attempts), list(cell.differs), flush=True)
"""


@pytest.mark.cluster
def test_cells_of_a_node_that_is_killed_go_on_elsewhere_with_the_same_numbers(
    tmp_path: Path, longer_truth: Store
) -> None:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", TWO_NODES, str(tmp_path), root, str(longer_truth.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert any(line.startswith("node killed") for line in lines)  # Ray may write behind it
    (first, second) = [line.split(maxsplit=3) for line in lines if line.startswith("RESULT")]
    assert (first[3], second[3]) == ("[]", "[]"), "nothing differs"
    assert sorted([first[1], second[1]]) == ["0", "1"], "one cell was lost, once"
