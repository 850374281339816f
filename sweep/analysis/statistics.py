"""Intervals, tests and sample sizes for means over seeds and test images. Numbers in, numbers out.

What is assumed. A loss is the sum of what is expected of its architecture, a part of the seed, a part of the test
image and a rest of the two together: crossed random effects, no cell of the seeds-by-images table repeated (Clark
1973; Baayen, Davidson and Bates 2008). Seeds are drawn at random and independent, their parts normal; the test
images are a random draw from those that might have been the test set. Architectures are compared by differences
of the same seed on the same noisy images, so that what both share falls out, whatever its distribution.

Few seeds take Student's t on few degrees of freedom and not a bootstrap, whose intervals of three
values cover far less than 95 %. `tests/simulations.py` measures coverage and error rates of all this.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import fmean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv, ndtr, stdtr, stdtrit

LEVEL = 0.05
"""Chance of one or more false verdicts within a family of comparisons; the intervals are of 1 - LEVEL."""

POWER = 0.8
"""Chance with which a planned number of seeds is to resolve a difference of the size observed."""

MOST_SEEDS = 100
"""No plan goes beyond this many seeds."""

Array = npt.NDArray[Any]


# ---- a mean and its uncertainty


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean over seeds and test images.

    The half width of its interval is that of a t interval over seeds and of one over test images, added in
    quadrature (Zou and Donner 2008). Student's t on Satterthwaite's degrees of freedom, the usual way, misses the
    truth far too often where seeds are few: with three seeds, a tenth of the variance due to images and a level of
    0.1 %, fifteen times too often. This one does not, and is a plain paired t test where images add nothing.

    Attributes:
        mean: the mean.
        seeds: number of seeds, two at least.
        images: number of test images whose sampling is part of the uncertainty; 0 where it is not.
        seed_variance: variance of one seed's mean; it is divided by the number of seeds.
        image_variance: what the sampling of test images adds to the variance of the mean, however many the seeds.
        prior_degrees: degrees of freedom that ``seed_variance`` has beyond those of its own seeds: see `moderation`.
    """

    mean: float
    seeds: int
    images: int
    seed_variance: float
    image_variance: float
    prior_degrees: float = 0.0

    @property
    def degrees(self) -> float:
        """Degrees of freedom of ``seed_variance``."""
        return self.seeds - 1 + self.prior_degrees

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return math.sqrt(self.seed_variance / self.seeds + self.image_variance)

    def half_width(self, level: float = LEVEL) -> float:
        """Half the length of the interval that misses the true mean with chance ``level``."""
        squares = float(stdtrit(self.degrees, 1 - level / 2)) ** 2 * self.seed_variance / self.seeds
        if self.image_variance:
            squares += float(stdtrit(self.images - 1, 1 - level / 2)) ** 2 * self.image_variance
        return math.sqrt(squares)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The interval that misses the true mean with chance ``level``."""
        half = self.half_width(level)
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """Two-sided p value of a true mean of zero: the level whose interval ends at zero."""
        if self.error == 0 or self.mean == 0:
            return float(self.mean == 0)
        if not self.image_variance:
            return 2 * float(stdtr(self.degrees, -abs(self.mean) / self.error))
        # The level falls as the half width grows; 1e-15 is as far as quantiles can be told from their limit.
        low, high = math.log(1e-15), 0.0
        while high - low > 1e-7:
            middle = (low + high) / 2
            low, high = (low, middle) if self.half_width(math.exp(middle)) < abs(self.mean) else (middle, high)
        return math.exp(high)


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean of one value a seed, two seeds at least: Student's t, the test images taken as given."""
    return Estimate(
        mean=fmean(values), seeds=len(values), images=0, seed_variance=stdev(values) ** 2, image_variance=0.0
    )


def crossed(values: Array) -> Estimate:
    """The mean of a table of seeds by test images, both being random and crossed.

    With mean squares MS of seeds, images and rest, the variance of the mean is
    (MS_seeds + max(0, MS_images - MS_rest)) / (seeds x images). The part of the images is never
    negative, so that the interval is never shorter than the paired t interval over seeds.

    Args:
        values: losses or differences, (seeds, images), two of each at least.
    """
    table = np.asarray(values, np.float64)
    seeds, images = table.shape
    mean, by_seed, by_image = table.mean(), table.mean(axis=1), table.mean(axis=0)
    rest = table - by_seed[:, None] - by_image + mean
    rest_square = float((rest**2).sum()) / ((seeds - 1) * (images - 1))
    return Estimate(
        mean=float(mean),
        seeds=seeds,
        images=images,
        seed_variance=float(by_seed.var(ddof=1)),
        image_variance=max(0.0, float(by_image.var(ddof=1)) - rest_square / seeds) / images,
    )


