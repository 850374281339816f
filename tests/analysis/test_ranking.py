"""`dae-sweep best`: the order of a sweep's models, and how sure it is."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from synthetic import STUDY_GRID, STUDY_LOSSES, make_sweep

from sweep.analysis.ranking import rankings
from sweep.cli import main
from sweep.records.grid import Grid
from sweep.records.record import Status
from sweep.records.sweep import gather
from sweep.storage.store import Store

THREE_SEEDS = Grid.product((1, 3, 5), (13, 8, 5), (0, 1, 2))


def ask(store: Store, *words: str) -> Result:
    return CliRunner().invoke(main, ["best", store.name, "--storage", str(store.root.parent), *words])


def test_the_lowest_mean_loss_wins_and_of_it_the_best_seed(tmp_path: Path) -> None:
    store = make_sweep(tmp_path / "study", THREE_SEEDS)
    ranking = rankings(gather(store))[0]
    means = {name: loss for (depth, latent), loss in STUDY_LOSSES.items() for name in [f"DAE_{depth}_{latent}"]}
    assert ranking.first.name == min(means, key=lambda name: means[name])
    seeds = [record for record in gather(store).completed if record.architecture == "DAE_5_13"]
    assert ranking.first.best == min(seeds, key=lambda record: record.test_loss or 1)
    assert [c.mean for c in ranking.candidates] == sorted(c.mean for c in ranking.candidates)
    answer = ask(store)
    assert answer.exit_code == 0
    assert answer.output.startswith(ranking.first.best.key)


def test_one_seed_is_said_to_be_no_certainty(tmp_path: Path) -> None:
    answer = ask(make_sweep(tmp_path / "study"))
    assert "With one seed each the order is not certain" in answer.output


def test_different_numbers_of_seeds_are_said(tmp_path: Path) -> None:
    grid = Grid.product((3, 5), (8, 5), (0, 1, 2)).union(Grid.product((1, 5), (13,), (0,)))
    ranking = rankings(gather(make_sweep(tmp_path / "study", grid)))[0]
    assert ranking.first.name == "DAE_5_13"
    assert ranking.certainty == (
        "It is not certain that DAE_5_13 is the best: no other one shares two seeds with it. Means are over different "
        "numbers of seeds: DAE_5_13, DAE_1_13 have 1 seed; DAE_5_8, DAE_5_5, DAE_3_8, DAE_3_5 have 3 seeds. Across "
        "these the order is that of the means alone: give all the same seeds to compare them."
    )
    lines = ask(Store(tmp_path / "study")).output.splitlines()
    assert [line.count("(1 seed)") for line in lines if line.startswith("  DAE_")] == [1, 0, 0, 0, 0, 1]
    assert sum("(3 seeds)" in line for line in lines) == 4
    other = Grid.product((5,), (13, 8), (0, 1, 2)).union(Grid.product((1,), (13,), (0,)))
    sure = rankings(gather(make_sweep(tmp_path / "other", other, seed_sd=1e-7)))[0]
    assert "DAE_1_13 has 1 seed; DAE_5_13, DAE_5_8 have 3 seeds." in sure.certainty


@pytest.mark.parametrize("way", ["path", "relative", "slash", "uri", "dot"])
def test_a_sweep_may_be_named_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    store = make_sweep(tmp_path / "elsewhere" / "study")
    monkeypatch.chdir(store.root if way == "dot" else tmp_path)
    texts = {"path": str(store.root), "relative": "elsewhere/study", "slash": "elsewhere/study/", "dot": "."}
    answer = CliRunner().invoke(main, ["best", texts.get(way, f"file://{store.root}"), "--json"])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.output)["sweep"] == "study"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("x/nope",), "/x/nope, and none beside it; dae-sweep status --storage DIR lists those of DIR."),
        (("~nobody-of-this-name/x",), "there is no sweep in ~nobody-of-this-name/x: "),
        (("a" * 400,), "there is no sweep in "),
        (("a:b",), "there is no sweep in "),
        (("x/nope", "--storage", "y"), "x/nope is the path of a sweep: leave --storage out"),
    ],
)
def test_a_sweep_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(main, ["best", *words])
    assert answer.exit_code == 2, answer.output
    assert message in answer.output
    assert "--name" not in answer.output


def test_what_may_be_best_is_named(tmp_path: Path) -> None:
    """Depth 5 at latent 8 and 5 differ by 0.6 %, less than seeds scatter; depth 1 is far off."""
    ranking = rankings(gather(make_sweep(tmp_path / "study", THREE_SEEDS, seed_sd=3e-4)))[0]
    assert ranking.shown_worse is not None
    assert {"DAE_1_13", "DAE_1_8", "DAE_1_5"} <= set(ranking.shown_worse)
    assert "The best one is among DAE_5_13, " in ranking.certainty
    sure = rankings(gather(make_sweep(tmp_path / "sure", THREE_SEEDS, seed_sd=1e-7)))[0]
    assert sure.certainty == "It is shown to be better than all 8 others (95 % confidence)."


def test_limits_leave_what_is_within_them(tmp_path: Path) -> None:
    store = make_sweep(tmp_path / "study")
    answer = json.loads(ask(store, "--under", "macs=1e6", "--under", "latent=8", "--json").output)
    best = answer["rankings"][0]["best"]
    assert best["latent"] <= 8
    assert best["macs"] <= 1e6
    names = [entry["name"] for entry in answer["rankings"][0]["order"]]
    assert names
    assert all(name.endswith(("_8", "_5")) for name in names)
    assert answer["under"] == {"macs": 1e6, "latent": 8}


def test_models_under_other_noise_have_a_best_one_of_their_own(tmp_path: Path) -> None:
    grid = Grid.product((1, 3), (13,), (0,), {"alpha": (0.25,)}).union(Grid.product((1, 3), (13,), (0,)))
    store = make_sweep(tmp_path / "study", grid)
    assert [ranking.alpha for ranking in rankings(gather(store))] == [0.5, 0.25]
    output = ask(store).output
    assert output.index("Under gaussian noise of strength 0.5:") < output.index("of strength 0.25:")


def test_pairs_have_no_noise_that_is_drawn(sweep_of_pairs: Store) -> None:
    ranking = json.loads(ask(sweep_of_pairs, "--json").output)["rankings"][0]
    assert (ranking["noise"], ranking["alpha"]) == ("pairs", None)
    assert "gaussian" not in ask(sweep_of_pairs).output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--under", "macs=3"), "the least there is is macs "),
        (("--under", "depth=3"), "is no limit: one looks like macs=3e6"),
        (("--under", "macs=few"), "'few' is not a number"),
    ],
)
def test_limits_that_cannot_be_are_refused(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    answer = ask(make_sweep(tmp_path / "study"), *words)
    assert answer.exit_code == 2
    assert message in answer.output


def test_a_sweep_without_completed_cells_has_no_best(tmp_path: Path) -> None:
    store = make_sweep(tmp_path / "study", statuses={cell.key: Status.FAILED for cell in STUDY_GRID.cells})
    answer = ask(store)
    assert answer.exit_code == 2
    assert "sweep study has no completed cell: dae-sweep run trains its cells." in answer.output
    assert ask(Store(tmp_path / "nope")).exit_code == 2


def test_marks_are_told(tmp_path: Path) -> None:
    grid = Grid.product((1,), (13,), (0,))
    answer = ask(make_sweep(tmp_path / "study", grid, flags={"DAE_1_13-s0": "collapsed"}))
    assert "Warning: DAE_1_13-s0 collapsed" in answer.output
