"""The study's two claims (section 4.2) held against the records, pair by pair and on average. No torch."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import combinations, pairwise
from statistics import fmean

import numpy as np

from dae.architecture import STEM_SIZE
from sweep.analysis.arrays import Arrays, loss_by_image, usable_records
from sweep.analysis.results import flags_of
from sweep.analysis.statistics import Estimate, alpha_for_look, crossed, over_seeds
from sweep.analysis.verdicts import Effect, Verdict, with_verdicts
from sweep.records.grid import Cell
from sweep.records.record import Record, Status
from sweep.records.sweep import Sweep


class Split(StrEnum):
    """Which loss a comparison is made on; training and validation are those of the last epoch."""

    TRAINING = "training"
    VALIDATION = "validation"
    TEST = "test"


Quantity = Split | Callable[[Record], float]
"""What is compared: one of the losses, or anything else that a record tells."""


class Factor(StrEnum):
    """What a claim varies, the other being held fixed."""

    LATENT = "latent"
    DEPTH = "depth"

    @property
    def other(self) -> "Factor":
        """The one that is held fixed."""
        return Factor.DEPTH if self is Factor.LATENT else Factor.LATENT


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast:
    """A weighted sum of losses that a claim says is positive: a pair, an average of pairs, a difference of pairs.

    Attributes:
        higher, lower: what the claim says has the higher and the lower loss.
        at: levels of the other factor that it covers.
        cells: one cell of each architecture in it; of a pair, the one with the higher loss first.
        adjacent: no level between the two is in the grid.
        counted: False where the two are not comparable, the maps behind the stem being of different size.
        effects: by split; empty where no seed has all the cells.
        share: part of the test images on which ``higher`` has the higher loss, mean over seeds; pairs only.
        caveats: collapsed and unconverged cells and dead latent channels that this rests on.
        without_collapsed: on the test loss, the effect over the seeds of which no cell collapsed, where some did.
            It has no verdict, the seeds being chosen by their outcome: it tells what hangs on them.
    """

    higher: str
    lower: str
    at: tuple[int, ...]
    cells: tuple[Cell, ...]
    adjacent: bool = True
    counted: bool = True
    effects: Mapping[Split, Effect]
    share: float | None = None
    caveats: tuple[str, ...] = ()
    without_collapsed: Effect | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What the records say of one claim.

    Each split is a family of its own, and the one of the test loss answers the claim; training and validation are
    for comparison with the study's figures. Their intervals are over seeds alone, those of the test loss over seeds
    and test images.

    Attributes:
        pairs: every ordered pair of levels at each level of the other factor: one family for Holm's correction.
        averages: every ordered pair of levels, averaged over the other factor: another family.
        overall: mean over the adjacent pairs; None where there are none.
    """

    factor: Factor
    pairs: tuple[Contrast, ...]
    averages: tuple[Contrast, ...]
    overall: Contrast | None

    @property
    def answers(self) -> tuple[Contrast, ...]:
        """What the claim as it is worded stands or falls with.

        (*) is said of every depth: all pairs. (**) is said "on average": the averages over latent sizes.
        """
        return tuple(self.judged()) if self.factor is Factor.LATENT else self.averages

    @property
    def verdict(self) -> Verdict | None:
        """Of the whole claim, on the test loss: supported if all of its `answers` are, contradicted if one is.

        None where there is nothing to compare.
        """
        found = {each.effects[Split.TEST].verdict for each in self.answers if each.effects}
        order = (
            Verdict.CONTRADICTED,
            Verdict.WITHHELD,
            Verdict.NOT_RESOLVED,
            Verdict.ONE_SEED,
            Verdict.SUPPORTED,
        )
        return next((verdict for verdict in order if verdict in found), None)

    def judged(self, *, adjacent: bool = False) -> list[Contrast]:
        """The pairs that are comparable and have their cells."""
        return [pair for pair in self.pairs if pair.counted and pair.effects and (pair.adjacent or not adjacent)]


