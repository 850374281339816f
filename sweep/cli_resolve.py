"""Options of ``dae-sweep run`` that add seeds until the order of architectures is decided."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from dae.errors import UserError
from sweep.grid import Grid

if TYPE_CHECKING:
    from sweep.rounds import Resolving

DEFAULT_SEEDS = 10
LEAST_SEEDS = 3
"""Two seeds leave a t interval one degree of freedom: it says next to nothing."""


class Duration(click.ParamType[float]):
    """A time such as ``30m``, ``2h``, ``1h30m`` or ``90s``, in seconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", value.strip())
        if match is None or not any(match.groups()):
            self.fail(f"{value!r} is not a time; one looks like 30m, 2h, 1h30m or 90s.", param, ctx)
        hours, minutes, seconds = (int(group or 0) for group in match.groups())
        return float(3600 * hours + 60 * minutes + seconds)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def which_rounds(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options, to decorate a command with."""
    several: tuple[Decorator, ...] = (
        click.option("--resolve", is_flag=True, help="Add seeds while the order of architectures is undecided."),
        click.option(
            "--max-seeds", type=int, help=f"With --resolve: most seeds of an architecture.  [default: {DEFAULT_SEEDS}]"
        ),
        click.option("--time-budget", type=Duration(), help="With --resolve: when to end at the latest, e.g. 30m, 2h."),
    )
    for option in reversed(several):
        function = option(function)
    return function


def resolving_of(given: dict[str, Any], grid: Grid, start: float) -> "Resolving | None":
    """The budget among a command's options; None without ``--resolve``. ``start`` is when the command began.

    Raises:
        UserError: the options contradict each other or are out of range.
    """
    resolve, max_seeds, budget_s = (given.pop(name) for name in ("resolve", "max_seeds", "time_budget"))
    if not resolve:
        for option, value in (("max-seeds", max_seeds), ("time-budget", budget_s)):
            if value is not None:
                raise UserError(f"--{option} is a limit of --resolve: give both, or neither.")
        return None

    from sweep.rounds import Resolving
    from sweep.statistics import MOST_SEEDS  # and scipy, for which a run without --resolve need not wait

    num_given = len(grid.seeds)
    if max_seeds is None:
        max_seeds = max(DEFAULT_SEEDS, num_given)
    if not LEAST_SEEDS <= max_seeds <= MOST_SEEDS:
        raise UserError(f"--max-seeds {max_seeds} is out of range: it must be {LEAST_SEEDS} to {MOST_SEEDS}.")
    if max_seeds < num_given:
        raise UserError(
            f"--max-seeds {max_seeds} is below the {num_given} seeds given: raise it, or give fewer --seeds."
        )
    if budget_s == 0:
        raise UserError("--time-budget 0 leaves no time: give more, for example 30m.")
    if len({(cell.architecture, cell.axes) for cell in grid.cells}) < 2:
        raise UserError("--resolve compares architectures, and only one is given: give more --depths or --latents.")
    return Resolving(max_seeds=max_seeds, deadline=None if budget_s is None else start + budget_s)
