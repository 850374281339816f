"""Linear maps of images through a bottleneck, fitted in closed form. NumPy and scipy."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dae.noise import Array

Matrix = npt.NDArray[np.float64]

EXACT_NUMBERS = 1024
"""Images of more numbers are mapped within as many leading principal components: every full covariance of 64x64 colour
pixels would take 1.2 GB, and its eigenvectors an hour."""
BASIS_BYTES = 200 * 2**20
"""What these components may take; finding them takes twice as much. Of 128x128 colour pixels there are 1,066, more than
enough; of 256x256 only 266."""


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
    def of(cls, images: Iterable[tuple[Matrix, Iterable[Matrix]]]) -> "Moments":
        """The moments over all pairs of a clean image and a noisy version of it.

        Args:
            images: matrices of clean images, (n, d), each with matrices of noisy versions of them. What follows from
                the clean ones, and from the sum of the versions, is computed once for all of them.
        """
        count, sums = 0, [np.zeros(1)] * 5
        for clean, versions in images:
            draws, noisy, squares = 0, np.zeros(1), np.zeros(1)
            for version in versions:
                draws, noisy, squares = draws + 1, noisy + version, squares + version.T @ version
            count += draws * len(clean)
            parts = (noisy.sum(axis=0), draws * clean.sum(axis=0), squares, draws * (clean.T @ clean), noisy.T @ clean)
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
    encode: Matrix | Array
    decode: Matrix | Array

    def __call__(self, images: Array | Matrix) -> Array:
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


@dataclass(frozen=True, slots=True, eq=False)
class Subspace:
    """The span of the leading principal components of images.

    Attributes:
        mean: of the images, (d,), float32.
        basis: orthonormal columns, (d, size), float32.
    """

    mean: Array
    basis: Array

    @classmethod
    def of(cls, images: Callable[[], Iterable[Array]], size: int, *, iterations: int = 1) -> "Subspace":
        """The subspace, found without a covariance (Halko, Martinsson and Tropp 2011, algorithm 4.4).

        Args:
            images: gives parts (n, d) of the images; called ``iterations`` + 2 times.
            size: number of components.
            iterations: those of the power method.
        """
        from scipy.linalg import qr
        from scipy.linalg.blas import sgemm

        count, total = 0, np.zeros(1)
        for part in images():
            count, total = count + len(part), total + part.sum(axis=0, dtype=np.float64)
        mean = (total / count).astype(np.float32)
        basis = np.random.default_rng(0).standard_normal((len(mean), size), np.float32)
        for _ in range(iterations + 1):
            product = np.zeros(basis.shape, np.float32, order="F")  # as BLAS and LAPACK write into it
            for part in images():
                centred = part - mean
                product = sgemm(1.0, centred.T, centred @ basis, beta=1.0, c=product, overwrite_c=True)
            del basis  # there are never three of its size
            basis = qr(product, mode="economic", overwrite_a=True, check_finite=False)[0]
        return cls(mean, basis)

    def coordinates(self, images: Array) -> Matrix:
        """The images (n, d) in the subspace, (n, size)."""
        centred: Array = images - self.mean
        return (centred @ self.basis).astype(np.float64)

    def images(self, coordinates: Array) -> Array:
        """The images (n, d) that have these coordinates (n, size)."""
        outside: Array = coordinates @ self.basis.T
        outside += self.mean
        return outside

    def lift(self, inner: LinearMap) -> "LiftedMap":
        """The map of images that ``inner`` is of their coordinates."""
        return LiftedMap(self, inner)


@dataclass(frozen=True, slots=True, eq=False)
class LiftedMap:
    """A map of images by one of their coordinates in a subspace, which many maps share."""

    subspace: Subspace
    inner: LinearMap

    def __call__(self, images: Array) -> Array:
        """The mapped images, float32, of the shape of ``images`` (n, ...) whose pixels are d in all."""
        inside = self.subspace.coordinates(images.reshape(len(images), -1))
        return self.subspace.images(self.inner(inside)).reshape(images.shape)
