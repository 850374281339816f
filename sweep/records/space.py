"""The space of a search: what each parameter of a cell may be. No Optuna, no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from dae.config import ImageShape, ModelConfig
from dae.errors import UserError
from sweep.records.axes import Value, value_text
from sweep.records.grid import Cell, Settings

WHOLE = ("depth", "latent", "width", "batch_size", "latent_channels", "warmup")
REAL = ("lr", "alpha", "averaging")
PARAMETERS = ("lr", "width", "latent", "depth", "batch_size", "latent_channels", "alpha", "warmup", "averaging")
"""What a search can vary."""

DEFAULT_SPACE = ("lr=log:1e-4..1e-2", "width=8..64", "latent=4..14", "depth=1..7")
"""Where images are large enough for it; `default_space` is that for all."""
LOG = "log:"
DIGITS = 4
"""Significant digits of a proposed number: its cell's name holds it in full, and no loss depends on more."""

Point = Mapping[str, Value]
"""A value for every parameter of a space."""


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers from ``low`` to ``high``, both included; whole ones where these are."""

    low: float | int
    high: float | int
    is_log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.low, int)

    @property
    def size(self) -> float:
        """How many values it has."""
        return self.high - self.low + 1 if self.is_whole else 1 if self.low == self.high else math.inf

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values among which the extremes of any setting lie."""
        return self.low, self.high

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{LOG if self.is_log else ''}{value_text(self.low)}..{value_text(self.high)}"

    def rounded(self, value: float) -> Value:
        """The value as it is trained with."""
        if self.is_whole:
            return int(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def values(self) -> Sequence[Value]:
        """All of its whole numbers, or its only value."""
        return range(int(self.low), int(self.high) + 1) if self.is_whole else (self.low,)


@dataclass(frozen=True, slots=True)
class Choice:
    """A list of values."""

    listed: tuple[Value, ...]

    @property
    def size(self) -> float:
        """How many values it has."""
        return len(self.listed)

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values among which the extremes of any setting lie."""
        return self.listed

    def __contains__(self, value: object) -> bool:
        return value in self.listed

    def __str__(self) -> str:
        return ",".join(map(value_text, self.listed))

    def rounded(self, value: Value) -> Value:
        """The value as it is trained with."""
        return value

    def values(self) -> Sequence[Value]:
        """All of them."""
        return self.listed


Values = Range | Choice


def default_space(image: ImageShape) -> tuple[str, ...]:
    """`DEFAULT_SPACE`, its latent no larger than the images."""
    largest = min(14, *image.sides)
    return tuple(f"latent=4..{largest}" if text.startswith("latent=") else text for text in DEFAULT_SPACE)


@dataclass(frozen=True, slots=True)
class Space:
    """What each parameter may be, by name; depth and latent are always among them."""

    parameters: Mapping[str, Values]

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Self:
        """The space that ``--space`` options give, each such as ``lr=log:1e-4..1e-2``.

        Raises:
            UserError: a parameter is unknown, missing or given twice, or its values are none that it can have.
        """
        parameters: dict[str, Values] = {}
        for text in texts:
            name, equals, values = text.partition("=")
            name = name.strip().replace("-", "_")
            if name not in PARAMETERS:
                raise UserError(f"--space {text}: unknown parameter {name!r}. A search varies {', '.join(PARAMETERS)}.")
            if not equals or not values.strip():
                raise UserError(f"--space {text} has no values: give some, for example {_EXAMPLES[name]}.")
            if name in parameters:
                raise UserError(f"--space {name} is given twice: give all its values at once.")
            parameters[name] = _parse(name, values.strip())
        for name in ("depth", "latent"):
            if name not in parameters:
                raise UserError(
                    f"the space says nothing of {name}: add --space {_EXAMPLES[name]}, or one value, "
                    f"--space {_EXAMPLES[name].split('..')[0]}."
                )
        return cls({name: parameters[name] for name in PARAMETERS if name in parameters})

    @property
    def texts(self) -> dict[str, str]:
        """The values of each parameter as ``--space`` takes them."""
        return {name: str(values) for name, values in self.parameters.items()}

    @property
    def size(self) -> float:
        """How many points it has, as far as names tell them apart; without end where a range is of real numbers."""
        return math.prod(values.size for values in self.parameters.values())

    @property
    def cells(self) -> float:
        """How many cells its points are: at depth 1, which has no layer of that width, all widths are one."""
        depth, width = self.parameters["depth"], self.parameters.get("width")
        if width is None or 1 not in depth or math.isinf(self.size):
            return self.size
        shallow = self.size / depth.size
        return round(self.size - shallow + shallow / width.size)

    @property
    def varied(self) -> list[str]:
        """The parameters with more than one value."""
        return [name for name, values in self.parameters.items() if values.size > 1]

    @property
    def continuous(self) -> list[str]:
        """The parameters with a range of real numbers."""
        return [name for name, values in self.parameters.items() if math.isinf(values.size)]

    def point_at(self, index: int) -> Point:
        """One of its points, counted from 0 to its size, where no parameter is continuous."""
        point: dict[str, Value] = {}
        for name, values in reversed(list(self.parameters.items())):
            index, place = divmod(index, int(values.size))
            point[name] = values.values()[place]
        return {name: point[name] for name in self.parameters}

    def cells_at_ends(self, settings: Settings, seed: int) -> tuple[Cell, Cell]:
        """The cells with the lowest, and with the highest value of every parameter: the cheapest and the dearest."""
        ends = [{name: end(values.ends) for name, values in self.parameters.items()} for end in (_lowest, _highest)]
        return self.cell(ends[0], settings, seed), self.cell(ends[1], settings, seed)

    def check(self, settings: Settings) -> None:
        """Check that all of its points are cells.

        Raises:
            UserError: a value is out of range; the message says what is allowed.
        """
        for name, values in self.parameters.items():
            for value in values.ends:
                try:
                    if name in ("depth", "latent"):
                        ModelConfig(**{"depth": 1, "latent": 1} | {name: int(value)}, image=settings.shape)
                    else:
                        settings.at(Cell(depth=1, latent=1, seed=0, axes=((name, value),)))
                except UserError as error:
                    raise UserError(f"--space {name}={values}: {error}") from None

    def cell(self, point: Point, settings: Settings, seed: int) -> Cell:
        """The cell at a point."""
        axes = tuple((name, value) for name, value in point.items() if name not in ("depth", "latent"))
        return settings.plain(Cell(depth=int(point["depth"]), latent=int(point["latent"]), seed=seed, axes=axes))

    def point_of(self, proposed: Point, settings: Settings) -> Point | None:
        """Where a point of another space lies in this one, None if outside.

        What only one of the spaces varies has the value of the sweep's settings in the other.
        """
        point: dict[str, Value] = {}
        for name, values in self.parameters.items():
            value = proposed.get(name, getattr(settings, name, None))
            if value is None or value not in values:
                return None
            point[name] = value
        left = proposed.keys() - point.keys()
        return point if all(proposed[name] == getattr(settings, name, None) for name in left) else None


def _lowest(values: Sequence[Value]) -> Value:
    return min(values, key=float)


def _highest(values: Sequence[Value]) -> Value:
    return max(values, key=float)


_EXAMPLES = {
    "lr": "lr=log:1e-4..1e-2",
    "width": "width=8..64",
    "latent": "latent=4..14",
    "depth": "depth=1..7",
    "batch_size": "batch_size=32,64,128",
    "latent_channels": "latent_channels=1..8",
    "alpha": "alpha=0.25,0.5",
    "warmup": "warmup=0..3",
    "averaging": "averaging=0,0.99",
}


def _parse(name: str, text: str) -> Values:
    kind = int if name in WHOLE else float
    body = text.removeprefix(LOG)
    is_log = body != text

    def number(part: str) -> float | int:
        try:
            value = kind(part.strip())
        except ValueError:
            is_what = "a whole number" if kind is int else "a number"
            raise UserError(
                f"--space {name}={text}: {part.strip()!r} is not {is_what}; a range looks like {_EXAMPLES[name]}."
            ) from None
        if not math.isfinite(value):
            raise UserError(f"--space {name}={text}: {part.strip()} is not finite.")
        return value + kind(0)  # no negative zero

    if ".." not in body:
        if is_log:
            raise UserError(f"--space {name}={text}: log: belongs to a range, such as log:1..64, not to a list.")
        listed = tuple(number(part) for part in body.split(","))
        if len(set(listed)) < len(listed):
            raise UserError(f"--space {name}={text} repeats a value: give each once.")
        return Choice(listed)
    first, _, last = body.partition("..")
    low, high = number(first), number(last)
    if low > high:
        raise UserError(f"--space {name}={text} runs backwards: give {name}={last.strip()}..{first.strip()}.")
    if is_log and low <= 0:
        raise UserError(
            f"--space {name}={text}: a log range begins above 0, which has no logarithm. Begin it higher, or leave "
            "out log:."
        )
    return Range(low, high, is_log)
