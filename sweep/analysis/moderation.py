"""What the cells of a sweep say together about the spread over seeds, where each alone has few of them.

Three seeds tell little of a variance. The cells of a sweep share a program and a dataset, and their spreads, taken
relative to the loss, are alike. So the variance of each is moderated by what all of them show (empirical Bayes, Smyth
2004, doi:10.2202/1544-6115.1027): the cells' variances are taken to be drawn from a scaled inverse chi-square
distribution, whose scale and degrees of freedom are estimated from the sweep itself. The more alike the spreads are,
the more degrees of freedom a comparison gains; where they differ wildly, or cells are few, it gains none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import chdtri, digamma, polygamma

from sweep.analysis.statistics import Estimate

LEAST_CELLS = 4
"""Fewer cells say too little of how alike their spreads are."""

CAUTION = 0.1
"""Chance with which the cells' spreads differ by more than they are taken to; measured in `tests/simulations.py`."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What is expected of a cell's spread over seeds before its own seeds are looked at.

    Attributes:
        variance: of the logarithm of a loss over seeds: the square of a relative standard deviation.
        degrees: how many degrees of freedom it counts for; 0 leaves every estimate as it is.
        total: degrees of freedom that all cells have between them: no estimate has more.
    """

    variance: float
    degrees: float
    total: float

    def moderate(self, estimate: Estimate, scale: float) -> Estimate:
        """The estimate with its seed variance drawn towards the prior's.

        Args:
            estimate: of a weighted sum of losses.
            scale: sum over its cells of (weight x mean loss)^2: the prior's variance is relative to the loss.
        """
        degrees = estimate.seeds - 1
        prior = min(self.degrees, max(0.0, self.total - degrees))
        if not prior:
            return estimate
        variance = (prior * self.variance * scale + degrees * estimate.seed_variance) / (prior + degrees)
        return replace(estimate, seed_variance=variance, prior_degrees=prior)


NONE = Prior(0.0, 0.0, 0.0)
"""Leaves every estimate as it is."""


def fit(losses: Sequence[Sequence[float]]) -> Prior:
    """The prior that these cells share, by the method of moments of Smyth (2004, section 6.2).

    Args:
        losses: for each cell the test losses of its seeds, above 0; cells with one seed are left out.
    """
    logarithms = [np.log(values) for values in losses if len(values) > 1 and min(values) > 0]
    variances = np.array([values.var(ddof=1) for values in logarithms])
    degrees = np.array([len(values) - 1.0 for values in logarithms])
    if len(variances) < LEAST_CELLS or not (variances > 0).all():
        return NONE
    centred = np.log(variances) - digamma(degrees / 2) + np.log(degrees / 2)
    mean = float(centred.mean())
    # How different the spreads are is itself known from few cells: they are taken to differ as much as they well may.
    most = centred.var(ddof=1) * (len(variances) - 1) / chdtri(len(variances) - 1, 1 - CAUTION)
    excess = float(most - polygamma(1, degrees / 2).mean())
    total = float(degrees.sum())
    if excess <= 0:  # no more different than chance makes them
        return Prior(float((degrees * variances).sum() / total), total, total)
    half = _inverse_trigamma(excess)
    return Prior(math.exp(mean + float(digamma(half)) - math.log(half)), 2 * half, total)


def _inverse_trigamma(value: float) -> float:
    """The argument at which the trigamma function takes this value, by Newton's method (Smyth 2004, appendix)."""
    argument = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, argument))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, argument))
        argument += step
        if abs(step) < 1e-9 * argument:
            break
    return argument
