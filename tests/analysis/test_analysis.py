import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import STUDY_GRID, STUDY_LOSSES, make_sweep

from dae.config import ImageShape, Size
from sweep.analysis.arrays import load_arrays
from sweep.analysis.claims import Claim, Contrast, Factor, Split
from sweep.analysis.comparer import Comparer
from sweep.analysis.findings import Findings
from sweep.analysis.results import loss_notes, loss_table, psnr, results
from sweep.analysis.statistics import holm, over_seeds
from sweep.analysis.tidy import cell_rows, epoch_rows
from sweep.analysis.verdicts import Effect, Verdict, with_verdicts
from sweep.records.grid import Cell, Grid, Settings
from sweep.records.record import CellFiles, Record, Status
from sweep.records.sweep import SAMPLES, gather
from sweep.storage.store import Store

THREE_SEEDS = Grid.product((1, 3, 5), (13, 8, 5), (0, 1, 2))


def claim_of(folder: Path, factor: Factor, grid: Grid = STUDY_GRID, **options: object) -> Claim:
    sweep = gather(make_sweep(folder, grid, **options))  # type: ignore[arg-type]  # passed on as they are
    return Comparer(sweep, load_arrays(sweep)).claim(factor)


def pair(claim: Claim, higher: str, lower: str) -> Contrast:
    (contrast,) = [pair for pair in claim.pairs if [cell.architecture for cell in pair.cells] == [higher, lower]]
    return contrast


# ---- intervals and verdicts


@pytest.mark.parametrize("value", [0.5, 0.0])
def test_seeds_that_agree_exactly_leave_no_interval(value: float) -> None:
    estimate = over_seeds([value, value])
    assert (estimate.interval(), estimate.p) == ((value, value), float(value == 0))


def test_holm_by_hand() -> None:
    # Sorted: 0.005 x 4 = 0.02, 0.01 x 3 = 0.03, 0.03 x 2 = 0.06, 0.04 x 1 = 0.04 raised to the 0.06 before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_verdicts_need_the_corrected_p_value_and_follow_the_sign() -> None:
    def effect(difference: float, p: float | None) -> Effect:
        return Effect(difference, None, (0, 1), p=p)

    family = [effect(0.1, 0.004), effect(-0.1, 0.006), effect(0.1, 0.04), effect(0.1, 0.03), effect(0.1, None)]
    assert [effect.verdict for effect in with_verdicts(family)] == [
        Verdict.SUPPORTED,
        Verdict.CONTRADICTED,
        Verdict.NOT_RESOLVED,
        Verdict.NOT_RESOLVED,
        Verdict.ONE_SEED,
    ]


# ---- results


def test_results_are_means_over_seeds(tmp_path: Path) -> None:
    sweep = gather(make_sweep(tmp_path, THREE_SEEDS))
    losses = [record.test_loss for record in sweep.completed if record.architecture == "DAE_3_8"]
    (result,) = [result for result in results(sweep) if result.name == "DAE_3_8"]
    assert result.losses == tuple(losses)
    assert result.mean == pytest.approx(np.mean(losses))
    assert result.sd == pytest.approx(np.std(losses, ddof=1))
    assert result.total == pytest.approx(784 * np.mean(losses))
    assert (result.field, result.parameters, result.layers) == (18, 9797, "3 Conv2D + 3 ConvTranspose2d")


def test_psnr() -> None:
    assert psnr(0.01) == pytest.approx(20.0)
    assert psnr(0.0) == math.inf


def test_missing_is_never_a_number(tmp_path: Path) -> None:
    states = {"DAE_1_5-s0": Status.FAILED, "DAE_3_5-s0": Status.DIVERGED, "DAE_5_5-s0": Status.MISSING}
    sweep = gather(make_sweep(tmp_path, statuses=states | {"DAE_5_8-s0": Status.RUNNING}))
    by_name = {result.name: result for result in results(sweep)}
    words = {"DAE_1_5": "failed", "DAE_3_5": "diverged", "DAE_5_5": "missing", "DAE_5_8": "interrupted"}
    for name, word in words.items():
        hole = by_name[name]
        assert (hole.mean, hole.sd, hole.psnr, hole.total, hole.marks) == (None, None, None, None, (word,))
    assert loss_table(sweep) == [
        ["depth", "latent 13", "latent 8", "latent 5"],
        ["1", "0.01532", "0.01639", "failed"],
        ["3", "0.01095", "0.01110", "diverged"],
        ["5", "0.01009", "interrupted", "missing"],
    ]


