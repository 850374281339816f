"""Contrasts of one sweep, with effects and verdicts: its pairs, their averages, and differences of pairs. No torch."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise
from statistics import fmean

import numpy as np

from dae.architecture import has_small_maps
from dae.config import Latent
from sweep.analysis.arrays import Arrays, loss_by_image, usable_records
from sweep.analysis.claims import Claim, Contrast, Factor, Split
from sweep.analysis.moderation import Prior, fit
from sweep.analysis.results import flags_of
from sweep.analysis.statistics import Estimate, alpha_for_look, crossed, over_seeds
from sweep.analysis.verdicts import Effect, with_verdicts
from sweep.records.grid import Cell
from sweep.records.record import Record, Status
from sweep.records.sweep import Sweep

Look = tuple[tuple[int, ...], float, Set[str] | None]
"""The seeds that a look saw, the part of `LEVEL` that it may spend, the keys of all cells it saw; None for all."""

Quantity = Split | Callable[[Record], float]
"""What is compared: one of the losses, or anything else that a record tells."""


class Comparer:
    """Makes contrasts of one sweep: losses by seed, paired over the seeds that all the cells share."""

    def __init__(self, sweep: Sweep, arrays: Arrays, splits: Sequence[Split] = tuple(Split)) -> None:
        self._splits = splits
        self._grid, self._settings = sweep.manifest.grid, sweep.manifest.settings
        self._outputs = arrays.outputs
        self._records: dict[str, dict[int, Record]] = {}
        for record in usable_records(sweep):
            self._records.setdefault(_seedless_key(record), {})[record.seed] = record
        self._seconds = {name: _mean_seconds(records.values()) for name, records in self._records.items()}
        self._looks = _looks(sweep)
        self._priors: dict[tuple[Split, int], Prior] = {}

    def looks(self, cells: Iterable[Cell], seeds: Sequence[int]) -> list[Look]:
        """The looks that saw more of ``cells`` than the one before.

        One look that sees everything and spends everything where the sweep has none of `dae-sweep run --resolve`.
        """
        if not self._looks:
            return [(tuple(seeds), 1.0, None)]
        by_cell = [self._records[_seedless_key(cell)] for cell in cells]
        looks: list[Look] = []
        before = 0
        for keys in self._looks:
            seen = tuple(seed for seed in seeds if all(records[seed].key in keys for records in by_cell))
            if len(seen) > max(1, before):
                looks.append((seen, alpha_for_look(len(seen), before), keys))
                before = len(seen)
        return looks or [(tuple(seeds), alpha_for_look(len(seeds), 0), None)]

    def claim(self, factor: Factor) -> Claim:
        """The claim on ``factor``: (*) smaller latent, higher loss, or (**) shallower, higher loss."""
        pairs = self._with_verdicts(self._pairs(factor))
        usable = [pair for pair in pairs if pair.counted and pair.effects]
        averages = [
            self._average(higher, lower, [pair for pair in usable if (pair.higher, pair.lower) == (higher, lower)])
            for higher, lower in dict.fromkeys((pair.higher, pair.lower) for pair in usable)
        ]
        adjacent = [pair for pair in usable if pair.adjacent]
        overall = self._with_verdicts([self._average("", "", adjacent)])[0] if adjacent else None
        return Claim(factor=factor, pairs=pairs, averages=self._with_verdicts(averages), overall=overall)

    def interaction(self) -> tuple[Contrast, ...]:
        """Whether a smaller latent costs a shallower model more (study, section 5.1); adjacent levels only."""
        steps = {
            (step.other_levels[0], step.higher, step.lower): step
            for step in self._pairs(Factor.LATENT)
            if step.adjacent and step.counted
        }
        contrasts = []
        for shallow, deep in pairwise(self._grid.depths):
            for (depth, higher, lower), step in steps.items():
                other = steps.get((deep, higher, lower))
                if depth == shallow and other is not None:
                    weights = _weights([step]) | {name: -weight for name, weight in _weights([other]).items()}
                    cells = step.cells + other.cells
                    contrasts.append(self._contrast(higher, lower, (shallow, deep), cells, weights, base={}))
        return self._with_verdicts(contrasts)

    def corners(self) -> Contrast | None:
        """The interaction in one number: the smallest latent against the largest, the shallowest against the deepest.

        None where the grid lacks a corner or they are not comparable.
        """
        grid = self._grid
        shallow, deep = min(grid.depths), max(grid.depths)
        by_size = sorted(grid.architectures, key=self._latent_numbers)
        if self._latent_numbers(by_size[0]) == self._latent_numbers(by_size[-1]):
            return None
        small, large = by_size[0].latent, by_size[-1].latent
        cells = {(cell.depth, cell.latent): cell for cell in grid.architectures}
        places = [(depth, size) for depth in (shallow, deep) for size in (small, large)]
        corners = tuple(cells[place] for place in places if place in cells)
        if shallow == deep or len(corners) < 4 or not self._comparable(*corners[2:]):
            return None
        weights = {_seedless_key(cell): weight for cell, weight in zip(corners, (1.0, -1.0, -1.0, 1.0), strict=True)}
        contrast = self._contrast(f"latent {small}", f"latent {large}", (shallow, deep), corners, weights, base={})
        return self._with_verdicts([contrast])[0]

    def _pairs(self, factor: Factor) -> list[Contrast]:
        """Every two levels of the factor at each level of the other; none of latents of as many numbers."""
        levels: dict[Latent, list[Cell]] = {
            level: [] for level in (self._grid.latents if factor is Factor.DEPTH else self._grid.depths)
        }
        for cell in self._grid.architectures:
            levels[getattr(cell, factor.other)].append(cell)

        def size(cell: Cell) -> int:
            return self._latent_numbers(cell) if factor is Factor.LATENT else cell.depth

        contrasts = []
        for level, cells in levels.items():
            places = {number: place for place, number in enumerate(sorted({size(cell) for cell in cells}))}
            for worse, better in combinations(sorted(cells, key=size), 2):
                steps = places[size(better)] - places[size(worse)]
                if steps:
                    contrasts.append(self._pair(factor, level, worse, better, adjacent=steps == 1))
        return contrasts

    def _latent_numbers(self, cell: Cell) -> int:
        return self._settings.model(cell).latent_numbers

    def _pair(self, factor: Factor, other_level: Latent, worse: Cell, better: Cell, *, adjacent: bool) -> Contrast:
        weights = {_seedless_key(worse): 1.0, _seedless_key(better): -1.0}
        contrast = self._contrast(
            f"{factor} {getattr(worse, factor)}",
            f"{factor} {getattr(better, factor)}",
            (other_level,),
            (worse, better),
            weights,
            base={_seedless_key(better): 1.0},
        )
        share = self._share_of_images(worse, better)
        return replace(contrast, adjacent=adjacent, counted=self._comparable(worse, better), share=share)

    def _average(self, higher: str, lower: str, pairs: Sequence[Contrast]) -> Contrast:
        other_levels = tuple(dict.fromkeys(level for pair in pairs for level in pair.other_levels))
        cells = tuple(dict.fromkeys(cell for pair in pairs for cell in pair.cells))
        weights, base = _weights(pairs), _weights(pairs, lower_only=True)
        average = self._contrast(higher, lower, other_levels, cells, weights, base)
        return replace(average, adjacent=all(pair.adjacent for pair in pairs))

    def _contrast(
        self,
        higher: str,
        lower: str,
        other_levels: tuple[Latent, ...],
        cells: tuple[Cell, ...],
        weights: Mapping[str, float],
        base: Mapping[str, float],
    ) -> Contrast:
        seeds = self._shared_seeds(weights)
        rests_on = [self._records[name][seed] for name in weights for seed in seeds]
        looks = self.looks(cells, seeds) if seeds else []
        effects = {split: self._effect(split, weights, base, seeds, looks) for split in self._splits} if seeds else {}
        if any(record.collapsed for record in rests_on):
            withheld = "a collapsed model makes the spread over seeds anything but normal"
            effects = {split: replace(effect, withheld=withheld) for split, effect in effects.items()}
        return Contrast(
            higher=higher,
            lower=lower,
            other_levels=other_levels,
            cells=cells,
            effects=effects,
            caveats=tuple(caveat for record in rests_on for caveat in _caveats(record)),
        )

    def measure(self, quantity: Quantity, cell: Cell) -> Effect | None:
        """A quantity of one architecture over its seeds, without a verdict; None where no seed is completed."""
        weights = {_seedless_key(cell): 1.0}
        seeds = self._shared_seeds(weights)
        return self._effect(quantity, weights, {}, seeds, self.looks([cell], seeds)) if seeds else None

    def compare(self, one: Cell, other: Cell) -> Effect | None:
        """The test loss of one architecture less that of another, without a verdict; None where they share no seed."""
        weights = {_seedless_key(one): 1.0, _seedless_key(other): -1.0}
        return self._contrast("", "", (), (one, other), weights, base={}).effects.get(Split.TEST)

    def _shared_seeds(self, names: Iterable[str]) -> tuple[int, ...]:
        return tuple(sorted(set.intersection(*(set(self._records.get(name, {})) for name in names))))

    def _effect(
        self,
        quantity: Quantity,
        weights: Mapping[str, float],
        base: Mapping[str, float],
        seeds: tuple[int, ...],
        looks: Sequence[Look],
    ) -> Effect:
        difference = fmean(self._combine(quantity, weights, seed) for seed in seeds)
        reference = fmean(self._combine(quantity, base, seed) for seed in seeds)
        relative = difference / reference if reference else None
        effect = Effect(difference, relative, seeds, seconds_a_seed=sum(self._seconds[name] for name in weights))
        if len(seeds) == 1:
            return effect
        estimate = self._estimate(quantity, weights, seeds)
        low, high = estimate.interval()
        effect = replace(effect, low=low, high=high, p=estimate.p, estimate=estimate)
        if not self._looks:
            return effect
        # The lowest p value of any look, divided by its share of the level; the sign has to be that of all seeds.
        estimates = [self._estimate(quantity, weights, seen, keys) for seen, _, keys in looks]
        shares = [share for _, share, _ in looks]
        agreeing = [
            look.p / share for look, share in zip(estimates, shares, strict=True) if look.mean * estimate.mean > 0
        ]
        return replace(effect, valid_p=min([1.0, *agreeing]), share=shares[-1])

    def _estimate(
        self, quantity: Quantity, weights: Mapping[str, float], seeds: tuple[int, ...], keys: Set[str] | None = None
    ) -> Estimate:
        """The weighted sum over seeds and, on the test loss, over test images; moderated by all cells seen."""
        estimate = self._estimate_alone(quantity, weights, seeds)
        if not isinstance(quantity, Split):
            return estimate
        means = {name: fmean(loss_of(self._records[name][seed], quantity) for seed in seeds) for name in weights}
        scales = [(weight * means[name]) ** 2 for name, weight in weights.items()]
        return self._prior(quantity, keys).moderate(estimate, scales)

    def _prior(self, split: Split, keys: Set[str] | None) -> Prior:
        """What the cells among ``keys`` say together of the spread over seeds; collapsed ones say nothing."""
        if (split, id(keys)) not in self._priors:
            seen = [
                [record for record in records.values() if keys is None or record.key in keys]
                for records in self._records.values()
            ]
            intact = [records for records in seen if not any(record.collapsed for record in records)]
            self._priors[split, id(keys)] = fit([[loss_of(record, split) for record in records] for records in intact])
        return self._priors[split, id(keys)]

    def _estimate_alone(self, quantity: Quantity, weights: Mapping[str, float], seeds: tuple[int, ...]) -> Estimate:
        if quantity is Split.TEST:
            tables = [
                loss_by_image([self._records[name][seed].key for seed in seeds], self._outputs) for name in weights
            ]
            weighted = [
                weight * table for weight, table in zip(weights.values(), tables, strict=True) if table is not None
            ]
            if len(weighted) == len(weights) and len({table.shape for table in weighted}) == 1:
                return crossed(np.sum(weighted, axis=0))
        return over_seeds([self._combine(quantity, weights, seed) for seed in seeds])

    def _combine(self, quantity: Quantity, weights: Mapping[str, float], seed: int) -> float:
        value = partial(loss_of, split=quantity) if isinstance(quantity, Split) else quantity
        return sum(weight * value(self._records[name][seed]) for name, weight in weights.items())

    def _with_verdicts(self, contrasts: Sequence[Contrast]) -> tuple[Contrast, ...]:
        """The contrasts tested as one family: Holm's correction within each split, over those that are comparable."""
        effects: list[dict[Split, Effect]] = [dict(contrast.effects) for contrast in contrasts]
        family = [splits for splits, contrast in zip(effects, contrasts, strict=True) if contrast.counted and splits]
        for split in self._splits:
            tested = with_verdicts(splits[split] for splits in family)
            for splits, effect in zip(family, tested, strict=True):
                splits[split] = effect
        return tuple(replace(contrast, effects=splits) for contrast, splits in zip(contrasts, effects, strict=True))

    def _comparable(self, worse: Cell, better: Cell) -> bool:
        # Above the stem's size a model of depth 2 or more works on maps of the images' size: its cost jumps there.
        if 1 in (worse.depth, better.depth):
            return True
        return has_small_maps(self._settings.model(worse)) == has_small_maps(self._settings.model(better))

    def _share_of_images(self, worse: Cell, better: Cell) -> float | None:
        """On what part of the test images ``worse`` has the higher loss, mean over seeds."""
        shares = []
        for seed in self._grid.seeds:
            table = loss_by_image([replace(cell, seed=seed).key for cell in (worse, better)], self._outputs)
            if table is not None:
                shares.append(float((table[0] > table[1]).mean()))
        return fmean(shares) if shares else None