class Comparer:
    """Makes contrasts of one sweep: losses by seed, paired over the seeds that all the cells share."""

    def __init__(self, sweep: Sweep, arrays: Arrays, splits: Sequence[Split] = tuple(Split)) -> None:
        self._splits = splits
        self._grid = sweep.manifest.grid
        self._outputs = arrays.outputs
        self._records: dict[str, dict[int, Record]] = {}
        for record in usable_records(sweep):
            self._records.setdefault(_subject(record), {})[record.seed] = record
        self._seconds = {name: _mean_seconds(records.values()) for name, records in self._records.items()}
        self._looks = _looks(sweep)

    def looks(self, cells: Iterable[Cell], seeds: Sequence[int]) -> list[tuple[tuple[int, ...], float]]:
        """The seeds that each look saw for all of ``cells``, and the part of `LEVEL` that it may spend.

        One look that sees everything and spends everything where the sweep has none of `dae-sweep run --resolve`.
        """
        if not self._looks:
            return [(tuple(seeds), 1.0)]
        own = [self._records[_subject(cell)] for cell in cells]
        found: list[tuple[tuple[int, ...], float]] = []
        before = 0
        for keys in self._looks:
            then = tuple(seed for seed in seeds if all(records[seed].key in keys for records in own))
            if len(then) > max(1, before):
                found.append((then, alpha_for_look(len(then), before)))
                before = len(then)
        return found or [(tuple(seeds), alpha_for_look(len(seeds), 0))]

    def claim(self, factor: Factor) -> Claim:
        """The claim on ``factor``: (*) smaller latent, higher loss, or (**) shallower, higher loss."""
        pairs = self._judged(self._pairs(factor))
        usable = [pair for pair in pairs if pair.counted and pair.effects]
        averages = [
            self._average(higher, lower, [pair for pair in usable if (pair.higher, pair.lower) == (higher, lower)])
            for higher, lower in dict.fromkeys((pair.higher, pair.lower) for pair in usable)
        ]
        adjacent = [pair for pair in usable if pair.adjacent]
        overall = self._judged([self._average("", "", adjacent)])[0] if adjacent else None
        return Claim(factor=factor, pairs=pairs, averages=self._judged(averages), overall=overall)

    def interaction(self) -> tuple[Contrast, ...]:
        """Whether a smaller latent costs a shallower model more (study, section 5.1); adjacent levels only."""
        steps = {
            (step.at[0], step.higher, step.lower): step
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
        return self._judged(contrasts)

    def corners(self) -> Contrast | None:
        """The interaction in one number: the smallest latent against the largest, the shallowest against the deepest.

        None where the grid lacks a corner or they are not comparable.
        """
        grid = self._grid
        shallow, deep, small, large = min(grid.depths), max(grid.depths), min(grid.latents), max(grid.latents)
        cells = {(cell.depth, cell.latent): cell for cell in grid.architectures}
        corners = [cells.get((depth, size)) for depth in (shallow, deep) for size in (small, large)]
        found = tuple(cell for cell in corners if cell is not None)
        if shallow == deep or small == large or len(found) < 4 or not _comparable(found[2], found[3]):
            return None
        weights = {_subject(cell): weight for cell, weight in zip(found, (1.0, -1.0, -1.0, 1.0), strict=True)}
        contrast = self._contrast(f"latent {small}", f"latent {large}", (shallow, deep), found, weights, base={})
        return self._judged([contrast])[0]

    def _pairs(self, factor: Factor) -> list[Contrast]:
        levels: dict[int, list[Cell]] = {}
        for cell in self._grid.architectures:
            levels.setdefault(getattr(cell, factor.other), []).append(cell)
        contrasts = []
        for at, cells in sorted(levels.items(), reverse=factor is Factor.DEPTH):
            # The grid's order is from large to small latent and from shallow to deep.
            worst_first = cells[::-1] if factor is Factor.LATENT else cells
            for (i, worse), (j, better) in combinations(enumerate(worst_first), 2):
                contrasts.append(self._pair(factor, at, worse, better, adjacent=j == i + 1))
        return contrasts

    def _pair(self, factor: Factor, at: int, worse: Cell, better: Cell, *, adjacent: bool) -> Contrast:
        weights = {_subject(worse): 1.0, _subject(better): -1.0}
        contrast = self._contrast(
            f"{factor} {getattr(worse, factor)}",
            f"{factor} {getattr(better, factor)}",
            (at,),
            (worse, better),
            weights,
            base={_subject(better): 1.0},
        )
        return replace(contrast, adjacent=adjacent, counted=_comparable(worse, better), share=self._part(worse, better))

    def _average(self, higher: str, lower: str, pairs: Sequence[Contrast]) -> Contrast:
        at = tuple(dict.fromkeys(level for pair in pairs for level in pair.at))
        cells = tuple(dict.fromkeys(cell for pair in pairs for cell in pair.cells))
        average = self._contrast(higher, lower, at, cells, _weights(pairs), base=_weights(pairs, lower_only=True))
        return replace(average, adjacent=all(pair.adjacent for pair in pairs))

    def _contrast(
        self,
        higher: str,
        lower: str,
        at: tuple[int, ...],
        cells: tuple[Cell, ...],
        weights: Mapping[str, float],
        base: Mapping[str, float],
    ) -> Contrast:
        by_seed = [self._records.get(name, {}) for name in weights]
        seeds = tuple(sorted(set.intersection(*map(set, by_seed))))
        rests_on = [self._records[name][seed] for name in weights for seed in seeds]
        collapsed = {record.seed for record in rests_on if record.collapsed}
        intact = tuple(seed for seed in seeds if seed not in collapsed)
        looks = self.looks(cells, seeds) if seeds else []
        effects = {split: self._effect(split, weights, base, seeds, looks) for split in self._splits} if seeds else {}
        if collapsed:
            withheld = "a collapsed model makes the spread over seeds anything but normal"
            effects = {split: replace(effect, withheld=withheld) for split, effect in effects.items()}
        return Contrast(
            higher=higher,
            lower=lower,
            at=at,
            cells=cells,
            effects=effects,
            caveats=tuple(caveat for record in rests_on for caveat in _caveats(record)),
            without_collapsed=self._effect(Split.TEST, weights, base, intact, []) if collapsed and intact else None,
        )

    def measure(self, of: Quantity, weights: Mapping[Cell, float]) -> Effect | None:
        """A weighted sum of anything that records tell, over the seeds that the cells share; not judged yet.

        Returns:
            None where they share no seed.
        """
        own = [self._records.get(_subject(cell), {}) for cell in weights]
        seeds = tuple(sorted(set.intersection(*map(set, own))))
        named = {_subject(cell): weight for cell, weight in weights.items()}
        return self._effect(of, named, {}, seeds, self.looks(weights, seeds)) if seeds else None

    def _effect(
        self,
        of: Quantity,
        weights: Mapping[str, float],
        base: Mapping[str, float],
        seeds: tuple[int, ...],
        looks: Sequence[tuple[tuple[int, ...], float]],
    ) -> Effect:
        difference = fmean(self._combine(of, weights, seed) for seed in seeds)
        reference = fmean(self._combine(of, base, seed) for seed in seeds)
        relative = difference / reference if reference else None
        effect = Effect(difference, relative, seeds, seconds_a_seed=sum(self._seconds[name] for name in weights))
        if len(seeds) == 1:
            return effect
        estimate = self._estimate(of, weights, seeds)
        low, high = estimate.interval()
        effect = replace(effect, low=low, high=high, p=estimate.p, estimate=estimate)
        if not self._looks or not looks:
            return effect
        # The lowest p value of any look, each for its share; a look at fewer seeds has to have the sign of them all.
        then = [(estimate if own == seeds else self._estimate(of, weights, own), part) for own, part in looks]
        agreeing = [each.p / part for each, part in then if each.mean * estimate.mean > 0]
        return replace(effect, valid_p=min([1.0, *agreeing]), share=looks[-1][1])

    def _estimate(self, of: Quantity, weights: Mapping[str, float], seeds: tuple[int, ...]) -> Estimate:
        """The weighted sum over seeds and, on the test loss, over test images."""
        if of is Split.TEST:
            tables = [loss_by_image([self._records[name][s].key for s in seeds], self._outputs) for name in weights]
            weighted = [w * table for w, table in zip(weights.values(), tables, strict=True) if table is not None]
            if len(weighted) == len(weights) and len({each.shape for each in weighted}) == 1:
                return crossed(np.sum(weighted, axis=0))
        return over_seeds([self._combine(of, weights, seed) for seed in seeds])

    def _combine(self, of: Quantity, weights: Mapping[str, float], seed: int) -> float:
        value = partial(loss_of, split=of) if isinstance(of, Split) else of
        return sum(weight * value(self._records[name][seed]) for name, weight in weights.items())

    def _judged(self, contrasts: Sequence[Contrast]) -> tuple[Contrast, ...]:
        """The contrasts as one family: Holm's correction within each split, over those that are comparable."""
        effects: list[dict[Split, Effect]] = [dict(contrast.effects) for contrast in contrasts]
        members = [own for own, contrast in zip(effects, contrasts, strict=True) if contrast.counted and own]
        for split in self._splits:
            judged = with_verdicts(own[split] for own in members)
            for own, effect in zip(members, judged, strict=True):
                own[split] = effect
        return tuple(replace(contrast, effects=own) for contrast, own in zip(contrasts, effects, strict=True))

    def _part(self, worse: Cell, better: Cell) -> float | None:
        shares = []
        for seed in self._grid.seeds:
            one, other = (self._outputs.get(replace(cell, seed=seed).key) for cell in (worse, better))
            if one is not None and other is not None and one.loss.shape == other.loss.shape:
                shares.append(float((one.loss > other.loss).mean()))
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
        worse, better = (_subject(cell) for cell in pair.cells)
        signed = {better: 1.0} if lower_only else {worse: 1.0, better: -1.0}
        for name, weight in signed.items():
            weights[name] = weights.get(name, 0.0) + weight / len(pairs)
    return weights


def _comparable(worse: Cell, better: Cell) -> bool:
    # Above the stem's size a model of depth 2 or more works on 28x28 maps: its cost jumps there, with the latent.
    return 1 in (worse.depth, better.depth) or (worse.latent <= STEM_SIZE) == (better.latent <= STEM_SIZE)


def _subject(of: Cell | Record) -> str:
    """What is compared: a cell whatever its seed."""
    return of.key.removesuffix(f"-s{of.seed}")


def _caveats(record: Record) -> list[str]:
    dead = record.dead_latent_channels
    return [f"{flag} {record.key}" for flag in flags_of(record)] + ([f"dead channels in {record.key}"] if dead else [])


def _mean_seconds(records: Collection[Record]) -> float:
    return fmean(sum(epoch.seconds for epoch in record.history) for record in records)


def _looks(sweep: Sweep) -> list[set[str]]:
    """Keys of the cells that each look saw; empty where none is recorded.

    What has been completed since the last one is a look of its own. Half a round is none: while cells are under way,
    the recorded looks stand.
    """
    looks: list[set[str]] = []
    for added in sweep.manifest.looks:
        looks.append({*(looks[-1] if looks else ()), *added})
    if looks and all(_has_ended(sweep.status(cell)) for cell in sweep.manifest.grid.cells):
        looks.append(looks[-1] | {record.key for record in usable_records(sweep)})
    return looks


def _has_ended(status: Status) -> bool:
    return status.is_final or status is Status.FAILED
