"""Corruption: laws first, then the moments and masses that theory gives, then the one pinned test draw."""

import hashlib
import math
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dae import engine
from dae.config import BLUR, NOISES, SALT_AND_PEPPER, ModelConfig, TrainConfig
from dae.model import DenoisingAutoencoder
from dae.noise import BLUR_PIXELS, corrupt, corrupt_test

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


# ---- the other kinds


def picture(seed: int) -> Array:
    """Two images of greys with black and white among them."""
    drawn = np.random.default_rng(seed).uniform(-0.5, 1.5, (2, 28, 28))
    return drawn.clip(0, 1).astype(np.float32)


pictures = st.integers(0, 2**32).map(picture)
shares = st.floats(0, 1, width=32)
kinds = pytest.mark.parametrize("noise", NOISES)
others = pytest.mark.parametrize("noise", [SALT_AND_PEPPER, BLUR])


@kinds
@settings(max_examples=25)
@given(clean=pictures, seed=seeds)
def test_strength_0_is_identity_whatever_the_kind(noise: str, clean: Array, seed: int) -> None:
    assert corrupt(torch.from_numpy(clean), 0.0, generator(seed), noise).numpy().tobytes() == clean.tobytes()
    assert corrupt_test(clean, 0.0, "mnist", noise).tobytes() == clean.tobytes()


@others
@settings(max_examples=25)
@given(clean=pictures, alpha=shares, seed=seeds)
def test_every_kind_makes_images_and_leaves_the_input_alone(noise: str, clean: Array, alpha: float, seed: int) -> None:
    before = clean.copy()
    for noisy in (
        corrupt(torch.from_numpy(clean), alpha, generator(seed), noise).numpy(),
        corrupt_test(clean, alpha, "x", noise),
    ):
        assert (noisy.shape, noisy.dtype) == (clean.shape, np.float32)
        assert noisy.min() >= 0
        assert noisy.max() <= 1
        assert not np.shares_memory(noisy, clean)
    assert clean.tobytes() == before.tobytes()


@pytest.mark.parametrize("made_for", ["training", "test"])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
def test_salt_and_pepper_replace_their_share_by_0_and_1_alike(made_for: str, alpha: float) -> None:
    grey = np.full((200, 28, 28), 0.5, np.float32)
    if made_for == "training":
        noisy = corrupt(torch.from_numpy(grey), alpha, generator(3), SALT_AND_PEPPER).numpy()
    else:
        noisy = corrupt_test(grey, alpha, "mnist", SALT_AND_PEPPER)
    assert set(np.unique(noisy)) <= {0, 0.5, 1}
    for value in (0, 1):
        error = math.sqrt(alpha / 2 * (1 - alpha / 2) / noisy.size)
        assert (noisy == value).mean() == pytest.approx(alpha / 2, abs=4 * error)
    neighbours = (noisy != 0.5)[:, :, 1:] & (noisy != 0.5)[:, :, :-1]  # each pixel has a draw of its own
    assert neighbours.mean() == pytest.approx(alpha**2, abs=0.01)


def test_more_salt_and_pepper_is_added_to_what_was_there() -> None:
    grey = np.full((2, 28, 28), 0.5, np.float32)
    weak, strong = (corrupt_test(grey, alpha, "kmnist", SALT_AND_PEPPER) for alpha in (0.2, 0.6))
    hit = weak != 0.5
    assert 0.1 < hit.mean() < 0.3
    assert (strong[hit] == weak[hit]).all()


def test_the_blur_of_a_point_is_a_gaussian_of_its_stated_width() -> None:
    point = np.zeros((1, 28, 28), np.float32)
    point[0, 14, 14] = 1
    blurred = corrupt_test(point, 0.5, "mnist", BLUR)[0].astype(np.float64)
    distance = np.arange(28) - 14
    bell = np.exp(-(distance**2) / (2 * (BLUR_PIXELS * 0.5) ** 2))
    np.testing.assert_allclose(blurred, np.outer(bell, bell) / bell.sum() ** 2, atol=1e-5)


@settings(max_examples=25)
@given(pictures, st.floats(0.125, 1, width=32), seeds)
def test_blur_is_one_and_the_same_wherever_it_is_computed(clean: Array, alpha: float, seed: int) -> None:
    trained_on = corrupt(torch.from_numpy(clean).unsqueeze(1), alpha, generator(seed), BLUR).squeeze(1).numpy()
    np.testing.assert_allclose(trained_on, corrupt_test(clean, alpha, "any", BLUR), atol=2e-6)
    np.testing.assert_allclose(trained_on.mean(axis=(1, 2)), clean.mean(axis=(1, 2)), atol=1e-5)  # it moves light only


def test_blur_draws_nothing() -> None:
    stream = generator(5)
    before = stream.get_state()
    corrupt(torch.rand(2, 1, 28, 28), 0.5, stream, BLUR)
    assert torch.equal(stream.get_state(), before)


def test_training_redraws_salt_and_pepper_and_the_test_set_does_not() -> None:
    grey, stream = torch.full((1, 1, 28, 28), 0.5), generator()
    first, second = (corrupt(grey, 0.5, stream, SALT_AND_PEPPER) for _ in range(2))
    assert not torch.equal(first, second)
    draws = {corrupt_test(grey.numpy(), 0.5, name, SALT_AND_PEPPER).tobytes() for name in ("mnist", "mnist", "kmnist")}
    assert len(draws) == 2


def test_what_each_kind_hands_to_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind of a config reaches every batch that is trained and validated on."""
    given: list[str] = []

    def spy(clean: torch.Tensor, alpha: float, stream: torch.Generator, kind: str) -> torch.Tensor:
        given.append(kind)
        return corrupt(clean, alpha, stream, kind)

    monkeypatch.setattr(engine, "corrupt", spy)
    pixels = torch.randint(0, 256, (8, 28, 28), dtype=torch.uint8)
    for kind in NOISES:
        given.clear()
        config = TrainConfig(batch_size=4, noise=kind)
        built = engine.build(DenoisingAutoencoder(ModelConfig(depth=1, latent=5)), config, pixels, 0, 255)
        assert math.isfinite(built.train_epoch(torch.arange(8), generator()))
        built.validate(pixels, generator())
        assert given == [kind] * 3
