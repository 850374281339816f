"""The commands as a user meets them; only `tests/driver/test_sweep_end_to_end.py` starts Ray."""

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from conftest import SMALL, SMALL_GRID, InProcess
from synthetic import make_sweep

from dae.published import FILES
from sweep import __version__
from sweep.cli import main
from sweep.driver import runner
from sweep.records.grid import Cell, Grid
from sweep.records.record import CellFiles, Status, read_record
from sweep.records.sweep import MANIFEST, gather
from sweep.storage.store import Store

ROOT = Path(__file__).parents[2]
SMALL_RUN = [
    "run", "--dataset", "mnist-5k", "--train-fraction", "0.1", "--epochs", "3", "--depths", "1,3", "--latents", "5,8",
    "--gpus", "0", "--cpus", "2", "--wandb", "disabled",
]  # fmt: skip
"""The command whose sweep is `SMALL_GRID` under `SMALL`."""


@pytest.fixture(autouse=True)
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: Path, own_signals: None
) -> Iterator[Path]:
    """An empty working folder; nothing may be written to the home folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    yield work
    assert list(clean_environment.rglob("*")) == []


def ask(*words: object) -> Result:
    """Give the command in this process."""
    result = CliRunner().invoke(main, [str(word) for word in words], prog_name="dae-sweep")
    if "--debug" not in words:
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
    return result


def sh(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Give the command in a process of its own."""
    command = [sys.executable, "-m", "sweep", *map(str, words)]
    paths = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, env=os.environ | paths | environment, capture_output=True, text=True, timeout=60, check=False
    )


def refused(result: Result, *phrases: str, exit_code: int = 2) -> None:
    """The command was refused in a sentence that has these phrases."""
    said = " ".join(result.stderr.split())
    assert result.exit_code == exit_code, result.output
    assert "Error: " in result.stderr
    for phrase in phrases:
        assert phrase in said
    assert result.stdout == ""


def contents(folder: Path) -> list[str]:
    own = {".lock", ".id"}
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name not in own)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


# ---- what cannot be carried out

