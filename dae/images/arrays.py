"""Images in arrays: NumPy's .npz and .npy files. Read piece by piece, and never unpickled."""

import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dae.errors import UserError
from dae.images.rows import TEST, TRAIN, VALIDATION, Kind, Part, Range

PIECE_BYTES = 32 * 2**20

SPLITS = {"train": TRAIN, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION} | {
    "test": TEST
}
ROLES = dict.fromkeys(("x", "image", "images", "img", "imgs", "data", "clean", "arr"), "clean") | {
    "noisy": "noisy",
    **dict.fromkeys(("y", "label", "labels", "target", "targets"), "labels"),
}
"""What a word in the name of an array says."""

LAYOUTS = "(n, height, width), (n, height, width, 1 or 3) or (n, 1 or 3, height, width)"


@dataclass(frozen=True, slots=True)
class Stored:
    """An array in a file, of which nothing but the header was read.

    Attributes:
        name: how a user knows it.
        open: the file, at the first number.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    open: Callable[[], IO[bytes]]

    def whole(self) -> npt.NDArray[Any]:
        """The array; of labels, which are small."""
        return np.concatenate(list(self.pieces(max(1, len(self))))) if len(self) else np.empty(self.shape, self.dtype)

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def pieces(self, count: int) -> Iterator[npt.NDArray[Any]]:
        """The array, ``count`` rows at a time.

        Raises:
            UserError: the file ends before the array does, or is damaged.
        """
        with self.open() as file:
            for start in range(0, len(self), count):
                rows = min(count, len(self) - start)
                piece = np.empty((rows, *self.shape[1:]), self.dtype)
                self._fill(file, memoryview(piece.reshape(-1).view(np.uint8).data))
                if start + rows == len(self):
                    self._end(file)
                yield piece

    def _end(self, file: IO[bytes]) -> None:
        """Read on, for the checksum of a packed file and for what is too much."""
        try:
            more = file.read(1)
        except Exception as error:  # zlib's and others
            raise damaged(self.name, error) from error
        if more:
            raise damaged(self.name, EOFError("it goes on after its array"))

    def _fill(self, file: IO[bytes], target: memoryview) -> None:
        filled = 0
        try:
            while filled < len(target):
                content = file.read(min(len(target) - filled, PIECE_BYTES))
                if not content:
                    raise EOFError("it ends before its array does")
                target[filled : filled + len(content)] = content
                filled += len(content)
        except Exception as error:  # zlib's and others
            raise damaged(self.name, error) from error


def damaged(name: str, error: Exception) -> UserError:
    """What a user is told of a file that cannot be read to its end."""
    return UserError(f"{name} cannot be read: {' '.join(str(error).split())}. Is it complete? Copy or make it again.")


class ArrayRows:
    """The images of an array, as `dae.images.rows.Rows`.

    Args:
        stored: the array.
        transposed: whether height and width are swapped in it.

    Raises:
        UserError: the array is none of images.
    """

    def __init__(self, stored: Stored, *, transposed: bool = False) -> None:
        self._stored, self._transposed = stored, transposed
        shape, dtype = stored.shape, stored.dtype
        if dtype.kind not in "uifb":
            what = "Python objects, which are never unpickled" if dtype.kind == "O" else f"numbers of the type {dtype}"
            raise UserError(f"{stored.name} holds {what}: save whole numbers or floating-point ones.")
        if len(shape) not in (3, 4):
            raise UserError(f"{stored.name} is an array of {len(shape)} dimensions, {shape}: images are {LAYOUTS}.")
        self._colours = self._axis_of_colours()
        height, width = (size for axis, size in enumerate(shape) if axis not in (0, self._colours))
        self._size = (width, height) if transposed else (height, width)
        self._channels = 1 if self._colours is None else shape[self._colours]
        self.count, self.with_alpha = len(stored), 0
        self.number: np.dtype[Any] | None = dtype
        row_bytes = max(1, int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize)
        self.step = max(1, PIECE_BYTES // row_bytes)
        self._pieces: Iterator[npt.NDArray[Any]] | None = None

    def _axis_of_colours(self) -> int | None:
        shape = self._stored.shape
        if len(shape) == 3:
            return None
        if shape[3] in (1, 3, 4) and not (shape[1] in (1, 3) and shape[2] < 8 <= shape[1]):
            return 3
        if shape[1] in (1, 3):
            return 1
        raise UserError(f"{self._stored.name} has the shape {shape}: images are {LAYOUTS}.")

    def name(self, index: int) -> str:
        """The place in the array."""
        return f"{self._stored.name}[{index}]"

    def kinds(self) -> Iterator[Kind | None]:
        """The same for every image."""
        channels = 3 if self._channels == 4 else self._channels
        bits = 8 * self._stored.dtype.itemsize
        for index in range(self.count):
            yield Kind(self.name(index), *self._size, channels, bits)

    def range(self) -> Range:
        """Read from the array, unless its type says it.

        Raises:
            UserError: a pixel is not a number.
        """
        dtype = self._stored.dtype
        if dtype.kind == "b" or (dtype.kind == "u" and dtype.itemsize <= 2):
            return Range(0, 1 if dtype.kind == "b" else np.iinfo(dtype).max, is_whole=True)
        low, high, is_whole, start = np.inf, -np.inf, True, 0
        for piece in self._stored.pieces(self.step):
            if dtype.kind == "f":
                if not (finite := np.isfinite(piece)).all():
                    index = start + int(np.argmin(finite.reshape(len(piece), -1).all(axis=1)))
                    raise UserError(
                        f"{self.name(index)} has a pixel that is no number (NaN or infinite): replace such pixels, or "
                        "leave the image out."
                    )
                is_whole = is_whole and bool((piece == np.rint(piece)).all())
            low, high, start = min(low, float(piece.min())), max(high, float(piece.max())), start + len(piece)
        return Range(low, high, is_whole)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """The numbers of the array, as images; to be asked for in order."""
        if start == 0 or self._pieces is None:
            self._pieces = self._stored.pieces(self.step)
        images = next(self._pieces)
        if self._colours == 1:
            images = np.moveaxis(images, 1, -1)
        if self._channels == 4:
            images, self.with_alpha = images[..., :3], self.with_alpha + len(images)
        images = images[..., 0] if self._channels == 1 and self._colours is not None else images
        return images.swapaxes(1, 2) if self._transposed else images


def parts(path: Path, tell: Callable[[str], None]) -> list[Part]:
    """The images of an .npz or .npy file, or of the .npy files of a folder.

    Raises:
        UserError: they are none, or cannot be told apart.
    """
    if path.is_dir():
        arrays = {file.stem: _npy(file) for file in sorted(path.iterdir()) if file.suffix.lower() == ".npy"}
    elif path.suffix.lower() == ".npz":
        arrays = _npz(path)
    else:
        return [Part(None, ArrayRows(_npy(path)))]
    return _sorted_out(path, arrays, tell)


def _npy(path: Path) -> Stored:
    return _stored(str(path), lambda: path.open("rb"))


def _npz(path: Path) -> dict[str, Stored]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
    except (OSError, zipfile.BadZipFile) as error:
        raise damaged(str(path), error) from error

    def opener(member: str) -> Callable[[], IO[bytes]]:
        return lambda: zipfile.ZipFile(path).open(member)

    return {
        member.removesuffix(".npy"): _stored(f"{path}:{member.removesuffix('.npy')}", opener(member))
        for member in members
    }


def _stored(name: str, reopen: Callable[[], IO[bytes]]) -> Stored:
    """The array in NumPy's format in the file that ``reopen`` opens."""

    def at_numbers() -> IO[bytes]:
        file = reopen()
        _header(file)
        return file

    try:
        with reopen() as file:
            shape, is_fortran, dtype = _header(file)
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise damaged(name, error) from error
    if is_fortran and len(shape) > 1 and dtype.kind != "O":

        def in_order() -> IO[bytes]:
            with reopen() as file:
                return BytesIO(np.lib.format.read_array(file, allow_pickle=False).tobytes())

        return Stored(name, shape, dtype, in_order)
    return Stored(name, shape, dtype, at_numbers)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _sorted_out(path: Path, arrays: Mapping[str, Stored], tell: Callable[[str], None]) -> list[Part]:
    """The arrays by what their names say: split, and images, noisy images or labels."""
    found: dict[str | None, dict[str, Stored]] = {}
    for name, stored in arrays.items():
        words = [word for word in re.split(r"[_\-. ]+|\d+$", name.lower()) if word]
        roles = {ROLES[word] for word in words if word in ROLES} - ({"clean"} if "noisy" in words else set())
        splits = {SPLITS[word] for word in words if word in SPLITS}
        if len(roles) > 1 or len(splits) > 1 or set(words) - ROLES.keys() - SPLITS.keys():
            continue
        role, split = next(iter(roles), "clean"), next(iter(splits), None)
        if role == "clean" and len(stored.shape) == 2 and len(arrays) > 1:
            continue  # the images once more, as rows of a table
        if role in found.setdefault(split, {}):
            raise UserError(
                f"{path} has two arrays of one meaning, {found[split][role].name} and {stored.name}: keep one."
            )
        found[split][role] = stored
    found = {split: named for split, named in found.items() if "clean" in named or "noisy" in named}
    if not found:
        candidates = [
            stored for stored in arrays.values() if len(stored.shape) in (3, 4) and stored.dtype.kind in "uifb"
        ]
        if len(candidates) != 1:
            raise UserError(
                f"{path} has the arrays {', '.join(arrays) or 'of no name'}: call the images x_train and x_test, "
                "train_images and test_images, or images; their labels y_train, train_labels or labels; pairs clean "
                "and noisy."
            )
        found = {None: {"clean": candidates[0]}}
    if any(found) and (None in found or TRAIN not in found):
        raise UserError(
            f"{path} has images of {' and '.join(split or 'no split' for split in found)}: call some of train."
        )
    return [_part(path, split, named, tell) for split, named in found.items()]


