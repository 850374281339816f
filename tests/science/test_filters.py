"""Filters of many images at a time against scipy's and scikit-image's of one."""

import numpy as np
import pytest

from dae.data import Dataset
from dae.filters import total_variation, wavelet_shrinkage, wiener_filter
from dae.testset import TestSet


@pytest.fixture(params=[(28, 28), (9, 14)])
def noisy(tiny: Dataset, request: pytest.FixtureRequest) -> np.ndarray:
    """Noisy digits, among them one without noise and one of a single grey."""
    height, width = request.param
    images = TestSet(tiny, 0.5).noisy[:30, 6 : 6 + height, 6 : 6 + width].copy() if height < 28 else None
    images = TestSet(tiny, 0.5).noisy[:30].copy() if images is None else images
    images[3] = TestSet(tiny, 0.5).clean[3, :height, :width]
    images[4] = 0.25
    return images


@pytest.mark.parametrize("weight", [0.001, 0.1, 0.3, 0.7])
def test_total_variation_is_that_of_scikit_image(noisy: np.ndarray, weight: float) -> None:
    """In float32 an image may stop a step earlier or later, where the change is at the limit."""
    from skimage.restoration import denoise_tv_chambolle

    expected = np.stack([denoise_tv_chambolle(image, weight=weight) for image in noisy])
    filtered = total_variation(noisy, weight)
    assert filtered.dtype == np.float32
    np.testing.assert_allclose(filtered, expected, atol=0.02)
    assert np.abs(filtered - expected).mean() < 1e-5
    double = noisy.astype(np.float64)
    expected = np.stack([denoise_tv_chambolle(image, weight=weight) for image in double])
    np.testing.assert_allclose(total_variation(double, weight), expected, atol=1e-9)


@pytest.mark.parametrize(("wavelet", "levels", "noise"), [("haar", 1, 0.1), ("db2", 1, 0.3), ("haar", 2, 0.05)])
def test_wavelet_shrinkage_is_that_of_scikit_image(noisy: np.ndarray, wavelet: str, levels: int, noise: float) -> None:
    from skimage.restoration import denoise_wavelet

    varied = noisy[[index for index in range(len(noisy)) if index not in (3, 4)]]  # scikit-image divides by 0 in others
    expected = np.stack(
        [denoise_wavelet(image, wavelet=wavelet, wavelet_levels=levels, sigma=noise) for image in varied]
    )
    filtered = wavelet_shrinkage(varied, wavelet, levels, noise)
    np.testing.assert_allclose(filtered.clip(0, 1), expected.clip(0, 1), atol=1e-6)
    assert np.isfinite(wavelet_shrinkage(noisy, wavelet, 9, noise)).all(), "as many levels as the images have"


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("noise", [1e-4, 0.03, 0.3])
def test_wiener_is_that_of_scipy_on_mirrored_images(noisy: np.ndarray, size: int, noise: float) -> None:
    from scipy.signal import wiener

    reach = size // 2
    padded = np.pad(noisy, ((0, 0), (reach, reach), (reach, reach)), mode="symmetric").astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = wiener(padded, (1, size, size), noise)[:, reach:-reach, reach:-reach]
    np.testing.assert_allclose(wiener_filter(noisy, size, noise), expected, atol=2e-5)
