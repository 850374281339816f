"""PNG files with 16 bit in several channels, of which Pillow keeps 8."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {2: 3, 4: 2, 6: 4}
"""Channels by the colour types of PNG that have several: RGB, grey with alpha, RGB with alpha."""
BYTES = 2
MAX_PIXELS = 178_956_970
"""As Pillow has it: more are taken for an attack."""

Bytes = npt.NDArray[np.int16]
"""Values 0 to 255, with room for sums."""


def is_deep_colour(data: bytes) -> bool:
    """Whether it is such a file."""
    return data.startswith(SIGNATURE) and len(data) > 25 and data[24] == 8 * BYTES and data[25] in CHANNELS


def decode(data: bytes) -> npt.NDArray[np.uint16]:
    """The channels, (height, width, channels).

    Raises:
        ValueError: it is damaged, or interlaced.
    """
    width, height, _, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if width * height > MAX_PIXELS:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels")
    if interlaced:
        raise ValueError("an interlaced PNG of 16-bit colour; save it without interlacing")
    channels = CHANNELS[colour]
    compressed = b"".join(content for kind, content in _chunks(data) if kind == b"IDAT")
    size = height * (1 + width * channels * BYTES)
    content = zlib.decompressobj().decompress(compressed, size)
    if len(content) != size:
        raise ValueError("its pixels are incomplete")
    rows = np.frombuffer(content, np.uint8).reshape(height, -1)
    values = _unfiltered(rows[:, 0], rows[:, 1:].reshape(height, width, -1).astype(np.int16))
    return values.astype(np.uint8).view(">u2").astype(np.uint16)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of every part of the file."""
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind, content = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        checksum = data[position + 8 + length : position + 12 + length]
        if checksum != zlib.crc32(kind + content).to_bytes(4, "big"):
            raise ValueError("a part does not match its checksum")
        yield kind, content
        position += 12 + length


def _unfiltered(filters: npt.NDArray[np.uint8], values: Bytes) -> Bytes:
    """The bytes of every pixel, (height, width, bytes), from their differences to neighbours.

    A pixel needs those to the left, above and above left; so all pixels of one anti-diagonal are computed together.
    """
    height, width, size = values.shape
    known = np.zeros((height + 1, width + 1, size), np.int16)  # with a border of zeros above and to the left
    for diagonal in range(height + width - 1):
        rows = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        columns = diagonal - rows
        left, above, corner = known[rows + 1, columns], known[rows, columns + 1], known[rows, columns]
        kinds = filters[rows][:, None]
        guesses = [np.zeros_like(left), left, above, (left + above) // 2, _paeth(left, above, corner)]
        guess = np.select([kinds == kind for kind in range(5)], guesses)
        known[rows + 1, columns + 1] = (values[rows, columns] + guess) & 0xFF
    return known[1:, 1:]


def _paeth(left: Bytes, above: Bytes, corner: Bytes) -> Bytes:
    """Of the three neighbours the one nearest to left + above - corner; ties in this order."""
    estimate = left + above - corner
    to_left, to_above, to_corner = (np.abs(estimate - other) for other in (left, above, corner))
    is_left = (to_left <= to_above) & (to_left <= to_corner)
    chosen: Bytes = np.where(is_left, left, np.where(to_above <= to_corner, above, corner))
    return chosen


def encode(channels: npt.NDArray[np.uint16]) -> bytes:
    """A PNG file of (height, width, channels), each row as differences to the pixel on the left."""
    height, width, count = channels.shape
    colour = next(kind for kind, number in CHANNELS.items() if number == count)
    values = np.ascontiguousarray(channels, ">u2").view(np.uint8).reshape(height, width, count * BYTES)
    differences = values.copy()
    differences[:, 1:] -= values[:, :-1]
    rows = np.concatenate([np.ones((height, 1), np.uint8), differences.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8 * BYTES, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return SIGNATURE + b"".join(
        len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
        for kind, content in parts
    )
