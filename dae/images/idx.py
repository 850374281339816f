"""IDX files, as MNIST's are: two zero bytes, the type, the rank, the sizes, the numbers; raw or gzipped."""

import gzip
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

import numpy as np

from dae.errors import UserError
from dae.images.arrays import ArrayRows, Stored, damaged, labels_of
from dae.images.rows import TEST, TRAIN, VALIDATION, Part

TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
FILE = re.compile(
    r"(?P<set>.*?)-?(?:(?P<split>train|t10k|test|val(?:id(?:ation)?)?)-)?(?P<what>images|labels)[-.]idx\d-?\w*"
)
"""The names of MNIST's files, Kaggle's (a dot for a dash), EMNIST's and QMNIST's (another set in front); no split."""
PACKED = ".gz"
SPLITS = {None: None, "train": TRAIN, "t10k": TEST, "test": TEST}


def is_idx(path: Path) -> bool:
    """Whether the file is one of images or labels, by its name."""
    return FILE.fullmatch(path.name.removesuffix(PACKED)) is not None


def begins_as_idx(path: Path) -> bool:
    """Whether the file is one by its first bytes, whatever its name."""
    try:
        with open_file(path) as file:
            return _is_magic(file.read(4))
    except (OSError, EOFError, zlib.error):
        return False


def _is_magic(content: bytes) -> bool:
    return len(content) == 4 and content[:2] == b"\0\0" and content[2] in TYPES and 1 <= content[3] <= 4


def open_file(path: Path) -> IO[bytes]:
    """The unpacked content."""
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == PACKED else path.open("rb")


def stored(path: Path) -> Stored:
    """The array of the file.

    Raises:
        UserError: it is no IDX file.
    """

    def at_numbers() -> IO[bytes]:
        file = open_file(path)
        file.read(header_bytes)
        return file

    try:
        with open_file(path) as file:
            magic = file.read(4)
            if not _is_magic(magic):
                raise UserError(f"{path} does not begin as an IDX file does: it is truncated, or of another kind.")
            sizes = file.read(4 * magic[3])
            if len(sizes) < 4 * magic[3]:
                raise EOFError("it ends within its header")
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(str(path), error) from error
    header_bytes = 4 + len(sizes)
    return Stored(str(path), tuple(map(int, np.frombuffer(sizes, ">u4"))), np.dtype(TYPES[magic[2]]), at_numbers)


def parts(path: Path, tell: Callable[[str], None]) -> list[Part]:
    """The images of one file, or of the files of one set in a folder, with their labels.

    Raises:
        UserError: they cannot be read or told apart.
    """
    if path.is_file():
        return [Part(None, ArrayRows(stored(path)))]
    found: dict[tuple[str | None, str], Path] = {}
    names = set()
    for file in sorted(path.iterdir()):
        match = FILE.fullmatch(file.name.removesuffix(PACKED))
        if match is None:
            continue
        names.add(match["set"])
        found.setdefault(
            (SPLITS.get(match["split"], VALIDATION), match["what"]), file
        )  # the raw file, if both are there
    if len(names) > 1:
        listed = ", ".join(sorted(name or "one without a name" for name in names))
        raise UserError(f"{path} holds {listed}: put the files of one of them into a folder of its own.")
    name = names.pop()
    # EMNIST's authors wrote the columns of an image as its rows; QMNIST's wrote eight numbers, the class first.
    transposed = name.startswith("emnist")
    if transposed:
        tell(f"the images of {path} are EMNIST's, which lie on their side: height and width are swapped")
    parts = []
    for split in dict.fromkeys(split for split, _ in found):
        if (images := found.get((split, "images"))) is None:
            raise UserError(f"{found[split, 'labels']} has no images beside it: add the file of images, or remove it.")
        rows = ArrayRows(stored(images), transposed=transposed)
        labels = None
        if (split, "labels") in found:
            numbers = stored(found[split, "labels"])
            if len(numbers.shape) == 2 and name.startswith("qmnist"):
                column = np.ascontiguousarray(numbers.whole()[:, 0])
                labels = column.astype(np.int64)
                numbers = Stored(numbers.name, labels.shape, labels.dtype, numbers.open)
                if len(labels) != rows.count:
                    labels_of(numbers, rows.count, str(images), tell)
            else:
                labels = labels_of(numbers, rows.count, str(images), tell)
        parts.append(Part(split, rows, labels=labels))
    splits = [part.split for part in parts]
    if len(parts) > 1 and None in splits:
        raise UserError(
            f"{path} has files of images with a split in their names and files without: call all of them train, test "
            "or validation, as in train-images-idx3-ubyte, or none."
        )
    if TRAIN not in splits:
        if len(parts) > 1:
            raise UserError(f"{path} has no files of training images: their names begin with train-images.")
        parts = [Part(None, parts[0].clean, labels=parts[0].labels)]
    return parts
