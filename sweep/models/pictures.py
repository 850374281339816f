"""Picture files: 8 and 16 bit, grey and colour, with or without an alpha channel."""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, UnidentifiedImageError

from dae import png
from dae.errors import UserError
from dae.images.picture import ORIENTATION

FORMATS = {"PNG": "PNG", "JPEG": "JPEG", "MPO": "JPEG", "TIFF": "TIFF", "BMP": "BMP", "WEBP": "WEBP"}
"""Formats that are read, with those that they are written in; MPO is what some phones make of a JPEG."""
READABLE = "PNG, JPEG, TIFF, BMP and WebP are read"
LOSSLESS_TIFF = {"tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"}
WRITING: Mapping[str, Mapping[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
"""What Pillow is told when it writes a format."""
PLAIN_MODES = {"L", "LA", "RGB", "RGBA"}
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
READ_TYPES = (np.dtype(bool), np.dtype(np.uint8), np.dtype(np.uint16))
UPRIGHT = 1
TURNED_BACK = {6: 8, 8: 6}
"""EXIF's orientations that another one undoes; the others undo themselves."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture.

    Attributes:
        pixels: (height, width) or (height, width, 3), uint8 or uint16.
        alpha: (height, width), of the same type; None where there is none.
        format: one of the values of `FORMATS`.
        options: what Pillow is given when it is written, such as its colour profile.
        notes: what the user should know.
        orientation: how the camera was held, by EXIF; ``pixels`` and ``alpha`` are upright, and a file is written as
            it was held, with ``options`` that say so.
    """

    pixels: npt.NDArray[Any]
    alpha: npt.NDArray[Any] | None
    format: str
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    orientation: int = UPRIGHT

    @property
    def channels(self) -> npt.NDArray[Any]:
        """Upright pixels and alpha channel in one array; (height, width) where there is one channel."""
        if self.alpha is None:
            return self.pixels
        return np.dstack([self.pixels, self.alpha])

    def with_pixels(self, pixels: npt.NDArray[Any]) -> "Picture":
        """The same picture with other pixels."""
        return replace(self, pixels=pixels)


def read(path: Path) -> Picture:
    """Read a picture.

    Raises:
        UserError: it is none, is damaged, or has pixels of another type.
    """
    try:
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, and of fields that writers got wrong
            return _decode(data, path)
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(
            f"{path} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels: cut it into parts."
        ) from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is no image: {READABLE}.") from None
    except Exception as error:  # Pillow and tifffile raise of all kinds on damaged files
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _decode(data: bytes, path: Path) -> Picture:
    if data.startswith(TIFF_SIGNATURES) and (channels := _deep_tiff(data, path)) is not None:
        return _picture(channels, "TIFF", path)
    if png.is_deep_colour(data):
        with Image.open(io.BytesIO(data)) as described:  # it is written without EXIF data, and so upright
            orientation = _orientation(described)
        return _picture(_turned(png.decode(data), orientation), "PNG", path)
    image = Image.open(io.BytesIO(data))
    if image.format not in FORMATS:
        raise UserError(f"{path} is a {image.format}: {READABLE}.")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise UserError(f"{path} holds {getattr(image, 'n_frames', 1)} pictures: give files of one.")
    image.load()
    orientation = _orientation(image)  # none of a TIFF, which Pillow has turned
    options = {name: image.info[name] for name in ("exif", "icc_profile", "dpi") if image.info.get(name)}
    if image.info.get("compression") in LOSSLESS_TIFF:
        options["compression"] = image.info["compression"]
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _picture(np.asarray(image).astype(np.uint16), FORMATS[image.format], path, options, (), orientation)
    if image.mode in ("I", "F"):
        raise UserError(
            f"{path} has pixels of the kind {image.mode!r}; whole numbers of 8 or 16 bits are read, grey or colour."
        )
    mode = _plain_mode(image)
    notes = () if mode == image.mode else (f"pixels of the kind {image.mode} are written as {mode}",)
    if image.mode == "CMYK":
        options.pop("icc_profile", None)  # of CMYK
    return _picture(np.asarray(image.convert(mode)), FORMATS[image.format], path, options, notes, orientation)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; upright where there is none that means anything."""
    try:
        value = image.getexif().get(ORIENTATION, UPRIGHT)
    except Exception:  # damaged data beside pixels that may be sound
        return UPRIGHT
    return value if value in range(1, 9) else UPRIGHT


def _turned(channels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """The channels of an image that was held so, upright."""
    if orientation > 4:  # rows are columns
        channels = channels.swapaxes(0, 1)
    rows, columns = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}[
        orientation
    ]
    return np.ascontiguousarray(channels[::rows, ::columns])


def _plain_mode(image: Image.Image) -> str:
    """The mode among `PLAIN_MODES` that loses nothing."""
    has_alpha = "transparency" in image.info or image.mode in ("PA", "La", "RGBa")
    if image.mode in ("1", "L", "La"):
        return "LA" if has_alpha else "L"
    if image.mode in PLAIN_MODES and not has_alpha:
        return image.mode
    return "RGBA" if has_alpha else "RGB"


def _deep_tiff(data: bytes, path: Path) -> npt.NDArray[Any] | None:
    """The channels of a TIFF of 16-bit colour, which Pillow does not read, upright; None of another.

    Raises:
        UserError: its pixels are of a kind that is not read, or there are several pictures.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        if isinstance(page, tifffile.TiffPage) and page.dtype is not None and page.dtype not in READ_TYPES:
            raise UserError(
                f"{path} has pixels of the type {page.dtype}; whole numbers of 8 or 16 bits are read, grey or colour."
            )
        if not isinstance(page, tifffile.TiffPage) or page.dtype != np.uint16 or page.samplesperpixel not in (2, 3, 4):
            return None
        if len(file.pages) > 1:
            raise UserError(f"{path} holds {len(file.pages)} pictures: give files of one.")
        channels, tag = page.asarray(), page.tags.get(ORIENTATION)
    channels = np.moveaxis(channels, 0, -1) if channels.shape[-1] not in (2, 3, 4) else channels
    return _turned(channels, UPRIGHT if tag is None or tag.value not in range(1, 9) else int(tag.value))


def _picture(
    channels: npt.NDArray[Any],
    file_format: str,
    path: Path,
    options: Mapping[str, Any] | None = None,
    notes: tuple[str, ...] = (),
    orientation: int = UPRIGHT,
) -> Picture:
    """The picture with these channels, (height, width) or (height, width, 1 to 4), as the file has them."""
    channels = _turned(channels, orientation)
    if 0 in channels.shape:
        raise UserError(f"{path} has no pixels.")
    alpha = None
    if channels.ndim == 3 and channels.shape[-1] in (2, 4):
        channels, alpha = channels[..., :-1], channels[..., -1]
        notes = (*notes, "the alpha channel is kept as it is")
    if channels.ndim == 3 and channels.shape[-1] == 1:
        channels = channels[..., 0]
    return Picture(np.ascontiguousarray(channels), alpha, file_format, options or {}, notes, orientation)


def encode(picture: Picture) -> bytes:
    """The content of a file of the picture's format. JPEG loses something, all others nothing."""
    channels = _turned(picture.channels, TURNED_BACK.get(picture.orientation, picture.orientation))
    file = io.BytesIO()
    if channels.dtype == np.uint16 and channels.ndim == 3:
        if picture.format == "PNG":
            return png.encode(channels)
        tifffile.imwrite(
            file, channels, photometric="rgb" if channels.shape[-1] > 2 else "minisblack", compression="zlib"
        )
        return file.getvalue()
    options: dict[str, Any] = dict(picture.options)
    options |= WRITING.get(picture.format, {})
    Image.fromarray(channels).save(file, picture.format, **options)
    return file.getvalue()


def side_by_side(panels: Sequence[npt.NDArray[np.float32]]) -> Picture:
    """Pictures in [0, 1] of one size beside each other, 8 bit; small ones enlarged so that their pixels can be seen."""
    factor = max(1, 160 // max(panels[0].shape[:2]))
    enlarged = [panel.repeat(factor, axis=0).repeat(factor, axis=1) for panel in panels]
    gap = np.ones((enlarged[0].shape[0], max(4, factor), *enlarged[0].shape[2:]), np.float32)
    row = [part for panel in enlarged for part in (gap, panel)][1:]
    return Picture(np.rint(np.concatenate(row, axis=1) * 255).astype(np.uint8), None, "PNG")
