"""Settings that can vary within a sweep: their values, and how names and prose have them. No torch, no Ray."""

from collections.abc import Callable, Mapping

from dae.config import NOISES, Latent
from dae.errors import UserError

Value = float | int | str
Axes = tuple[tuple[str, Value], ...]
"""Settings in which a cell differs from its sweep, by name, in the order of the names."""


def _number(text: str) -> float:
    return float(text) + 0.0  # no negative zero


def _noise(text: str) -> str:
    if text not in NOISES:
        raise ValueError
    return text


AXES: Mapping[str, tuple[Callable[[str], Value], str]] = {
    "alpha": (_number, "a number"),
    "averaging": (_number, "a number"),
    "batch_size": (int, "a whole number"),
    "latent_channels": (int, "a whole number"),
    "lr": (_number, "a number"),
    "noise": (_noise, f"one of {', '.join(NOISES)}"),
    "warmup": (int, "a whole number"),
    "width": (int, "a whole number"),
}
"""The settings that can vary within a sweep: how a value is parsed, and what it has to be."""

EXAMPLES = {
    "alpha": "0.25,0.5,0.75",
    "averaging": "0,0.99",
    "batch_size": "32,128",
    "latent_channels": "2,4,8",
    "lr": "3e-4,1e-3",
    "noise": ",".join(NOISES),
    "warmup": "0,3",
    "width": "8,16,32",
}


def axis_value(name: str, text: str) -> Value:
    """The value of an axis that ``text`` gives.

    Raises:
        UserError: there is no such axis, or the value is not of its type.
    """
    check_axis(name)
    parse, description = AXES[name]
    try:
        return parse(text)
    except ValueError:
        raise UserError(f"{text!r} is no value of the axis {name}: it must be {description}.") from None


def check_axis(name: str) -> None:
    """Check that there is such an axis.

    Raises:
        UserError: there is none.
    """
    if name not in AXES:
        raise UserError(f"unknown axis {name!r}. Known ones: {', '.join(AXES)}.")


def value_text(value: Latent | Value) -> str:
    """The value in file names and tables; for a number the shortest text that parses to it."""
    if isinstance(value, float):
        mantissa, is_scientific, exponent = repr(value).partition("e")
        return mantissa.removesuffix(".0") + (f"e{int(exponent)}" if is_scientific else "")
    return str(value)


def axes_text(axes: Axes) -> str:
    """The axes in prose, such as ``alpha 0.25, noise blur``."""
    return ", ".join(f"{name.replace('_', ' ')} {value_text(value)}" for name, value in axes)


def suffix(axes: Axes) -> str:
    """The axes in the name of a cell or file, such as ``-alpha0.25-noiseblur``."""
    return "".join(f"-{name}{value_text(value)}" for name, value in axes)
