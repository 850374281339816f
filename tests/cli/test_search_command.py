"""The command line of a search, without training."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import SMALL_GRID

from sweep.cli import main
from sweep.records.grid import Grid, Settings
from sweep.records.record import Status
from sweep.records.search import Search
from sweep.records.space import Space
from sweep.records.sweep import MANIFEST, Manifest, gather
from sweep.storage.store import Store

LEAST = ("--space", "depth=1..3", "--space", "latent=4..8")


def call(*words: object, code: int = 2) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A storage with a search that was begun, called ``s``."""
    manifest = Manifest.new(
        name="s",
        grid=Grid.of(()),
        settings=Settings.usual("mnist-5k", epochs=4),
        dataset={"name": "mnist-5k", "fingerprint": "f"},
        search=Search(space=Space.parse(["depth=1..3", "latent=4..8"]), scheduler="asha", trials=30),
    )
    store = Store(tmp_path / "s")
    store.create()
    store.write(MANIFEST, manifest.to_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--space", "width=8..16", "--width", "12"], "--width and --space width contradict each other"),
        (["--sampler", "magic"], "is not one of 'random', 'tpe'"),
        (["--time-budget", "0s"], "leaves no time"),
        (["--scheduler", "asha", "--epochs", "1"], "nothing to stop early"),
    ],
)
def test_bad_options_are_refused(words: list[str], complaint: str, tmp_path: Path) -> None:
    assert complaint in call("search", "--dataset", "mnist-5k", "--storage", tmp_path, *LEAST, *words)
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'dae-sweep[search]'" in call(
        "search", "--dataset", "mnist-5k", "--storage", tmp_path, "--gpus", 0, *LEAST
    )


def test_run_and_search_refuse_what_is_the_others(begun: Path, sweep_copy: Store) -> None:
    assert "s is a search: dae-sweep search --name s goes on" in call("run", "--name", "s", "--storage", begun)
    storage, name = sweep_copy.root.parent, sweep_copy.name
    assert f"dae-sweep run --name {name} goes on" in call("search", "--name", name, "--storage", storage)
    assert len(gather(sweep_copy).completed) == len(SMALL_GRID.cells)


def test_a_search_that_contradicts_what_was_begun_is_refused(begun: Path) -> None:
    said = call("search", "--name", "s", "--storage", begun, "--sampler", "gp")
    assert "begun with --sampler tpe, this command asks for gp" in said


def test_plan_shows_the_space_and_what_is_left(begun: Path) -> None:
    said = call("plan", "--name", "s", "--storage", begun, code=0)
    assert "space: 15 points" in said
    assert "s: 0 tried (none), 30 to propose" in said
    said = call("plan", "--storage", begun, *LEAST, "--space", "lr=1e-3..1e-2", "--trials", 9, code=0)
    assert "any number of points" in said
    assert "9 trials of 15 epochs, 135 to 135 epochs" in said


def test_stop_and_pause_say_what_they_did(sweep_copy: Store) -> None:
    storage, name = sweep_copy.root.parent, sweep_copy.name
    assert "no run is at" in call("pause", name, "--storage", storage)
    assert "is no cell of" in call("stop", name, "DAE_9_9-s0", "--storage", storage)
    assert "is completed: there is nothing to stop" in call("stop", name, "DAE_1_5-s0", "--storage", storage)
    assert "which cells?" in call("stop", name, "--storage", storage)


def test_an_interrupted_cell_is_stopped_without_a_run(sweep_copy: Store) -> None:
    from dataclasses import replace

    from sweep.records.record import CellFiles

    record = replace(gather(sweep_copy).records["DAE_1_5-s0"], status=Status.RUNNING, test_loss=None)
    sweep_copy.write(CellFiles(record.key).record, record.to_bytes())
    call("stop", sweep_copy.name, record.key, "--storage", sweep_copy.root.parent, code=0)
    assert gather(sweep_copy).records[record.key].status is Status.STOPPED
    assert "1 stopped" in gather(sweep_copy).tally
