"""``dae-sweep run --resolve``: which seeds it adds, when it stops, and what the verdicts make of repeated looks."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import SMALL, InProcess, Silent
from synthetic import STUDY_LOSSES, make_sweep

from sweep.analysis.arrays import load_arrays
from sweep.analysis.claims import Factor, Split
from sweep.analysis.comparer import Comparer
from sweep.analysis.resolve import Step, comparisons, next_step, with_look
from sweep.analysis.statistics import alpha_for_look
from sweep.cli import main
from sweep.driver.request import Request
from sweep.driver.rounds import Resolving, after_look
from sweep.driver.runner import run
from sweep.driver.signals import Interrupted, Signals
from sweep.records.grid import Cell, Grid, Settings
from sweep.records.matching import arm
from sweep.records.record import Record, Status
from sweep.records.sweep import Manifest, Sweep, gather
from sweep.storage.store import Store

CLOSE: Mapping[tuple[int, int], float] = STUDY_LOSSES | {(5, 5): STUDY_LOSSES[5, 8] + 1e-7}


def looked_at(folder: Path, *seeds: int, losses: Mapping[tuple[int, int], float] = CLOSE, **options: Any) -> Sweep:
    sweep = gather(make_sweep(folder, Grid.product((1, 3, 5), (13, 8, 5), seeds), losses=losses, **options))
    return replace(sweep, manifest=with_look(sweep))


def step_after(sweep: Sweep, max_seeds: int = 10) -> Step:
    return next_step(sweep, comparisons(sweep, load_arrays(sweep)), max_seeds)


def keys(cells: tuple[Cell, ...]) -> set[str]:
    return {cell.key for cell in cells}


# ---- what comes next


def test_one_seed_goes_on_to_three_of_every_architecture(tmp_path: Path) -> None:
    sweep = looked_at(tmp_path, 0)
    step = step_after(sweep)
    assert keys(step.cells) == {
        f"{each.architecture}-s{s}" for each in sweep.manifest.grid.architectures for s in (1, 2)
    }
    assert "one seed" in step.because
    assert step.seconds == pytest.approx(18 * 15 * 4.25)


def test_only_the_undecided_pair_gets_seeds_and_both_its_cells_do(tmp_path: Path) -> None:
    step = step_after(looked_at(tmp_path, *range(5), seed_sd=2e-6))
    assert keys(step.cells) == {f"DAE_5_{size}-s{seed}" for size in (8, 5) for seed in (5, 6)}
    assert step.because == "1 of 21 comparisons are not decided yet"


def test_seeds_that_others_have_come_first(tmp_path: Path) -> None:
    sweep = looked_at(tmp_path, 4, 7, 9, seed_sd=2e-6)
    assert {cell.seed for cell in step_after(sweep).cells} == {0, 1}


def test_it_ends_when_all_is_decided(tmp_path: Path) -> None:
    step = step_after(looked_at(tmp_path, *range(5), losses=STUDY_LOSSES, seed_sd=2e-6))
    assert (step.cells, step.because) == ((), "all 21 comparisons are decided")


def test_it_ends_at_max_seeds(tmp_path: Path) -> None:
    sweep = looked_at(tmp_path, *range(5), seed_sd=2e-6)
    step = step_after(sweep, max_seeds=5)
    assert step.cells == ()
    assert step.because == "1 of 21 comparisons are not decided: 1 because --max-seeds 5 is reached"
    assert {cell.seed for cell in step_after(sweep, max_seeds=6).cells} == {5}


def test_seeds_are_not_wasted_on_collapsed_models(tmp_path: Path) -> None:
    step = step_after(looked_at(tmp_path, *range(5), seed_sd=2e-6, flags={"DAE_5_8-s1": "collapsed"}))
    assert not {key for key in keys(step.cells) if key.startswith("DAE_5_8")}


def test_one_architecture_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    sweep = gather(make_sweep(tmp_path, Grid.product((1,), (13,), (0, 1))))
    assert step_after(sweep).because == "there are no two architectures to compare"


def test_depth_is_resolved_at_equal_parameters_too(tmp_path: Path) -> None:
    plain = Grid.product((3, 5), (8,), (0,))
    sweep = gather(make_sweep(tmp_path, plain.union(arm(plain, Settings()))))
    step = step_after(sweep)
    names = ("DAE_3_8", "DAE_5_8", "DAE_5_8-width11")
    assert keys(step.cells) == {f"{name}-s{seed}" for name in names for seed in (1, 2)}


# ---- looks and verdicts


def test_a_look_is_recorded_once_and_survives_the_file(tmp_path: Path) -> None:
    sweep = looked_at(tmp_path, 0, 1, 2)
    assert [len(look) for look in sweep.manifest.looks] == [27]
    assert with_look(sweep) == sweep.manifest
    assert Manifest.from_bytes(sweep.manifest.to_bytes()).looks == sweep.manifest.looks


def test_verdicts_hold_each_look_against_its_own_share(tmp_path: Path) -> None:
    whole = gather(make_sweep(tmp_path, Grid.product((1, 3, 5), (13, 8, 5), range(5))))
    first = tuple(cell.key for cell in whole.manifest.grid.cells if cell.seed < 3)
    sweep = replace(whole, manifest=replace(whole.manifest, looks=(first,)))
    sweep = replace(sweep, manifest=with_look(sweep))
    plain, looked = (Comparer(each, load_arrays(whole)).claim(Factor.LATENT) for each in (whole, sweep))
    early = gather(make_sweep(tmp_path / "early", Grid.product((1, 3, 5), (13, 8, 5), range(3))))
    at_three = Comparer(early, load_arrays(early)).claim(Factor.LATENT)
    for now, then, fixed in zip(looked.pairs, at_three.pairs, plain.pairs, strict=True):
        effect, before = now.effects[Split.TEST], then.effects[Split.TEST]
        assert effect.p is not None
        assert before.p is not None
        assert effect.p == fixed.effects[Split.TEST].p
        by_look = [effect.p / alpha_for_look(5, 3)]
        if effect.holds == before.holds:
            by_look.append(before.p / alpha_for_look(3, 0))
        assert effect.valid_p == pytest.approx(min(1.0, *by_look))
        assert effect.share == alpha_for_look(5, 3)


def test_half_a_round_is_no_look(tmp_path: Path) -> None:
    sweep = looked_at(tmp_path, 0, 1, 2)
    grid = sweep.manifest.grid.union(Grid.product((5,), (8, 5), (3, 4)))
    running = {cell.key: Status.MISSING for cell in grid.cells if cell.seed == 4}
    more = gather(make_sweep(tmp_path / "more", grid, losses=CLOSE, statuses=running))
    more = replace(more, manifest=replace(more.manifest, looks=sweep.manifest.looks))
    pairs = Comparer(more, load_arrays(more)).claim(Factor.LATENT).comparable_pairs()
    assert {pair.effects[Split.TEST].share for pair in pairs} == {alpha_for_look(3, 0)}
    said: list[str] = []
    assert after_look(more, Resolving(max_seeds=10), 1, said.append) == ()
    assert said == []


def test_a_round_that_will_not_fit_is_not_begun(tmp_path: Path) -> None:
    said: list[str] = []
    sweep = gather(make_sweep(tmp_path, Grid.product((1, 3, 5), (13, 8, 5), (0, 1, 2))))
    resolving = Resolving(max_seeds=10, deadline=time.monotonic() + 60)
    assert after_look(sweep, resolving, 2, said.append) == ()
    assert "cells would take about" in said[0]
    assert "of --time-budget are left" in said[0]


# ---- runs


def go(store: Store, signals: Signals | None = None, **changes: Any) -> list[str]:
    request = Request(
        store=store,
        grid=Grid.product((1, 3), (8,), (0,)),
        settings=SMALL,
        data_dir=Path("nowhere"),
        cpus=1,
        gpus=0,
        trials_per_gpu=1,
        wandb_mode="disabled",
        project="dae",
    )
    said: list[str] = []
    run(replace(request, **changes), signals or Signals(), Silent(tell=said.append))
    return said


@pytest.fixture
def never_collapsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """So short a training leaves models that are no better than the mean image; here that is not the question."""
    original = Record.from_bytes.__func__  # type: ignore[attr-defined]  # the function of the classmethod

    def read(cls: type[Record], data: bytes) -> Record:
        record: Record = original(cls, data)
        return replace(record, collapsed=False)

    monkeypatch.setattr(Record, "from_bytes", classmethod(read))


def test_rounds_go_on_in_one_run_and_leave_their_looks(
    tmp_path: Path, in_process: InProcess, never_collapsed: None
) -> None:
    store = Store(tmp_path / "mnist-5k")
    said = go(store, resolving=Resolving(max_seeds=3))
    assert in_process.rounds[0] == ["DAE_3_8-s0", "DAE_1_8-s0"]
    assert sorted(in_process.rounds[1]) == ["DAE_1_8-s1", "DAE_1_8-s2", "DAE_3_8-s1", "DAE_3_8-s2"]
    sweep = gather(store)
    assert [len(look) for look in sweep.manifest.looks] == [2, 4]
    assert sweep.manifest.grid.seeds == (0, 1, 2)
    assert "one seed says nothing" in said[1]
    # Again: nothing is left to train, and nothing new to look at.
    again = go(store, resolving=Resolving(max_seeds=3))
    assert len(in_process.rounds) == 2
    assert again == [said[-1]]
    assert gather(store).manifest == sweep.manifest


def test_interrupted_between_looks_the_same_command_goes_on(
    tmp_path: Path, in_process: InProcess, never_collapsed: None
) -> None:
    store, signals = Store(tmp_path / "mnist-5k"), Signals()
    in_process.before = lambda key: signals._handle(2, None) if key.endswith("s2") else None
    with pytest.raises(Interrupted):
        go(store, signals, resolving=Resolving(max_seeds=3))
    sweep = gather(store)
    assert [len(look) for look in sweep.manifest.looks] == [2]
    assert sweep.manifest.grid.seeds == (0, 1, 2)
    in_process.before = lambda _key: None
    go(store, resolving=Resolving(max_seeds=3))
    assert [len(look) for look in gather(store).manifest.looks] == [2, 4]


def test_a_time_budget_that_ends_within_a_round_keeps_what_is_there(
    tmp_path: Path, in_process: InProcess, never_collapsed: None
) -> None:
    store = Store(tmp_path / "mnist-5k")
    go(store, resolving=Resolving(max_seeds=3, deadline=time.monotonic() - 1))
    sweep = gather(store)
    assert not sweep.completed
    assert sweep.manifest.looks == ()


# ---- the command line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-seeds", "5"], "--max-seeds is a limit of --resolve: give both, or neither."),
        (["--time-budget", "5m"], "--time-budget is a limit of --resolve: give both, or neither."),
        (["--resolve", "--max-seeds", "2"], "--max-seeds 2 is out of range: it must be 3 to 100."),
        (
            ["--resolve", "--seeds", "0..4", "--max-seeds", "4"],
            "--max-seeds 4 is below the 5 seeds given: raise it, or give fewer --seeds.",
        ),
        (["--resolve", "--time-budget", "soon"], "'soon' is not a time; one looks like 30m, 2h, 1h30m or 90s."),
        (["--resolve", "--time-budget", "0m"], "--time-budget 0 leaves no time: give more, for example 30m."),
        (
            ["--resolve", "--depths", "1", "--latents", "5"],
            "--resolve compares architectures, and only one is given: give more --depths or --latents.",
        ),
    ],
)
def test_options_that_cannot_be(
    words: list[str], message: str, tmp_path: Path, own_signals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(main, ["run", "--dataset", "mnist-5k", "--gpus", "0", *words])
    assert answer.exit_code == 2
    assert message in answer.output
    assert not (tmp_path / "sweeps").exists()
