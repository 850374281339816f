"""The statistics held against a known truth: ``python -m tests.simulations`` prints how often they are wrong.

Losses are made as the model of `statistics` has them: what an architecture truly has, a part of the seed, of the
test image and of both, each in common and of the architecture's own. Parts of images are skewed, as real ones are.
Everything goes through the same records, claims and looks as a real sweep.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sweep.analysis import moderation
from sweep.analysis.arrays import Arrays, Outputs
from sweep.analysis.claims import Contrast, Factor, Split
from sweep.analysis.comparer import Comparer
from sweep.analysis.resolve import comparisons, next_step, with_look
from sweep.analysis.results import results
from sweep.analysis.statistics import LOOKS
from sweep.analysis.verdicts import Verdict
from sweep.records.grid import Cell, Grid, Settings
from sweep.records.record import Epoch, Record, Status
from sweep.records.sweep import Manifest, Sweep
from sweep.storage.store import Store

GRID = Grid.product((1, 3, 5), (13, 8, 5), (0,))
SETTINGS = Settings(epochs=1)
DATASET = {"name": "mnist", "fingerprint": "f" * 64}
BLANK = {cell: Record.new(cell, SETTINGS, DATASET) for cell in GRID.cells}
EMPTY = np.zeros(1)

Truth = Mapping[tuple[int, int], float]
NULL: Truth = {(cell.depth, cell.latent): 10.0 for cell in GRID.cells}
"""All architectures are alike."""
HALF: Truth = {(depth, size): 10.0 + 3 * (depth == 1) + 3 * (size == 5) for depth, size in NULL}
"""Depth 1 is worse than the others, and latent 5; the others are alike."""


@dataclass
class World:
    """A truth to draw seeds and test images from; standard deviations are of one seed, one image, both.

    Attributes:
        own_share: part of each variance that is an architecture's alone; the rest is common and cancels in differences.
        unequal: standard deviation of the logarithm of the architectures' spreads over seeds; 0: all spread alike.
        tails: degrees of freedom of the t distribution that seeds are drawn from; infinite: normal.
        collapsing: share of cells that collapse: they lose seven times as much, and are marked so.
    """

    truth: Truth
    seed_sd: float = 1.0
    image_sd: float = 3.0
    rest_sd: float = 3.0
    images: int = 100
    own_share: float = 0.5
    unequal: float = 0.0
    tails: float = float("inf")
    collapsing: float = 0.0
    rng: np.random.Generator = field(default_factory=np.random.default_rng)

    def __post_init__(self) -> None:
        self._common_image = self._skewed(self.image_sd * (1 - self.own_share) ** 0.5)
        self._image = {cell: self._skewed(self.image_sd * self.own_share**0.5) for cell in GRID.cells}
        self._factor = {cell: float(np.exp(self.unequal * self.rng.standard_normal())) for cell in GRID.cells}
        self._common_seed: dict[int, float] = {}
        self._outputs: dict[str, Outputs] = {}
        self._collapsed: set[str] = set()

    def _skewed(self, sd: float) -> np.ndarray:
        return sd * (self.rng.gamma(4, size=self.images) - 4) / 2

    def _tailed(self) -> float:
        """Of standard deviation 1."""
        if np.isinf(self.tails):
            return float(self.rng.standard_normal())
        return float(self.rng.standard_t(self.tails) * ((self.tails - 2) / self.tails) ** 0.5)

    def _losses(self, cell: Cell) -> np.ndarray:
        common = self._common_seed.setdefault(cell.seed, (1 - self.own_share) ** 0.5 * self.rng.standard_normal())
        seed = self.seed_sd * (common + self.own_share**0.5 * self._factor[replace(cell, seed=0)] * self._tailed())
        image = self._common_image + self._image[replace(cell, seed=0)]
        rest = self.rest_sd * self.rng.standard_normal(self.images)
        return self.truth[cell.depth, cell.latent] + seed + image + rest

    def sweep(self, grid: Grid, looks: tuple[tuple[str, ...], ...] = ()) -> tuple[Sweep, Arrays]:
        """The sweep of this grid, completed; cells that were drawn before stay as they are."""
        records = {}
        for cell in grid.cells:
            if cell.key not in self._outputs:
                losses = self._losses(cell)
                if self.collapsing and self.rng.random() < self.collapsing:
                    self._collapsed.add(cell.key)
                    losses = 7 * losses
                self._outputs[cell.key] = Outputs(losses, EMPTY, EMPTY, EMPTY)
            mean = float(self._outputs[cell.key].loss.mean())
            records[cell.key] = replace(
                BLANK[replace(cell, seed=0)],
                key=cell.key,
                seed=cell.seed,
                status=Status.COMPLETED,
                test_loss=mean,
                collapsed=cell.key in self._collapsed,
                history=(Epoch(epoch=1, train_loss=mean, val_loss=mean, seconds=1.0),),
            )
        manifest = Manifest(name="m", id="0", created_at="", grid=grid, settings=SETTINGS, dataset=DATASET, looks=looks)
        return Sweep(Store(Path("nowhere")), Store(Path("nowhere")), manifest, records, {}), Arrays(
            None, self._outputs, {}
        )


def with_seeds(count: int) -> Grid:
    """The study's grid with so many seeds."""
    return Grid.of(replace(cell, seed=seed) for cell in GRID.cells for seed in range(count))


