"""The settings of an architecture and of its training.

No torch here, so that a command line can refuse a bad value before the slow imports.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from dae.errors import UserError

IMAGE_SIZE = 28
"""Height and width of the study's images, in pixels (study, section 3.2)."""

LEAST_SIZE = 8
"""Least height and width of an image, in pixels: below it a stem has nothing to halve."""


class Size(NamedTuple):
    """Height and width of a latent, in pixels; ordered by area, also against a number, which is that of a square."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    def __lt__(self, other: object) -> bool:
        return _area(self) < _area(other)

    def __gt__(self, other: object) -> bool:
        return _area(self) > _area(other)

    def __le__(self, other: object) -> bool:
        return _area(self) <= _area(other)

    def __ge__(self, other: object) -> bool:
        return _area(self) >= _area(other)


def _area(latent: Any) -> int:
    return int(latent[0] * latent[1] if isinstance(latent, tuple) else latent**2)


Latent = int | Size
"""A latent size in pixels: of the shorter side of the images, the longer in proportion; or height and width."""

EMBEDDED = "mnist-5k"
"""The dataset that needs neither files nor network."""

DATASETS = ("mnist", "fashion-mnist", "kmnist", EMBEDDED)

EPOCHS = 15
"""Passes over the training split, where nothing else is said (study, section 4.2)."""

DIGITS = ("mnist", EMBEDDED)
"""Those whose images are digits."""

GAUSSIAN, SALT_AND_PEPPER, BLUR = "gaussian", "salt-and-pepper", "blur"
NOISES = (GAUSSIAN, SALT_AND_PEPPER, BLUR)
"""Kinds of corruption (study, sections 1 and 2.2); `dae.noise` says what each does."""

LSUV, HE = "lsuv", "he"
INITIALISATIONS = (LSUV, HE)
"""Starts of the weights: He's draw brought to unit variance on data, layer by layer, or the draw alone."""


