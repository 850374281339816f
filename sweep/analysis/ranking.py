"""The order of a sweep's models by test loss, and how sure it is. No torch.

Models are compared under the same noise only: a loss under weak noise says nothing about one under strong noise. Among
the other axes, such as width or learning rate, the lowest loss wins.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from dae.errors import UserError
from sweep.analysis.arrays import load_arrays, usable_records
from sweep.analysis.comparer import Comparer
from sweep.analysis.results import flags_of
from sweep.analysis.statistics import LEVEL
from sweep.analysis.verdicts import Effect
from sweep.records.axes import suffix
from sweep.records.grid import Cell, Grid
from sweep.records.record import Record
from sweep.records.sweep import Sweep
from sweep.records.words import counted

MOST_NAMES = 5
"""That a sentence lists."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One architecture with its axes, over the seeds that are completed.

    Attributes:
        records: by rising test loss.
    """

    records: tuple[Record, ...]

    @property
    def best(self) -> Record:
        """Its seed with the lowest test loss."""
        return self.records[0]

    @property
    def name(self) -> str:
        """The key without the seed, such as ``DAE_5_13``."""
        return self.best.architecture + suffix(self.best.cell.axes)

    @property
    def losses(self) -> tuple[float, ...]:
        """Test loss of each seed, ascending."""
        return tuple(record.test_loss for record in self.records if record.test_loss is not None)

    @property
    def mean(self) -> float:
        """Mean test loss over seeds."""
        return fmean(self.losses)

    @property
    def sd(self) -> float | None:
        """Standard deviation over seeds; None with one."""
        return stdev(self.losses) if len(self.losses) > 1 else None

    @property
    def marks(self) -> list[str]:
        """``collapsed`` and ``unconverged``, where its best seed is."""
        return flags_of(self.best)


@dataclass(frozen=True)
class Ranking:
    """The candidates under one noise, by rising mean test loss; one at least.

    Attributes:
        sweep: its cells under this noise.
    """

    sweep: Sweep
    noise: str
    alpha: float
    candidates: tuple[Candidate, ...]

    @property
    def first(self) -> Candidate:
        """The candidate with the lowest mean test loss."""
        return self.candidates[0]

    @property
    def is_even(self) -> bool:
        """Whether all candidates have equally many seeds."""
        return len({len(candidate.losses) for candidate in self.candidates}) == 1

    @cached_property
    def shown_worse(self) -> tuple[str, ...] | None:
        """Names of the candidates that are shown to be worse than the first; None where no two share two seeds.

        The others, the first included, hold the truly best one with 95 %: it is missed only if one of its comparisons
        with the others errs, so that each may err with that level divided by their number (Bonferroni).
        """
        comparer = Comparer(self.sweep, load_arrays(self.sweep))
        others = self._rivals
        effects = [comparer.compare(other.best.cell, self.first.best.cell) for other in others]
        if all(effect is None or effect.p is None for effect in effects):
            return None
        return tuple(
            other.name for other, effect in zip(others, effects, strict=True) if _shows_worse(effect, len(others))
        )

    @property
    def _rivals(self) -> Sequence[Candidate]:
        """The candidates after the first that have learned something: of collapsed ones there is no verdict."""
        return [candidate for candidate in self.candidates[1:] if not candidate.best.collapsed]

    @property
    def certainty(self) -> str:
        """How sure it is that the first is the best one, in a sentence; in two where their numbers of seeds differ."""
        return self._certainty if self.is_even else f"{self._certainty} {self._uneven}"

    @property
    def _uneven(self) -> str:
        """Which candidates have how many seeds, and what that does to their order."""
        names: dict[int, list[str]] = {}
        for candidate in self.candidates:
            names.setdefault(len(candidate.losses), []).append(candidate.name)
        told = [
            f"{_listed(names[count])} {'has' if len(names[count]) == 1 else 'have'} {counted(count, 'seed')}"
            for count in sorted(names)
        ]
        return (
            f"Means are over different numbers of seeds: {'; '.join(told)}. Across these the order is that of the "
            "means alone: give all the same seeds to compare them."
        )

    @property
    def _certainty(self) -> str:
        others = len(self._rivals)
        if not others and len(self.candidates) > 1:
            return "All others collapsed: of these there is no verdict."
        if not others:
            return "There is no other architecture to compare it with."
        if self.shown_worse is None and self.is_even:
            return "With one seed each the order is not certain: another seed may change it."
        if self.shown_worse is None:
            return f"It is not certain that {self.first.name} is the best: no other one shares two seeds with it."
        compared = [self.first, *self._rivals]
        may_be_best = [candidate.name for candidate in compared if candidate.name not in self.shown_worse]
        if len(may_be_best) == 1:
            rest = "the other one" if others == 1 else f"all {others} others"
            return f"It is shown to be better than {rest} (95 % confidence)."
        worse = len(self.shown_worse)
        return f"The best one is among {_listed(may_be_best)} (95 % confidence); " + (
            f"{worse} {'is' if worse == 1 else 'are'} shown to be worse." if worse else "none is shown to be worse."
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _shows_worse(effect: Effect | None, num_compared: int) -> bool:
    if effect is None or effect.p is None or effect.withheld or not effect.holds:
        return False
    p = effect.p if effect.valid_p is None else effect.valid_p
    return p * num_compared < LEVEL


def rankings(sweep: Sweep, limits: Mapping[str, float] | None = None) -> list[Ranking]:
    """The ranking under each noise of the sweep, its own first; without noises where nothing is completed.

    Args:
        sweep: as `gather` read it.
        limits: most that a candidate may have, by the field of its record, such as ``macs``.

    Raises:
        UserError: no cell is completed, or none is within the limits.
    """
    records = usable_records(sweep)
    if not records:
        raise UserError(_nothing_to_rank(sweep))
    limits = limits or {}
    within = [record for record in records if all(_amount(record, name) <= limit for name, limit in limits.items())]
    if not within:
        least = ", ".join(f"{name} {min(_amount(record, name) for record in records):,}" for name in limits)
        raise UserError(
            f"no completed cell of {sweep.manifest.name} is under these limits: the least there is is {least}."
        )
    settings = sweep.manifest.settings
    by_noise: dict[tuple[str, float], list[Record]] = {}
    for record in within:
        at_cell = settings.at(record.cell)
        by_noise.setdefault((at_cell.noise, at_cell.alpha), []).append(record)
    usual = (settings.noise, settings.alpha)
    noises = sorted(by_noise, key=lambda noise: noise != usual)  # stable: the others stay in the grid's order
    return [Ranking(_part(sweep, by_noise[noise]), *noise, _candidates(by_noise[noise])) for noise in noises]


def _nothing_to_rank(sweep: Sweep) -> str:
    name, search, command = sweep.manifest.name, sweep.manifest.search, sweep.manifest.way_on()
    if search is None:
        return f"sweep {name} has no completed cell: {command} trains its cells."
    some = "" if search.finalists else " --finalists 3"
    return f"search {name} has no completed finalist, and only finalists are tested: {command}{some} trains them."


def _amount(record: Record, name: str) -> float:
    """The field that a limit is for; of a latent that is higher than wide, or wider, the longer side."""
    value = getattr(record, name)
    return float(max(map(int, value.split("x")))) if isinstance(value, str) else value


def _candidates(records: Iterable[Record]) -> tuple[Candidate, ...]:
    groups: dict[Cell, list[Record]] = {}
    for record in records:
        groups.setdefault(replace(record.cell, seed=0), []).append(record)
    candidates = [Candidate(tuple(sorted(group, key=_loss))) for group in groups.values()]
    return tuple(sorted(candidates, key=lambda candidate: candidate.mean))


def _loss(record: Record) -> Any:
    return record.test_loss


def _part(sweep: Sweep, records: Iterable[Record]) -> Sweep:
    by_key = {record.key: record for record in records}
    grid = Grid.of((record.cell for record in by_key.values()), sweep.manifest.grid.image)
    return Sweep(sweep.store, sweep.snapshot, replace(sweep.manifest, grid=grid), by_key, {})
