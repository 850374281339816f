"""PNG files with 16 bit in several channels, of which Pillow keeps 8."""

import io
import zlib

import numpy as np
import numpy.typing as npt
import png

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SEVERAL_CHANNELS = (2, 4, 6)
"""Colour types of PNG: RGB, grey with alpha, RGB with alpha."""
MAX_PIXELS = 178_956_970
"""As Pillow has it: more are taken for an attack."""


def is_deep_colour(data: bytes) -> bool:
    """Whether it is such a file."""
    return data.startswith(SIGNATURE) and len(data) > 25 and data[24] == 16 and data[25] in SEVERAL_CHANNELS


def decode(data: bytes) -> npt.NDArray[np.uint16]:
    """The channels, (height, width, channels).

    Raises:
        ValueError: it is damaged, or too large.
    """
    reader = png.Reader(bytes=data)
    try:
        reader.preamble()
        if reader.width * reader.height > MAX_PIXELS:
            raise ValueError(f"more than {MAX_PIXELS:,} pixels")
        width, height, rows, info = reader.asDirect()
        pixels = np.vstack([np.asarray(row, np.uint16) for row in rows])
    except (png.Error, zlib.error) as error:
        raise ValueError(str(error)) from error
    if len(pixels) != height:
        raise ValueError("its pixels are incomplete")
    return pixels.reshape(height, width, info["planes"])


def encode(channels: npt.NDArray[np.uint16]) -> bytes:
    """A PNG file of (height, width, channels), of two to four channels."""
    height, width, count = channels.shape
    file = io.BytesIO()
    writer = png.Writer(width, height, greyscale=count == 2, alpha=count != 3, bitdepth=16)
    writer.write(file, channels.reshape(height, -1))
    return file.getvalue()
