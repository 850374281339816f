"""Test loss against what a model costs, with the Pareto front. No torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sweep.analysis.results import Result


class Cost(StrEnum):
    """What a model costs."""

    COMPRESSION = "compression rate"
    """Latent elements as a part of the image's pixels."""
    PARAMETERS = "parameters"
    MACS = "MACs per image"


_COSTS: dict[Cost, Callable[[Result], float]] = {
    Cost.COMPRESSION: lambda result: result.config.compression,
    Cost.PARAMETERS: lambda result: result.parameters,
    Cost.MACS: lambda result: result.macs,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """An architecture by its cost; ``result`` has the mean loss and its interval.

    Attributes:
        on_front: no other architecture has a mean loss as low at a cost as low (Pareto).
    """

    result: Result
    cost: float
    on_front: bool


def front(results: Sequence[Result], cost: Cost) -> tuple[Point, ...]:
    """The architectures with a result, by rising cost and falling loss, those of the Pareto front marked."""
    cost_of = _COSTS[cost]
    completed = [result for result in results if result.mean is not None]
    points, lowest = [], float("inf")
    for result in sorted(completed, key=lambda result: (cost_of(result), result.mean or 0.0)):
        mean = result.mean or 0.0
        points.append(Point(result=result, cost=cost_of(result), on_front=mean < lowest))
        lowest = min(lowest, mean)
    return tuple(points)