def test_the_loss_table_counts_seeds_and_leaves_out_what_the_grid_leaves_out(tmp_path: Path) -> None:
    cells = [Cell(depth=1, latent=13, seed=0), Cell(depth=1, latent=13, seed=1), Cell(depth=3, latent=8, seed=0)]
    sweep = gather(make_sweep(tmp_path, Grid.of(cells), seed_sd=0.0, flags={"DAE_3_8-s0": "unconverged"}))
    assert loss_table(sweep)[1:] == [["1", "0.01532 ± 0.00000 (2)", ""], ["3", "", "0.01110 *"]]
    assert loss_notes(sweep) == ["unconverged: DAE_3_8"]


# ---- arrays


def test_damaged_arrays_are_left_out_and_named(tmp_path: Path) -> None:
    store = make_sweep(tmp_path)
    bad, good = CellFiles("DAE_1_5-s0").test, CellFiles("DAE_1_8-s0").test
    store.write(bad, store.read(bad)[:-9])
    store.delete(SAMPLES)
    arrays = load_arrays(gather(store))
    assert arrays.samples is None
    assert set(arrays.damaged) == {SAMPLES, bad}
    assert "DAE_1_5-s0" not in arrays.outputs
    assert "DAE_1_8-s0" in arrays.outputs, good


def test_arrays_that_disagree_with_their_record_are_damaged(tmp_path: Path) -> None:
    store = make_sweep(tmp_path)
    name = CellFiles("DAE_1_5-s0").record
    record = Record.from_bytes(store.read(name))
    store.write(name, replace(record, test_loss=0.03).to_bytes())
    assert "the record says 0.03" in load_arrays(gather(store)).damaged[CellFiles("DAE_1_5-s0").test]


# ---- claims


def test_the_reference_supports_both_claims_in_every_pair(tmp_path: Path) -> None:
    for factor in Factor:
        claim = claim_of(tmp_path / factor, factor)
        assert len(claim.pairs) == len(claim.comparable_pairs()) == 9
        assert len(claim.comparable_pairs(adjacent=True)) == 6
        for contrast in claim.comparable_pairs():
            assert all(effect.holds for effect in contrast.effects.values())
            assert {effect.verdict for effect in contrast.effects.values()} == {Verdict.ONE_SEED}


def test_differences_and_averages_by_hand(tmp_path: Path) -> None:
    claim = claim_of(tmp_path, Factor.LATENT)
    effect = pair(claim, "DAE_1_8", "DAE_1_13").effects[Split.TEST]
    assert effect.difference == pytest.approx(0.00107)
    assert effect.relative == pytest.approx(0.00107 / 0.01532)
    (average,) = [average for average in claim.averages if (average.higher, average.lower) == ("latent 5", "latent 8")]
    assert average.other_levels == (1, 3, 5)
    assert average.effects[Split.TEST].difference == pytest.approx((0.00373 + 0.00145 + 0.00006) / 3)
    assert claim.overall is not None
    steps = [pair.effects[Split.TEST] for pair in claim.comparable_pairs(adjacent=True)]
    overall = claim.overall.effects[Split.TEST]
    assert overall.difference == pytest.approx(sum(step.difference for step in steps) / 6)
    lower = 2 * 0.01532 / 2 + 0.01639 - 0.01532 + 0.01095 + 0.01110 + 0.01009 + 0.01063
    assert overall.relative == pytest.approx(sum(step.difference for step in steps) / (lower + 0.01532))


def test_a_planted_failure_fails(tmp_path: Path) -> None:
    losses = STUDY_LOSSES | {(3, 8): 0.0108}
    claim = claim_of(tmp_path, Factor.LATENT, losses=losses)
    failing = [pair for pair in claim.comparable_pairs() if not pair.effects[Split.TEST].holds]
    assert [pair.cells[0].architecture for pair in failing] == ["DAE_3_8"]
    assert failing[0].effects[Split.TEST].difference == pytest.approx(0.0108 - 0.01095)
    assert failing[0].share == 0.0


def test_seeds_give_verdicts_both_ways(tmp_path: Path) -> None:
    losses = STUDY_LOSSES | {(5, 5): 0.0080, (5, 8): 0.01009}
    claim = claim_of(tmp_path, Factor.LATENT, THREE_SEEDS, losses=losses, seed_sd=2e-5)
    verdicts = {
        names: pair(claim, *names).effects[Split.TEST].verdict
        for names in [("DAE_1_5", "DAE_1_13"), ("DAE_5_5", "DAE_5_13"), ("DAE_5_8", "DAE_5_13")]
    }
    assert list(verdicts.values()) == [Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.NOT_RESOLVED]


