"""Pictures through a model of one size, tile by tile: no seam, no loss."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dae.tiles import axis, through_tiles

sizes = st.tuples(st.integers(1, 3), st.integers(1, 90), st.integers(1, 90))
tiles = st.tuples(st.integers(8, 40), st.integers(8, 40))


@given(sizes, tiles, st.integers(0, 2**32 - 1))
def test_what_changes_nothing_gives_the_picture_to_the_bit(
    size: tuple[int, int, int], tile: tuple[int, int], seed: int
) -> None:
    picture = np.random.default_rng(seed).random(size, dtype=np.float32)
    assert np.array_equal(through_tiles(picture, tile, lambda batch: batch), picture)


@given(sizes, tiles, st.floats(0, 1, width=32))
def test_a_constant_answer_gives_a_constant_picture(
    size: tuple[int, int, int], tile: tuple[int, int], value: float
) -> None:
    picture = np.zeros(size, np.float32)
    answer = through_tiles(picture, tile, lambda batch: np.full_like(batch, value))
    assert np.array_equal(answer, np.full_like(picture, value))


@given(st.integers(8, 64), st.integers(0, 300))
def test_the_weights_of_every_pixel_sum_to_one(tile: int, more: int) -> None:
    columns = axis(tile + more, tile)
    assert columns.starts[0] == 0
    assert columns.starts[-1] == more
    assert max(np.diff(columns.starts), default=0) <= tile // 4
    total = np.zeros(tile + more)
    for start, weights in zip(columns.starts, columns.weights, strict=True):
        total[start : start + tile] += weights
    assert np.allclose(total, 1, rtol=0, atol=1e-14)


def test_a_picture_of_one_tile_goes_through_as_it_is() -> None:
    picture = np.random.default_rng(0).random((2, 28, 20), dtype=np.float32)
    seen = []
    answer = through_tiles(picture, (28, 20), lambda batch: seen.append(batch) or 1 - batch)
    assert len(seen) == 1
    assert np.array_equal(seen[0][0], picture)
    assert np.array_equal(answer, 1 - picture)


def test_a_small_picture_is_in_the_middle_of_its_reflection() -> None:
    picture = np.array([[[1, 2, 3], [4, 5, 6]]], np.float32)
    seen = []
    answer = through_tiles(picture, (4, 5), lambda batch: seen.append(batch) or batch)
    assert seen[0][0, 0].tolist() == [[5, 4, 5, 6, 5], [2, 1, 2, 3, 2], [5, 4, 5, 6, 5], [2, 1, 2, 3, 2]]
    assert np.array_equal(answer, picture)


def test_a_function_that_darkens_the_edges_of_tiles_leaves_no_grid() -> None:
    """As a model of digits does, whose images are black at the edges."""
    edge = np.minimum.outer(np.arange(28), np.arange(28))
    is_edge = np.minimum(edge, edge[::-1, ::-1]) < 2
    ground = np.full((1, 200, 150), 0.5, np.float32)
    answer = through_tiles(ground, (28, 28), lambda batch: np.where(is_edge, 0, batch).astype(np.float32))
    assert np.ptp(answer) < 0.005
