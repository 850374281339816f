"""What a search tries next. The only module, with `study`, that knows Optuna.

A sampler's random generator lives in its process, and no replay of trials restores it. So a sampler is made anew for
every proposal, seeded by the search's seed and the proposal's number, and told all that was tried before: a proposal
follows from (seed, number, history) alone.
"""

import random
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from dae.errors import UserError
from sweep.records.grid import Cell, Settings, Value
from sweep.records.search import Proposal, Search
from sweep.records.space import Point, Range, Space
from sweep.search.history import History

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

ATTEMPTS = 20
"""How often a sampler is asked again where it proposes what was tried, before an untried point is drawn at random."""

MOST_LISTED = 100_000
"""Points of a space that are listed to find one that is untried; of a larger space random ones are drawn."""


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
    candidates = _listed(search) if search.sampler == "grid" else _asked(history, settings, number)
    for point, attributes in candidates:
        cell = search.space.cell(point, settings, search.seed)
        if cell not in tried and cell.key not in history.removed:
            return Proposal(number=number, point=point, attributes=attributes), cell
    return None


Candidates = Iterator[tuple[Point, dict[str, Any]]]


def _listed(search: Search) -> Candidates:
    """All points of the space in random order, so that a search that ends early has seen all of it alike."""
    points = list(islice(search.space.points(), MOST_LISTED))
    random.Random(search.seed).shuffle(points)
    return ((point, {}) for point in points)


def _asked(history: History, settings: Settings, number: int) -> Candidates:
    """What the sampler proposes, and, where it repeats itself, what chance does."""
    from sweep.search import study

    search = history.search
    told = [] if search.sampler == "random" else study.trials(history, settings)
    for attempt in range(ATTEMPTS):
        seed = int(np.random.SeedSequence([search.seed, number, attempt]).generate_state(1)[0])
        yield study.ask(search, told, _sampler(search.sampler, seed))
    dice = random.Random(f"{search.seed} {number}")
    if search.space.size <= MOST_LISTED:
        points = list(search.space.points())
        dice.shuffle(points)
        yield from ((point, {}) for point in points)
    else:
        for _ in range(MOST_LISTED):
            yield _drawn(search.space, dice), {}


def _drawn(space: Space, dice: random.Random) -> Point:
    point: dict[str, Value] = {}
    for name, values in space.parameters.items():
        if not isinstance(values, Range) or values.is_whole:
            point[name] = dice.choice(values.values())
        else:
            point[name] = values.rounded(dice.uniform(values.low, values.high))
    return point


def _sampler(name: str, seed: int) -> "BaseSampler":
    from optuna import samplers

    if name == "cmaes":
        return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    if name == "gp":
        return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    kinds = {"random": samplers.RandomSampler, "tpe": samplers.TPESampler, "nsga2": samplers.NSGAIISampler}
    sampler: BaseSampler = kinds[name](seed=seed)
    return sampler