BAD_VALUES = [
    (["--dataset", "imagenet"], ["unknown dataset 'imagenet'", "mnist, fashion-mnist, kmnist, mnist-5k"]),
    (["--depths", "0"], ["depth 0 is out of range", "at least 1"]),
    (["--depths", "3,-1"], ["depth -1 is out of range"]),
    (["--latents", "0"], ["latent size 0 is out of range", "1 to 28"]),
    (["--latents", "13,29"], ["latent size 29 is out of range", "1 to 28"]),
    (["--depths", ""], ["--depths is empty", "for example --depths 1,3,5"]),
    (["--latents", ","], ["--latents is empty"]),
    (["--seeds", "3..1"], ["runs backwards", "1..9"]),
    (["--depths", "1,3,1"], ["--depths repeats 1", "give each value once"]),
    (["--latents", "4..6,5"], ["--latents repeats 5"]),
    (["--seeds", "0,0"], ["--seeds repeats 0"]),
    (["--seeds=-1"], ["seed -1 is out of range", "at least 0"]),
    (["--depths", "two"], ["'two' is not a whole number", "1,3,5 or 1..9"]),
    (["--depths", "1.5"], ["'1.5' is not a whole number"]),
    (["--latents", "1..x"], ["'1..x' is not a whole number"]),
    (["--epochs", "0"], ["epochs 0 is out of range", "at least 1"]),
    (["--epochs=-5"], ["epochs -5 is out of range"]),
    (["--epochs", "many"], ["'many' is not a valid integer"]),
    (["--alpha=-0.5"], ["alpha -0.5 is out of range", "at least 0"]),
    (["--alpha", "nan"], ["alpha nan is out of range"]),
    (["--lr", "0"], ["lr 0.0 is out of range", "positive number, such as 1e-3"]),
    (["--lr=-1e-3"], ["lr -0.001 is out of range"]),
    (["--lr", "inf"], ["lr inf is out of range"]),
    (["--batch-size", "0"], ["batch size 0 is out of range", "at least 1"]),
    (["--width", "0"], ["width 0 is out of range"]),
    (["--latent-channels=-4"], ["latent channels -4 is out of range"]),
    (["--latent-bias=-1"], ["latent bias -1.0 is out of range"]),
    (["--train-fraction", "0"], ["train fraction 0.0 is out of range", "above 0 and at most 1"]),
    (["--train-fraction", "1.5"], ["train fraction 1.5 is out of range"]),
    (["--name", "a/b"], ["'a/b' cannot name a sweep", "without path separators", "--name my-sweep"]),
    (["--name", "../up"], ["'../up' cannot name a sweep"]),
    (["--name", ".."], ["'..' cannot name a sweep"]),
    (["--name", ""], ["'' cannot name a sweep"]),
    (["--storage", "s3:/bucket/sweeps"], ["--storage s3:/bucket/sweeps", "s3://BUCKET/FOLDER"]),
    (["--storage", "ftp://bucket/x"], ["storage ftp:// is not known", "s3://BUCKET/FOLDER"]),
    (["--gpus=-1"], ["--gpus -1 is out of range", "at least 0"]),
    (["--cpus", "0"], ["--cpus 0 is out of range", "at least 1"]),
    (["--trials-per-gpu", "0"], ["--trials-per-gpu 0 is out of range", "at least 1"]),
    (["--trials-per-gpu", "many"], ["'many' is neither a number of trials nor auto", "--trials-per-gpu"]),
    (["--wandb", "perhaps"], ["'perhaps' is not one of", "offline"]),
    (["--max-seeds", "5"], ["--max-seeds is a limit of --resolve"]),
    (["--epoch", "3"], ["No such option", "--epoch"]),
]
RUN_ONLY = [
    (["--gpus", "1"], ["--gpus 1: this machine has no usable GPU", "--gpus 0"]),
    (["--batch-size", "3201", "--gpus", "0"], ["batch size 3201 is larger than the 3200", "--train-fraction"]),
    (["--storage", "file", "--gpus", "0"], ["cannot write to", "Give a --storage that can be written"]),
    (["--storage", "/proc/nowhere", "--gpus", "0"], ["cannot write to /proc/nowhere"]),
    (["--name", "x" * 300, "--gpus", "0"], ["too long", "255 bytes"]),
]


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        pytest.param([command, "--dataset", "mnist-5k", *words], phrases, id=f"{command} {' '.join(words)[:30]}")
        for command, cases in (("run", BAD_VALUES + RUN_ONLY), ("plan", BAD_VALUES))
        for words, phrases in cases
    ],
)
def test_a_bad_value_is_refused_and_nothing_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], phrases: list[str]
) -> None:
    monkeypatch.setattr(runner.Training, "run", lambda *_: pytest.fail("it went on to train"))
    (folder / "file").write_text("no folder")
    refused(ask(*words), *phrases)
    assert contents(folder) == ["file"]


def test_a_name_that_is_not_text_is_refused(folder: Path) -> None:
    refused(ask("run", "--dataset", "mnist-5k", "--gpus", 0, "--name", os.fsdecode(b"caf\xe9")), "cannot name a sweep")
    assert contents(folder) == []


def test_gpus_that_are_not_there_are_refused_at_once() -> None:
    start = time.monotonic()
    done = sh("run", "--gpus", 1)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Give --gpus 0 to train on the CPU" in done.stderr
    assert time.monotonic() - start < 8, "Ray would have to be started first"


@pytest.mark.parametrize("command", ["run", "plan", "report"])
def test_a_name_is_checked_by_every_command(folder: Path, command: str) -> None:
    refused(ask(command, "--name", "a/b"), "'a/b' cannot name a sweep")
    assert contents(folder) == []


