"""The command line of a search, without training."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import SMALL_GRID

from dae.errors import UserError
from sweep.cli import main
from sweep.models.trained import choose
from sweep.records.grid import Cell, Grid, Settings
from sweep.records.record import CellFiles, Epoch, Record, Status
from sweep.records.search import Proposal, Search
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
    assert "s: 0 tried (none), 15 to propose, 9 cells of finalists to train" in said
    assert "how long that takes is known once a first trial has ended" in said
    said = call("plan", "--storage", begun, *LEAST, "--space", "lr=1e-3..1e-2", "--trials", 9, code=0)
    assert "any number of points" in said
    assert "9 trials of 15 epochs, 135 epochs in all" in said
    assert "a step takes about" in said
    median = ("plan", "--storage", begun, *LEAST, "--scheduler", "median", "--epochs", 10, "--trials")
    assert "2 trials of 10 epochs, 20 epochs in all" in call(*median, 2, code=0)
    assert "9 trials of 10 epochs, 36 to 90 epochs in all" in call(*median, 9, code=0)


def test_plan_takes_what_belongs_to_what_it_plans(begun: Path, sweep_copy: Store) -> None:
    grid, search = ("plan", "--storage", begun), ("plan", "--storage", begun, "--name", "s")
    assert "--trials belongs to a search: give its --space, or the --name" in call(*grid, "--trials", 5)
    assert "--sampler belongs to a search" in call(
        "plan", "--storage", sweep_copy.root.parent, "--name", sweep_copy.name, "--sampler", "random"
    )
    assert "--depths belongs to a grid" in call(*search, "--depths", 3)
    assert "--axis belongs to a grid" in call(*search, "--axis", "lr=1e-3")
    assert "--seeds of a search is the number of fresh seeds" in call(*search, "--seeds", "0,1")
    assert "15 to propose, 6 cells of finalists to train" in call(*search, "--seeds", 2, code=0)
    point = call(*grid, "--space", "depth=1", "--space", "latent=5..5", "--epochs", 2, "--seeds", 1, code=0)
    assert "space: 1 point; 12,800 MACs an image" in point
    assert "tpe: 1 trial of 2 epochs, 2 epochs in all; then 1 cell of finalists, 2 epochs" in point


def test_a_command_for_a_sweep_that_is_not_there_names_those_that_are(begun: Path) -> None:
    for words in (("stop", "nope", "DAE_1_5-s0"), ("pause", "nope"), ("best", "nope"), ("verify", "--name", "nope")):
        assert f"there is no sweep in {begun}/nope; there is s." in call(*words, "--storage", begun)


def test_plan_of_a_begun_search_says_how_long_the_rest_takes(begun: Path) -> None:
    store = Store(begun / "s")
    manifest = gather(store).manifest
    for number, (latent, epochs, status) in enumerate(((4, 4, Status.DIVERGED), (5, 1, Status.PRUNED),
                                                       (6, 2, Status.RUNNING))):  # fmt: skip
        cell = Cell(depth=1, latent=latent, seed=0)
        record = Record.new(cell, manifest.settings, manifest.dataset)
        history = tuple(Epoch(epoch=one + 1, train_loss=0.1, val_loss=0.1, seconds=10.0) for one in range(epochs))
        store.write(CellFiles(cell.key).record, replace(record, history=history, status=status).to_bytes())
        proposal = Proposal(number=number, point={"depth": 1, "latent": latent})
        store.write(CellFiles(cell.key).proposal, proposal.to_bytes())
    words = ("plan", "--name", "s", "--storage", begun, "--trials", 5, "--gpus", 0, "--cpus")
    said = call(*words, 1, code=0)
    assert "3 tried (1 diverged, 1 pruned, 1 interrupted), 2 to propose, 1 to go on with, 9 cells of finalists" in said
    assert "about 6:55 min of training, 1 at a time" in said  # 2 * 25 + 5 + 9 * 40 s
    assert "about 3:28 min of training, 2 at a time" in call(*words, 2, code=0)


def test_a_space_is_held_against_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweep.trials import machine

    monkeypatch.setattr(machine, "memory_bytes", lambda: 2**20)
    words = ("search", "--dataset", "mnist-5k", "--storage", tmp_path, "--gpus", 0, "--cpus", 1)
    said = call(*words, "--space", "depth=5", "--space", "latent=4,13")
    assert "even the cheapest cell of the space takes about" in said
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(machine, "memory_bytes", lambda: 8 * 2**30)
    given = CliRunner().invoke(main, [*map(str, words), "--space", "depth=1..100000", "--space", "latent=4,13",
                                      "--train-fraction", "0.00001"])  # fmt: skip
    assert "the dearest cell of the space takes about" in given.output


def test_stop_and_pause_say_what_they_did(sweep_copy: Store) -> None:
    storage, name = sweep_copy.root.parent, sweep_copy.name
    assert "no run is at" in call("pause", name, "--storage", storage)
    assert "is no cell of" in call("stop", name, "DAE_9_9-s0", "--storage", storage)
    assert "is completed: there is nothing to stop" in call("stop", name, "DAE_1_5-s0", "--storage", storage)
    assert "which cells?" in call("stop", name, "--storage", storage)


def test_an_interrupted_cell_is_stopped_without_a_run(sweep_copy: Store) -> None:
    record = replace(gather(sweep_copy).records["DAE_1_5-s0"], status=Status.RUNNING, test_loss=None)
    sweep_copy.write(CellFiles(record.key).record, record.to_bytes())
    call("stop", sweep_copy.name, record.key, "--storage", sweep_copy.root.parent, code=0)
    assert gather(sweep_copy).records[record.key].status is Status.STOPPED
    assert "1 stopped" in gather(sweep_copy).tally


def test_plan_of_a_grid_counts_stopped_cells_as_ended(sweep_copy: Store) -> None:
    cells = gather(sweep_copy).manifest.grid.cells[:2]
    for cell, status in zip(cells, (Status.STOPPED, Status.PRUNED), strict=True):
        record = replace(gather(sweep_copy).records[cell.key], status=status)
        sweep_copy.write(CellFiles(cell.key).record, record.to_bytes())
    said = call("plan", "--name", sweep_copy.name, "--storage", sweep_copy.root.parent, code=0)
    assert "2 completed, 1 pruned, 1 stopped, 0 to continue, 0 to train" in said


def test_advice_for_a_search_can_be_followed(begun: Path) -> None:
    store = Store(begun / "s")
    manifest = gather(store).manifest
    for number, (latent, status) in enumerate(((4, Status.PRUNED), (5, Status.DIVERGED), (6, Status.FAILED))):
        cell = Cell(depth=1, latent=latent, seed=0)
        record = replace(Record.new(cell, manifest.settings, manifest.dataset), status=status)
        store.write(CellFiles(cell.key).record, record.to_bytes())
        point = {"depth": 1, "latent": latent}
        store.write(CellFiles(cell.key).proposal, Proposal(number=number, point=point).to_bytes())
    sweep = gather(store)
    for key, advice in (
        ("DAE_1_4-s0", ": dae-sweep search --name s --revive goes on with it."),
        ("DAE_1_5-s0", "only a completed cell has a model."),
        ("DAE_1_6-s0", ": dae-sweep search --name s goes on with it."),
    ):
        with pytest.raises(UserError, match=re.escape(advice)):
            choose(sweep, key)
    with pytest.raises(UserError, match="only finalists are tested: dae-sweep search --name s trains them"):
        choose(sweep)
    store.write(MANIFEST, b"{}")
    assert "dae-sweep search --name s writes it anew" in call("pause", "s", "--storage", begun)
