"""Which trials of a search are ended early: a function of the losses that have arrived, and of nothing else.

After a kill the losses are read from the records, so that the same trials are ended at the same epochs. Tune's own
schedulers keep their rungs in memory, and forget them.
"""

import math
from collections.abc import Collection, Sequence
from statistics import median

from sweep.records.search import Pruning

FACTOR = 3
"""ASHA lets a third of the trials pass a rung; the rungs are at epochs 1, 3, 9, ..."""

LEAST_OTHERS = 3
"""The median of fewer trials says nothing."""

Losses = Sequence[float]
"""The validation loss of a trial after each epoch that has arrived."""


def pruning_of(scheduler: str, epochs: int, losses: Losses, others: Collection[Losses]) -> Pruning | None:
    """Whether a trial ends with its last epoch.

    Args:
        scheduler: ``none``, ``asha`` or ``median``.
        epochs: of a trial that is not ended early.
        losses: of the trial, the last epoch included.
        others: those of the other trials that arrived before.

    Returns:
        Why it ends; None where it goes on.
    """
    epoch = len(losses)
    if epoch >= epochs or scheduler == "none":
        return None
    rivals = [other for other in others if len(other) >= epoch]
    if scheduler == "asha":
        return _asha(epoch, losses[-1], [other[epoch - 1] for other in rivals])
    return _median(epoch, min(losses), [math.fsum(other[:epoch]) / epoch for other in rivals])


def rungs(epochs: int) -> list[int]:
    """The epochs after which ASHA ends trials."""
    return [FACTOR**step for step in range(epochs) if FACTOR**step < epochs]


def _asha(epoch: int, loss: float, at_rung: Collection[float]) -> Pruning | None:
    """Asynchronous successive halving (Li et al. 2020), as Ray Tune does it: stop, never pause."""
    if not at_rung or FACTOR ** round(math.log(epoch, FACTOR)) != epoch:
        return None
    limit = _quantile(sorted(at_rung), 1 / FACTOR)
    return Pruning(epoch=epoch, loss=loss, limit=limit, others=len(at_rung)) if loss > limit else None


def _median(epoch: int, best: float, averages: Collection[float]) -> Pruning | None:
    """The median stopping rule (Golovin et al. 2017): the best loss so far against running averages."""
    if len(averages) < LEAST_OTHERS:
        return None
    limit = median(averages)
    return Pruning(epoch=epoch, loss=best, limit=limit, others=len(averages)) if best > limit else None


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
