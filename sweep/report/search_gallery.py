"""Which figures the page of a search has, in its order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sweep.analysis.search import SearchFindings
from sweep.report import search_figures
from sweep.report.drawing import Figure
from sweep.search.importance import LEAST_TRIALS, MOST_RESAMPLED, RESAMPLINGS


@dataclass(frozen=True, slots=True)
class SearchExhibit:
    """A figure of the page.

    Attributes:
        missing: why it cannot be drawn; empty where it can.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[SearchFindings], Figure]
    missing: str = ""


def exhibits(findings: SearchFindings) -> Iterator[SearchExhibit]:
    """All figures of the page of a search, also those that cannot be drawn."""
    few = (
        ""
        if findings.importances
        else f"It takes {LEAST_TRIALS} trials that ended, two parameters that vary, and Optuna."
    )
    none = "" if findings.varied else "No parameter varies."
    single = "" if len(findings.varied) > 1 else "It takes two parameters that vary."
    if len(findings.search.objectives) > 1:
        front = "" if findings.ranked else "No trial is completed."
        yield SearchExhibit(
            "search_front", "Loss against cost",
            "Validation loss of every completed trial against its multiply-accumulates; filled: no other is better in "
            "both.", search_figures.pareto, front,
        )  # fmt: skip
    yield SearchExhibit(
        "search_trials", "Trial by trial",
        "The last validation loss of every trial in the order of proposals. A trial that was ended early is shown at "
        "its last loss, with the number of its epochs; it is in no comparison.", search_figures.trials, "",
    )  # fmt: skip
    yield SearchExhibit(
        "search_curves", "Epoch by epoch", "Where each trial was ended, and how those that went on came down.",
        search_figures.curves, "",
    )  # fmt: skip
    yield SearchExhibit(
        "search_parallel", "All parameters at once",
        "A line a completed trial, coloured by its validation loss (the worst fifth alike); grey: ended early.",
        search_figures.parallel, single,
    )  # fmt: skip
    yield SearchExhibit(
        "search_importance", "What matters",
        "How far each parameter sets the best tenth of the trials apart from all (PED-ANOVA). Lines: the middle 80 % "
        f"of {RESAMPLINGS} resamplings of the trials, {MOST_RESAMPLED} at most each. A trial that was ended early "
        "counts with its last loss.",
        search_figures.importance, few,
    )  # fmt: skip
    yield SearchExhibit(
        "search_slices", "Parameter by parameter",
        "Validation loss against each parameter. The others vary along with it, and the sampler went where losses "
        "were low: crowding is its choice, not a finding.", search_figures.slices, none,
    )  # fmt: skip
    yield SearchExhibit(
        "search_contours", "The two most important pairs",
        "Each mark is a trial, coloured by its validation loss; behind them the mean of the trials near, on a log "
        "scale. Where there are no marks, the colour is a guess.", search_figures.contours, few,
    )  # fmt: skip
