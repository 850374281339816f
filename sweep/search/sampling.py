"""What a search tries next. The only module, with `study`, that knows Optuna.

A sampler's random generator lives in its process, and no replay of trials restores it. So a sampler is made anew for
every proposal, seeded by the search's seed and the proposal's number, and told all that was tried before: a proposal
follows from (seed, number, history) alone.
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from heapq import heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from dae.errors import UserError
from sweep.records.axes import Value
from sweep.records.grid import Cell, Settings
from sweep.records.search import Proposal, Search
from sweep.records.space import Point, Range, Space, Values
from sweep.search.history import History

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

ASKS, DRAWS = 2, 60
"""How often a sampler is asked, and a random one, before the untried point next to the last one is taken."""

MOST_LISTED = 100_000
"""Points of a space of which the order is drawn as a whole; of a larger space one point after the other is drawn."""

STEP = 1e-3
"""Of a range of real numbers, to the next neighbour."""


def check_installed() -> None:
    """Check that Optuna is there.

    Raises:
        UserError: it is not.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as missing:
        raise UserError(
            f"a search needs Optuna, which is not installed here ({missing.name} is missing): "
            "pip install 'dae-sweep[search]'."
        ) from missing


def propose(history: History, settings: Settings) -> tuple[Proposal, Cell] | None:
    """The next proposal and its cell; None where every cell of the space was tried.

    Args:
        history: all that was tried.
        settings: the sweep's.
    """
    search, number = history.search, history.next_number
    tried = {entry.cell for entry in history.tried.values()}

    def untried(point: Point) -> Cell | None:
        cell = search.space.cell(point, settings, search.seed)
        return None if cell in tried or cell.key in history.removed else cell

    def proposed(point: Point, cell: Cell, attributes: Mapping[str, Any]) -> tuple[Proposal, Cell]:
        return Proposal(number=number, point=point, attributes=attributes, origin=search.origin), cell

    candidates = _drawn(search) if search.sampler == "grid" else _asked(history, settings, number)
    for candidate, attributes in candidates:
        if cell := untried(candidate):
            return proposed(candidate, cell, attributes)
    # What is nearest to the last one is as much of the sampler's advice as there is.
    dice = random.Random(f"{search.seed} {number}")
    for point in islice(neighbours(search.space, candidate, dice), MOST_LISTED):
        if cell := untried(point):
            return proposed(point, cell, attributes)
    return None


Candidates = Iterator[tuple[Point, dict[str, Any]]]


def _drawn(search: Search) -> Candidates:
    """Points of the space in random order, so that a search that ends early has seen all of it alike."""
    size = int(search.space.size)
    if size <= MOST_LISTED:
        order: Iterable[int] = _shuffled(search.seed, size)
    else:
        dice = random.Random(search.seed)
        order = (dice.randrange(size) for _ in range(MOST_LISTED))
    return ((search.space.point_at(index), {}) for index in order)


@lru_cache(maxsize=4)
def _shuffled(seed: int, size: int) -> list[int]:
    order = list(range(size))
    random.Random(seed).shuffle(order)
    return order


def _asked(history: History, settings: Settings, number: int) -> Candidates:
    """What the sampler proposes; where that was tried, once more with other random numbers."""
    from sweep.search import study

    search, is_random = history.search, history.search.sampler == "random"
    told = [] if is_random else study.trials(history, settings)
    samplers = (_sampler(search.sampler, seed) for seed in _seeds(search.seed, number, DRAWS if is_random else ASKS))
    return study.asked(search, told, samplers)


def _seeds(seed: int, number: int, count: int) -> Iterator[int]:
    for attempt in range(count):
        yield int(np.random.SeedSequence([seed, number, attempt]).generate_state(1)[0])


def neighbours(space: Space, point: Point, dice: random.Random) -> Iterator[Point]:
    """Points of the space by their distance to one of them, those as near in random order.

    Along every parameter the space counts as one long, along a log range in logarithms; on a range of real numbers
    steps are a thousandth of it. Width is not varied at depth 1, which has no layer of that width.
    """
    axes = {name: _Axis(values, point[name]) for name, values in space.parameters.items()}
    start = (0,) * len(axes)
    heap, seen = [(0.0, 0.0, start)], {start}
    while heap:
        _, _, steps = heappop(heap)
        at = {name: axis.at(step) for (name, axis), step in zip(axes.items(), steps, strict=True)}
        yield {name: value for name, value in at.items() if value is not None}
        for place, (name, axis) in enumerate(axes.items()):
            if name == "width" and at["depth"] == 1:
                continue
            # Away from the start only: every point is reached through nearer ones.
            for step in (-1, 1) if steps[place] == 0 else (1 if steps[place] > 0 else -1,):
                further = (*steps[:place], steps[place] + step, *steps[place + 1 :])
                if further not in seen and axis.at(further[place]) is not None:
                    seen.add(further)
                    distance = math.fsum(
                        one.distance(steps) ** 2 for one, steps in zip(axes.values(), further, strict=True)
                    )
                    heappush(heap, (distance, dice.random(), further))


@dataclass(frozen=True, slots=True)
class _Axis:
    """A parameter, counted in steps from one of its values."""

    values: Values
    start: Value

    def at(self, steps: int) -> Value | None:
        """The value so many steps away; None where the parameter ends before."""
        if not isinstance(self.values, Range):
            place = self.values.listed.index(self.start) + steps
            return self.values.listed[place] if 0 <= place < len(self.values.listed) else None
        if self.values.is_whole:
            whole = int(self.start) + steps
            return whole if whole in self.values else None
        low, high, begin = self._heights()
        height = begin + steps * STEP * (high - low)
        if not low <= height <= high or low == high:
            return self.start if steps == 0 else None
        return self.values.rounded(math.exp(height) if self.values.is_log else height)

    def distance(self, steps: int) -> float:
        """How far that is, the whole parameter being 1."""
        if not isinstance(self.values, Range):
            return abs(steps) / max(1, len(self.values.listed) - 1)
        if not self.values.is_whole:
            return abs(steps) * STEP
        low, high, begin = self._heights()
        there = float(self.start) + steps
        return abs((math.log(there) if self.values.is_log else there) - begin) / ((high - low) or 1.0)

    def _heights(self) -> tuple[float, float, float]:
        """Both ends of the range and the start, or their logarithms."""
        assert isinstance(self.values, Range)
        ends = float(self.values.low), float(self.values.high), float(self.start)
        low, high, start = map(math.log, ends) if self.values.is_log else ends
        return low, high, start


def _sampler(name: str, seed: int) -> "BaseSampler":
    from optuna import samplers

    if name == "cmaes":
        return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    if name == "gp":
        return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    kinds = {"random": samplers.RandomSampler, "tpe": samplers.TPESampler, "nsga2": samplers.NSGAIISampler}
    sampler: BaseSampler = kinds[name](seed=seed)
    return sampler