@dataclass(frozen=True, slots=True)
class ImageShape:
    """The size of a dataset's images: ``28x28`` for grey ones, ``64x48x3`` for colour.

    Outside of torch an array of n images has the shape (n, height, width), or (n, height, width, 3) in colour; inside
    of it a batch is (n, channels, height, width).

    Attributes:
        height, width: in pixels.
        channels: 1 (grey) or 3 (red, green, blue).
    """

    height: int = IMAGE_SIZE
    width: int = IMAGE_SIZE
    channels: int = 1

    def __post_init__(self) -> None:
        if min(self.height, self.width) < LEAST_SIZE or self.channels not in (1, 3):
            raise UserError(
                f"images of {self} are out of range: they must have at least {LEAST_SIZE}x{LEAST_SIZE} pixels, and 1 "
                "channel (grey) or 3 (colour)."
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """The shape that `str` writes.

        Raises:
            ValueError: it is none.
            UserError: a size is out of range.
        """
        if (match := re.fullmatch(r"(\d+)x(\d+)(?:x(\d+))?", text, re.ASCII)) is None:
            raise ValueError(f"{text!r} is not the size of an image")
        return cls(*(int(number) for number in match.groups(default="1")))

    def __str__(self) -> str:
        colour = "" if self.channels == 1 else f"x{self.channels}"
        return f"{self.height}x{self.width}{colour}"

    @property
    def array(self) -> tuple[int, ...]:
        """The shape of one image as an array: (height, width), or (height, width, channels) in colour."""
        return (self.height, self.width) if self.channels == 1 else (self.height, self.width, self.channels)

    @property
    def numbers(self) -> int:
        """How many numbers an image consists of."""
        return self.height * self.width * self.channels

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def sides_of(self, latent: int | tuple[int, int]) -> Size:
        """Height and width of a latent size: a number is that of the shorter side, the longer is in proportion."""
        if isinstance(latent, tuple):
            return Size(*latent)
        shorter = min(self.sides)
        return Size(*((2 * side * latent + shorter) // (2 * shorter) for side in self.sides))


def side(latent: Latent) -> float:
    """Side of a square of as many pixels: what sizes are sorted by beside each other."""
    return latent if isinstance(latent, int) else math.sqrt(latent.height * latent.width)


def parse_latent(text: str) -> Latent:
    """The latent size that is written ``13`` or ``13x8``, height before width.

    Raises:
        ValueError: it is none.
    """
    height, cross, width = text.partition("x")
    return Size(int(height), int(width)) if cross else int(height)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """One architecture (study, Table 1).

    Attributes:
        depth: number of convolutions of the encoder; the decoder has as many transposed ones.
        latent: size of the latent space, in pixels.
        latent_channels: channels of the latent space.
        width: channels between stem and neck; without effect at depth 1, which has no such layer.
        image: the size of the images.

    Raises:
        UserError: a value is out of range.
    """

    depth: int
    latent: Latent
    latent_channels: int = 4
    width: int = 16
    image: ImageShape = ImageShape()

    def __post_init__(self) -> None:
        at_least(1, depth=self.depth, width=self.width, latent_channels=self.latent_channels)
        image = self.image
        if isinstance(self.latent, tuple):
            object.__setattr__(self, "latent", Size(*self.latent))
        if not isinstance(self.latent, tuple):
            largest = min(image.sides)
            along = "" if image.height == image.width else " along the shorter side"
            if not 1 <= self.latent <= largest:
                study = " The study used 13, 8 and 5." if largest >= 13 else ""
                raise UserError(
                    f"latent size {self.latent} is out of range: a latent is 1 to {largest} pixels wide{along}, the "
                    f"images being {image.height}x{image.width}.{study}"
                )
        elif not all(1 <= size <= most for size, most in zip(self.latent, image.sides, strict=True)):
            raise UserError(
                f"latent size {self.latent} is out of range: a latent is 1x1 to {image.height}x{image.width} pixels "
                "large, height times width, as the images are."
            )

    @property
    def name(self) -> str:
        """The name used in the study, e.g. ``DAE_5_13``."""
        return f"DAE_{self.depth}_{self.latent}"

    @property
    def latent_sides(self) -> Size:
        """Height and width of the latent space."""
        return self.image.sides_of(self.latent)

    @property
    def latent_numbers(self) -> int:
        """How many numbers a latent consists of."""
        height, width = self.latent_sides
        return self.latent_channels * height * width

    @property
    def compression(self) -> float:
        """Latent numbers per number of the image, as in Table 1 (0.8622 is its 86.22 %)."""
        return self.latent_numbers / self.image.numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The settings of Algorithm 1.

    Attributes:
        epochs: passes over the training split.
        batch_size: images per step; the last partial batch of an epoch is dropped.
        lr: Adam's learning rate.
        alpha: strength of the noise; what it means for each kind is said in `dae.noise`.
        noise: one of `NOISES`.
        seed: root of all random streams of this training.
        latent_bias: what the biases of the latent layer begin at; 0 but for older sweeps, which drew with ``he``.
        initialisation: one of `INITIALISATIONS`; `dae.initialisation` says what each does.
        warmup: epochs in which the learning rate rises to ``lr`` in equal steps. Adam's first steps are of full size
            whatever the gradient: at a high rate they close ReLUs of the latent for good.
        averaging: what is validated, tested and kept is an exponential average of the weights (Polyak and Juditsky
            1992) that keeps this part of itself at every step: 0.99 averages over about 100 steps, 0 over none.

    Raises:
        UserError: a value is out of range.
    """

    epochs: int = EPOCHS
    batch_size: int = 128
    lr: float = 1e-3
    alpha: float = 0.5
    noise: str = GAUSSIAN
    seed: int = 0
    latent_bias: float = 0.0
    initialisation: str = LSUV
    warmup: int = 0
    averaging: float = 0.0

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        at_least(0, alpha=self.alpha, seed=self.seed, latent_bias=self.latent_bias)
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UserError(f"lr {self.lr} is out of range: it must be a positive number, such as 1e-3.")
        if self.noise not in NOISES:
            raise UserError(f"unknown noise {self.noise!r}. Known kinds: {', '.join(NOISES)}.")
        if not 0 <= self.warmup <= self.epochs:
            raise UserError(
                f"warmup {self.warmup} is out of range: it must be 0 to {self.epochs}, the number of epochs."
            )
        if not 0 <= self.averaging < 1:
            raise UserError(f"averaging {self.averaging} is out of range: it must be at least 0 and below 1.")
        if self.initialisation not in INITIALISATIONS:
            raise UserError(
                f"unknown initialisation {self.initialisation!r}. Known ones: {', '.join(INITIALISATIONS)}."
            )
        if self.latent_bias and self.initialisation != HE:
            raise UserError(
                f"latent bias {self.latent_bias} belongs to --initialisation {HE}: {self.initialisation} sets the "
                "latent's biases from data."
            )
        check_strength(self.noise, self.alpha)

    def lr_at(self, epoch: int) -> float:
        """The learning rate in this epoch, from 1."""
        return self.lr * min(1.0, epoch / (self.warmup + 1))


def check_strength(noise: str, alpha: float) -> None:
    """Check the strength of a kind of noise.

    Raises:
        UserError: it is above the most that this kind can have.
    """
    if noise == SALT_AND_PEPPER and alpha > 1:
        raise UserError(
            f"alpha {alpha} is out of range: of {SALT_AND_PEPPER} noise it is the share of pixels that are "
            "replaced, at most 1."
        )


def usual_latents(image: ImageShape) -> tuple[int, ...]:
    """The study's latent sizes in proportion to the shorter side, such as 30, 18 and 11 of images of 64x64."""
    return tuple(round(size * min(image.sides) / IMAGE_SIZE) for size in (13, 8, 5))


def check_dataset(name: str, patch: int | None = None) -> None:
    """Check the name of a dataset, and that no tiles are to be cut from its images.

    Raises:
        UserError: it is not one of `DATASETS`, or they are.
    """
    if name not in DATASETS:
        raise UserError(
            f"unknown dataset {name!r}. Known ones: {', '.join(DATASETS)}; of your own images give the "
            f"path, such as ./{name}."
        )
    if patch is not None:
        raise UserError(f"--patch {patch} cuts images of your own; those of {name} are small already.")


def kept_of(count: int, fraction: float) -> int:
    """How many training images a fraction of them is."""
    return max(1, round(fraction * count))


FEW_IMAGES = 6_400
"""Of fewer training images of a user's own 15 epochs are too few steps for the defaults of the large datasets."""

ENOUGH_STEPS, RISING_STEPS = 1_500, 300
"""Those of `EMBEDDED`: in so many a cell mostly converges, and over so many its learning rate rises."""

MOST_EPOCHS = 150
"""By default, however few the images are."""


def default_training(dataset: str, epochs: int | None = None, images: int | None = None) -> dict[str, Any]:
    """Defaults that depend on the dataset and the length of the training, by name.

    The study gives no batch size. Batches of 32, four times the learning rate, reached in steps, and averaged weights
    let the small embedded set converge in its 15 epochs, 1,500 steps. Fewer images are passed over more often, for as
    many steps. Without a rise of the rate latent channels close: a training that is shorter ends below the full rate.

    Args:
        dataset: its name.
        epochs: length of the training; None for the default.
        images: how many training images a user's own dataset has; None for one with a name.
    """
    batch_size, steps = 32, 100  # of the embedded set
    if images is not None:
        batch_size = max(1, min(32, images // 3))
        steps = max(1, images // batch_size)
    if not (dataset == EMBEDDED if images is None else images < FEW_IMAGES):
        return {
            "epochs": EPOCHS if epochs is None else epochs,
            "batch_size": 128,
            "lr": 1e-3,
            "warmup": 0,
            "averaging": 0.0,
        }
    if epochs is None:
        epochs = min(MOST_EPOCHS, max(EPOCHS, math.ceil(ENOUGH_STEPS / steps)))
    warmup = min(epochs, max(3, math.ceil(RISING_STEPS / steps)))
    return {"epochs": epochs, "batch_size": batch_size, "lr": 4e-3, "warmup": warmup, "averaging": 0.99}


def at_least(minimum: int, **values: float) -> None:
    """Check that the named values are finite and at least ``minimum``.

    Raises:
        UserError: one is not.
    """
    for name, value in values.items():
        if not (math.isfinite(value) and value >= minimum):
            raise UserError(f"{name.replace('_', ' ')} {value} is out of range: it must be at least {minimum}.")
