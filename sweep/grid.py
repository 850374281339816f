"""Which cells a sweep has and what they share. No torch, no Ray."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, Self

from dae.architecture import mac_count
from dae.config import ModelConfig, TrainConfig
from dae.errors import UserError

STUDY_DEPTHS = (1, 3, 5)
STUDY_LATENTS = (13, 8, 5)


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Cell:
    """One architecture with one seed: the unit of result."""

    depth: int
    latent: int
    seed: int

    @property
    def architecture(self) -> str:
        """The study's name of the architecture, e.g. ``DAE_5_13``."""
        return f"DAE_{self.depth}_{self.latent}"

    @property
    def key(self) -> str:
        """Name of the cell in files, tables and W&B, e.g. ``DAE_5_13-s0``."""
        return f"{self.architecture}-s{self.seed}"

    @classmethod
    def from_key(cls, key: str) -> Self:
        """The cell of a key.

        Raises:
            ValueError: not a key.
        """
        match = re.fullmatch(r"DAE_(\d+)_(\d+)-s(\d+)", key)
        if match is None:
            raise ValueError(f"{key!r} is not a cell key")
        depth, latent, seed = map(int, match.groups())
        return cls(depth=depth, latent=latent, seed=seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What all cells of a sweep share. Defaults are the study's; it gives no batch size.

    Raises:
        UserError: a value is out of range.
    """

    dataset: str = "mnist"
    train_fraction: float = 1.0
    epochs: int = 15
    batch_size: int = 128
    lr: float = 1e-3
    alpha: float = 0.5
    width: int = 16
    latent_channels: int = 4
    latent_bias: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.train_fraction <= 1:
            raise UserError(f"train fraction {self.train_fraction} is out of range: it must be above 0 and at most 1.")
        self.model(Cell(depth=1, latent=1, seed=0))
        self.training(Cell(depth=1, latent=1, seed=0))

    def model(self, cell: Cell) -> ModelConfig:
        """The architecture of ``cell``."""
        return ModelConfig(depth=cell.depth, latent=cell.latent, latent_channels=self.latent_channels, width=self.width)

    def training(self, cell: Cell) -> TrainConfig:
        """The training of ``cell``."""
        return TrainConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            alpha=self.alpha,
            seed=cell.seed,
            latent_bias=self.latent_bias,
        )

    def config(self, cell: Cell) -> dict[str, Any]:
        """Everything that determines the numbers of ``cell``: the ``config`` of its record."""
        return asdict(cell) | asdict(self)


@dataclass(frozen=True, slots=True)
class Grid:
    """A set of cells, in the order of tables and figures: depth, then latent from large to small, then seed."""

    cells: tuple[Cell, ...]

    @classmethod
    def product(cls, depths: Sequence[int], latents: Sequence[int], seeds: Sequence[int]) -> Self:
        """Every depth with every latent and every seed.

        Raises:
            UserError: a list is empty, repeats a value or holds one out of range.
        """
        for name, values in (("depths", depths), ("latents", latents), ("seeds", seeds)):
            if not values:
                raise UserError(f"--{name} is empty: give at least one value, for example --{name} 1,3,5.")
            if repeated := sorted({value for value in values if values.count(value) > 1}):
                raise UserError(f"--{name} repeats {', '.join(map(str, repeated))}: give each value once.")
        for depth, latent in product(depths, latents):
            ModelConfig(depth=depth, latent=latent)
        for seed in seeds:
            TrainConfig(seed=seed)
        return cls.of(
            Cell(depth=depth, latent=latent, seed=seed) for depth, latent, seed in product(depths, latents, seeds)
        )

    @classmethod
    def of(cls, cells: Iterable[Cell]) -> Self:
        """The grid of these cells, put in order."""
        return cls(tuple(sorted(set(cells), key=lambda cell: (cell.depth, -cell.latent, cell.seed))))

    def union(self, other: "Grid") -> "Grid":
        """The cells of both."""
        return Grid.of(self.cells + other.cells)

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths that occur, ascending."""
        return tuple(sorted({cell.depth for cell in self.cells}))

    @property
    def latents(self) -> tuple[int, ...]:
        """Latent sizes that occur, descending as in the study's Table 1."""
        return tuple(sorted({cell.latent for cell in self.cells}, reverse=True))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that occur, ascending."""
        return tuple(sorted({cell.seed for cell in self.cells}))

    @property
    def architectures(self) -> tuple[Cell, ...]:
        """One cell of each architecture, seed 0, in the grid's order."""
        return tuple(dict.fromkeys(replace(cell, seed=0) for cell in self.cells))


def longest_first(cells: Iterable[Cell], settings: Settings) -> list[Cell]:
    """The cells by falling cost, so that the last worker of a sweep is not alone with a deep one."""
    return sorted(cells, key=lambda cell: -mac_count(settings.model(cell)))
