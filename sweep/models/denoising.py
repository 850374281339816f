"""A trained model applied to arrays of pictures, of any size, grey or colour."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dae.errors import UserError
from dae.noise import corrupt_test
from dae.testset import mean_square
from dae.tiles import through_tiles
from sweep.models.trained import TrainedModel

Pixels = npt.NDArray[Any]
"""Pictures of type uint8, uint16 or float: (height, width) or (height, width, 3), several: their number first."""

GREY_MODEL = "the model is of grey images: a colour picture is denoised channel by channel"
COLOUR_MODEL = "the model is of colour images: a grey picture is given to it as three equal channels, and written grey"
ROUNDING = 1e-6
"""What floats may lie outside of their range, as a share of it."""
CLIPPED_SHARE = 0.01
"""Of the pixels of a picture; more outside of the model's range are worth a word."""


@dataclass(frozen=True, slots=True)
class Denoised:
    """What became of a picture, or several.

    Attributes:
        pixels: the denoised pictures, in the type of the pixels given.
        panels: the picture given, the one with added noise where there is one, and the denoised one; in [0, 1].
        mse_before, mse_after: mean squared error per pixel against the picture without the added noise; None where
            none was added.
        notes: what the user should know.
    """

    pixels: Pixels
    panels: tuple[npt.NDArray[np.float32], ...]
    mse_before: float | None
    mse_after: float | None
    notes: tuple[str, ...]


def denoise(model: TrainedModel, pixels: Pixels, *, noise: float | None = None, draw: str = "picture") -> Denoised:
    """Denoise pictures.

    Args:
        model: the model.
        pixels: uint8 or uint16; or float in [0, 1], where 1 is 255 of uint8, or in the range of the training data where
            these were floating-point numbers of another.
        noise: strength of the noise to add first, of the kind that the model was trained with.
        draw: names the draw of the noise; the same name gives the same noise to pictures of the same size.

    Raises:
        UserError: it is no array of pictures, or noise is to be added of which there is none to draw.
    """
    if noise is not None:
        check_drawn(model)
    values = _array(pixels)
    _check(values)
    if values.dtype.kind == "f":
        _check_range(values, model)
    low, high = model.scale.of_type(values.dtype)
    exact = values.astype(np.float64) if values.dtype.kind == "f" else values.astype(np.float32)
    scaled = ((exact - exact.dtype.type(low)) / exact.dtype.type(high - low)).astype(np.float32)
    notes = []
    clipped = float(((scaled < 0) | (scaled > 1)).mean())
    if clipped > CLIPPED_SHARE:
        notes.append(f"pixels outside of the {low:g} to {high:g} that the model was trained on are clipped")
    clean = scaled.clip(0, 1)
    is_colour = _is_colour(values)
    if is_colour != (model.image.channels > 1):
        notes.append(GREY_MODEL if is_colour else COLOUR_MODEL)
    planes = _planes(clean, is_colour=is_colour)
    noisy = planes if noise is None else corrupt_test(planes, noise, draw, str(model.record.config["noise"]))
    planes = _through(model, noisy, is_colour=is_colour)
    before, after = (_pixels(array, clean.shape, is_colour=is_colour) for array in (noisy, planes))
    return Denoised(
        pixels=_as_type(after, values.dtype, low, high),
        panels=(clean, after) if noise is None else (clean, before, after),
        mse_before=None if noise is None else mean_square(before - clean),
        mse_after=None if noise is None else mean_square(after - clean),
        notes=tuple(notes),
    )


def denoise_all(model: TrainedModel, pictures: Pixels | Sequence[Pixels]) -> Pixels | list[Pixels]:
    """Denoise an array of pictures, or each picture of a list, which may be of several sizes and types.

    Raises:
        UserError: as of `denoise`.
    """
    if not isinstance(pictures, list | tuple):
        return denoise(model, cast(Pixels, pictures)).pixels
    denoised = []
    for index, picture in enumerate(pictures):
        try:
            denoised.append(denoise(model, picture).pixels)
        except UserError as error:
            raise UserError(f"picture {index} of {len(pictures)}, counted from 0: {error}") from error
    return denoised


