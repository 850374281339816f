"""Denoisers without a network: what every filter must leave alone, and linear maps against what is known of them."""

import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import scipy.ndimage

from dae import baselines
from dae.baselines import filters, linear
from dae.data import Dataset
from dae.filters import (
    gaussian_filter,
    mean_filter,
    median_filter,
    non_local_means,
    total_variation,
    wavelet_shrinkage,
    wiener_filter,
)
from dae.linear import Moments, principal_components, reduced_rank_regressions
from dae.noise import corrupt_test
from dae.similarity import ssim
from dae.testset import TestSet

FILTERS = {
    "mean": partial(mean_filter, size=5),
    "median": partial(median_filter, size=5),
    "Gaussian": partial(gaussian_filter, sigma=1.5),
    "Wiener": partial(wiener_filter, size=5, noise=0.1),
    "total variation": partial(total_variation, weight=0.3),
    "non-local means": partial(non_local_means, h=0.2, patch=5, distance=6),
    "wavelet shrinkage": partial(wavelet_shrinkage, wavelet="db2", levels=2, noise=0.2),
}


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "SLOW_TUNING_IMAGES", 4)
    monkeypatch.setattr(baselines, "FITTING_IMAGES", 64)
    monkeypatch.setattr(baselines, "RIDGES", (1e-3,))


# ---- filters


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("grey", [0.0, 0.3, 1.0])
def test_a_constant_image_is_left_alone(name: str, grey: float) -> None:
    images = np.full((2, 28, 28), grey, np.float32)
    np.testing.assert_allclose(FILTERS[name](images), images, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 28, 28), (2, 1, 5), (2, 9, 1), (150, 40, 30)])
def test_the_median_of_nine_is_that_of_scipy(shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).random(shape, np.float32).round(1)  # with ties
    np.testing.assert_array_equal(median_filter(images, 3), scipy.ndimage.median_filter(images, (1, 3, 3)))


@pytest.mark.parametrize("name", FILTERS)
def test_each_image_is_filtered_by_itself(tiny: Dataset, name: str) -> None:
    """A stack gives what its images give one by one."""
    images = TestSet(tiny, 0.5).noisy[:3]
    alone = np.concatenate([FILTERS[name](image[None]) for image in images])
    np.testing.assert_allclose(FILTERS[name](images), alone, atol=1e-6)


def test_filters_by_hand() -> None:
    image = np.zeros((1, 28, 28), np.float32)
    image[0, 10, 10] = 0.9
    assert mean_filter(image, 3)[0, 9:12, 9:12] == pytest.approx(np.full((3, 3), 0.1))
    assert median_filter(image, 3).max() == 0, "one bright pixel is none's median"
    assert gaussian_filter(image, 1.0).sum() == pytest.approx(0.9, rel=1e-5)
    # Local mean 0.1 and variance 0.08 around the pixel: mean + (1 - 0.04 / 0.08) * (pixel - mean).
    assert wiener_filter(image, 3, 0.04)[0, 10, 10] == pytest.approx(0.1 + 0.5 * 0.8, rel=1e-5)


@pytest.mark.parametrize(("noise", "alpha"), [("gaussian", 0.5), ("salt-and-pepper", 0.3), ("blur", 0.5)])
def test_every_noise_has_its_baselines(tiny: Dataset, noise: str, alpha: float) -> None:
    denoisers = filters(tiny, noise, alpha) + linear(tiny, noise, alpha, [20, 5])
    names = [denoiser.name for denoiser in denoisers]
    assert len(names) == len(set(names)) == 20
    test_set = TestSet(tiny, alpha, noise)
    for denoiser in denoisers:
        answer = denoiser(test_set.noisy)
        assert answer.dtype == np.float32
        assert answer.shape == test_set.noisy.shape
        assert 0 <= answer.min() <= answer.max() <= 1
        assert np.array_equal(pickle.loads(pickle.dumps(denoiser))(test_set.noisy), answer), "it travels"


