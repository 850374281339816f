"""A place with a user's own images: of which kind it is, what is in it, and all of its images."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dae.config import ImageShape
from dae.errors import UserError
from dae.images import arrays, folder, idx, picture, split
from dae.images.arrangement import Collection
from dae.images.collection import collect, counts_of, first_kind
from dae.images.location import absolute
from dae.images.rows import TEST, TRAIN, VALIDATION, Part, Unreadable

ARRAYS = (".npz", ".npy")


@dataclass(frozen=True, slots=True)
class Facts:
    """What can be said of images without reading all of them.

    Attributes:
        shape: of what is trained on: the first image, or a tile.
        has_noise: whether they are pairs, which bring their own noise.
        training: how many images or tiles will be trained on, unreadable ones and copies included.
    """

    shape: ImageShape
    has_noise: bool
    training: int


def describe(text: str, patch: int | None = None, *, skip_unreadable: bool = False, thorough: bool = False) -> Facts:
    """What is at the place.

    Args:
        text: the place.
        patch: height and width of the tiles to cut; None for whole images.
        skip_unreadable: leave files out that are no images.
        thorough: look at the beginning of every file, which takes about as long as reading small images.

    Raises:
        UserError: there are no images, or in no layout that is known; or they cannot be used together, as far as the
            beginnings of their files tell.
    """
    parts, _ = _parts(absolute(text), skip_unreadable=skip_unreadable, tell=lambda _: None)
    first = first_kind(text, parts, patch)
    counts = counts_of(parts, first, patch, thorough=thorough)
    height, width = (first.height, first.width) if patch is None else (patch, patch)
    return Facts(
        shape=ImageShape(height, width, first.channels),
        has_noise=parts[0].noisy is not None,
        training=_training(text, parts, counts, are_tiles=patch is not None),
    )


def _training(where: str, parts: Sequence[Part], counts: Sequence[int], *, are_tiles: bool) -> int:
    """How many images or tiles stay for training, of the ``counts`` of the parts.

    Raises:
        UserError: a split has none.
    """
    given = {part.split for part in parts} - {None}
    if empty := [part.split for part in parts if part.split is not None and not part.clean.count]:
        raise UserError(f"{where} has no image for {' and '.join(empty)}: add some.")
    train = [part for part in parts if part.split in (None, TRAIN)]
    by_class: Counter[str | None] = Counter()
    names = {str(name) for part in parts if part.labels is not None for name in np.unique(part.labels).tolist()}
    if len(names) > 1 and all(part.labels is not None for part in parts):
        by_class.update(str(name) for part in train if part.labels is not None for name in part.labels.tolist())
    else:
        by_class[None] = sum(part.clean.count for part in train)
    missing = [made for made in (TEST, VALIDATION) if made not in given]
    share = split.kept_share(where, by_class, missing, are_tiles=are_tiles)
    taken = sum(count for part, count in zip(parts, counts, strict=True) if part.split in (None, TRAIN))
    return max(1, round(share * taken))


def read(
    text: str, *, patch: int | None, skip_unreadable: bool, memory: int | None, tell: Callable[[str], None]
) -> Collection:
    """All images of the place, see `collect`.

    Raises:
        UserError: they cannot be used.
    """
    path = absolute(text)
    parts, skipped = _parts(path, skip_unreadable=skip_unreadable, tell=tell)
    return collect(
        str(path),
        parts,
        patch=patch,
        skip_unreadable=skip_unreadable,
        skipped=skipped,
        memory=memory,
        tell=tell,
    )


def _parts(path: Path, *, skip_unreadable: bool, tell: Callable[[str], None]) -> tuple[list[Part], list[str]]:
    """The images by split, and files that were left out since they are none."""
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. Give a path that can be read.") from error
    if not is_folder and not is_file:
        raise UserError(f"there is no file or folder {path}: give the --dataset path where the images are.")
    tree = folder.Tree(skip_unreadable=skip_unreadable)
    if is_file:
        return _file(path, tell), []
    _folders, files = folder.listing(path)
    raw = path / "raw"  # torchvision's layout
    if any(map(idx.is_idx, files)):
        parts = idx.parts(path, tell)
    elif raw.is_dir() and any(map(idx.is_idx, folder.listing(raw)[1])):
        parts = idx.parts(raw, tell)
    elif any(file.suffix.lower() == ".npy" for file in files):
        parts = arrays.parts(path, tell)
    else:
        parts = tree.parts(path)
    if len({part.noisy is not None for part in parts}) > 1:
        raise UserError(f"{path} has pairs for some of its splits and not for others: give all, or none.")
    return parts, tree.skipped


def _file(path: Path, tell: Callable[[str], None]) -> list[Part]:
    if path.suffix.lower() in ARRAYS:
        return arrays.parts(path, tell)
    if idx.is_idx(path) or idx.begins_as_idx(path):
        return idx.parts(path, tell)
    try:
        picture.kind_of(path)
    except Unreadable as reason:
        raise UserError(
            f"{path} is none of the files that hold images: an array ({', '.join(ARRAYS)}) or an IDX file, such as "
            "train-images-idx3-ubyte. Else give a folder of images."
        ) from reason
    raise UserError(f"{path} is one image: training, validation and test need different ones. Give a folder of images.")
