"""Denoisers without a network, for any kind and strength of noise. No torch.

Filters (scipy, scikit-image) and the best linear maps through a bottleneck of as many elements as a model's latent.
Their parameters are chosen on validation images under a separate draw of noise; none sees a test image.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from dae.config import IMAGE_SIZE
from dae.data import Dataset
from dae.noise import Array, corrupt_test
from dae.testset import mean_square

Matrix = npt.NDArray[np.float64]
Filter = Callable[..., Array]

PIXELS = IMAGE_SIZE**2
TUNING_IMAGES = 1000
"""Validation images on which parameters are chosen."""
SLOW_TUNING_IMAGES = 100
"""The same for total variation and non-local means, which take a millisecond or more an image."""
FITTING_IMAGES = 48_000
"""Least number of noisy images a regression is fitted to; a small training split is corrupted several times."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Denoiser:
    """A denoiser with its parameters chosen. It can be pickled.

    Attributes:
        name: such as ``median filter`` or ``PCA 100``.
        family: ``none``, ``filter`` or ``linear``.
        latent: the number of latent elements it is to be compared with, None if it has none.
        parameters: the chosen ones, as the report states them.
        validation_loss: mean squared error per pixel on the validation images they were chosen on.
        function: from noisy images (n, 28, 28) to denoised ones, not yet clipped to [0, 1].
    """

    name: str
    family: str
    latent: int | None = None
    parameters: Mapping[str, Any]
    validation_loss: float
    function: Filter

    def __call__(self, noisy: Array) -> Array:
        """The denoised images, shape (n, 28, 28), float32 in [0, 1]."""
        return _clipped(self.function(noisy))


# ---- filters


def mean_filter(noisy: Array, size: int) -> Array:
    """The mean over a window of ``size`` x ``size`` pixels."""
    from scipy.ndimage import uniform_filter

    filtered: Array = uniform_filter(noisy, (1, size, size))
    return filtered


def median_filter(noisy: Array, size: int) -> Array:
    """The median over a window of ``size`` x ``size`` pixels."""
    from scipy.ndimage import median_filter as median

    filtered: Array = median(noisy, (1, size, size))
    return filtered


def gaussian_filter(noisy: Array, sigma: float) -> Array:
    """The mean weighted by a Gaussian of ``sigma`` pixels."""
    from scipy.ndimage import gaussian_filter as gaussian

    filtered: Array = gaussian(noisy, (0, sigma, sigma))
    return filtered


def wiener_filter(noisy: Array, size: int, noise: float) -> Array:
    """The locally linear minimum of the mean squared error, for noise of variance ``noise`` (Lim 1990, as in scipy)."""
    from scipy.signal import wiener

    reach = size // 2  # scipy pads with black; this mirrors the image at its edges
    padded = np.pad(noisy, ((0, 0), (reach, reach), (reach, reach)), mode="symmetric")
    inner = slice(reach, reach + IMAGE_SIZE)
    with np.errstate(divide="ignore", invalid="ignore"):  # scipy divides by 0 in constant windows, then takes the mean
        filtered: Array = wiener(padded, (1, size, size), noise)[:, inner, inner].astype(np.float32)
    return filtered


def total_variation(noisy: Array, weight: float) -> Array:
    """The image of least total variation near the noisy one (Chambolle 2004, as in scikit-image)."""
    from skimage.restoration import denoise_tv_chambolle

    return np.stack([denoise_tv_chambolle(image, weight=weight) for image in noisy])


def non_local_means(noisy: Array, h: float, patch: int, distance: int) -> Array:
    """The mean over pixels whose surroundings look alike (Buades et al. 2005, as in scikit-image)."""
    from skimage.restoration import denoise_nl_means

    return np.stack([denoise_nl_means(image, patch, distance, h=h, fast_mode=True) for image in noisy])


Grid = Mapping[str, Sequence[Any]]

FILTERS: Mapping[str, tuple[Filter, Grid]] = {
    "mean filter": (mean_filter, {"size": (1, 3, 5, 7)}),
    "median filter": (median_filter, {"size": (1, 3, 5, 7)}),
    "Gaussian filter": (gaussian_filter, {"sigma": (0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.6, 2.0)}),
    "Wiener filter": (wiener_filter, {"size": (3, 5, 7), "noise": (1e-4, 1e-3, 0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3)}),
}
MODERN: Mapping[str, tuple[Filter, Grid]] = {
    "total variation": (total_variation, {"weight": (0.001, 0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7)}),
    "non-local means": (
        non_local_means,
        {"h": (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4), "patch": (5,), "distance": (6,)},
    ),
}