def test_parameters_are_chosen_by_validation_loss_alone(tiny: Dataset) -> None:
    """Whatever the test images are, the choice is the same; and it is the least of the losses tried."""
    other = replace(tiny, test=tiny.test[::-1], test_labels=tiny.test_labels[::-1])
    chosen, again = ({denoiser.name: denoiser for denoiser in filters(data, "gaussian", 0.5)} for data in (tiny, other))
    assert {name: denoiser.parameters for name, denoiser in chosen.items()} == {
        name: denoiser.parameters for name, denoiser in again.items()
    }
    clean = tiny.unit(tiny.validation)
    noisy = corrupt_test(clean, 0.5, f"{tiny.name}, validation images")
    losses = [float(np.square(np.clip(median_filter(noisy, size), 0, 1) - clean).mean()) for size in (1, 3, 5, 7)]
    assert chosen["median filter"].validation_loss == pytest.approx(min(losses), rel=1e-5)


def test_without_noise_nothing_is_best(tiny: Dataset) -> None:
    denoisers = {denoiser.name: denoiser for denoiser in filters(tiny, "gaussian", 0.0)}
    test_set = TestSet(tiny, 0.0)
    assert np.array_equal(denoisers["doing nothing"](test_set.noisy), test_set.clean)
    for name in ("mean filter", "median filter", "Gaussian filter"):
        np.testing.assert_allclose(denoisers[name](test_set.noisy), test_set.clean, atol=1e-6, err_msg=name)


def test_rescaling_never_hurts_where_it_was_chosen(tiny: Dataset) -> None:
    """Clipping moves the line's loss a little off its least squares."""
    denoisers = {denoiser.name: denoiser for denoiser in filters(tiny, "gaussian", 0.5)}
    for name in ("mean filter", "median filter", "Gaussian filter", "Wiener filter"):
        plain, rescaled = denoisers[name], denoisers[f"{name}, rescaled"]
        assert rescaled.validation_loss <= plain.validation_loss * 1.01
        assert set(rescaled.parameters) - set(plain.parameters) == {"gain", "offset"}, "each says what it does"


