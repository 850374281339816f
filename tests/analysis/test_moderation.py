"""Moderated variances: laws of the prior, and sums of variances drawn from it."""

import math

import numpy as np
import pytest
from scipy.special import digamma, polygamma

from sweep.analysis.moderation import NONE, Prior, fit
from sweep.analysis.statistics import over_seeds

ESTIMATE = over_seeds([0.0, 1.0, 2.0])  # variance 1, two degrees of freedom


def test_cells_that_spread_alike_share_all_their_degrees_of_freedom() -> None:
    prior = Prior(math.log(4.0), 0.0, total=18)
    moderated = prior.moderate(ESTIMATE, [1.0])
    assert moderated.seed_variance == pytest.approx((16 * 4 + 2 * 1) / 18)
    assert moderated.prior_degrees == 16
    assert moderated.mean == ESTIMATE.mean


def test_a_single_cell_has_the_prior_of_smyth() -> None:
    """His (8) and (10): d0 from the trigamma, s0^2 from the digamma function."""
    half = 3.0
    prior = Prior(0.3, float(polygamma(1, half)), total=100)
    moderated = prior.moderate(ESTIMATE, [1.0])
    scale = math.exp(0.3 + float(digamma(half)) - math.log(half))
    assert moderated.prior_degrees == pytest.approx(2 * half)
    assert moderated.seed_variance == pytest.approx((2 * half * scale + 2 * 1) / (2 * half + 2))


def test_sums_differ_less_than_single_variances_and_lie_above_the_typical_one() -> None:
    prior = Prior(0.0, 1.0, total=1000)
    variances = np.exp(np.random.default_rng(0).standard_normal((200_000, 6)))
    degrees = [prior.moderate(ESTIMATE, [1.0] * count).prior_degrees for count in (1, 2, 6)]
    assert degrees == sorted(degrees)
    scale, count = prior._of_sum([1 / 6] * 6)
    log_mean = math.log(scale) - float(digamma(count / 2)) + math.log(count / 2)
    logs = np.log(variances.mean(axis=1))
    assert log_mean == pytest.approx(logs.mean(), abs=0.06)
    assert float(polygamma(1, count / 2)) == pytest.approx(logs.var(), rel=0.2)


def test_unequal_weights_count_as_fewer_cells() -> None:
    prior = Prior(0.0, 1.0, total=1000)
    (_, one), (_, lopsided), (_, two) = (prior._of_sum(scales) for scales in ([1.0], [1.0, 1e-3], [1.0, 1.0]))
    assert one < lopsided < 1.01 * one < two


@pytest.mark.parametrize("spreads", [[1e-3] * 9, [1e-3] * 8 + [1e-12], [10.0**-power for power in range(2, 11)]])
def test_whatever_the_spreads_the_prior_is_a_number(spreads: list[float]) -> None:
    generator = np.random.default_rng(1)
    prior = fit([0.01 * (1 + spread * generator.standard_normal(3)) for spread in spreads])
    moderated = prior.moderate(ESTIMATE, [1.0, 1.0])
    assert math.isfinite(moderated.seed_variance)
    assert 0 <= moderated.prior_degrees <= 16


def test_too_few_cells_leave_every_estimate_as_it_is() -> None:
    assert fit([[0.1, 0.2, 0.3]] * 3) == NONE
    assert NONE.moderate(ESTIMATE, [1.0]) == ESTIMATE
