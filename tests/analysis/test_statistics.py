import math
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from simulations import HALF, INTACT, NULL, WORLDS, Tally, World, coverage, fixed, resolved

from sweep.analysis.statistics import (
    LOOKS,
    MOST_SEEDS,
    POWER,
    Estimate,
    Limit,
    alpha_for_look,
    alpha_spent,
    crossed,
    holm,
    needed,
    over_seeds,
    power,
)

sizes = st.floats(0.01, 100)
estimates = st.builds(
    Estimate,
    mean=st.floats(-3, 3).filter(lambda mean: abs(mean) > 1e-3),
    seeds=st.integers(2, 30),
    images=st.integers(50, 10_000),
    seed_variance=sizes,
    image_variance=sizes | st.just(0.0),
)


def table(seed: int, shape: tuple[int, int] = (4, 50)) -> np.ndarray:
    generator = np.random.default_rng(seed)
    by_seed, by_image = generator.standard_normal(shape[0])[:, None], 2 * generator.standard_normal(shape[1])
    return by_seed + by_image + generator.standard_normal(shape)


# ---- a mean and its uncertainty


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_over_seeds_is_scipys_paired_t_test(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    one, other = generator.normal(1.0, 0.2, seeds), generator.normal(0.8, 0.2, seeds)
    reference = scipy.stats.ttest_rel(one, other)
    estimate = over_seeds(list(one - other))
    assert estimate.p == pytest.approx(reference.pvalue, rel=1e-9)
    assert estimate.interval(0.01) == pytest.approx(tuple(reference.confidence_interval(0.99)), rel=1e-9)


def test_images_that_add_nothing_leave_the_paired_t_test() -> None:
    values = np.array([1.0, 2.0, 4.0])[:, None] + np.zeros(100)
    estimate, reference = crossed(values), scipy.stats.ttest_1samp([1.0, 2.0, 4.0], 0.0)
    assert estimate.image_variance == 0
    assert estimate.p == pytest.approx(reference.pvalue, rel=1e-9)


def test_seeds_that_add_nothing_leave_the_t_test_over_images() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 200)
    estimate, reference = crossed(np.stack([values] * 3)), scipy.stats.ttest_1samp(values, 0.0)
    assert estimate.interval() == pytest.approx(tuple(reference.confidence_interval(0.95)), rel=1e-9)
    assert estimate.p == pytest.approx(reference.pvalue, rel=1e-5)


def test_mean_squares_by_hand() -> None:
    # Means of the seeds are 2 and 4, of the images 1, 3, 5; without them 0, 0.5, -0.5 and 0, -0.5, 0.5 remain.
    estimate = crossed(np.array([[0.0, 2.5, 3.5], [2.0, 3.5, 6.5]]))
    assert (estimate.mean, estimate.seeds, estimate.images) == (3.0, 2, 3)
    assert estimate.seed_variance == pytest.approx(2.0)
    # The rest has a mean square of 1 / (1 x 2); the images' means have a variance of 4, a half of that subtracted.
    assert estimate.image_variance == pytest.approx((4.0 - 0.5 / 2) / 3)
    assert estimate.error == pytest.approx(math.sqrt(2.0 / 2 + 3.75 / 3))


@given(st.integers(0, 99))
def test_order_shift_and_scale_of_the_table(seed: int) -> None:
    values, generator = table(seed), np.random.default_rng(seed)
    estimate = crossed(values)
    shuffled = crossed(generator.permutation(generator.permutation(values, axis=0), axis=1))
    moved = crossed(3 * values + 5)
    assert shuffled.interval() == pytest.approx(estimate.interval())
    assert moved.interval() == pytest.approx(tuple(3 * end + 5 for end in estimate.interval()))


@given(st.integers(0, 99))
def test_images_never_shorten_the_interval(seed: int) -> None:
    values = table(seed)
    assert crossed(values).half_width() >= over_seeds(list(values.mean(axis=1))).half_width() * (1 - 1e-12)


@given(estimates)
def test_the_interval_at_the_level_of_p_ends_at_zero(estimate: Estimate) -> None:
    if 1e-14 < estimate.p < 1:
        assert min(map(abs, estimate.interval(estimate.p))) == pytest.approx(0, abs=1e-4 * abs(estimate.mean))


