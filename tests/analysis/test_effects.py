from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import STUDY_LOSSES, make_sweep

from sweep.analysis.arrays import Arrays, load_arrays
from sweep.analysis.claims import Split
from sweep.analysis.costs import Cost, front
from sweep.analysis.effects import effects
from sweep.analysis.profiles import Profile, profiles
from sweep.analysis.results import results
from sweep.analysis.verdicts import Verdict
from sweep.records.grid import Grid
from sweep.records.record import Epoch, Record, Status
from sweep.records.sweep import Sweep, gather


def study(folder: Path, seeds: int = 3, losses: Mapping[tuple[int, int], float] = STUDY_LOSSES) -> tuple[Sweep, Arrays]:
    grid = Grid.product((1, 3, 5), (13, 8, 5), range(seeds))
    sweep = gather(make_sweep(folder, grid, losses=losses, seed_sd=2e-6))
    return sweep, load_arrays(sweep)


# ---- main effects and interaction


def test_shares_by_hand(tmp_path: Path) -> None:
    # Depth means 3, 7 and latent means 4, 6 around 5: squares 4 and 1, and a rest of +-1 with square 1.
    losses = {(1, 13): 3e-3, (1, 5): 3e-3, (3, 13): 5e-3, (3, 5): 9e-3}
    sweep = gather(make_sweep(tmp_path, Grid.product((1, 3), (13, 5), (0,)), losses=losses))
    shares = effects(sweep, load_arrays(sweep)).shares
    assert shares is not None
    assert (shares.depth, shares.latent, shares.interaction) == pytest.approx((4 / 6, 1 / 6, 1 / 6))


def test_shares_need_every_architecture(tmp_path: Path) -> None:
    sweep = gather(make_sweep(tmp_path, statuses={"DAE_3_8-s0": Status.FAILED}))
    assert effects(sweep, load_arrays(sweep)).shares is None


def test_the_corners_are_the_interaction_in_one_number(tmp_path: Path) -> None:
    study_effects = effects(*study(tmp_path))
    assert study_effects.corners is not None
    effect = study_effects.corners.effects[Split.TEST]
    assert effect.difference == pytest.approx((0.02012 - 0.01532) - (0.01069 - 0.01009), abs=1e-5)
    assert effect.verdict is Verdict.SUPPORTED
    assert (study_effects.depth.verdict, study_effects.latent.verdict) == (Verdict.SUPPORTED, Verdict.SUPPORTED)


def test_a_claim_is_contradicted_by_one_pair_and_open_with_one_open(tmp_path: Path) -> None:
    wrong = effects(*study(tmp_path / "wrong", losses=STUDY_LOSSES | {(5, 5): 0.0100})).latent
    assert wrong.verdict is Verdict.CONTRADICTED
    open_one = effects(*study(tmp_path / "open", losses=STUDY_LOSSES | {(5, 5): STUDY_LOSSES[5, 8] + 1e-7})).latent
    assert open_one.verdict is Verdict.NOT_RESOLVED
    assert effects(*study(tmp_path / "one", seeds=1)).depth.verdict is Verdict.ONE_SEED


# ---- loss against cost


def test_the_front_by_hand(tmp_path: Path) -> None:
    losses = STUDY_LOSSES | {(3, 8): 0.0102, (5, 8): 0.0110}
    architectures = results(study(tmp_path, losses=losses)[0])
    points = {point.result.name: point for point in front(architectures, Cost.MACS)}
    assert [name for name, point in points.items() if not point.on_front] == ["DAE_3_13", "DAE_5_5", "DAE_5_8"]
    costs = [point.cost for point in points.values()]
    assert costs == sorted(costs)
    on_front = [point.result.mean for point in points.values() if point.on_front]
    assert on_front == sorted(on_front, reverse=True)
    assert [point.result.name for point in front(architectures, Cost.COMPRESSION) if point.on_front] == [
        "DAE_5_5",
        "DAE_3_8",
        "DAE_5_13",
    ]


# ---- how deep before it stops helping


