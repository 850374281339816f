"""Images one after the other, and which split they belong to: what every kind of source is read through."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""Shape (n, height, width), or (n, height, width, 3) in colour."""
Labels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""Shape (n,), classes from 0; (0,) where the images have no labels."""

TRAIN, VALIDATION, TEST = "training", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)

Tell = Callable[[str], None]
"""Is told what a user should know of how images were read."""


class Unreadable(Exception):
    """A file that is no image or a damaged one; says which and why."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What an image is like, and the name by which a user knows it."""

    name: str
    height: int
    width: int
    channels: int
    bits: int

    @classmethod
    def of(cls, image: npt.NDArray[Any], name: str) -> "Kind":
        """The kind of an image, (height, width) or (height, width, 3)."""
        channels = 1 if image.ndim == 2 else image.shape[2]
        return cls(name, image.shape[0], image.shape[1], channels, 8 * image.dtype.itemsize)

    @property
    def size(self) -> str:
        """Height and width, as a user reads them."""
        return f"{self.height}x{self.width}"

    @property
    def colour(self) -> str:
        """``grey`` or ``colour``."""
        return "grey" if self.channels == 1 else "colour"


@dataclass(frozen=True, slots=True)
class Range:
    """The least and the largest pixel, and whether all are whole numbers; of numbers that are not pixels yet."""

    low: float
    high: float
    is_whole: bool

    def union(self, other: "Range") -> "Range":
        """The range of the pixels of both."""
        return Range(min(self.low, other.low), max(self.high, other.high), self.is_whole and other.is_whole)


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers that pixels were made of, where these were none: pixel = (number - offset) * factor, rounded."""

    offset: float
    factor: float


class Rows(Protocol):
    """Images that are read in order.

    Attributes:
        count: how many there are.
        step: how many are read at a time.
        with_alpha: how many of those that were read had an alpha channel, which is dropped.
        number: the type of the numbers in an array; None of files of images, which hold pixels.
    """

    count: int
    step: int
    with_alpha: int
    number: np.dtype[Any] | None

    def name(self, index: int) -> str:
        """How a user knows the image."""

    def kinds(self) -> Iterator[Kind | None]:
        """What each image is like, without reading it; None of an unreadable one that is skipped."""

    def range(self) -> Range:
        """Of the pixels, which may have to be read for it."""

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Images of one size.

        Raises:
            Unreadable: one of them is; ``stop`` may be the next ``start``.
        """


@dataclass(frozen=True, slots=True)
class Part:
    """Images of one split, with what belongs to them.

    Attributes:
        split: one of `SPLITS`; None where no split was given.
        labels: the class of every image, as the source names it; None without.
    """

    split: str | None
    clean: Rows
    noisy: Rows | None = None
    labels: npt.NDArray[Any] | None = None
