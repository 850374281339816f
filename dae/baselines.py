"""Denoisers without a network, for any kind and strength of noise. No torch.

Filters (`dae.filters`) and the best linear maps through a bottleneck of as many elements as a model's latent
(`dae.linear`). Their parameters are chosen on validation images under a separate draw of noise; none sees a test image.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from dae.config import IMAGE_SIZE
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
from dae.linear import (
    BASIS_BYTES,
    EXACT_NUMBERS,
    LinearMap,
    Matrix,
    Moments,
    Subspace,
    principal_components,
    reduced_rank_regressions,
)
from dae.noise import Array, corrupt_test
from dae.testset import mean_square

Filter = Callable[..., Array]
Grid = Mapping[str, Sequence[Any]]

TUNING_IMAGES = 1000
"""Validation images on which parameters are chosen."""
SLOW_TUNING_IMAGES = 100
"""The same for `MODERN` filters, which take longer."""
FITTING_IMAGES = 48_000
"""Least number of noisy images a regression is fitted to; a small training split is corrupted several times. Fewer of
larger images, but four times as many as the regression has variables."""
STUDY_NUMBERS = IMAGE_SIZE**2
"""Numbers of an image that these counts are meant for; of larger images there are as many as have as many numbers."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Denoiser:
    """A denoiser with its parameters chosen. It can be pickled.

    Attributes:
        name: such as ``median filter`` or ``PCA 100``.
        family: ``none``, ``filter`` or ``linear``.
        latent: the number of latent elements it is to be compared with, None if it has none.
        parameters: the chosen ones, as the report states them.
        validation_loss: mean squared error per pixel on the validation images they were chosen on.
        function: from noisy images to denoised ones, not yet clipped to [0, 1].
    """

    name: str
    family: str
    latent: int | None = None
    parameters: Mapping[str, Any]
    validation_loss: float
    function: Filter

    def __call__(self, noisy: Array) -> Array:
        """The denoised images, of the shape (n, H, W) or (n, H, W, 3) of ``noisy``, float32 in [0, 1]."""
        return _clipped(self.function(noisy))


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
    "wavelet shrinkage": (
        wavelet_shrinkage,
        {"wavelet": ("haar", "db2"), "levels": (1, 2, 3), "noise": (0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)},
    ),
}
SLOW = "non-local means"
"""The filter that takes a millisecond or more an image; it is tested on `SLOW_TEST_IMAGES`."""
SLOW_TEST_IMAGES = 1000


