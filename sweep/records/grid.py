"""The cells of a sweep, their axes and the settings they share. No torch, no Ray."""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from types import MappingProxyType
from typing import Any, Self

from dae.architecture import mac_count
from dae.config import (
    EPOCHS,
    GAUSSIAN,
    LSUV,
    NOISES,
    ImageShape,
    Latent,
    ModelConfig,
    TrainConfig,
    default_training,
    parse_latent,
    usual_latents,
)
from dae.errors import UserError
from sweep.records.axes import AXES, EXAMPLES, Axes, Value, axes_text, check_axis, suffix, value_text

STUDY_DEPTHS = (1, 3, 5)
STUDY_IMAGE = ImageShape()
STUDY_LATENTS = usual_latents(STUDY_IMAGE)


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Cell:
    """One architecture with one seed, and its axis values where they differ from its sweep's settings."""

    depth: int
    latent: Latent
    seed: int
    axes: Axes = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(sorted(self.axes)))

    @property
    def latent_label(self) -> int | str:
        """The latent size in files: a number, or text such as ``13x8``."""
        return self.latent if isinstance(self.latent, int) else str(self.latent)

    @property
    def architecture(self) -> str:
        """The study's name of the architecture, e.g. ``DAE_5_13``."""
        return f"DAE_{self.depth}_{self.latent}"

    @property
    def key(self) -> str:
        """Name of the cell in files, tables and W&B, e.g. ``DAE_5_13-s0`` or ``DAE_5_13-alpha0.25-s0``."""
        return f"{self.architecture}{suffix(self.axes)}-s{self.seed}"

    @classmethod
    def from_key(cls, key: str) -> Self:
        """The cell with this key.

        Raises:
            ValueError: it is not the key of a cell.
        """
        match = _KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"{key!r} is not a cell key")
        texts = match.groupdict()
        latent, depth, seed = parse_latent(texts.pop("latent")), int(texts.pop("depth")), int(texts.pop("seed"))
        axes = tuple((name, AXES[name][0](text)) for name, text in texts.items() if text is not None)
        cell = cls(depth=depth, latent=latent, seed=seed, axes=axes)
        if cell.key != key:  # a number spelled differently, which would give the cell a second folder
            raise ValueError(f"{key!r} is not a cell key; {cell.key} is")
        return cell


_KEY_NUMBER = r"\d+(?:\.\d+)?(?:e-?\d+)?"
_KEY_VALUES = {"noise": "|".join(NOISES)} | {name: r"\d+" for name, (parse, _) in AXES.items() if parse is int}
_KEY = re.compile(
    r"DAE_(?P<depth>\d+)_(?P<latent>\d+(?:x\d+)?)"
    + "".join(f"(?:-{name}(?P<{name}>{_KEY_VALUES.get(name, _KEY_NUMBER)}))?" for name in AXES)
    + r"-s(?P<seed>\d+)",
    re.ASCII,
)


