"""The page of a search, and a search in Python, from a folder made without Ray."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import InProcess, Silent, request_for

from sweep import load
from sweep.analysis import search as analysis
from sweep.analysis.search import FullGrid, Luck, best_table, full_grid_of, luck_of, savings_of
from sweep.driver import runner
from sweep.driver.signals import Signals
from sweep.records.grid import Grid, Settings
from sweep.records.record import Status
from sweep.records.search import Search
from sweep.records.space import Space
from sweep.records.sweep import Sweep
from sweep.report.page import build
from sweep.search.ranking import completed_trials
from sweep.storage.store import Store

pytest.importorskip("optuna")

SETTINGS = Settings.usual("mnist-5k", train_fraction=0.1, epochs=2)
SEARCH = Search(
    space=Space.parse(["depth=1", "latent=4..13", "lr=log:1e-3..2e-2", "batch_size=32,64"]),
    trials=12,
    scheduler="asha",
    finalists=2,
    finalist_seeds=2,
)


@pytest.fixture
def searched(in_process: InProcess, tmp_path: Path) -> Sweep:
    request = request_for(Store(tmp_path / "s"), Grid.of(()), SETTINGS, search=SEARCH)
    return runner.run(request, Signals(), Silent()).sweep


def test_the_page_of_a_search(searched: Sweep) -> None:
    page = build(searched).read_text()
    assert "How much was luck?" in page
    assert "12 configurations of 12" in page
    names = set(searched.store.names("report"))
    shown = {"trials", "curves", "parallel", "slices", "importance", "contours"}
    assert {f"report/search_{name}.png" for name in shown} <= names
    assert build(searched).read_text() == page  # the same records give the same bytes
    rows = list(csv.DictReader(io.StringIO(searched.store.read("report/results.csv").decode())))
    assert len(rows) == 16
    assert sum(bool(row["test_loss"]) for row in rows) == 4
    assert savings_of(searched).epochs < savings_of(searched).all_epochs
    assert luck_of(searched) is not None
    assert "There is none: the space has a range of real numbers" in page

    loaded = load(str(searched.store.root))
    assert len(loaded.study.trials) == 12  # type: ignore[union-attr]
    assert len(loaded.cells) == 16
    assert loaded.figure("search_trials").axes


def test_every_configuration_with_fresh_seeds_is_shown(searched: Sweep) -> None:
    worst = completed_trials(searched)[-1]
    again = replace(worst, key=worst.key.replace("-s0", "-s5"), seed=5, test_loss=0.5, status=Status.COMPLETED)
    grid = Grid.of([*searched.manifest.grid.cells, again.cell])
    sweep = replace(
        searched,
        manifest=replace(searched.manifest, grid=grid),
        records={**searched.records, again.key: again},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "BEST_SHOWN", 1)
        assert len(best_table(searched)) == 3  # the heading, and two finalists
        rows = best_table(sweep)
    assert len(rows) == 4
    assert rows[-1][0] == str(len(completed_trials(sweep)))
    assert rows[-1][-1].startswith("0.5")


def test_a_search_is_held_against_the_full_grid(searched: Sweep) -> None:
    full = full_grid_of(searched)
    assert full is not None
    assert full.elapsed > 0
    text = str(FullGrid(cells=120, spent=300.0, elapsed=150.0, whole=10.0))
    assert "All 120 cells of the space, each trained in full, would take about 20:00 min of training" in text
    assert "10:00 min with as many at a time" in text
    assert "took 5:00 min of training in 2:30 min, 25 % of the training of all cells" in text
    assert Space.parse(["depth=1..2", "latent=4..8", "width=8,16"]).cells == 15


def test_luck_is_what_fresh_seeds_do_not_confirm() -> None:
    luck = Luck("a", "b", lead=0.004, fresh_leads=(0.001, 0.003), flattery=0.002)
    assert luck.share == pytest.approx(0.5)
    assert "50 % of its lead was luck" in str(luck)
    assert "All of its lead was luck" in str(replace(luck, fresh_leads=(-0.001, 0.0)))
    assert "confirm its lead in full" in str(replace(luck, fresh_leads=(0.005, 0.006)))
