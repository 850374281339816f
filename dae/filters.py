"""Classical filters of grey images (n, H, W), many images at a time. NumPy, scipy, scikit-image and PyWavelets.

Where scikit-image filters one image at a time the same algorithm is written out for many; tests compare the two.
"""

import numpy as np

from dae.noise import Array

_NUMBERS_TOGETHER = 100_000
"""Pixels that are filtered side by side: many enough for NumPy, few enough for a core's cache."""
_CHANGE, _STEPS = 2e-4, 200
"""Total variation ends where its cost changes by less than this share of the first one, or after so many steps."""


def mean_filter(noisy: Array, size: int) -> Array:
    """The mean over a window of ``size`` x ``size`` pixels."""
    from scipy.ndimage import uniform_filter

    filtered: Array = uniform_filter(noisy, (1, size, size))
    return filtered


def median_filter(noisy: Array, size: int) -> Array:
    """The median over a window of ``size`` x ``size`` pixels."""
    if size == 3:
        step = max(1, _NUMBERS_TOGETHER // noisy[0].size)
        return np.concatenate([_medians_of_9(noisy[start : start + step]) for start in range(0, len(noisy), step)])
    from scipy.ndimage import median_filter as median

    filtered: Array = median(noisy, (1, size, size))
    return filtered


def _medians_of_9(noisy: Array) -> Array:
    """The median over 3 x 3 pixels: that of the greatest least, the middle middle and the least greatest of columns."""
    padded = np.pad(noisy, ((0, 0), (1, 1), (1, 1)), "symmetric")
    least, middle, greatest = _sorted(padded[:, :-2], padded[:, 1:-1], padded[:, 2:])  # of three rows, by column
    of_least = np.maximum.reduce(_neighbours(least))
    of_greatest = np.minimum.reduce(_neighbours(greatest))
    _, of_middle, _ = _sorted(*_neighbours(middle))
    return _sorted(of_least, of_middle, of_greatest)[1]


def _neighbours(columns: Array) -> tuple[Array, Array, Array]:
    """Every column, the next and the one after."""
    return columns[..., :-2], columns[..., 1:-1], columns[..., 2:]


def _sorted(a: Array, b: Array, c: Array) -> tuple[Array, Array, Array]:
    """The least, the middle and the greatest of three, element by element."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    return np.minimum(low, c), np.maximum(low, np.minimum(high, c)), np.maximum(high, c)


def gaussian_filter(noisy: Array, sigma: float) -> Array:
    """The mean weighted by a Gaussian of ``sigma`` pixels."""
    from scipy.ndimage import gaussian_filter as gaussian

    filtered: Array = gaussian(noisy, (0, sigma, sigma))
    return filtered


def wiener_filter(noisy: Array, size: int, noise: float) -> Array:
    """The locally linear minimum of the mean squared error, for noise of variance ``noise`` (Lim 1990, as in scipy).

    Images are mirrored at their edges, where scipy pads with black.
    """
    mean = mean_filter(noisy, size)
    variance = mean_filter(np.square(noisy), size) - np.square(mean)
    # The mean alone where the variance is not larger than that of the noise.
    kept = 1 - np.divide(np.float32(noise), variance, out=np.ones_like(variance), where=variance > noise)
    kept *= noisy - mean
    kept += mean
    return kept


def total_variation(noisy: Array, weight: float) -> Array:
    """The image of least total variation near the noisy one (Chambolle 2004, as in scikit-image)."""
    filtered = np.empty_like(noisy)
    together = max(1, _NUMBERS_TOGETHER // noisy[0].size)
    for start in range(0, len(noisy), together):
        chunk = slice(start, start + together)
        # With the images as the last axis every slice of rows or columns is long in memory.
        filtered[chunk] = np.moveaxis(_chambolle(np.moveaxis(noisy[chunk], 0, -1).copy(), weight), -1, 0)
    return filtered


def _chambolle(noisy: Array, weight: float) -> Array:
    """The images (H, W, n) of least total variation; each leaves when its own cost has settled."""
    result, pending = np.empty_like(noisy), np.arange(noisy.shape[-1])
    rate, pixels = noisy.dtype.type(0.25), noisy.shape[0] * noisy.shape[1]
    field, slope = np.zeros((2, 2, *noisy.shape), noisy.dtype)  # the dual variable, and the gradient; rows, columns
    first = previous = np.full(len(pending), np.inf, noisy.dtype)
    for _ in range(_STEPS):
        change = -(field[0] + field[1])
        change[1:] += field[0, :-1]
        change[:, 1:] += field[1, :, :-1]
        image = noisy + change
        np.subtract(image[1:], image[:-1], out=slope[0, :-1])
        np.subtract(image[:, 1:], image[:, :-1], out=slope[1, :, :-1])
        steepness = np.square(slope[0])
        steepness += np.square(slope[1])
        np.sqrt(steepness, out=steepness)
        cost = (np.square(change).sum((0, 1)) + weight * steepness.sum((0, 1))) / pixels
        steepness *= rate / weight
        steepness += 1
        slope *= rate
        field -= slope
        field /= steepness
        first = np.where(np.isinf(first), cost, first)
        settled = np.abs(previous - cost) < _CHANGE * first
        previous = cost
        if settled.any():
            result[..., pending[settled]] = image[..., settled]
            left = ~settled
            noisy, image, field, slope = (array[..., left] for array in (noisy, image, field, slope))
            pending, first, previous = pending[left], first[left], previous[left]
            if not len(pending):
                return result
    result[..., pending] = image
    return result


def non_local_means(noisy: Array, h: float, patch: int, distance: int) -> Array:
    """The mean over pixels whose surroundings look alike (Buades et al. 2005, as in scikit-image)."""
    from skimage.restoration import denoise_nl_means

    return np.stack([denoise_nl_means(image, patch, distance, h=h, fast_mode=True) for image in noisy])


def wavelet_shrinkage(noisy: Array, wavelet: str, levels: int, noise: float) -> Array:
    """Details of a wavelet transform drawn towards 0 by BayesShrink (Chang et al. 2000, as in scikit-image).

    Args:
        noisy: the images.
        wavelet: its name in PyWavelets.
        levels: of the decomposition; no more than images of this size have.
        noise: standard deviation of the noise.
    """
    import pywt

    levels = min(levels, max(1, pywt.dwtn_max_level(noisy.shape[1:], wavelet)))
    smooth, *details = pywt.wavedec2(noisy, wavelet, level=levels, axes=(1, 2))
    shrunk = [tuple(_shrunk(band, noise) for band in level) for level in details]
    height, width = noisy.shape[1:]
    filtered: Array = pywt.waverec2([smooth, *shrunk], wavelet, axes=(1, 2))[:, :height, :width]
    return filtered


def _shrunk(details: Array, noise: float) -> Array:
    """The details of each image less the threshold that minimises the Bayes risk for a generalised Gaussian prior."""
    signal = np.square(details).mean(axis=(1, 2), keepdims=True) - noise**2
    threshold = noise**2 / np.sqrt(np.maximum(signal, np.finfo(details.dtype).eps))
    shrunk: Array = np.sign(details) * np.maximum(np.abs(details) - threshold, 0)
    return shrunk