def filters(dataset: Dataset, noise: str, alpha: float) -> list[Denoiser]:
    """Doing nothing, the mean image and every filter with its parameters chosen.

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
    few = slice(images_of(SLOW_TUNING_IMAGES, dataset))
    for name, (function, grid) in MODERN.items():
        denoisers += _tuned(name, function, grid, clean[few], noisy[few])
    return denoisers


def images_of(count: int, dataset: Dataset) -> int:
    """How many images of the dataset have as many numbers as ``count`` images of the study's size, if larger ones."""
    return max(1, count * STUDY_NUMBERS // max(STUDY_NUMBERS, dataset.shape.numbers))


def _tuned(name: str, function: Filter, grid: Grid, clean: Array, noisy: Array) -> list[Denoiser]:
    """The filter with the parameters of least loss, as it is and rescaled."""
    plain: list[Denoiser] = []
    rescaled: list[Denoiser] = []
    for values in product(*grid.values()):
        parameters = dict(zip(grid, values, strict=True))
        candidate = partial(_by_channel, function=partial(function, **parameters))
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


def _by_channel(noisy: Array, *, function: Filter) -> Array:
    """A filter of grey images on each channel of colour ones."""
    if noisy.ndim == 3:
        return function(noisy)
    channels = np.moveaxis(noisy, -1, 0)
    filtered = function(channels.reshape(-1, *channels.shape[2:]))
    return np.ascontiguousarray(np.moveaxis(filtered.reshape(channels.shape), 0, -1))


def _brightened(images: Array, gain: float, offset: float) -> Array:
    return np.float32(gain) * images + np.float32(offset)


def _rescaled(noisy: Array, *, function: Filter, gain: float, offset: float) -> Array:
    return _brightened(_clipped(function(noisy)), gain, offset)


def _unchanged(noisy: Array) -> Array:
    return noisy


def _always(noisy: Array, *, answer: Array) -> Array:
    return np.broadcast_to(answer, noisy.shape)


RIDGES = (0, 1e-6, 1e-4, 1e-3, 1e-2, 0.1)


def linear(dataset: Dataset, noise: str, alpha: float, latents: Sequence[int]) -> list[Denoiser]:
    """PCA of the clean training images and reduced-rank regression, one of both for each number of latent elements.

    Args:
        dataset: fitted to its training images, the ridge chosen on its validation images.
        noise: kind of the noise, as in `dae.noise`.
        alpha: its strength.
        latents: numbers of latent elements, none of them with a `reason_without_linear`; a rank cannot exceed the
            number of pixels, or of components.
    """
    if not latents:
        return []
    clean, noisy = _tuning_images(dataset, noise, alpha)
    subspace, moments = _moments(dataset, noise, alpha)
    # Lifted maps share the basis: of every ridge and rank there is one in coordinates alone.
    size, lift = len(moments.clean_mean), subspace.lift if subspace else _unlifted
    ranks = {latent: min(latent, size) for latent in latents}
    known = {"components": size} if subspace else {}  # that the map sees
    projections = {rank: lift(inner) for rank, inner in principal_components(moments, ranks.values()).items()}
    components = [
        _denoiser(f"PCA {latent}", "linear", {"rank": rank}, projections[rank], clean, projections[rank](noisy), latent)
        for latent, rank in ranks.items()
    ]
    best: dict[int, Denoiser] = {}
    for rank, ridge, inner in reduced_rank_regressions(moments, set(ranks.values()), RIDGES):
        fitted, parameters = lift(inner), {"rank": rank, "ridge": ridge} | known
        candidate = _denoiser("reduced-rank regression", "linear", parameters, fitted, clean, fitted(noisy))
        best[rank] = min(best.get(rank, candidate), candidate, key=_validation_loss)
    return components + [
        replace(best[rank], name=f"reduced-rank regression {latent}", latent=latent) for latent, rank in ranks.items()
    ]


def reason_without_linear(dataset: Dataset, latent: int) -> str | None:
    """Why there are no linear maps through so many elements, in words; None where there are."""
    numbers = dataset.shape.numbers
    most, wanted = BASIS_BYTES // (4 * numbers), min(latent, _most_components(dataset))
    if numbers <= EXACT_NUMBERS or wanted <= most:
        return None
    return (
        f"{wanted:,} principal components of {dataset.shape} images take {4 * numbers * wanted / 2**20:,.0f} MiB, more "
        f"than the {BASIS_BYTES / 2**20:,.0f} MiB that are allowed"
    )


def _most_components(dataset: Dataset) -> int:
    """Components that a map within some may have, whatever they take: no more than the training images differ in."""
    return min(EXACT_NUMBERS, max(1, len(dataset.train) - 1))


def _components(dataset: Dataset) -> int:
    """Components within which large images are mapped."""
    return min(_most_components(dataset), max(1, BASIS_BYTES // (4 * dataset.shape.numbers)))


def _unlifted(inner: LinearMap) -> LinearMap:
    return inner


def _moments(dataset: Dataset, noise: str, alpha: float) -> tuple[Subspace | None, Moments]:
    """The moments of the training images; of large ones those of their coordinates in a subspace, and that."""
    images = partial(_training_images, dataset, noise, alpha)
    if dataset.shape.numbers <= EXACT_NUMBERS:
        return None, Moments.of(images(_as_float64))
    cleans = dataset.train[: _fitting_images(dataset)]
    step = _part(dataset)

    def parts() -> Iterator[Array]:
        for start in range(0, len(cleans), step):
            yield _flat(dataset.unit(cleans[start : start + step]))

    subspace = Subspace.of(parts, _components(dataset))
    return subspace, Moments.of(images(subspace.coordinates))


def _training_images(
    dataset: Dataset, noise: str, alpha: float, as_vectors: Callable[[Array], Matrix]
) -> Iterator[tuple[Matrix, Iterator[Matrix]]]:
    """Parts of the clean training images as vectors, (n, d), each with noisy ones: several draws where they are few."""
    count = _fitting_images(dataset)
    train, step = dataset.train[:count] if dataset.shape.numbers > STUDY_NUMBERS else dataset.train, _part(dataset)
    draws = math.ceil(count / len(train))

    def noisy(part: slice, clean: Array) -> Iterator[Matrix]:
        if dataset.noisy is not None:
            yield as_vectors(_flat(dataset.unit(dataset.noisy.train[part])))
            return
        for draw in range(draws):
            purpose = f"{dataset.identity}, training images from {part.start}, draw {draw}"
            yield as_vectors(_flat(corrupt_test(clean, alpha, purpose, noise)))

    for start in range(0, len(train), step):
        part = slice(start, min(start + step, len(train)))
        clean = dataset.unit(train[part])
        yield as_vectors(_flat(clean)), noisy(part, clean)


def _as_float64(images: Array) -> Matrix:
    return images.astype(np.float64)


def _fitting_images(dataset: Dataset) -> int:
    """How many images a regression is fitted to, at least."""
    few = images_of(FITTING_IMAGES, dataset)
    return few if few == FITTING_IMAGES else max(few, 4 * _components(dataset))


def _part(dataset: Dataset) -> int:
    """Images that are held as vectors at a time."""
    return images_of(4000, dataset)


def _flat(images: Array) -> Array:
    return images.reshape(len(images), -1)


# ---- what both need


def _tuning_images(dataset: Dataset, noise: str, alpha: float) -> tuple[Array, Array]:
    """Validation images, clean and noisy, under a fixed draw where the noise is drawn."""
    chosen = slice(images_of(TUNING_IMAGES, dataset))
    clean = dataset.unit(dataset.validation[chosen])
    if dataset.noisy is not None:
        return clean, dataset.unit(dataset.noisy.validation[chosen])
    return clean, corrupt_test(clean, alpha, f"{dataset.identity}, validation images", noise)


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
