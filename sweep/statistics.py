"""Intervals, tests and sample sizes for means over seeds and test images. Numbers in, numbers out.

What is assumed. A loss is the sum of what is expected of its architecture, a part of the seed, a part of the test
image and a rest of the two together: crossed random effects, no cell of the seeds-by-images table repeated (Clark
1973; Baayen, Davidson and Bates 2008). Seeds are drawn at random and independent, their parts normal; the test
images are a random draw from those that might have been the test set. Architectures are compared by differences
of the same seed on the same noisy images, so that what both share falls out, whatever its distribution.

Few seeds are met with Student's t on few degrees of freedom and not with a bootstrap, whose intervals of three
values cover far less than 95 %. `tests/simulations.py` measures coverage and error rates of all this.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import nctdtr, stdtr, stdtrit

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

    Attributes:
        mean: the mean.
        seeds: number of seeds.
        images: number of test images whose sampling is part of the uncertainty; 0 where it is not.
        seed_variance: variance of one seed's mean; it is divided by the number of seeds. NaN with one seed.
        image_variance: what the sampling of test images adds to the variance of the mean, however many the seeds.
        degrees: degrees of freedom (Satterthwaite 1946).
    """

    mean: float
    seeds: int
    images: int
    seed_variance: float
    image_variance: float
    degrees: float

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return math.sqrt(self.seed_variance / self.seeds + self.image_variance)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The t interval that misses the true mean with chance ``level``."""
        half = float(stdtrit(self.degrees, 1 - level / 2)) * self.error if self.error else 0.0
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """Two-sided p value of a true mean of zero."""
        if self.error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return 2 * float(stdtr(self.degrees, -abs(self.mean) / self.error))

    def with_seeds(self, seeds: int) -> "Estimate":
        """The same mean and variances as they would be with another number of seeds, 2 or more."""
        by_seed, by_image = self.seed_variance / seeds, self.image_variance
        spread = by_seed**2 / (seeds - 1) + (by_image**2 / (self.images - 1) if self.images > 1 else 0.0)
        return Estimate(
            mean=self.mean,
            seeds=seeds,
            images=self.images,
            seed_variance=self.seed_variance,
            image_variance=by_image,
            degrees=(by_seed + by_image) ** 2 / spread if spread else seeds - 1,
        )


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean of one value a seed, two seeds at least: Student's t, the test images taken as given."""
    return Estimate(
        mean=fmean(values),
        seeds=len(values),
        images=0,
        seed_variance=stdev(values) ** 2,
        image_variance=0.0,
        degrees=len(values) - 1,
    )


def crossed(values: Array) -> Estimate:
    """The mean of a table of seeds by test images, both being random and crossed.

    With mean squares MS of seeds, images and rest, the variance of the mean is
    (MS_seeds + max(0, MS_images - MS_rest)) / (seeds x images). The part of the images never counts less than
    nothing, so that the interval is never shorter than its standard error over seeds allows.

    Args:
        values: losses or differences, (seeds, images), two of each at least.
    """
    table = np.asarray(values, np.float64)
    seeds, images = table.shape
    mean, by_seed, by_image = float(table.mean()), table.mean(axis=1), table.mean(axis=0)
    rest = table - by_seed[:, None] - by_image + mean
    size = seeds * images
    # Mean squares over the size of the table: variances of the mean.
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    of_images = float(by_image.var(ddof=1)) / images
    of_rest = float((rest**2).sum()) / ((seeds - 1) * (images - 1)) / size
    sampling = max(0.0, of_images - of_rest)
    degrees = float(seeds - 1)
    if sampling > 0:
        spread = of_seeds**2 / degrees + (of_images**2 + of_rest**2 / degrees) / (images - 1)
        degrees = max(degrees, (of_seeds + sampling) ** 2 / spread)
    return Estimate(
        mean=mean,
        seeds=seeds,
        images=images,
        seed_variance=of_seeds * seeds,
        image_variance=sampling,
        degrees=degrees,
    )


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean's 95 % interval (low, high) and two-sided p value of a zero mean, by Student's t; two values at least."""
    estimate = over_seeds(values)
    return (*estimate.interval(), estimate.p)


# ---- many comparisons, many looks


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given (Holm 1979); no independence is assumed."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def spending(look: int) -> float:
    """Which part of `LEVEL` the look of this number may spend, counting from 1; all looks together spend all of it.

    Four looks have a fifth each, as Pocock's boundary would; the last fifth is halved look by look for as long as
    it may take. The parts do not depend on how many looks are planned, so that a budget may be raised, lowered or
    cut short at any time without making an earlier verdict void.
    """
    return 0.2 if look <= 4 else 0.2 * 0.5 ** (look - 4)


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


def power(estimate: Estimate, level: float) -> float:
    """Chance that a true mean of this size is found at this level, with this spread and number of seeds."""
    if estimate.error == 0:
        return float(estimate.mean != 0)
    distance = abs(estimate.mean) / estimate.error
    critical = float(stdtrit(estimate.degrees, 1 - level / 2))
    if distance - critical > 6 + 0.5 * critical:
        return 1.0  # the noncentral t has no digits left there
    return 1 - float(nctdtr(estimate.degrees, distance, critical))


def needed(estimate: Estimate, level: float) -> Needed:
    """How many more seeds give a chance of `POWER` to find the difference at this level, seconds left open."""
    for seeds in range(max(2, estimate.seeds + 1), MOST_SEEDS + 1):
        if power(estimate.with_seeds(seeds), level) >= POWER:
            return Needed(more=seeds - estimate.seeds)
    without_end = estimate.with_seeds(10**9)
    is_hopeless = estimate.image_variance > 0 and power(without_end, level) < POWER
    return Needed(more=None, limit=Limit.IMAGES if is_hopeless else Limit.NEAR_ZERO)
