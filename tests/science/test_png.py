"""PNG files of 16 bit in several channels."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dae import png

shapes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([2, 3, 4]))


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**16, shape, dtype=np.uint16)


@given(shapes, st.integers(0, 1000))
def test_what_is_written_is_read(shape: tuple[int, int, int], seed: int) -> None:
    channels = noise(shape, seed)
    content = png.encode(channels)
    assert png.is_deep_colour(content)
    assert np.array_equal(png.decode(content), channels)


@pytest.mark.parametrize("count", [3, 4])
def test_pillow_reads_the_upper_half_of_it(count: int) -> None:
    channels = noise((9, 7, count))
    image = Image.open(io.BytesIO(png.encode(channels)))
    assert np.array_equal(np.asarray(image), channels >> 8)


def filtered(channels: np.ndarray, kinds: list[int]) -> bytes:
    """The file with a filter a row, each byte by the words of the standard."""
    _, width, count = channels.shape
    rows = channels.astype(">u2").tobytes()
    stride, bpp = width * count * 2, count * 2
    lines, above = [], bytes(stride)
    for y, kind in enumerate(kinds):
        row = rows[y * stride : (y + 1) * stride]
        line = bytearray([kind])
        for i, value in enumerate(row):
            a, b = (row[i - bpp] if i >= bpp else 0), above[i]
            c = above[i - bpp] if i >= bpp else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            line.append((value - (0, a, b, (a + b) // 2, paeth)[kind]) & 255)
        lines.append(bytes(line))
        above = row
    whole = png.encode(channels)
    data = zlib.compress(b"".join(lines))
    chunk = struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    return whole[:33] + chunk + whole[-12:]


@pytest.mark.parametrize("kinds", [[0] * 5, [1] * 5, [2] * 5, [3] * 5, [4] * 5, [4, 3, 2, 1, 0]])
def test_every_filter_is_undone(kinds: list[int]) -> None:
    channels = noise((5, 11, 3))
    content = filtered(channels, kinds)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), channels >> 8), "the test's own filters"
    assert np.array_equal(png.decode(content), channels)


def test_damage_is_noticed() -> None:
    content = png.encode(noise((5, 11, 3)))
    with pytest.raises(ValueError, match="checksum"):
        png.decode(content[:60] + bytes([content[60] ^ 1]) + content[61:])
    with pytest.raises(ValueError, match="incomplete"):
        png.decode(content[:33] + content[-12:])