def check_drawn(model: TrainedModel) -> None:
    """Check that noise of the kind that the model was trained with can be added to a picture.

    Raises:
        UserError: it was trained on pairs, whose noise is not known otherwise.
    """
    if model.has_own_noise:
        raise UserError(
            f"no noise can be added for {model.record.key}: it was trained on pairs of clean and noisy images, and "
            "their noise is not drawn. Leave --add-noise out, and give pictures that are noisy already."
        )


def _array(pixels: Pixels) -> Pixels:
    try:
        return np.asarray(pixels)
    except (ValueError, TypeError) as error:  # rows of several lengths, as nested lists have them
        raise UserError(f"{type(pixels).__name__} is no array of pictures: {error}.") from error


def _check(values: Pixels) -> None:
    if values.dtype.kind not in "uif" or (values.dtype.kind != "f" and values.dtype not in (np.uint8, np.uint16)):
        raise UserError(f"pictures are arrays of uint8, uint16 or float in [0, 1], not of {values.dtype}.")
    if values.ndim not in (2, 3, 4) or (values.ndim == 4 and values.shape[-1] != 3) or 0 in values.shape:
        raise UserError(
            f"an array of shape {values.shape} is no picture: one is (height, width) or (height, width, 3), several "
            "have their number before that."
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError("the array has pixels that are not finite.")


def _check_range(values: Pixels, model: TrainedModel) -> None:
    """Refuse floats outside of what they may be, where clipping them would be another picture.

    Raises:
        UserError: there are some.
    """
    least, largest = model.scale.range_of(values.dtype)
    low, high = float(values.min()), float(values.max())
    rounding = ROUNDING * (largest - least)
    if least - rounding <= low and high <= largest + rounding:
        return
    if model.scale.factor is not None:
        raise UserError(
            f"the values of the float array go from {low:g} to {high:g}, and those of the data that {model.record.key} "
            f"was trained on from {least:g} to {largest:g}: scale them alike, or clip them with "
            f"numpy.clip(array, {least!r}, {largest!r})."
        )
    if low < -rounding or high > np.iinfo(np.uint16).max:
        advice = "scale them to that, or clip them with numpy.clip(array, 0, 1)"
    else:
        bits = 8 if high <= np.iinfo(np.uint8).max else 16
        advice = f"divide them by {2**bits - 1}, or give them as uint{bits}"
    raise UserError(f"a float array has values from 0 to 1, this one from {low:g} to {high:g}: {advice}.")


def _is_colour(values: Pixels) -> bool:
    return values.ndim == 4 or (values.ndim == 3 and values.shape[-1] == 3)


def _planes(images: npt.NDArray[np.float32], *, is_colour: bool) -> npt.NDArray[np.float32]:
    """The images as (planes, height, width); those of a colour image follow each other."""
    if is_colour:
        images = np.moveaxis(images, -1, -3)
    return np.ascontiguousarray(images.reshape(-1, *images.shape[-2:]))


def _pixels(planes: npt.NDArray[np.float32], shape: tuple[int, ...], *, is_colour: bool) -> npt.NDArray[np.float32]:
    """The inverse of `_planes`, for images of this shape."""
    if not is_colour:
        return planes.reshape(shape)
    return np.moveaxis(planes.reshape(*shape[:-3], 3, *shape[-3:-1]), -3, -1)


def _through(model: TrainedModel, planes: npt.NDArray[np.float32], *, is_colour: bool) -> npt.NDArray[np.float32]:
    """The planes denoised; a model of colour images sees each plane of a grey one three times."""
    image = model.image

    def function(tiles: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return model(tiles.reshape(-1, image.channels, *tiles.shape[-2:])).reshape(tiles.shape)

    copies = 1 if is_colour else image.channels
    denoised = through_tiles(planes.repeat(copies, axis=0), (image.height, image.width), function)
    merged: npt.NDArray[np.float32] = denoised.reshape(-1, copies, *denoised.shape[-2:]).mean(axis=1)
    return merged


def _as_type(unit: npt.NDArray[np.float32], dtype: np.dtype[Any], low: float, high: float) -> Pixels:
    """Values in [0, 1] as pixels of this type."""
    if dtype.kind == "f":
        return (unit.astype(np.float64) * (high - low) + low).astype(dtype)
    values: Pixels = np.rint(unit * np.float32(high - low) + np.float32(low)).clip(0, np.iinfo(dtype).max)
    return values.astype(dtype)