def loss_of(record: Record, split: Split) -> float:
    """The loss of a usable record: on test, or on training or validation at the last epoch; MSE per pixel."""
    if split is Split.TEST:
        assert record.test_loss is not None
        return record.test_loss
    last = record.history[-1]
    return last.train_loss if split is Split.TRAINING else last.val_loss


def _weights(pairs: Sequence[Contrast], *, lower_only: bool = False) -> dict[str, float]:
    weights: dict[str, float] = {}
    for pair in pairs:
        worse, better = (_seedless_key(cell) for cell in pair.cells)
        signed = {better: 1.0} if lower_only else {worse: 1.0, better: -1.0}
        for name, weight in signed.items():
            weights[name] = weights.get(name, 0.0) + weight / len(pairs)
    return weights


def _seedless_key(cell: Cell | Record) -> str:
    """The key without its seed: what is compared over seeds, such as ``DAE_5_13``."""
    return cell.key.removesuffix(f"-s{cell.seed}")


def _caveats(record: Record) -> list[str]:
    dead = record.dead_latent_channels
    return [f"{flag} {record.key}" for flag in flags_of(record)] + ([f"dead channels in {record.key}"] if dead else [])


def _mean_seconds(records: Collection[Record]) -> float:
    return fmean(sum(epoch.seconds for epoch in record.history) for record in records)


def _looks(sweep: Sweep) -> list[set[str]]:
    """Keys of the cells that each look saw; empty where none is recorded.

    What has been completed since the last look counts as another one, unless cells are still to come: half a round is
    no look.
    """
    looks: list[set[str]] = []
    for added in sweep.manifest.looks:
        looks.append({*(looks[-1] if looks else ()), *added})
    if looks and all(_has_ended(sweep.status(cell)) for cell in sweep.manifest.grid.cells):
        looks.append(looks[-1] | {record.key for record in usable_records(sweep)})
    return looks


def _has_ended(status: Status) -> bool:
    return status.is_final or status is Status.FAILED
