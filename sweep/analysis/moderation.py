"""What the cells of a sweep say together about the spread over seeds, where each alone has few of them.

Three seeds tell little of a variance. The cells of a sweep share a program and a dataset, and their spreads, taken
relative to the loss, are alike. So the variance of each is moderated by what all of them show (empirical Bayes, Smyth
2004, doi:10.2202/1544-6115.1027): the cells' variances are taken to be drawn from a scaled inverse chi-square
distribution, whose scale and degrees of freedom are estimated from the sweep itself. The more alike the spreads are,
the more degrees of freedom a comparison gains; where they differ wildly, or cells are few, it gains none.

An average over several cells has the sum of their variances, and sums differ less than single ones but lie above the
typical one. Their distribution is that of Fenton (1960, doi:10.1109/TCOM.1960.1097606): a sum of log-normal numbers is
taken for a log-normal one of the same mean and variance.
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

    Its variance is that of the logarithm of a loss over seeds: the square of a relative standard deviation.

    Attributes:
        mean: of the logarithm of the cells' variances.
        excess: variance of that logarithm among cells, chance left out; 0 where all spread alike.
        total: degrees of freedom that all cells have between them: no estimate has more. With 0 it leaves every
            estimate as it is.
    """

    mean: float
    excess: float
    total: float

    def moderate(self, estimate: Estimate, scales: Sequence[float]) -> Estimate:
        """The estimate with its seed variance drawn towards the prior's.

        Args:
            estimate: of a weighted sum of losses.
            scales: of each of its cells (weight x mean loss)^2: the prior's variance is relative to the loss.
        """
        degrees = estimate.seeds - 1
        variance, prior = self._of_sum(scales)
        prior = min(prior, max(0.0, self.total - degrees))
        if not prior:
            return estimate
        variance = (prior * variance + degrees * estimate.seed_variance) / (prior + degrees)
        return replace(estimate, seed_variance=variance, prior_degrees=prior)

    def _of_sum(self, scales: Sequence[float]) -> tuple[float, float]:
        """Scale and degrees of freedom of the inverse chi-square distribution of a sum of so many variances."""
        scale = sum(scales)
        if not self.total or not scale:
            return 0.0, 0.0
        if not self.excess:
            return math.exp(self.mean) * scale, self.total
        count = scale**2 / sum(part**2 for part in scales)  # as many equal parts would vary as much
        rest = math.log(count - 1) if count > 1 else -math.inf
        excess = float(np.logaddexp(self.excess, rest)) - math.log(count)  # log(1 + (exp(excess) - 1) / count)
        half = _inverse_trigamma(excess)
        mean = self.mean + (self.excess - excess) / 2
        return math.exp(mean + float(digamma(half)) - math.log(half)) * scale, 2 * half


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
        return Prior(math.log((degrees * variances).sum() / total), 0.0, total)
    return Prior(mean, excess, total)


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
