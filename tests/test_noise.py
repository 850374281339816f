"""Corruption: laws first, then the moments and masses that theory gives, then the one pinned test draw."""

import hashlib
import math
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dae.noise import corrupt, corrupt_test

Array = npt.NDArray[np.float32]

images = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=9),
    elements=st.floats(0, 1, width=32).map(abs),  # abs: no negative zero, whose sign an addition loses
)
alphas = st.floats(0, 10, width=32)
seeds = st.integers(0, 2**63 - 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def probability_below(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


# ---- laws


@given(images, seeds)
def test_no_noise_is_identity_to_the_bit(clean: Array, seed: int) -> None:
    assert corrupt(torch.from_numpy(clean), 0.0, generator(seed)).numpy().tobytes() == clean.tobytes()
    assert corrupt_test(clean, 0.0, "mnist").tobytes() == clean.tobytes()


@given(images, alphas, seeds)
def test_the_result_is_an_image_and_the_input_is_left_alone(clean: Array, alpha: float, seed: int) -> None:
    before = clean.copy()
    for noisy in (corrupt(torch.from_numpy(clean), alpha, generator(seed)).numpy(), corrupt_test(clean, alpha, "x")):
        assert noisy.shape == clean.shape
        assert noisy.dtype == np.float32
        assert noisy.min() >= 0
        assert noisy.max() <= 1
        assert not np.shares_memory(noisy, clean)
    assert clean.tobytes() == before.tobytes()


@given(images, alphas, seeds)
def test_the_same_seed_gives_the_same_bits(clean: Array, alpha: float, seed: int) -> None:
    first, second = (corrupt(torch.from_numpy(clean), alpha, generator(seed)) for _ in range(2))
    assert first.numpy().tobytes() == second.numpy().tobytes()


def test_another_seed_or_another_draw_gives_other_noise() -> None:
    clean, stream = torch.full((2, 1, 28, 28), 0.5), generator(0)
    draws = [corrupt(clean, 0.5, stream), corrupt(clean, 0.5, stream), corrupt(clean, 0.5, generator(1))]
    assert len({draw.numpy().tobytes() for draw in draws}) == 3


def test_only_the_given_generator_is_used() -> None:
    clean = torch.full((1, 1, 28, 28), 0.5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = corrupt(clean, 0.5, generator())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(corrupt(clean, 0.5, generator()), first)


def test_out_takes_the_result() -> None:
    clean = torch.rand(3, 1, 28, 28, generator=generator(9))
    place = torch.full_like(clean, -7.0)
    assert corrupt(clean, 0.5, generator(), out=place) is place
    assert torch.equal(place, corrupt(clean, 0.5, generator()))


# ---- what theory gives; 4 standard errors, and the seed is fixed


def noise_of(kind: str, level: float, alpha: float, shape: tuple[int, ...]) -> Array:
    clean = np.full(shape, level, np.float32)
    if kind == "training":
        return corrupt(torch.from_numpy(clean), alpha, generator(3)).numpy()
    return corrupt_test(clean, alpha, "mnist")


both_kinds = pytest.mark.parametrize("kind", ["training", "test"])


@both_kinds
def test_mean_and_variance_before_clipping(kind: str) -> None:
    alpha, shape = 0.05, (300, 28, 28)  # grey is 10 standard deviations from either end: nothing is clipped
    noise = (noise_of(kind, 0.5, alpha, shape).astype(np.float64) - 0.5) / alpha
    n = noise.size
    assert noise.mean() == pytest.approx(0, abs=4 / math.sqrt(n))
    assert noise.var() == pytest.approx(1, abs=4 * math.sqrt(2 / n))
    # Every element is a draw of its own: neighbours, and the same pixel of the next image, know nothing of each other.
    for lagged in (noise[:, :, 1:] * noise[:, :, :-1], noise[:, 1:] * noise[:, :-1], noise[1:] * noise[:-1]):
        assert lagged.mean() == pytest.approx(0, abs=4 / math.sqrt(lagged.size))


@both_kinds
@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0], ids=["black", "dark", "white"])
def test_as_much_is_clipped_as_of_a_normal_distribution(kind: str, level: float, alpha: float) -> None:
    noisy = noise_of(kind, level, alpha, (200, 28, 28))
    for share, theory in (
        ((noisy == 0).mean(), probability_below(-level / alpha)),
        ((noisy == 1).mean(), probability_below((level - 1) / alpha)),
        ((noisy < 0.5).mean(), probability_below((0.5 - level) / alpha)),
    ):
        assert share == pytest.approx(theory, abs=4 * math.sqrt(theory * (1 - theory) / noisy.size) + 1e-9)


def test_doing_nothing_costs_what_the_clipped_normal_does() -> None:
    # Black pixels, alpha 0.5: E[clip(n/2, 0, 1)^2] = 1/4 (1/2 - P(n > 2) - 2 phi(2)) + P(n > 2).
    above, density = 1 - probability_below(2), math.exp(-2) / math.sqrt(2 * math.pi)
    theory = (0.5 - above - 2 * density) / 4 + above
    noisy = noise_of("test", 0.0, 0.5, (400, 28, 28)).astype(np.float64)
    assert np.square(noisy).mean() == pytest.approx(theory, rel=0.01)


# ---- the one noisy test set

PINNED = "a3e5ed434bbe28de334007f0ae6223fc16f265c84ace35a56131ae3301aa2bff"
"""SHA-256 of the first two noisy grey images of `mnist`: a change here makes old and new test losses incomparable."""


def test_the_test_draw_is_the_same_everywhere_and_for_ever() -> None:
    grey = np.full((2, 28, 28), 0.5, np.float32)
    draws = [corrupt_test(grey, 0.5, "mnist") for _ in range(2)]
    assert [hashlib.sha256(draw.tobytes()).hexdigest() for draw in draws] == [PINNED, PINNED]


def test_the_test_draw_heeds_no_global_seed() -> None:
    grey = np.full((2, 28, 28), 0.5, np.float32)
    draws = []
    for seed in (1, 2):
        np.random.seed(seed)
        torch.manual_seed(seed)
        draws.append(corrupt_test(grey, 0.5, "mnist").tobytes())
    assert draws[0] == draws[1]


def test_each_dataset_has_a_draw_of_its_own() -> None:
    grey = np.full((1, 28, 28), 0.5, np.float32)
    names = ("mnist", "fashion-mnist", "kmnist", "mnist-5k")
    assert len({corrupt_test(grey, 0.5, name).tobytes() for name in names}) == len(names)


def test_noise_levels_share_their_normals() -> None:
    grey = np.full((2, 28, 28), 0.5, np.float32)
    weak, strong = (corrupt_test(grey, alpha, "kmnist") - 0.5 for alpha in (0.01, 0.08))
    np.testing.assert_allclose(strong, 8 * weak, rtol=1e-4, atol=1e-5)
    assert weak.std() > 0.009


def test_the_test_noise_is_made_without_torch() -> None:
    code = "import sys, dae.testset, dae.noise; print(*(name in sys.modules for name in ('numpy', 'torch')))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["True", "False"]