def _check_key(cell: Cell) -> None:
    """Refuse a value that a key cannot carry: trials and later commands know a cell by its key alone.

    Raises:
        UserError: the cell is not the one that its key names.
    """
    try:
        is_carried = Cell.from_key(cell.key) == cell
    except ValueError:
        is_carried = False
    if not is_carried:
        raise UserError(f"{axes_text(cell.axes)} is out of range: the name of a cell, {cell.key}, cannot carry it.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The settings that the cells of a sweep share, but for their axes.

    The defaults are the study's but for the batch size, which it does not give.

    Raises:
        UserError: a value is out of range.
    """

    dataset: str = "mnist"
    train_fraction: float = 1.0
    epochs: int = EPOCHS
    batch_size: int = 128
    lr: float = 1e-3
    alpha: float = 0.5
    noise: str = GAUSSIAN
    width: int = 16
    latent_channels: int = 4
    latent_bias: float = 0.0
    initialisation: str = LSUV
    warmup: int = 0
    averaging: float = 0.0
    image: str = str(STUDY_IMAGE)
    patch: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.train_fraction <= 1:
            raise UserError(f"train fraction {self.train_fraction} is out of range: it must be above 0 and at most 1.")
        for name in self.__slots__:
            if isinstance(value := getattr(self, name), float) and 0 < abs(value) < sys.float_info.min:
                raise UserError(
                    f"{name.replace('_', ' ')} {value} is out of range: trials compute without denormal numbers, so "
                    f"that it would be 0 to them. The least above 0 is {sys.float_info.min}."
                )
        self.model(Cell(depth=1, latent=1, seed=0))
        self.training(Cell(depth=1, latent=1, seed=0))

    @property
    def shape(self) -> ImageShape:
        """The size of the images."""
        return ImageShape.parse(self.image)

    @classmethod
    def usual(cls, dataset: str, **values: Any) -> Self:
        """The settings of a sweep of this dataset, where nothing else is said.

        Raises:
            UserError: a value is out of range.
        """
        return cls(dataset=dataset, **{**default_training(dataset, values.get("epochs")), **values})

    def at(self, cell: Cell) -> "Settings":
        """The settings of ``cell``: these, with the values of its axes.

        Raises:
            UserError: a value of an axis is out of range.
        """
        return replace(self, **dict(cell.axes)) if cell.axes else self  # type: ignore[arg-type]  # `AXES` are settings

    def plain(self, cell: Cell) -> Cell:
        """The cell without those of its axes that have no effect.

        These are values equal to the sweep's settings, so that an axis that includes the sweep's value uses the cells
        without this axis; and width at depth 1, which has no layer of that width. A latent size given as height and
        width becomes the number that stands for the same, if one does.
        """
        if not isinstance(cell.latent, int):
            shorter = cell.latent[0 if self.shape.height <= self.shape.width else 1]
            if self.shape.sides_of(shorter) == cell.latent:
                cell = replace(cell, latent=shorter)
        if not cell.axes:
            return cell
        effective = (
            (name, value)
            for name, value in cell.axes
            if value != getattr(self, name) and not (name == "width" and cell.depth == 1)
        )
        return replace(cell, axes=tuple(effective))

    def model(self, cell: Cell) -> ModelConfig:
        """The architecture of ``cell``."""
        settings = self.at(cell)
        return ModelConfig(
            depth=cell.depth,
            latent=cell.latent,
            latent_channels=settings.latent_channels,
            width=settings.width,
            image=self.shape,
        )

    def training(self, cell: Cell) -> TrainConfig:
        """The training of ``cell``."""
        settings = self.at(cell)
        return TrainConfig(
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            lr=settings.lr,
            alpha=settings.alpha,
            noise=settings.noise,
            seed=cell.seed,
            latent_bias=settings.latent_bias,
            initialisation=settings.initialisation,
            warmup=settings.warmup,
            averaging=settings.averaging,
        )

    def config(self, cell: Cell) -> dict[str, Any]:
        """The ``config`` of the record of ``cell``: all that determines its results."""
        return {"depth": cell.depth, "latent": cell.latent_label, "seed": cell.seed} | asdict(self.at(cell))


_OF_OWN_IMAGES = {"image": Settings().image, "patch": Settings().patch}


def written(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as files and tables have them: without what only sweeps of own images set, where it is as usual."""
    return {name: value for name, value in settings.items() if _OF_OWN_IMAGES.get(name, ...) != value}


@dataclass(frozen=True, slots=True)
class Grid:
    """A set of cells, in the order of tables and figures: depth, latent from large to small, axes, seed.

    Attributes:
        image: the size of the images, which says how large a latent is.
    """

    cells: tuple[Cell, ...]
    image: ImageShape = field(default=STUDY_IMAGE, compare=False)

    @classmethod
    def product(
        cls,
        depths: Sequence[int],
        latents: Sequence[Latent],
        seeds: Sequence[int],
        axes: Mapping[str, Sequence[Value]] = MappingProxyType({}),
        image: ImageShape = STUDY_IMAGE,
    ) -> Self:
        """Every depth with every latent, every seed and every value of every axis, for images of this size.

        Raises:
            UserError: a list is empty, repeats a value or has one out of range; there is no such axis.
        """
        lists: list[tuple[str, str, Sequence[Latent | Value]]] = [
            ("--depths", "1,3,5", depths),
            ("--latents", "1,3,5", latents),
            ("--seeds", "0,1,2", seeds),
            *((f"--axis {name}", EXAMPLES.get(name, ""), values) for name, values in axes.items()),
        ]
        for option, example, values in lists:
            if not values:
                between = "=" if option.startswith("--axis") else " "
                raise UserError(f"{option} is empty: give at least one value, for example {option}{between}{example}.")
            if repeated := sorted(value for value, count in Counter(values).items() if count > 1):
                raise UserError(f"{option} repeats {', '.join(map(value_text, repeated))}: give each value once.")
        for depth, latent in product(depths, latents):
            ModelConfig(depth=depth, latent=latent, image=image)
        for seed in seeds:
            TrainConfig(seed=seed)
        for name, values in axes.items():
            check_axis(name)
            for value in values:
                Settings(**{name: value})  # type: ignore[arg-type]  # the caller gives values of the right type
                _check_key(Cell(depth=1, latent=1, seed=0, axes=((name, value),)))
        names = sorted(axes)
        points = [tuple(zip(names, point, strict=True)) for point in product(*(axes[name] for name in names))]
        cells = (
            Cell(depth=depth, latent=latent, seed=seed, axes=point)
            for depth, latent, seed, point in product(depths, latents, seeds, points)
        )
        return cls.of(cells, image)

    @classmethod
    def of(cls, cells: Iterable[Cell], image: ImageShape = STUDY_IMAGE) -> Self:
        """The grid of these cells, in order and without repetition, for images of this size."""
        chosen = set(cells)
        places = {latent: _place(latent, image) for latent in {cell.latent for cell in chosen}}
        ordered = sorted(chosen, key=lambda cell: (cell.depth, places[cell.latent], cell.axes, cell.seed))
        return cls(tuple(ordered), image)

    def union(self, other: "Grid") -> "Grid":
        """The grid of the cells of both."""
        return Grid.of(self.cells + other.cells, self.image)

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths that occur, ascending."""
        return tuple(sorted({cell.depth for cell in self.cells}))

    @property
    def latents(self) -> tuple[Latent, ...]:
        """Latent sizes that occur, descending as in the study's Table 1."""
        return tuple(sorted({cell.latent for cell in self.cells}, key=lambda latent: _place(latent, self.image)))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that occur, ascending."""
        return tuple(sorted({cell.seed for cell in self.cells}))

    @property
    def axes(self) -> dict[str, tuple[Value, ...]]:
        """Values that occur on every axis beside the sweep's own, ascending."""
        values: dict[str, set[Any]] = {}
        for cell in self.cells:
            for name, value in cell.axes:
                values.setdefault(name, set()).add(value)
        return {name: tuple(sorted(values[name])) for name in sorted(values)}

    def keeps_own(self, axis: str) -> bool:
        """Whether some cells have the sweep's own value on this axis."""
        return any(axis not in dict(cell.axes) for cell in self.cells)

    @property
    def points(self) -> tuple[Axes, ...]:
        """Combinations of axis values that occur; the sweep's own settings, ``()``, come first."""
        return tuple(sorted({cell.axes for cell in self.cells}))

    @property
    def architectures(self) -> tuple[Cell, ...]:
        """A cell with seed 0 for every architecture and point on the axes, in the grid's order."""
        points = dict.fromkeys((cell.depth, cell.latent, cell.axes) for cell in self.cells)
        return tuple(Cell(depth=depth, latent=latent, seed=0, axes=axes) for depth, latent, axes in points)


def _place(latent: Latent, image: ImageShape) -> tuple[int, str]:
    """What latent sizes are sorted by, from large to small; those of as many pixels by their names."""
    height, width = image.sides_of(latent)
    return -height * width, str(latent)


def longest_first(cells: Iterable[Cell], settings: Settings) -> list[Cell]:
    """The cells by falling cost, so that a sweep does not end with one worker on an expensive cell."""
    return sorted(cells, key=lambda cell: -mac_count(settings.model(cell)))