def _part(path: Path, split: str | None, named: Mapping[str, Stored], tell: Callable[[str], None]) -> Part:
    if "clean" not in named:
        raise UserError(f"{named['noisy'].name} has no array of clean images beside it: pairs are clean and noisy.")
    clean = named["clean"]
    if (noisy := named.get("noisy")) is not None and noisy.shape != clean.shape:
        raise UserError(
            f"{noisy.name} has the shape {noisy.shape} and {clean.name} {clean.shape}: a pair is a clean image and a "
            "noisy one of the same size, in the same order."
        )
    rows = ArrayRows(clean)
    labels = labels_of(named["labels"], rows.count, clean.name, tell) if "labels" in named else None
    return Part(split, rows, None if noisy is None else ArrayRows(noisy), labels)


def labels_of(stored: Stored, count: int, images: str, tell: Callable[[str], None]) -> npt.NDArray[Any] | None:
    """The label of every image; None, and said, where they name no class.

    Raises:
        UserError: they are not one an image.
    """
    if stored.dtype.kind == "O":
        raise UserError(f"{stored.name} holds Python objects, which are never unpickled: save whole numbers or text.")
    if len(stored) != count:
        raise UserError(
            f"{stored.name} has {len(stored):,} labels and {images} {count:,} images: give one each, or none."
        )
    labels = stored.whole()
    if labels.ndim > 1 and math.prod(labels.shape[1:]) == 1:
        labels = labels.reshape(len(labels))
    if labels.dtype.kind == "f":
        with suppress(FloatingPointError), np.errstate(invalid="ignore"):
            labels = whole if (whole := labels.astype(np.int64)).dtype and (whole == labels).all() else labels
    if labels.ndim > 1 or labels.dtype.kind not in "uibU":
        tell(f"{stored.name} is no class an image, shape {stored.shape} of {stored.dtype}: trained without labels")
        return None
    return labels


def checked_alike(numbers: Sequence[tuple[str, np.dtype[Any]]]) -> None:
    """Refuse arrays of different types of number side by side, whose scales nobody can know.

    255 may be as light in 8 bits as 65535 in 16. Floating-point numbers of several widths mean the same.

    Raises:
        UserError: they are mixed.
    """
    scales = [dtype.kind if dtype.kind == "f" else (dtype.kind, dtype.itemsize) for _, dtype in numbers]
    if other := next((index for index, scale in enumerate(scales) if scale != scales[0]), 0):
        (first, dtype), (second, other_dtype) = numbers[0], numbers[other]
        raise UserError(
            f"{first} is of {dtype} and {second} of {other_dtype}: save all images as one type of number, so that "
            "equal numbers mean equal light."
        )