def filters(dataset: Dataset, noise: str, alpha: float) -> list[Denoiser]:
    """Doing nothing, the mean image and every filter with its parameters chosen; of the `MODERN` ones the better.

    Each filter comes twice: as it is, and ``rescaled`` by the linear map of brightness that fits the validation images
    best, because clipped noise makes a dark background brighter and no average can undo that.

    Args:
        dataset: the parameters are chosen on its validation images.
        noise: kind of the noise, as in `dae.noise`.
        alpha: its strength.
    """
    clean, noisy = _tuning_images(dataset, noise, alpha)
    mean_image = dataset.unit(dataset.train.mean(axis=0))
    denoisers = [
        _denoiser("doing nothing", "none", {}, _unchanged, clean, noisy),
        _denoiser("mean image", "none", {}, partial(_always, answer=mean_image), clean, mean_image),
    ]
    for name, (function, grid) in FILTERS.items():
        denoisers += _tuned(name, function, grid, clean, noisy)
    few = slice(SLOW_TUNING_IMAGES)
    modern = [_tuned(name, function, grid, clean[few], noisy[few]) for name, (function, grid) in MODERN.items()]
    return denoisers + min(modern, key=lambda pair: min(map(_validation_loss, pair)))


def _tuned(name: str, function: Filter, grid: Grid, clean: Array, noisy: Array) -> list[Denoiser]:
    """The filter with the parameters of least loss, as it is and rescaled."""
    plain: list[Denoiser] = []
    rescaled: list[Denoiser] = []
    for values in product(*grid.values()):
        parameters = dict(zip(grid, values, strict=True))
        candidate = partial(function, **parameters)
        filtered = _clipped(candidate(noisy))
        plain.append(_denoiser(name, "filter", parameters, candidate, clean, filtered))
        gain, offset = _line(filtered, clean)
        parameters = parameters | {"gain": gain, "offset": offset}
        candidate = partial(_rescaled, function=candidate, gain=gain, offset=offset)
        answer = _brightened(filtered, gain, offset)
        rescaled.append(_denoiser(f"{name}, rescaled", "filter", parameters, candidate, clean, answer))
    return [min(candidates, key=_validation_loss) for candidates in (plain, rescaled)]


def _validation_loss(denoiser: Denoiser) -> float:
    return denoiser.validation_loss


def _line(filtered: Array, clean: Array) -> tuple[float, float]:
    """Gain and offset of the least-squares line from filtered to clean pixels."""
    x, y = filtered.mean(dtype=np.float64), clean.mean(dtype=np.float64)
    variance = np.square(filtered - x).mean(dtype=np.float64)
    gain = float(((filtered - x) * (clean - y)).mean(dtype=np.float64) / variance) if variance > 0 else 0.0
    return gain, float(y - gain * x)


def _brightened(images: Array, gain: float, offset: float) -> Array:
    return np.float32(gain) * images + np.float32(offset)


def _rescaled(noisy: Array, *, function: Filter, gain: float, offset: float) -> Array:
    return _brightened(_clipped(function(noisy)), gain, offset)


def _unchanged(noisy: Array) -> Array:
    return noisy


def _always(noisy: Array, *, answer: Array) -> Array:
    return np.broadcast_to(answer, noisy.shape)


