"""Options for what varies within a sweep beside architecture and seed."""

from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource

from dae.errors import UserError
from sweep.grid import AXES, Grid, Settings, Value, axis_value, value_text
from sweep.matching import arm


class Axis(click.ParamType[tuple[str, tuple[Value, ...]]]):
    """An axis and its values: ``alpha=0.25,0.5,0.75``."""

    name = "NAME=V1,V2,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[Value, ...]]:
        """The axis and its values, in the order given."""
        if isinstance(value, tuple):
            return value
        name, equals, values = value.partition("=")
        if not equals:
            self.fail(f"{value!r} has no values; an axis looks like alpha=0.25,0.5,0.75.", param, ctx)
        name = name.strip().replace("-", "_")
        texts = filter(None, (text.strip() for text in values.split(",")))
        try:
            return name, tuple(axis_value(name, text) for text in texts)
        except UserError as error:
            self.fail(str(error), param, ctx)


which_axis = click.option(
    "--axis",
    "axes",
    type=Axis(),
    multiple=True,
    help=f"Cross the grid with values of {', '.join(AXES)}; may be repeated, once an axis.",
)
which_arm = click.option(
    "--match-parameters",
    is_flag=True,
    help="Add cells whose width gives every depth from 2 on the parameters of the shallowest of them.",
)


def grid_of(given: Mapping[str, Any], settings: Settings) -> Grid:
    """The grid among a command's options, its cells named as in a sweep with these settings.

    Raises:
        UserError: a list is empty or repeats a value, a value is out of range, or options contradict each other.
    """
    axes: dict[str, tuple[Value, ...]] = {}
    for name, values in given["axes"]:
        if name in axes:
            raise UserError(
                f"--axis {name} is given twice: give all its values at once, {_joined(name, axes[name] + values)}."
            )
        axes[name] = values
    grid = Grid.product(given["depths"], given["latents"], given["seeds"], axes)
    for name, values in axes.items():
        option, own = f"--{name.replace('_', '-')}", getattr(settings, name)
        source = click.get_current_context().get_parameter_source(name)
        if source is ParameterSource.COMMANDLINE and own not in values:
            raise UserError(
                f"{option} {value_text(own)} is not among {_joined(name, values)}, but it is what cells without this "
                f"axis have. Add it, {_joined(name, (own, *values))}, or leave {option} out."
            )
    for cell in grid.architectures:
        settings.at(cell)
    grid = Grid.of(map(settings.plain, grid.cells))
    return grid.union(arm(grid, settings)) if given["match_parameters"] else grid


def _joined(name: str, values: tuple[Value, ...]) -> str:
    return f"--axis {name}={','.join(map(value_text, dict.fromkeys(values)))}"
