"""How much each parameter of a search matters, by Optuna's PED-ANOVA, with its spread over resamplings."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sweep.records.grid import Settings
from sweep.search import study
from sweep.search.history import History

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RESAMPLINGS = 40
MOST_RESAMPLED = 250
"""Most trials of a resampling: Optuna copies each. Of more trials the spread is shown too wide, not too narrow."""

LEAST_TRIALS = 10
"""Of fewer trials PED-ANOVA's best tenth is a single one."""


@dataclass(frozen=True, slots=True)
class Importance:
    """The share of a parameter, and the middle 80 % of what resamplings of the trials give."""

    parameter: str
    share: float
    low: float
    high: float


def importances(history: History, settings: Settings) -> list[Importance]:
    """The importance of each parameter for being among the best, largest first; none of too few trials.

    A trial that was ended early counts with its last loss, which is among the worst.

    Raises:
        ImportError: Optuna is not installed.
    """
    search = history.search
    told = study.trials(history, settings, are_pruned_kept=False, is_brief=True)
    trials = [trial for trial in told if trial.values]
    varied = search.space.varied
    if len(trials) < LEAST_TRIALS or len(varied) < 2:
        return []
    whole = _shares(trials, varied, history)
    dice = np.random.default_rng(search.seed)
    count = min(len(trials), MOST_RESAMPLED)
    drawn = [
        _shares([trials[index] for index in dice.integers(len(trials), size=count)], varied, history)
        for _ in range(RESAMPLINGS)
    ]
    low, high = np.quantile(np.array(drawn), (0.1, 0.9), axis=0)
    found = [
        Importance(name, float(whole[place]), float(low[place]), float(high[place]))
        for place, name in enumerate(varied)
    ]
    return sorted(found, key=lambda importance: -importance.share)


def _shares(trials: Sequence["FrozenTrial"], varied: Sequence[str], history: History) -> list[float]:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with study.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = study.made(history.search, trials)
        loss = (lambda trial: float(trial.values[0])) if len(history.search.objectives) > 1 else None
        shares = get_param_importances(made, evaluator=PedAnovaImportanceEvaluator(), params=list(varied), target=loss)
    return [float(shares[name]) for name in varied]