def families(sweep: Sweep, arrays: Arrays) -> dict[str, list[Contrast]]:
    """The families of contrasts that a page tests together."""
    comparer, by_name = Comparer(sweep, arrays, (Split.TEST,)), {}
    for factor in Factor:
        claim = comparer.claim(factor)
        by_name[f"pairs, {factor}"] = claim.comparable_pairs()
        by_name[f"averages, {factor}"] = list(claim.averages)
    by_name["interaction"] = list(comparer.interaction())
    return by_name


def true_difference(contrast: Contrast, truth: Truth) -> float:
    """Of a pair, an average of pairs or an interaction."""
    worse, better = contrast.cells[0::2], contrast.cells[1::2]
    if len(contrast.other_levels) == 2 and contrast.higher.startswith("latent") and len(contrast.cells) == 4:
        one, other, third, fourth = (truth[cell.depth, cell.latent] for cell in contrast.cells)
        return (one - other) - (third - fourth)
    sums = [sum(truth[cell.depth, cell.latent] for cell in cells) for cells in (worse, better)]
    return (sums[0] - sums[1]) / len(worse)


def is_false(contrast: Contrast, truth: Truth) -> bool:
    """Whether the verdict says what is not so."""
    true = true_difference(contrast, truth)
    verdict = contrast.effects[Split.TEST].verdict
    return (verdict is Verdict.SUPPORTED and true <= 0) or (verdict is Verdict.CONTRADICTED and true >= 0)


@dataclass
class Tally:
    """How often something happened."""

    count: int = 0
    total: int = 0

    def add(self, happened: bool) -> None:
        self.count, self.total = self.count + happened, self.total + 1

    @property
    def rate(self) -> float:
        return self.count / self.total

    @property
    def error(self) -> float:
        """Standard error of a rate of 5 % over so many trials, were they independent."""
        return (0.05 * 0.95 / self.total) ** 0.5

    def __str__(self) -> str:
        return f"{100 * self.rate:6.2f} % of {self.total}"


def coverage(simulations: int, seeds: int, make: Callable[[], World]) -> tuple[Tally, Tally]:
    """How often the interval of one architecture's mean and that of one pair hold the truth, one of each a time."""
    means, pairs = Tally(), Tally()
    grid = with_seeds(seeds)
    for _ in range(simulations):
        world = make()
        sweep, arrays = world.sweep(grid)
        result = results(sweep, arrays)[0]
        assert result.interval is not None
        truth = world.truth[result.config.depth, result.config.latent]
        means.add(result.interval[0] <= truth <= result.interval[1])
        pair = Comparer(sweep, arrays, (Split.TEST,)).claim(Factor.LATENT).comparable_pairs()[0]
        effect = pair.effects[Split.TEST]
        assert effect.low is not None
        assert effect.high is not None
        pairs.add(effect.low <= true_difference(pair, world.truth) <= effect.high)
    return means, pairs


def fixed(simulations: int, seeds: int, make: Callable[[], World]) -> dict[str, Tally]:
    """How often a family holds a false verdict or more, with this number of seeds."""
    tallies: dict[str, Tally] = {}
    for _ in range(simulations):
        world = make()
        for name, family in families(*world.sweep(with_seeds(seeds))).items():
            tallies.setdefault(name, Tally()).add(any(is_false(contrast, world.truth) for contrast in family))
    return tallies


