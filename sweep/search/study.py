"""A search as an Optuna study, for its samplers and for whoever wants Optuna's own tools."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from sweep.records.grid import Settings
from sweep.records.record import Status
from sweep.records.search import Search
from sweep.records.space import Point, Range, Values
from sweep.search.history import History, Tried

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

UNKNOWN_WORST = 1.0
"""The loss of a diverged trial where no other has one: the largest that a pixel can have."""

CMA = "cma:"
"""How the names of what CMA-ES notes begin."""

KEEPS_PRUNED = "tpe"
"""The sampler that makes use of a pruned trial as such; to the others it is one that ended at its last loss."""


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its log on standard error, and its notes on what it calls experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def study_of(history: History, settings: Settings) -> "Study":
    """The study of everything tried, pruned and failed trials as such."""
    with quiet():
        return made(history.search, trials(history, settings, are_pruned_kept=True))


def asked(
    search: Search, told: Sequence["FrozenTrial"], samplers: Iterable["BaseSampler"]
) -> Iterator[tuple[Point, dict[str, Any]]]:
    """What each of these new samplers proposes after these trials, and what it noted with its proposal."""
    from optuna.trial import TrialState

    with quiet():
        study = made(search, told)
    for sampler in samplers:
        with quiet():
            study.sampler = sampler
            trial = study.ask(_distributions(search))
            attributes = study.get_trials(deepcopy=False)[-1].system_attrs
            noted = {name: value for name, value in attributes.items() if ":relative_params" not in name}
            point = {name: values.rounded(trial.params[name]) for name, values in search.space.parameters.items()}
            study.tell(trial, state=TrialState.FAIL)  # to the next one it has never been
        yield point, noted


def trials(
    history: History, settings: Settings, *, are_pruned_kept: bool | None = None, is_brief: bool = False
) -> list["FrozenTrial"]:
    """Everything tried that lies in the space, in the words of Optuna, by number; parameters and values if brief."""
    search = history.search
    if are_pruned_kept is None:
        are_pruned_kept = search.sampler == KEEPS_PRUNED
    finite = [entry.values(search.objectives) for entry in history.in_order if _counts(entry)]
    worst = max((values[0] for values in finite), default=UNKNOWN_WORST)
    kind = are_pruned_kept, is_brief
    with quiet():
        found = (_known_trial(entry, history, settings, worst, kind) for entry in history.in_order)
        return [trial for trial in found if trial is not None]


def _known_trial(
    entry: Tried, history: History, settings: Settings, worst: float, kind: tuple[bool, bool]
) -> "FrozenTrial | None":
    """As `_trial`, made once of what does not change any more: a thousand of them take as long as a proposal."""
    made_for = (*kind, worst if entry.status is Status.DIVERGED else None)
    known = history.told.get(entry.cell.key)
    if known is None or known[0] is not entry or known[1] is not history.search or known[2] != made_for:
        known = entry, history.search, made_for, _trial(entry, history.search, settings, worst, *kind)
        history.told[entry.cell.key] = known
    trial: FrozenTrial | None = known[3]
    return trial


def _counts(entry: Tried) -> bool:
    return entry.status in {Status.COMPLETED, Status.PRUNED, Status.STOPPED} and bool(entry.losses)


def _trial(
    entry: Tried, search: Search, settings: Settings, worst: float, are_pruned_kept: bool, is_brief: bool
) -> "FrozenTrial | None":
    from optuna.trial import TrialState, create_trial

    point = search.space.point_of(entry.proposal.point, settings)
    if point is None:
        return None
    state, values = TrialState.RUNNING, None
    if entry.status is Status.DIVERGED:
        state, values = TrialState.COMPLETE, (worst, *(float(entry.macs) for _ in search.objectives[1:]))
    elif _counts(entry):
        is_complete = entry.status is Status.COMPLETED or not are_pruned_kept
        state, values = TrialState.COMPLETE if is_complete else TrialState.PRUNED, entry.values(search.objectives)
    elif entry.is_over:
        state = TrialState.FAIL
    several = len(search.objectives) > 1
    trial = create_trial(
        state=state,
        values=None if state is TrialState.PRUNED and several else values,
        params=dict(point),
        distributions=_distributions(search),
        system_attrs={} if is_brief else _attributes(entry, search),
        user_attrs={} if is_brief else {"cell": entry.cell.key, "status": str(entry.status)},
        intermediate_values={} if several or is_brief else dict(enumerate(entry.losses, start=1)),
    )
    shared: FrozenTrial = _shared_trial()()
    shared.__dict__.update(trial.__dict__)
    return shared


@cache
def _shared_trial() -> "Callable[[], FrozenTrial]":
    from optuna.trial import FrozenTrial

    class Shared(FrozenTrial):
        """A trial whose copies share what it holds: every proposal has a study of its own, which copies all trials."""

        def __init__(self) -> None:
            """Empty."""

        def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTrial:
            plain = FrozenTrial.__new__(FrozenTrial)  # which can be pickled
            plain.__dict__.update(self.__dict__)
            return plain

    return Shared


def _attributes(entry: Tried, search: Search) -> dict[str, Any]:
    """What its sampler noted; without the optimiser of CMA-ES where it is one of another space."""
    is_kept = entry.proposal.is_of(search.space)
    return {name: value for name, value in entry.proposal.attributes.items() if is_kept or not name.startswith(CMA)}


def made(search: Search, told: Sequence["FrozenTrial"], sampler: "BaseSampler | None" = None) -> "Study":
    """A study in memory that holds these trials."""
    import optuna

    study = optuna.create_study(sampler=sampler, directions=["minimize"] * len(search.objectives))
    study.add_trials(told)
    return study


def _distributions(search: Search) -> dict[str, "BaseDistribution"]:
    return {name: _distribution(values) for name, values in search.space.parameters.items()}


def _distribution(values: Values) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(values, Range):
        return CategoricalDistribution(values.listed)
    kind: Any = IntDistribution if values.is_whole else FloatDistribution
    distribution: BaseDistribution = kind(values.low, values.high, log=values.is_log)
    return distribution