def by_depth(
    folder: Path, losses: Mapping[int, float], change: Callable[[Record], Record] = lambda record: record
) -> Profile:
    grid = Grid.product(tuple(losses), (13,), (0, 1, 2))
    sweep = gather(make_sweep(folder, grid, losses={(depth, 13): loss for depth, loss in losses.items()}, seed_sd=2e-6))
    sweep = replace(sweep, records={key: change(record) for key, record in sweep.records.items()})
    (profile,) = profiles(sweep, load_arrays(sweep))
    return profile


def test_which_depths_may_be_the_best(tmp_path: Path) -> None:
    profile = by_depth(tmp_path, {1: 0.015, 2: 0.012, 3: 0.010, 4: 0.010, 5: 0.0101})
    assert [step.loss and step.loss.verdict for step in profile.steps] == [
        Verdict.SUPPORTED,
        Verdict.SUPPORTED,
        Verdict.NOT_RESOLVED,
        Verdict.CONTRADICTED,
    ]
    assert (profile.may_be_best, profile.shown_worse, profile.untested) == ((3, 4), (1, 2, 5), ())
    assert profile.best in {3, 4}
    assert profile.overfits_from is None


def test_nothing_compared_is_nothing_concluded(tmp_path: Path) -> None:
    """Depth 1 shares no seed with the others, depth 2 has a collapsed one: neither is best or worse."""

    def changed(record: Record) -> Record:
        if record.depth == 1:
            return replace(record, key=record.key.replace("-s", "-s7"), seed=int(f"7{record.seed}"))
        return replace(record, collapsed=record.depth == 2 and record.seed == 0)

    grid = Grid.product((1, 2, 3, 5), (13,), (0, 1, 2))
    losses = {(1, 13): 0.0477, (2, 13): 0.0222, (3, 13): 0.0150, (5, 13): 0.0149}
    sweep = gather(make_sweep(tmp_path, grid, losses=losses, seed_sd=2e-3))
    records = [changed(record) for record in sweep.records.values()]
    grid = Grid.of(record.cell for record in records)
    sweep = replace(
        sweep, records={record.key: record for record in records}, manifest=replace(sweep.manifest, grid=grid)
    )
    (profile,) = profiles(sweep, load_arrays(sweep))
    assert profile.untested == (1, 2)
    assert set(profile.may_be_best) <= {3, 5}
    assert profile.shown_worse in {(), (3,), (5,)}


def test_overfitting_is_a_gap_and_a_rise_that_are_both_supported(tmp_path: Path) -> None:
    def overfitted(record: Record) -> Record:
        if record.depth < 5:
            return record
        bend = record.seed * 1e-6
        history = [
            Epoch(epoch=n, train_loss=0.02 / n, val_loss=0.01 + 1e-4 * max(0, n - 8) + bend * n, seconds=4.25)
            for n in range(1, 16)
        ]
        return replace(record, history=tuple(history))

    profile = by_depth(tmp_path, {1: 0.015, 3: 0.010, 5: 0.010}, overfitted)
    deepest = profile.points[-1]
    assert deepest.gap.difference == pytest.approx(0.01 + 7e-4 + 15e-6 - 0.02 / 15)
    assert deepest.rise is not None
    # Above 0.01: 5, 6 and 7 in the last three epochs, 2, 3 and 4 before, in 1e-4; the seeds add 3e-6 on average.
    assert deepest.rise.difference == pytest.approx(3e-4 + 3e-6)
    assert profile.overfits_from == 5
    assert deepest.seconds.mean == 15 * 4.25


def test_one_seed_gives_sizes_and_no_verdict(tmp_path: Path) -> None:
    sweep = gather(make_sweep(tmp_path))
    for profile in profiles(sweep, load_arrays(sweep)):
        assert (profile.may_be_best, profile.shown_worse, profile.untested) == ((), (), (1, 3, 5))
        assert profile.overfits_from is None
        assert profile.best == 5
        assert {step.loss and step.loss.verdict for step in profile.steps} == {Verdict.ONE_SEED}
        assert profile.points[0].seconds.low is None
