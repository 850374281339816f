"""One file of an image: PNG, JPEG, TIFF, BMP or WebP; 8 or 16 bits; grey or colour."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from dae.images.rows import Kind, Unreadable

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")

CHANNELS = {"1": 1, "L": 1, "LA": 1, "I": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "I;16N": 1} | dict.fromkeys(
    ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr"), 3
)
"""By Pillow's mode; a palette has the channels of its colours."""

ORIENTATION = 0x0112
"""Where EXIF says how the camera was held: 1 upright, 2 to 4 the same size, 5 to 8 with height and width exchanged."""


def kind_of(path: Path) -> tuple[Kind, bool]:
    """What the image is like, from the beginning of its file, and whether it has an alpha channel.

    Raises:
        Unreadable: it is no image that can be used.
    """
    with _opened(path) as image:
        return _kind(path, image), _has_alpha(image)


def read(path: Path) -> tuple[npt.NDArray[Any], bool]:
    """The pixels, (height, width) or (height, width, 3), uint8 or uint16; and whether an alpha channel was dropped.

    A photograph is turned upright as its EXIF data say.

    Raises:
        Unreadable: it is no image that can be used, or a damaged one.
    """
    with _opened(path) as image:
        kind, has_alpha, orientation = _kind(path, image), _has_alpha(image), _orientation(image)
        is_deep = kind.bits == 16 and not (kind.channels == 1 and image.mode.startswith("I"))
        if is_deep:
            pixels = _deep(path, image.format or "")
        elif kind.bits == 16:
            pixels = _integers(path, np.asarray(image))
        else:
            mode = "L" if kind.channels == 1 else "RGB"
            pixels = np.asarray(image if image.mode == mode else image.convert(mode))
        if image.format == "TIFF" and not is_deep:
            orientation = 1  # Pillow turns it when it reads the pixels
    pixels = pixels[..., : kind.channels] if pixels.ndim == 3 else pixels
    pixels = pixels[..., 0] if pixels.ndim == 3 and kind.channels == 1 else pixels
    return _upright(pixels, orientation), has_alpha


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image, whose pixels are not read yet; whatever goes wrong with it, meanwhile too, is a reason."""
    try:
        if not path.is_file():
            raise Unreadable(f"{path} is no file, or a link that leads to none")  # a pipe would be waited for
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what other programs left beside the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Not by its path: Pillow then maps an uncompressed TIFF into memory, and turns that into a wrong image.
            with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
                yield image
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        raise Unreadable(f"{path} is no image of a kind that is read ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable(
            f"{path} has more than the {Image.MAX_IMAGE_PIXELS or 0:,} pixels that an image may have, so that no small "
            "file fills the memory"
        ) from error
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        raise Unreadable(
            f"{path} is a damaged image: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error


def _kind(path: Path, image: Image.Image) -> Kind:
    if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:  # a camera's preview is no frame
        raise Unreadable(
            f"{path} has {frames} frames, and an image is one: save them as a .npy array, (n, height, width)"
        )
    mode = image.mode
    if mode in ("P", "PA"):
        colours = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        channels = 1 if (colours == colours[:, :1]).all() else 3
    elif mode in CHANNELS:
        channels = CHANNELS[mode]
    else:
        raise Unreadable(
            f"{path} has pixels of the kind {mode!r}; whole numbers of 8 or 16 bits are read, grey or colour"
        )
    bits = 16 if mode.startswith("I") or _is_deep(image) else 8
    width, height = image.size
    if image.format == "TIFF":  # whose size Pillow gives as it will be turned
        width, height = (int(image.tag_v2[tag]) for tag in (256, 257))  # type: ignore[attr-defined]  # of TIFF alone
    if _orientation(image) > 4:
        width, height = height, width
    return Kind(str(path), height, width, channels, bits)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none that means anything."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged data beside pixels that may be sound
        return 1
    return value if value in range(1, 9) else 1


def _upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """The image as it was seen; ``orientation`` is EXIF's."""
    if orientation > 4:  # rows are columns
        pixels = pixels.swapaxes(0, 1)
        orientation = {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    rows, columns = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1)}[orientation]
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _is_deep(image: Image.Image) -> bool:
    """Whether the file has more than 8 bits a channel of colour; Pillow would read the upper eight of them."""
    if image.format == "TIFF":
        return bool(max(image.tag_v2.get(258, (1,))) > 8)  # type: ignore[attr-defined]  # BitsPerSample, of TIFF alone
    return image.format == "PNG" and any(";16" in str(tile.args) for tile in image.tile)  # type: ignore[attr-defined]  # of files


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info


def _integers(path: Path, pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    if pixels.dtype.itemsize > 2 and not 0 <= pixels.min() <= pixels.max() <= 0xFFFF:
        raise Unreadable(f"{path} has pixels from {pixels.min()} to {pixels.max()}; 0 to 65535 are read")
    return pixels.astype(np.uint16)


def _deep(path: Path, kind: str) -> npt.NDArray[np.uint16]:
    """An image of 16 bits a channel, several channels, in a format that holds such."""
    if kind == "TIFF":
        import tifffile

        try:
            pixels = tifffile.imread(path)
        except KeyError as error:  # its word for a compression that needs another package
            raise Unreadable(
                f"{path} is compressed in a way that is not read: save it without, or with zlib"
            ) from error
        if pixels.ndim == 3 and pixels.shape[0] in (3, 4) and pixels.shape[2] not in (3, 4):
            pixels = np.moveaxis(pixels, 0, -1)  # a plane a colour
    else:
        from dae import png

        pixels = png.decode(path.read_bytes())
    if pixels.dtype != np.uint16:
        raise Unreadable(f"{path} has pixels of the type {pixels.dtype}; whole numbers of 8 or 16 bits are read")
    return np.ascontiguousarray(pixels)