# ---- many comparisons, many looks


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given (Holm 1979); no independence is assumed."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


LOOKS = (3, 5, 7, 10, 14, 20, 28, 40, 56, 78, 100)
"""Numbers of seeds at which `dae-sweep run --resolve` looks at the differences: each about 1.4 times the last."""


def alpha_spent(seeds: int) -> float:
    """Which part of `LEVEL` the looks up to this number of seeds may spend between them (Lan and DeMets 1983).

    It grows with the square of the number of seeds (Kim and DeMets 1987), early looks getting little, to 0.9 at
    ten, and on towards 1 for as long as it may take. It does not depend on how many looks are planned: a budget may
    be raised, lowered or cut short at any time, and no earlier verdict becomes void.

    Between looks nothing is assumed: each p value is compared with its own share (Bonferroni), which is valid for t
    statistics on few degrees of freedom, where boundaries worked out for normal ones are too low.
    """
    return 0.9 * (seeds / 10) ** 2 if seeds <= 10 else 1 - 1 / seeds


def alpha_for_look(seeds: int, before: int) -> float:
    """Which part of `LEVEL` a look at so many seeds may spend.

    Args:
        seeds: how many there are now.
        before: how many there were at the look before, 0 at the first. A planned look that was left out keeps its
            share, for whether it is left out may depend on the data.
    """
    planned = max((look for look in LOOKS if look < seeds), default=0) if before else 0
    return alpha_spent(seeds) - alpha_spent(max(before, planned))


# ---- how many seeds it takes


class Limit(StrEnum):
    """Why no number of seeds is named."""

    NEAR_ZERO = "near zero"
    """The difference is too small beside its spread: it would take more than `MOST_SEEDS`."""
    IMAGES = "test images"
    """The difference is too small for a test set of this size, however many the seeds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needed:
    """What would resolve a difference, were it of the size observed.

    Attributes:
        more: seeds beyond those there are, for each cell of the comparison; None under a ``limit``.
        limit: why there is no number.
        seconds: training time of these seeds for all cells of the comparison, one after the other; None if unknown.
    """

    more: int | None
    limit: Limit | None = None
    seconds: float | None = None


def power(estimate: Estimate, seeds: int, level: float) -> float:
    """Chance that so many seeds find a true mean of this size and spread at this level."""
    planned = replace(estimate, seeds=seeds)
    if planned.error == 0:
        return float(planned.mean != 0)
    # Over the distribution of the variance that those seeds will show, by 200 of its quantiles.
    degrees = planned.degrees
    shown = gammaincinv(degrees / 2, (np.arange(200) + 0.5) / 200) * 2 / degrees
    by_seed = float(stdtrit(degrees, 1 - level / 2)) ** 2 * planned.seed_variance / seeds
    half = np.sqrt(by_seed * shown + replace(planned, seed_variance=0.0).half_width(level) ** 2)
    return float(np.mean(ndtr((abs(planned.mean) - half) / planned.error)))


def needed(estimate: Estimate, level: float, *, looked: bool = False) -> Needed:
    """How many more seeds give a chance of `POWER` to find the difference at this level, seconds left open.

    Args:
        estimate: the difference so far.
        level: chance of a false verdict.
        looked: whether looks are being taken, so that the next one has only its share of ``level``.
    """

    def chance(seeds: int) -> float:
        return power(estimate, seeds, level * (alpha_for_look(seeds, estimate.seeds) if looked else 1.0))

    candidates = range(estimate.seeds + 1, MOST_SEEDS + 1)
    if looked:
        enough = next((seeds for seeds in candidates if seeds in LOOKS and chance(seeds) >= POWER), None)
    else:
        enough = next(iter(candidates[bisect_left(candidates, POWER, key=chance) :]), None)
    if enough is not None:
        return Needed(more=enough - estimate.seeds)
    return Needed(more=None, limit=Limit.IMAGES if too_few_images(estimate, level) else Limit.NEAR_ZERO)


def too_few_images(estimate: Estimate, level: float) -> bool:
    """Whether even seeds without end would hardly find a difference of this size on a test set of this size."""
    return estimate.image_variance > 0 and power(replace(estimate, seed_variance=0.0), MOST_SEEDS, level) < POWER