def test_an_unknown_command_is_refused() -> None:
    refused(ask("train"), "No such command 'train'")


# ---- data that cannot be had


def offline(**more: str) -> dict[str, str]:
    """What leads every download to a port on which nobody answers."""
    dead = "http://127.0.0.1:9"
    return {"http_proxy": dead, "https_proxy": dead, "HTTP_PROXY": dead, "HTTPS_PROXY": dead, "no_proxy": ""} | more


def assert_told_where_to_put_files(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    said = " ".join(done.stderr.split())
    assert "the files of mnist are not in data and could not be downloaded (" in said
    assert all(name in said for name in FILES)
    assert "into data/MNIST/raw" in said
    assert "--data-dir" in said
    assert "--dataset mnist-5k" in said


def test_without_files_and_network_it_says_what_to_do(folder: Path) -> None:
    assert_told_where_to_put_files(sh("run", "--gpus", 0, **offline()))
    assert contents(folder) == []


@pytest.mark.slow
def test_a_network_that_says_nothing_is_given_up_within_20_s(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        done = sh("run", "--gpus", 0, **offline(http_proxy=address, https_proxy=address))
        took_s = time.monotonic() - start
    assert_told_where_to_put_files(done)
    assert "no byte arrived" in done.stderr
    assert took_s < 20
    assert contents(folder) == []


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist", "kmnist"])
def test_a_truncated_dataset_file_is_named(folder: Path, dataset: str, suffix: str) -> None:
    (folder / "files").mkdir()
    for name in FILES:
        (folder / "files" / (name + suffix)).write_bytes(b"\x1f\x8b\x08" if suffix else b"\0\0\x08\x03\0\0\xea\x60")
    refused(
        ask("run", "--dataset", dataset, "--data-dir", "files", "--gpus", 0),
        f"files/train-images-idx3-ubyte{suffix} is truncated or corrupt",
        "Remove it to have it downloaded again, or put the right file there",
    )
    assert len(contents(folder)) == 5


# ---- help and version


@pytest.mark.parametrize("words", [[], ["run"], ["plan"], ["status"], ["report"]], ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(words: list[str], flag: str) -> None:
    result = ask(*words, flag)
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: {' '.join(['dae-sweep', *words])}")


@pytest.mark.parametrize("name", main.commands)
def test_a_command_alone_has_the_same_help_options(name: str) -> None:
    """As where submit parses the options of run; click keeps the first help option that a command had."""
    command = main.commands[name]
    alone = click.Context(command, **command.context_settings)
    assert set(command.get_help_option_names(alone)) == {"-h", "--help"}


def test_help_names_every_option_with_a_line_of_its_own() -> None:
    for name, command in main.commands.items():
        for option in command.params:
            if isinstance(option, click.Argument):
                continue  # the command's own text says what it is
            assert getattr(option, "help", None), f"{name} {option.name} has no help"


def test_version_of_the_module_and_of_the_command() -> None:
    assert sh("--version").stdout == f"python -m sweep, version {__version__}\n".replace("python -m sweep", "dae-sweep")
    assert ask("--version").output == f"dae-sweep, version {__version__}\n"


# ---- errors of ours


def test_debug_shows_the_traceback_and_nothing_else_does() -> None:
    quiet, loud = (sh("plan", "--depths", "0", *more) for more in ((), ("--debug",)))
    assert (quiet.returncode, "Traceback" in quiet.stderr) == (2, False)
    assert loud.returncode != 0
    assert "Traceback (most recent call last)" in loud.stderr
    assert "UserError: depth 0 is out of range" in loud.stderr


def test_an_error_nobody_thought_of_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(runner, "run", broken)
    refused(ask(*SMALL_RUN), "Error: ZeroDivisionError: a bug", "Run it with --debug to see where", exit_code=1)
    assert isinstance(ask(*SMALL_RUN, "--debug").exception, ZeroDivisionError)


# ---- plan


def test_plan_is_the_studys_table_1(folder: Path) -> None:
    result = ask("plan")
    heading, *lines = [re.split(r"\s{2,}", line.strip()) for line in result.output.splitlines() if line.strip()]
    assert result.exit_code == 0
    assert heading == ["name", "latent space", "compression", "layers", "parameters", "MACs/image", "sees"]
    rows = {line[0]: line[1:] for line in lines if len(line) == len(heading)}
    assert list(rows) == [f"DAE_{depth}_{latent}" for depth in (1, 3, 5) for latent in (13, 8, 5)]
    for latent, share in ((13, "86.22%"), (8, "32.65%"), (5, "12.76%")):
        for depth in (1, 3, 5):
            assert rows[f"DAE_{depth}_{latent}"][:3] == [f"(4, {latent}, {latent})", share, f"{depth} + {depth}"]
    assert [rows[f"DAE_3_{latent}"][3::2] for latent in (13, 8, 5)] == [
        ["8,389", "16 px"], ["9,797", "18 px"], ["8,389", "16 px"],
    ]  # fmt: skip
    # By hand, depth 1, latent 13: 2 x 4 filters of 7 x 7 with 4 + 1 biases, at 13 x 13 places each way
    # (kernel 28 - 2 x 12 = 4, made 8 by padding of 2).
    assert rows["DAE_1_13"][3:5] == [f"{2 * 4 * 8**2 + 5:,}", f"{2 * 4 * 8**2 * 13**2:,}"]
    assert lines[-1] == ["9 cells of mnist: 0 completed, 0 to continue, 9 to train"]
    assert contents(folder) == []


def test_plan_takes_what_run_takes(folder: Path) -> None:
    words = ["--wandb", "offline", "--gpus", "0", "--resolve", "--quiet", "--no-report", "--max-retries", "1"]
    assert ask("plan", *words).stdout == ask("plan").stdout
    assert "--max-retries" not in ask("plan", "--help").stdout
    assert contents(folder) == []


def test_plan_counts_what_is_done(tmp_path: Path) -> None:
    statuses = {
        "DAE_1_13-s0": Status.FAILED, "DAE_1_8-s0": Status.DIVERGED, "DAE_1_5-s0": Status.RUNNING,
        "DAE_3_5-s0": Status.MISSING,
    }  # fmt: skip
    make_sweep(tmp_path / "sweeps" / "study", statuses=statuses)
    said = ask("plan", "--storage", tmp_path / "sweeps", "--name", "study", "--seeds", "0,1").output
    assert said.splitlines()[-1] == "18 cells of study: 5 completed, 1 diverged, 1 to continue, 11 to train"


def test_plan_cuts_no_number_of_a_large_model() -> None:
    result = ask("plan", "--depths", "30", "--latents", "20", "--width", "64")
    assert "…" not in result.output
    assert re.search(r"DAE_30_20 .* [\d,]{9,} +[\d,]{13,} +28 px", result.output)


# ---- status


def test_status_lists_sweeps_and_their_cells(folder: Path) -> None:
    grid = Grid.product((1,), (13, 8, 5), (0,))
    make_sweep(folder / "sweeps" / "b", grid, name="b")
    statuses = {"DAE_1_13-s0": Status.FAILED, "DAE_1_8-s0": Status.RUNNING, "DAE_1_5-s0": Status.MISSING}
    make_sweep(folder / "sweeps" / "a", grid, name="a", statuses=statuses)
    (folder / "sweeps" / "no sweep").mkdir()
    before = snapshot(folder)
    result = ask("status")
    assert result.exit_code == 0
    assert [re.split(r"\s{2,}", line.strip()) for line in result.output.splitlines()] == [
        ["a: 0 of 3 completed, 1 failed, 1 interrupted, 1 missing"],
        ["DAE_1_13-s0", "failed", "epoch 6/15", "RuntimeError: made to fail"],
        ["DAE_1_8-s0", "interrupted", "epoch 6/15"],
        ["DAE_1_5-s0", "missing"],
        ["b: 3 of 3 completed"],
        ["DAE_1_13-s0", "completed", "epoch 15/15", "test loss 0.01532"],
        ["DAE_1_8-s0", "completed", "epoch 15/15", "test loss 0.01639"],
        ["DAE_1_5-s0", "completed", "epoch 15/15", "test loss 0.02012"],
    ]
    assert snapshot(folder) == before


def test_status_tells_of_the_sweeps_that_are_named(folder: Path) -> None:
    for name in ("a", "b", "c"):
        make_sweep(folder / "sweeps" / name, Grid.product((1,), (13,), (0,)), name=name)
    assert re.findall(r"^\w+(?=:)", ask("status", "c", "a", "c").output, re.MULTILINE) == ["c", "a"]
    result = ask("status", "a", "d", "e")
    assert result.exit_code == 2
    assert result.output.startswith("Error: there is no sweep d or e in ")
    assert result.output.endswith("; there are a, b, c.\n")


def test_status_knows_a_live_run_and_a_damaged_record(folder: Path) -> None:
    store = make_sweep(
        folder / "sweeps" / "a", Grid.product((1,), (13, 8), (0,)), statuses={"DAE_1_8-s0": Status.RUNNING}
    )
    store.write(CellFiles("DAE_1_13-s0").record, b"{}")
    with store.lock():
        said = ask("status").output
    assert "a: 0 of 2 completed, 1 running, 1 damaged, a run is at it" in said
    assert re.search(r"DAE_1_13-s0 +damaged", said)
    assert re.search(r"DAE_1_8-s0 +running", said)


@pytest.mark.parametrize("which", ["record", "weights", "test"])
def test_status_and_plan_count_no_cell_whose_files_are_damaged(sweep_copy: Store, which: str) -> None:
    key = SMALL_GRID.cells[0].key
    file = getattr(CellFiles(key), which)
    assert "4 of 4 completed" in ask("status", "--storage", sweep_copy.root.parent).output
    sweep_copy.write(file, sweep_copy.read(file)[:-40])
    said = ask("status", "--storage", sweep_copy.root.parent).output
    assert "mnist-5k: 3 of 4 completed, 1 damaged" in said
    assert re.search(rf"{key} +damaged +.*{Path(file).name}", said)
    settings = ("--dataset", "mnist-5k", "--epochs", SMALL.epochs, "--train-fraction", SMALL.train_fraction)
    planned = ask("plan", "--storage", sweep_copy.root.parent, "--depths", "1,3", "--latents", "5,8", *settings)
    assert "3 completed, 0 to continue, 1 to train" in planned.output


def test_status_goes_on_after_a_sweep_it_cannot_read(folder: Path) -> None:
    make_sweep(folder / "sweeps" / "a").write(MANIFEST, b"{")
    make_sweep(folder / "sweeps" / "b", name="b")
    result = ask("status")
    assert result.exit_code == 0
    assert "a: sweep.json cannot be read: " in result.output
    assert "b: 9 of 9 completed" in result.output


def test_status_without_a_sweep_says_how_to_begin_one(folder: Path) -> None:
    refused(ask("status"), f"there is no sweep in {folder / 'sweeps'}", "dae-sweep run", "--storage")


# ---- report


def test_a_report_over_nothing_completed_says_so(folder: Path) -> None:
    grid = Grid.product((1,), (13, 8), (0,))
    statuses = {"DAE_1_13-s0": Status.DIVERGED, "DAE_1_8-s0": Status.MISSING}
    store = make_sweep(folder / "sweeps" / "study", grid, statuses=statuses)
    before = snapshot(store.root)
    refused(
        ask("report", "--name", "study"), "study has no completed cell to report (1 diverged, 1 missing)", exit_code=1
    )
    assert snapshot(store.root) == before


def test_a_report_of_no_sweep_says_where_to_look(folder: Path) -> None:
    refused(ask("report", "--name", "nope"), f"there is no sweep in {folder / 'sweeps/nope'}", "dae-sweep status")
    assert contents(folder) == []


def test_a_report_of_a_damaged_manifest_says_what_mends_it(folder: Path) -> None:
    make_sweep(folder / "sweeps" / "study").write(MANIFEST, b"{}")
    refused(ask("report", "--name", "study"), "sweep.json is damaged", "dae-sweep run writes it anew")


def test_report_writes_the_page_from_the_folder_alone(folder: Path) -> None:
    make_sweep(folder / "sweeps" / "study", Grid.product((1,), (13, 5), (0,)))
    result = ask("report", "--name", "study")
    assert result.exit_code == 0
    assert result.output == f"2 of 2 completed\nReport: {folder / 'sweeps/study/report/index.html'}\n"
    assert (folder / "sweeps/study/report/index.html").is_file()


# ---- run


@pytest.fixture
def storage(in_process: InProcess, folder: Path, undisturbed: Store) -> Store:
    """A finished sweep in the default storage, and runs without Ray."""
    shutil.copytree(undisturbed.root, folder / "sweeps" / "mnist-5k")
    return Store(folder / "sweeps" / "mnist-5k")


@pytest.mark.parametrize(
    ("option", "found", "asked"),
    [("--epochs", "3", "4"), ("--lr", "0.004", "0.01"), ("--alpha", "0.5", "0.25"), ("--batch-size", "32", "64"),
     ("--width", "16", "8"), ("--latent-channels", "4", "2"), ("--initialisation", "lsuv", "he"),
     ("--train-fraction", "0.1", "0.2")],
)  # fmt: skip
def test_a_contradiction_names_the_field_both_values_and_the_way_out(
    storage: Store, in_process: InProcess, option: str, found: str, asked: str
) -> None:
    before = snapshot(storage.root)
    field = option.removeprefix("--").replace("-", "_")
    refused(
        ask(*SMALL_RUN, option, asked),
        f"was made with {field} {found}, this command asks for {asked}",
        "another --name",
        f"{option} {found}",
    )
    assert in_process.rounds == []
    assert snapshot(storage.root) == before


def test_more_epochs_of_a_finished_sweep_are_refused_with_the_reason(storage: Store, in_process: InProcess) -> None:
    refused(
        ask("run", "--name", "mnist-5k", "--epochs", "20"),
        "epochs 3, this command asks for 20",
        "the state of its optimiser is not kept",
        "Under another --name all are trained anew",
    )
    assert "optimiser" not in ask("run", "--name", "mnist-5k", "--lr", "0.01").output
    assert in_process.rounds == []


@pytest.fixture
def interrupted(in_process: InProcess, folder: Path) -> Store:
    """Depths 1 to 3 were declared, with three epochs; a signal came amid the first cell."""

    def interrupt(_key: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    in_process.before = interrupt
    assert ask(*SMALL_RUN, "--depths", "1..3", "--latents", "5", "--no-report").exit_code == 130
    in_process.before, in_process.rounds = (lambda _key: None), []
    return Store(folder / "sweeps" / "mnist-5k")


def test_a_command_that_names_a_grid_trains_that_grid_alone(interrupted: Store, in_process: InProcess) -> None:
    result = ask(*SMALL_RUN, "--depths", "1", "--latents", "5", "--no-report")
    assert result.exit_code == 0, result.output
    assert in_process.rounds == [["DAE_1_5-s0"]]
    said = " ".join(result.output.split())
    assert "this command leaves out DAE_2_5-s0, DAE_3_5-s0, declared before; without --depths" in said


def test_a_command_that_names_no_grid_resumes_all_with_the_sweeps_settings(
    interrupted: Store, in_process: InProcess
) -> None:
    result = ask("run", "--name", "mnist-5k", "--gpus", "0", "--wandb", "disabled", "--no-report")
    assert result.exit_code == 0, result.output
    assert in_process.rounds == [["DAE_3_5-s0", "DAE_2_5-s0", "DAE_1_5-s0"]]
    sweep = gather(interrupted)
    assert {len(record.history) for record in sweep.completed} == {3}
    assert {record.config["train_fraction"] for record in sweep.completed} == {0.1}
    assert "leaves out" not in result.output


@pytest.mark.usefixtures("interrupted")
def test_levels_that_a_command_does_not_name_are_the_sweeps() -> None:
    def planned(*words: str) -> str:
        return ask("plan", "--name", "mnist-5k", *words).output.splitlines()[-1]

    assert planned("--seeds", "0,1") == "6 cells of mnist-5k: 0 completed, 1 to continue, 5 to train"
    assert planned("--latents", "4,5") == "6 cells of mnist-5k: 0 completed, 1 to continue, 5 to train"
    assert planned("--depths", "4").startswith("1 cell of mnist-5k: 0 completed")
    assert planned("--axis", "width=16,24").startswith("5 cells of mnist-5k"), "width has no effect at depth 1"


def test_a_finished_sweep_is_reported_again_and_not_trained(storage: Store, in_process: InProcess) -> None:
    before = snapshot(storage.path("cells"))
    result = ask(*SMALL_RUN)
    assert (result.exit_code, result.stderr) == (0, "")
    assert snapshot(storage.path("cells")) == before
    assert in_process.rounds == []
    assert "4 of 4 completed in " in result.stdout
    assert f"Report: {storage.path('report/index.html')}" in result.stdout
    losses = [f"{record.test_loss:.5f}" for record in gather(storage).completed]
    assert all(loss in result.stdout for loss in losses)


def test_the_defaults_of_name_and_storage(in_process: InProcess, folder: Path) -> None:
    result = ask(*SMALL_RUN, "--no-report", "--depths", "1", "--latents", "5")
    assert result.exit_code == 0
    told = [line for line in result.stdout.splitlines() if line.startswith("DAE_1_5-s0  ")]
    assert [line.split("  ")[1] for line in told] == [
        "epoch 1/3", "epoch 2/3", "epoch 3/3", f"completed, test loss {test_loss(folder / 'sweeps/mnist-5k'):.5f}",
    ]  # fmt: skip
    assert contents(folder / "sweeps" / "mnist-5k") == sorted(
        ["cells", "samples.npz", "sweep.json", "cells/DAE_1_5-s0"]
        + [f"cells/DAE_1_5-s0/{name}" for name in ("log.txt", "model.safetensors", "record.json", "test.npz")]
    )
    assert contents(folder) == ["sweeps", *(f"sweeps/{name}" for name in ["mnist-5k", *contents_below(folder)])]


def contents_below(folder: Path) -> list[str]:
    return [f"mnist-5k/{name}" for name in contents(folder / "sweeps" / "mnist-5k")]


def test_loss(folder: Path) -> float:
    loss = read_record(Store(folder), Cell(depth=1, latent=5, seed=0)).test_loss
    assert loss is not None
    return loss


test_loss.__test__ = False  # type: ignore[attr-defined]  # not a test case


def test_the_batch_size_of_the_small_dataset_is_32(in_process: InProcess, folder: Path) -> None:
    ask(*SMALL_RUN, "--depths", "1", "--latents", "5", "--epochs", "1", "--no-report")
    assert gather(Store(folder / "sweeps" / "mnist-5k")).manifest.settings.batch_size == 32


def test_quiet_gives_the_result_only(in_process: InProcess, folder: Path) -> None:
    result = ask(*SMALL_RUN, "--quiet", "--no-report", "--depths", "1", "--latents", "5")
    assert "epoch" not in result.stdout
    assert "1 of 1 completed in " in result.stdout


def test_a_diverged_cell_makes_the_run_end_with_1(in_process: InProcess, folder: Path) -> None:
    result = ask(*SMALL_RUN, "--lr", "1e12", "--latents", "5")
    assert result.exit_code == 1
    assert "DAE_3_5-s0  diverged: epoch 1: training loss nan" in result.stdout
    assert "1 of 2 completed, 1 diverged in " in result.stdout
    assert "Report: " in result.stdout


def test_nothing_completed_makes_no_report_and_ends_with_1(in_process: InProcess, folder: Path) -> None:
    result = ask(*SMALL_RUN, "--lr", "1e30", "--latents", "5")
    assert result.exit_code == 1
    assert "0 of 2 completed, 2 diverged in " in result.stdout
    assert "Report: " not in result.stdout
    assert not (folder / "sweeps/mnist-5k/report").exists()
    refused(ask("report", "--name", "mnist-5k"), "has no completed cell to report (2 diverged)", exit_code=1)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda store, files: store.write(files.record, b"{}"), "record.json"),
        (lambda store, files: store.write(files.weights, b"no weights"), "model.safetensors does not match its digest"),
        (lambda store, files: store.delete(files.test), "test.npz is not there"),
        (lambda store, files: store.write(MANIFEST, b"{"), "sweep.json is damaged"),
    ],
    ids=["record", "weights", "test", "manifest"],
)
def test_damage_is_a_warning_and_the_sweep_goes_on(
    storage: Store, damage: Callable[[Store, CellFiles], None], named: str
) -> None:
    damage(storage, CellFiles("DAE_1_5-s0"))
    result = ask(*SMALL_RUN, "--no-report")
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: ")
    assert len(result.stderr.splitlines()) == 1
    assert named in result.stderr
    assert ("DAE_1_5-s0" in result.stderr) == ("sweep.json" not in named)
    assert "4 of 4 completed" in result.stdout


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGUSR2, 140)]
)
def test_a_signal_keeps_what_is_done_and_says_how_to_go_on(
    in_process: InProcess, folder: Path, number: signal.Signals, exit_code: int
) -> None:
    epochs = iter(range(9))
    in_process.before = lambda _key: os.kill(os.getpid(), number) if next(epochs) == 4 else None
    result = ask(*SMALL_RUN)
    assert result.exit_code == exit_code
    assert f"{number.name}: every finished epoch is kept; the same command continues." in result.stderr
    assert ask("status").output.startswith("mnist-5k: 1 of 4 completed, 1 interrupted, 2 missing\n")
    in_process.before = lambda _key: None
    assert "4 of 4 completed" in ask(*SMALL_RUN, "--no-report").stdout
    assert len(gather(Store(folder / "sweeps/mnist-5k")).completed) == len(SMALL_GRID.cells)


def test_a_sweep_that_another_run_holds_is_refused(storage: Store) -> None:
    with storage.lock():
        refused(ask(*SMALL_RUN), f"process {os.getpid()} on ", "is already at the sweep in", "another --name")


def test_a_record_of_another_version_is_refused_with_the_way_out(storage: Store, monkeypatch: Any) -> None:
    from sweep.records import record

    before = snapshot(storage.root)
    monkeypatch.setattr(record, "SCHEMA", 2)
    refused(ask(*SMALL_RUN), "written with schema 1, this version reads schema 2", "another --name")
    assert snapshot(storage.root) == before


def test_the_installed_command_is_there() -> None:
    assert importlib.util.find_spec("sweep") is not None
    script = Path(sys.executable).with_name("dae-sweep")
    if not script.exists():
        pytest.skip("the package is not installed beside this Python")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"dae-sweep, version {__version__}\n"


def test_a_list_without_end_is_refused_at_once() -> None:
    result = CliRunner().invoke(main, ["plan", "--dataset", "mnist-5k", "--depths", "1..1000000000"])
    assert result.exit_code == 2
    assert "more than 100,000 values" in result.output