# ---- many comparisons, many looks


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    everything = range(len(p_values))
    subsets = [set(members) for size in range(1, len(p_values) + 1) for members in combinations(everything, size)]
    for index, adjusted in enumerate(holm(p_values)):
        worst = max(min(1.0, len(subset) * min(p_values[i] for i in subset)) for subset in subsets if index in subset)
        assert adjusted == pytest.approx(worst)


@given(st.lists(st.integers(2, MOST_SEEDS), min_size=1, max_size=12, unique=True).map(sorted))
def test_looks_never_spend_more_than_there_is(seeds: list[int]) -> None:
    shares = [alpha_for_look(now, before) for before, now in zip([0, *seeds], seeds, strict=False)]
    assert all(share > 0 for share in shares)
    assert sum(shares) <= alpha_spent(seeds[-1]) <= 1


def test_planned_looks_spend_all_but_a_tenth_by_ten_seeds() -> None:
    shares = [alpha_for_look(now, before) for before, now in zip((0, *LOOKS), LOOKS[:4], strict=False)]
    assert shares == pytest.approx([0.081, 0.144, 0.216, 0.459])
    assert alpha_for_look(7, 3) == alpha_for_look(7, 5), "a look left out keeps its share"


# ---- how many seeds it takes


@pytest.mark.parametrize("seeds", [2, 5, 20])
def test_power_is_that_of_the_noncentral_t(seeds: int) -> None:
    estimate = Estimate(mean=1.0, seeds=3, images=0, seed_variance=1.5, image_variance=0.0)
    critical = scipy.stats.t.isf(0.01 / 2, seeds - 1)
    reference = scipy.stats.nct.sf(critical, seeds - 1, 1 / math.sqrt(1.5 / seeds))
    assert power(estimate, seeds, 0.01) == pytest.approx(reference, abs=2e-3)


def test_needed_seeds_are_enough_and_one_less_is_not() -> None:
    estimate = Estimate(mean=1.0, seeds=3, images=1000, seed_variance=1.5, image_variance=0.02)
    more = needed(estimate, 0.005).more
    assert more is not None
    assert power(estimate, 3 + more, 0.005) >= POWER > power(estimate, 2 + more, 0.005)


def test_with_looks_the_seeds_needed_are_those_of_a_look() -> None:
    estimate = Estimate(mean=1.0, seeds=3, images=0, seed_variance=1.0, image_variance=0.0)
    more = needed(estimate, 0.05, looked=True).more
    assert more is not None
    assert 3 + more in LOOKS
    assert power(estimate, 3 + more, 0.05 * alpha_for_look(3 + more, 3)) >= POWER


@pytest.mark.parametrize(
    ("image_variance", "limit"), [(0.0, Limit.NEAR_ZERO), (1.0, Limit.IMAGES)], ids=["near zero", "few images"]
)
def test_why_no_number_of_seeds_is_named(image_variance: float, limit: Limit) -> None:
    plan = needed(Estimate(mean=0.01, seeds=3, images=99, seed_variance=1, image_variance=image_variance), 0.05)
    assert (plan.more, plan.limit) == (None, limit)


# ---- against a known truth; more of it, and its figures: python -m tests.simulations


def at_most_5_percent(tally: Tally) -> bool:
    return tally.rate <= 0.05 + 3 * tally.error


@pytest.mark.slow
@pytest.mark.parametrize("world", INTACT)
def test_intervals_hold_the_truth(world: str) -> None:
    rng = np.random.default_rng(1)
    for seeds in (2, 3, 5):
        for tally in coverage(200, seeds, lambda: World(NULL, **WORLDS[world], rng=rng)):  # type: ignore[arg-type]
            assert 1 - tally.rate <= 0.05 + 3 * tally.error, (seeds, str(tally))


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_a_family_holds_a_false_verdict_in_one_of_twenty_sweeps_at_most(world: str) -> None:
    rng = np.random.default_rng(2)
    for name, tally in fixed(40, 3, lambda: World(HALF, **WORLDS[world], rng=rng)).items():  # type: ignore[arg-type]
        assert at_most_5_percent(tally), (name, str(tally))


@pytest.mark.slow
def test_looking_again_and_again_makes_no_more_false_verdicts() -> None:
    rng = np.random.default_rng(3)
    tallies, _, _ = resolved(15, 7, lambda: World(NULL, **WORLDS["mostly seeds"], rng=rng))  # type: ignore[arg-type]
    for name, tally in tallies.items():
        assert at_most_5_percent(tally), (name, str(tally))