def test_the_same_data_give_the_same_bits(tiny: Dataset) -> None:
    noisy = TestSet(tiny, 0.5).noisy
    first, second = (filters(tiny, "gaussian", 0.5) + linear(tiny, "gaussian", 0.5, [10]) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.parameters == other.parameters
        assert np.array_equal(one(noisy), other(noisy)), one.name


# ---- linear maps


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Noisy and clean vectors of 12 pixels, 400 of them, correlated."""
    generator = np.random.default_rng(1)
    clean = generator.standard_normal((400, 4)) @ generator.standard_normal((4, 12)) + generator.random(12)
    clean += 0.3 * generator.standard_normal(clean.shape)
    return clean + 0.8 * generator.standard_normal(clean.shape), clean


def loss(answer: np.ndarray, clean: np.ndarray) -> float:
    return float(np.square(answer - clean).mean())


def moments_of(noisy: np.ndarray, clean: np.ndarray) -> Moments:
    return Moments.of([(clean, [noisy])])


def test_moments_are_those_of_numpy(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    noisy, clean = pairs
    again = noisy[:150] ** 2  # other noise on the same images
    moments = Moments.of([(clean[:150], [noisy[:150], again]), (clean[150:], [noisy[150:]])])
    noisy, clean = np.vstack([noisy, again]), np.vstack([clean, clean[:150]])
    joint = np.cov(np.hstack([noisy, clean]).T, bias=True)
    np.testing.assert_allclose(moments.noisy, joint[:12, :12], rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(moments.both, joint[:12, 12:], rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(moments.clean, joint[12:, 12:], atol=1e-12)
    np.testing.assert_allclose(moments.clean_mean, clean.mean(axis=0))


def test_regression_of_full_rank_is_least_squares(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    noisy, clean = pairs
    [(_, _, fitted)] = reduced_rank_regressions(moments_of(*pairs), [12], [0])
    design = np.hstack([np.ones((400, 1)), noisy])
    expected = design @ np.linalg.lstsq(design, clean, rcond=None)[0]
    np.testing.assert_allclose(fitted(noisy), expected, atol=1e-5)


def test_ridge_is_ridge(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    noisy, clean = pairs
    moments = moments_of(*pairs)
    [(_, _, fitted)] = reduced_rank_regressions(moments, [12], [0.1])
    x, y = noisy - noisy.mean(axis=0), clean - clean.mean(axis=0)
    penalty = 0.1 * np.trace(moments.noisy) / 12 * 400
    expected = clean.mean(axis=0) + x @ np.linalg.solve(x.T @ x + penalty * np.eye(12), x.T @ y)
    np.testing.assert_allclose(fitted(noisy), expected, atol=1e-5)


def test_components_of_full_rank_are_the_identity(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    noisy, _ = pairs
    np.testing.assert_allclose(principal_components(moments_of(*pairs), [12])[12](noisy), noisy, atol=1e-5)


def test_components_are_those_of_the_singular_values(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    noisy, clean = pairs
    mean = clean.mean(axis=0)
    basis = np.linalg.svd(clean - mean, full_matrices=False)[2][:3]
    expected = mean + (noisy - mean) @ basis.T @ basis
    np.testing.assert_allclose(principal_components(moments_of(*pairs), [3])[3](noisy), expected, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_no_map_of_its_rank_fits_better_than_the_regression(pairs: tuple[np.ndarray, np.ndarray], rank: int) -> None:
    noisy, clean = pairs
    moments = moments_of(*pairs)
    [(_, _, fitted)] = reduced_rank_regressions(moments, [rank], [0])
    assert np.linalg.matrix_rank(fitted.encode @ fitted.decode) == rank
    best = loss(fitted(noisy), clean)
    assert best <= loss(principal_components(moments, [rank])[rank](noisy), clean)
    generator = np.random.default_rng(rank)
    x, y = noisy - noisy.mean(axis=0), clean - clean.mean(axis=0)
    for _ in range(50):  # any other encoder, with the decoder that is best for it
        code = x @ generator.standard_normal((12, rank))
        assert best <= loss(code @ np.linalg.lstsq(code, y, rcond=None)[0], y) + 1e-9
    for _ in range(50):  # and its own neighbours
        moved = replace(fitted, encode=fitted.encode + 0.01 * generator.standard_normal(fitted.encode.shape))
        assert best <= loss(moved(noisy), clean) + 1e-9


def test_pixels_that_never_vary_do_no_harm(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    noisy, clean = (np.hstack([pixels, np.zeros((400, 2))]) for pixels in pairs)
    [(_, _, padded)] = reduced_rank_regressions(moments_of(noisy, clean), [5], [0])
    [(_, _, fitted)] = reduced_rank_regressions(moments_of(*pairs), [5], [0])
    np.testing.assert_allclose(padded(noisy)[:, :12], fitted(noisy[:, :12]), atol=1e-5)
    assert not padded(noisy)[:, 12:].any()


def test_a_latent_larger_than_the_image_has_its_rank(tiny: Dataset) -> None:
    pca, regression = linear(tiny, "gaussian", 0.5, [3136])
    assert (pca.name, pca.latent, pca.parameters["rank"]) == ("PCA 3136", 3136, 784)
    noisy = TestSet(tiny, 0.5).noisy
    np.testing.assert_allclose(pca(noisy), noisy, atol=1e-5)
    assert regression.latent == 3136


# ---- similarity


def test_similarity_is_that_of_each_image_by_itself(tiny: Dataset) -> None:
    from skimage.metrics import structural_similarity

    test_set = TestSet(tiny, 0.5)
    alone = [
        structural_similarity(
            noisy.astype(float),
            clean.astype(float),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
        )
        for noisy, clean in zip(test_set.noisy, test_set.clean, strict=True)
    ]
    np.testing.assert_allclose(ssim(test_set.noisy, test_set.clean), alone, rtol=1e-5)
    assert np.all(ssim(test_set.clean, test_set.clean) == 1)