# ---- linear maps through a bottleneck


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Moments:
    """First and second moments of pairs of noisy and clean images, as vectors of d pixels; centred, divided by n.

    Attributes:
        noisy_mean, clean_mean: shape (d,).
        noisy, clean: covariances, (d, d).
        both: covariance of noisy (rows) with clean pixels (columns), (d, d).
    """

    noisy_mean: Matrix
    clean_mean: Matrix
    noisy: Matrix
    clean: Matrix
    both: Matrix

    @classmethod
    def of(cls, pairs: Iterable[tuple[Matrix, Matrix]]) -> "Moments":
        """The moments over all pairs of a matrix of noisy images and one of the clean ones, (n, d)."""
        count, sums = 0, [np.zeros(1)] * 5
        for noisy, clean in pairs:
            count += len(noisy)
            parts = (noisy.sum(axis=0), clean.sum(axis=0), noisy.T @ noisy, clean.T @ clean, noisy.T @ clean)
            sums = [total + part for total, part in zip(sums, parts, strict=True)]
        x, y, xx, yy, xy = (total / count for total in sums)
        return cls(
            noisy_mean=x,
            clean_mean=y,
            noisy=xx - np.outer(x, x),
            clean=yy - np.outer(y, y),
            both=xy - np.outer(x, y),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LinearMap:
    """Images to a few numbers and back: ``mean_out + (x - mean_in) @ encode @ decode``.

    Attributes:
        mean_in, mean_out: shape (d,).
        encode: shape (d, rank).
        decode: shape (rank, d).
    """

    mean_in: Matrix
    mean_out: Matrix
    encode: Matrix
    decode: Matrix

    def __call__(self, images: Array) -> Array:
        """The mapped images, float32, of the shape of ``images`` (n, ...) whose pixels are d in all."""
        flat = images.reshape(len(images), -1) - self.mean_in
        answer: Array = ((flat @ self.encode) @ self.decode + self.mean_out).astype(np.float32)
        return answer.reshape(images.shape)


def principal_components(moments: Moments, ranks: Iterable[int]) -> dict[int, LinearMap]:
    """The projections on the ``rank`` leading principal components of the clean images, by rank."""
    mean, components = moments.clean_mean, _leading_eigenvectors(moments.clean)
    bases = {rank: components[:, :rank] for rank in ranks}
    return {rank: LinearMap(mean_in=mean, mean_out=mean, encode=basis, decode=basis.T) for rank, basis in bases.items()}


def reduced_rank_regressions(
    moments: Moments, ranks: Iterable[int], ridges: Iterable[float]
) -> Iterator[tuple[int, float, LinearMap]]:
    """The linear maps of least squared error from noisy to clean images, by rank and ridge.

    In closed form (Izenman 1975; with a ridge Mukherjee and Zhu 2011): the ridge regression, projected on the leading
    eigenvectors of its fitted values' covariance.

    Args:
        moments: those of the images to fit.
        ranks: numbers of elements of the bottleneck.
        ridges: what is added to the covariance of the noisy pixels, as a share of their mean variance. Directions in
            which they do not vary at all are left out.

    Yields:
        Rank, ridge and map.
    """
    from scipy.linalg import eigh

    variances, vectors = eigh(moments.noisy)
    scores, ranks = vectors.T @ moments.both, tuple(ranks)
    for ridge in ridges:
        values = variances + ridge * variances.mean()
        is_used = values > values.max() * len(values) * np.finfo(float).eps
        inverse = np.divide(1, values, out=np.zeros_like(values), where=is_used)[:, None]
        coefficients = vectors @ (inverse * scores)
        leading = _leading_eigenvectors(scores.T @ (inverse * scores))
        for rank in ranks:
            basis = leading[:, :rank]
            encode = coefficients @ basis
            mean_in, mean_out = moments.noisy_mean, moments.clean_mean
            yield rank, ridge, LinearMap(mean_in=mean_in, mean_out=mean_out, encode=encode, decode=basis.T)


def _leading_eigenvectors(symmetric: Matrix) -> Matrix:
    """Eigenvectors as columns, that of the largest eigenvalue first."""
    from scipy.linalg import eigh

    vectors: Matrix = eigh(symmetric)[1][:, ::-1]
    return vectors


RIDGES = (0, 1e-6, 1e-4, 1e-3, 1e-2, 0.1)


def linear(dataset: Dataset, noise: str, alpha: float, latents: Sequence[int]) -> list[Denoiser]:
    """PCA of the clean training images and reduced-rank regression, one of both for each number of latent elements.

    Args:
        dataset: fitted to its training images, the ridge chosen on its validation images.
        noise: kind of the noise, as in `dae.noise`.
        alpha: its strength.
        latents: numbers of latent elements; a rank cannot exceed the number of pixels.
    """
    clean, noisy = _tuning_images(dataset, noise, alpha)
    moments = Moments.of(_training_pairs(dataset, noise, alpha))
    ranks = {latent: min(latent, PIXELS) for latent in latents}
    projections = principal_components(moments, ranks.values())
    components = [
        _denoiser(f"PCA {latent}", "linear", {"rank": rank}, projections[rank], clean, projections[rank](noisy), latent)
        for latent, rank in ranks.items()
    ]
    best: dict[int, Denoiser] = {}
    for rank, ridge, fitted in reduced_rank_regressions(moments, set(ranks.values()), RIDGES):
        parameters = {"rank": rank, "ridge": ridge}
        candidate = _denoiser("reduced-rank regression", "linear", parameters, fitted, clean, fitted(noisy))
        best[rank] = min(best.get(rank, candidate), candidate, key=_validation_loss)
    return components + [
        replace(best[rank], name=f"reduced-rank regression {latent}", latent=latent) for latent, rank in ranks.items()
    ]


def _training_pairs(dataset: Dataset, noise: str, alpha: float) -> Iterable[tuple[Matrix, Matrix]]:
    for draw in range(math.ceil(FITTING_IMAGES / len(dataset.train))):
        for start in range(0, len(dataset.train), 4000):
            clean = dataset.unit(dataset.train[start : start + 4000])
            noisy = corrupt_test(clean, alpha, f"{dataset.name}, training images from {start}, draw {draw}", noise)
            yield (noisy.reshape(-1, PIXELS).astype(np.float64), clean.reshape(-1, PIXELS).astype(np.float64))


# ---- what both need


def _tuning_images(dataset: Dataset, noise: str, alpha: float) -> tuple[Array, Array]:
    """Validation images, clean and under a fixed draw of noise; (n, 28, 28) both."""
    clean = dataset.unit(dataset.validation[:TUNING_IMAGES])
    return clean, corrupt_test(clean, alpha, f"{dataset.name}, validation images", noise)


def _denoiser(
    name: str,
    family: str,
    parameters: Mapping[str, Any],
    function: Filter,
    clean: Array,
    answer: Array,
    latent: int | None = None,
) -> Denoiser:
    """The denoiser of this function; ``answer`` is what it makes of the validation images."""
    return Denoiser(
        name=name,
        family=family,
        latent=latent,
        parameters=parameters,
        validation_loss=mean_square(_clipped(answer) - clean),
        function=function,
    )


def _clipped(images: Array) -> Array:
    return np.clip(images, 0, 1).astype(np.float32, copy=False)