def test_pairs_use_the_seeds_that_both_cells_have(tmp_path: Path) -> None:
    missing = {"DAE_1_5-s0": Status.FAILED, "DAE_1_13-s2": Status.MISSING}
    claim = claim_of(tmp_path, Factor.LATENT, THREE_SEEDS, statuses=missing)
    assert pair(claim, "DAE_1_5", "DAE_1_8").effects[Split.TEST].seeds == (1, 2)
    lone = pair(claim, "DAE_1_5", "DAE_1_13").effects[Split.TEST]
    assert (lone.seeds, lone.verdict, lone.p) == ((1,), Verdict.ONE_SEED, None)


def test_a_hole_takes_its_pairs_with_it_and_no_others(tmp_path: Path) -> None:
    claim = claim_of(tmp_path, Factor.DEPTH, statuses={"DAE_3_8-s0": Status.DIVERGED})
    empty = [[cell.architecture for cell in pair.cells] for pair in claim.pairs if not pair.effects]
    assert empty == [["DAE_1_8", "DAE_3_8"], ["DAE_3_8", "DAE_5_8"]]
    (average,) = [average for average in claim.averages if (average.higher, average.lower) == ("depth 1", "depth 3")]
    assert average.other_levels == (13, 5)


def test_collapsed_and_unconverged_cells_are_named_where_they_are_used(tmp_path: Path) -> None:
    claim = claim_of(tmp_path, Factor.LATENT, flags={"DAE_1_5-s0": "collapsed"})
    assert pair(claim, "DAE_1_5", "DAE_1_8").caveats == ("collapsed DAE_1_5-s0",)
    assert pair(claim, "DAE_3_5", "DAE_3_8").caveats == ()
    assert claim.overall is not None
    assert claim.overall.caveats == ("collapsed DAE_1_5-s0",)


def test_nothing_is_judged_across_the_change_of_stem(tmp_path: Path) -> None:
    claim = claim_of(tmp_path, Factor.LATENT, Grid.product((1, 3), (16, 14, 13, 8), (0, 1)))
    uncounted = {tuple(cell.architecture for cell in pair.cells) for pair in claim.pairs if not pair.counted}
    assert uncounted == {(f"DAE_3_{small}", f"DAE_3_{large}") for small in (13, 8) for large in (16, 14)}
    assert all(pair.counted for pair in claim.comparable_pairs())


def test_latents_of_as_many_numbers_are_no_pair(tmp_path: Path) -> None:
    image = ImageShape(13, 21)  # on which a latent of 8 is 8x13, as large as 13x8
    grid = Grid.product((1, 2), (8, Size(13, 8), 5), (0, 1), image=image)
    settings = Settings(image=str(image))
    claim = claim_of(tmp_path, Factor.LATENT, grid, settings=settings)
    assert {(pair.higher, pair.lower) for pair in claim.pairs} == {
        ("latent 5", "latent 8"), ("latent 5", "latent 13x8"),
    }  # fmt: skip
    assert all(pair.adjacent for pair in claim.pairs)
    assert len(claim.averages) == 2
    sweep = gather(Store(tmp_path))
    assert sweep.manifest.grid.latents == (Size(13, 8), 8, 5)
    alike = Grid.product((1, 2), (8, Size(13, 8)), (0, 1), image=image)
    sweep = gather(make_sweep(tmp_path / "alike", alike, settings=settings))
    comparer = Comparer(sweep, load_arrays(sweep))
    assert comparer.corners() is None
    assert comparer.claim(Factor.LATENT).pairs == ()
    assert len(comparer.claim(Factor.DEPTH).pairs) == 2
    rows = [*cell_rows(Findings.of(sweep)), *epoch_rows(Findings.of(sweep))]
    assert {row["latent"] for row in rows} == {"8", "13x8"}
    assert {row["config.latent"] for row in rows if "config.latent" in row} == {"8", "13x8"}


def test_the_interaction_is_a_difference_of_differences(tmp_path: Path) -> None:
    sweep = gather(make_sweep(tmp_path))
    steps = Comparer(sweep, load_arrays(sweep)).interaction()
    by_name = {(step.higher, step.lower, step.other_levels): step.effects[Split.TEST] for step in steps}
    assert len(steps) == 4
    assert by_name["latent 8", "latent 13", (1, 3)].difference == pytest.approx(0.00107 - 0.00015)
    assert by_name["latent 8", "latent 13", (3, 5)].difference == pytest.approx(0.00015 - 0.00054)
    assert by_name["latent 8", "latent 13", (3, 5)].relative is None