def resolved(simulations: int, max_seeds: int, make: Callable[[], World]) -> tuple[dict[str, Tally], Tally, float]:
    """The same after ``--resolve`` from one seed: false at any look; pairs decided in the end; mean number of cells."""
    tallies: dict[str, Tally] = {}
    decided, num_cells = Tally(), 0
    for _ in range(simulations):
        world, grid = make(), GRID
        false: dict[str, bool] = {}
        sweep, arrays = world.sweep(grid)
        while True:
            sweep = replace(sweep, manifest=with_look(sweep))
            contrasts = comparisons(sweep, arrays)
            for contrast in contrasts:
                name = f"{'pairs' if len(contrast.other_levels) == 1 else 'averages'}, {contrast.higher.split()[0]}"
                false[name] = false.get(name, False) or is_false(contrast, world.truth)
            step = next_step(sweep, contrasts, max_seeds)
            if not step.cells:
                break
            grid = grid.union(Grid.of(step.cells))
            sweep, arrays = world.sweep(grid, sweep.manifest.looks)
        for name, happened in false.items():
            tallies.setdefault(name, Tally()).add(happened)
        for contrast in contrasts:
            if true_difference(contrast, world.truth):
                decided.add(contrast.effects[Split.TEST].verdict in {Verdict.SUPPORTED, Verdict.CONTRADICTED})
        num_cells += len(grid.cells)
    return tallies, decided, num_cells / simulations


WORLDS: dict[str, dict[str, float]] = {
    "mostly seeds": {"seed_sd": 1.0, "image_sd": 1.0, "rest_sd": 3.0},
    "seeds and images alike": {"seed_sd": 1.0, "image_sd": 6.0, "rest_sd": 3.0},
    "mostly images": {"seed_sd": 0.3, "image_sd": 8.0, "rest_sd": 2.0},
    "unequal spreads": {"seed_sd": 0.3, "image_sd": 1.0, "rest_sd": 3.0, "own_share": 0.9, "unequal": 0.7},
    "very unequal spreads": {"seed_sd": 0.3, "image_sd": 1.0, "rest_sd": 3.0, "own_share": 0.9, "unequal": 1.2},
    "heavy tails": {"seed_sd": 0.3, "image_sd": 1.0, "rest_sd": 3.0, "own_share": 0.9, "tails": 3.0},
    "collapsed cells": {"seed_sd": 0.3, "image_sd": 1.0, "rest_sd": 3.0, "own_share": 0.9, "collapsing": 0.03},
}
"""What the uncertainty comes from."""

INTACT = [name for name, values in WORLDS.items() if not values.get("collapsing")]
"""A collapsed cell is not drawn around the truth, so that no interval can be held against it."""


def main(worlds: list[str], simulations: int, looks: int, seed: int) -> None:
    """Print all of it for these worlds; intervals are cheap and have five times as many simulations."""
    for name in worlds:
        values, rng = WORLDS[name], np.random.default_rng(seed)
        print(f"\n{name}: {values}, 100 test images")
        for truth_name, truth in (("all alike", NULL), ("half of them alike", HALF)):

            def make(truth: Truth = truth, values: dict[str, float] = values, rng: np.random.Generator = rng) -> World:
                return World(truth, **values, rng=rng)  # type: ignore[arg-type]  # floats, all of them

            for seeds in (2, 3, 5, 10) if truth is NULL and name in INTACT else ():
                means, pairs = coverage(5 * simulations, seeds, make)
                print(
                    f"  {seeds} seeds: 95 % intervals hold the mean in {means}, the difference in {pairs}", flush=True
                )
            for seeds in (3, 5):
                rates = ", ".join(f"{family} {tally}" for family, tally in fixed(simulations, seeds, make).items())
                print(f"  {seeds} seeds, {truth_name}: a false verdict or more in {rates}", flush=True)
            if not looks:
                continue
            tallies, decided, cells = resolved(looks, LOOKS[3], make)
            rates = ", ".join(f"{family} {tally}" for family, tally in tallies.items())
            print(f"  --resolve, {truth_name}: a false verdict or more at any look in {rates}")
            print(
                f"     true differences decided: {decided if decided.total else 'there are none'}; {cells:.0f} cells",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("simulations", nargs="?", type=int, default=500, help="of each row")
    parser.add_argument("--looks", type=int, default=250, help="simulations of --resolve, which take longest")
    parser.add_argument("--world", choices=WORLDS, action="append", help="one of these alone; may be repeated")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--unmoderated", action="store_true", help="every cell's spread stands for itself")
    options = parser.parse_args()
    if options.unmoderated:
        moderation.LEAST_CELLS = sys.maxsize
    main(options.world or list(WORLDS), options.simulations, options.looks, options.seed)
