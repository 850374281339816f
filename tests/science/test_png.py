"""PNG files of 16 bit in several channels."""

import io

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


def test_damage_is_noticed() -> None:
    content = png.encode(noise((5, 11, 3)))
    with pytest.raises(ValueError, match="Checksum"):
        png.decode(content[:60] + bytes([content[60] ^ 1]) + content[61:])
    with pytest.raises(ValueError, match=r"IDAT|incomplete"):
        png.decode(content[:33] + content[-12:])
