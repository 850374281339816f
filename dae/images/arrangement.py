"""The order of images: by split, then by content; given splits are kept, others made; equal tiles kept once."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dae.errors import UserError
from dae.images import split as splitting
from dae.images.content import digest_of
from dae.images.rows import SPLITS, TEST, TRAIN, VALIDATION, Labels, Numbers, Part, Pixels, Tell

FEW_PICTURES = 10
"""The test tiles of fewer images than this say little of other images."""


@dataclass(slots=True)
class Collection:
    """Images, with what belongs to each, by split and then in the order of their digests.

    Attributes:
        bounds: where each of `SPLITS` begins and ends.
        labels: (0,) without classes.
        numbers: where the pixels were made of other numbers, which.
        pictures: of how many images the tiles of each of `SPLITS` are; None where nothing was cut.
    """

    pixels: Pixels
    noisy: Pixels | None
    labels: Labels
    classes: tuple[str, ...]
    bounds: dict[str, slice]
    fingerprint: str
    numbers: Numbers | None = None
    pictures: tuple[int, ...] | None = None


@dataclass(slots=True)
class Gathered:
    """What was read, an entry a row of the array, which may be longer.

    Attributes:
        origins: digest of the image that the row is, or is a tile of.
        digests: digest of the row.
        places: part and place in it.
        skipped: files that were left out.
    """

    pixels: Pixels
    noisy: Pixels | None
    skipped: list[str]
    origins: list[bytes] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)


def arranged(where: str, parts: Sequence[Part], read: Gathered, are_tiles: bool, tell: Tell) -> Collection:
    """The images in the order of their splits and digests; given splits are kept, others share no image with any."""
    labels, classes = _classes(parts, read, tell)
    splits = _splits(where, parts, read, labels, classes, are_tiles=are_tiles)
    noises = [digest_of(image) for image in read.noisy[: len(splits)]] if read.noisy is not None else []

    def place(row: int) -> tuple[int, bytes, int, bytes]:
        return (
            SPLITS.index(splits[row]),
            read.digests[row],
            int(labels[row]) if len(labels) else 0,
            noises[row] if noises else b"",
        )

    def in_order() -> list[int]:
        rows = sorted(range(len(splits)), key=place)
        return _without_copies(rows, read.digests) if are_tiles else rows

    order = in_order()
    if not _is_covered(where, labels, classes, order, splits, tell):
        labels, classes = np.empty(0, np.uint8), ()
        order = in_order()
    if copies := len(splits) - len(order):
        tell(f"{copies:,} of the {len(splits):,} tiles of {where} are copies of others and were left out")
    _tell_of_copies(where, order, read.digests, splits, tell)
    counts = [sum(splits[row] == split for row in order) for split in SPLITS]
    if empty := [split for split, count in zip(SPLITS, counts, strict=True) if not count]:
        raise UserError(f"{where} has no image for {' and '.join(empty)}: add some.")
    content = hashlib.sha256(f"{read.pixels.shape[1:]}".encode())
    for row in order:
        split, digest, label, noise = place(row)
        content.update(bytes([split]) + digest + label.to_bytes(2, "little") + noise)
    pixels, noisy = (None if images is None else _reordered(images, order) for images in (read.pixels, read.noisy))
    assert pixels is not None
    pixels, noisy = _narrowed(pixels, noisy)
    ends = np.cumsum([0, *counts])
    return Collection(
        pixels=pixels,
        noisy=noisy,
        labels=labels[order] if len(labels) else labels,
        classes=classes,
        bounds={split: slice(int(ends[i]), int(ends[i + 1])) for i, split in enumerate(SPLITS)},
        fingerprint=content.hexdigest(),
        pictures=_pictures(where, order, read, splits, tell) if are_tiles else None,
    )


def _pictures(where: str, order: Sequence[int], read: Gathered, splits: Sequence[str], tell: Tell) -> tuple[int, ...]:
    """Of how many images the tiles of each split are; said where the test set's are few."""
    counts = tuple(len({read.origins[row] for row in order if splits[row] == split}) for split in SPLITS)
    of_split = dict(zip(SPLITS, counts, strict=True))
    if of_split[TEST] < FEW_PICTURES:
        tell(
            f"the tiles of {where} are of {of_split[TRAIN]} images for training, {of_split[VALIDATION]} for validation "
            f"and {of_split[TEST]} for the test"
        )
    return counts


def _classes(parts: Sequence[Part], read: Gathered, tell: Tell) -> tuple[Labels, tuple[str, ...]]:
    """The label of every row and the names of the classes; none where some images have no label."""
    named = [part.labels for part in parts if part.labels is not None]
    none: tuple[Labels, tuple[str, ...]] = np.empty(0, np.uint8), ()
    if not named:
        return none
    if len(named) < len(parts):
        tell("some of the images have labels and some have none: trained without labels")
        return none
    names = sorted({str(name) for labels in named for name in np.unique(labels).tolist()})
    if all(re.fullmatch(r"-?\d{1,99}", name, re.ASCII) for name in names):
        names.sort(key=int)
    if len(names) < 2:
        return none
    if len(names) > 0xFFFF:
        raise UserError(f"the labels name {len(names):,} classes, and at most {0xFFFF:,} are told apart: give none.")
    numbers = {name: number for number, name in enumerate(names)}
    by_part = [[numbers[str(name)] for name in labels.tolist()] for labels in named]
    of_rows = [by_part[part][index] for part, index in read.places]
    return np.array(of_rows, np.uint8) if len(names) <= 0x100 else np.array(of_rows, np.uint16), tuple(names)


def _splits(
    where: str, parts: Sequence[Part], read: Gathered, labels: Labels, classes: Sequence[str], *, are_tiles: bool
) -> list[str]:
    """The split of every row. Missing splits are made of training images that no given split has as well."""
    given = {part.split for part in parts if part.split is not None}
    splits = [parts[part].split or TRAIN for part, _ in read.places]
    missing = [split for split in (TEST, VALIDATION) if split not in given]
    if not missing:
        return splits
    elsewhere = {origin for origin, split in zip(read.origins, splits, strict=True) if split != TRAIN}
    groups: dict[bytes, int] = {}
    has_shared = False
    for row, origin in enumerate(read.origins):
        if splits[row] != TRAIN:
            continue
        if origin in elsewhere:
            has_shared = True
            continue
        label = int(labels[row]) if len(labels) else 0
        groups[origin] = min(label, groups.get(origin, label))
    uncounted = "copies and what given splits share" if has_shared else "copies"
    chosen = splitting.by_content(where, groups, missing, classes, are_tiles=are_tiles, uncounted=uncounted)
    return [
        chosen.get(origin, TRAIN) if split == TRAIN else split
        for origin, split in zip(read.origins, splits, strict=True)
    ]


def _is_covered(
    where: str, labels: Labels, classes: Sequence[str], rows: Sequence[int], splits: Sequence[str], tell: Tell
) -> bool:
    """Whether every class is in every split; what is told of a class needs images of it."""
    seen = {(splits[row], int(labels[row])) for row in rows} if classes else set()
    for split in SPLITS:
        if absent := [name for number, name in enumerate(classes) if (split, number) not in seen]:
            tell(f"no {split} image of {where} is of class {absent[0]}: trained without labels")
            return False
    return True


def _without_copies(order: Sequence[int], digests: Sequence[bytes]) -> list[int]:
    """The first of equal tiles, of which different images have some, such as empty ones."""
    first: dict[bytes, int] = {}
    for row in order:
        first.setdefault(digests[row], row)
    return list(first.values())


def _tell_of_copies(
    where: str, order: Sequence[int], digests: Sequence[bytes], splits: Sequence[str], tell: Tell
) -> None:
    """Say of every two splits how many images of the one are in the other too; only given ones share any."""
    there = {split: {digests[row] for row in order if splits[row] == split} for split in SPLITS}
    for one, other in ((TEST, TRAIN), (VALIDATION, TRAIN), (TEST, VALIDATION)):
        if copies := sum(splits[row] == one and digests[row] in there[other] for row in order):
            tell(
                f"{copies:,} of the {one} images of {where} are {other} images too: the splits are kept as they were "
                "given"
            )


def _reordered(images: Pixels, order: Sequence[int]) -> Pixels:
    """The rows in this order and no others, moved within the array: a second one may not fit into the memory."""
    rest = sorted(set(range(len(images))) - set(order)) if len(order) < len(images) else []
    sources = [*order, *rest]
    is_done = np.zeros(len(sources), dtype=bool)
    for begin in range(len(sources)):
        if is_done[begin] or sources[begin] == begin:
            continue
        first, target = images[begin].copy(), begin
        while (source := sources[target]) != begin:
            images[target], is_done[target], target = images[source], True, source
        images[target], is_done[target] = first, True
    return images[: len(order)]


def _narrowed(pixels: Pixels, noisy: Pixels | None) -> tuple[Pixels, Pixels | None]:
    """As 8 bits where these hold all: equal pixels are equal datasets, however they were stored."""
    if pixels.dtype == np.uint8 or max(pixels.max(), 0 if noisy is None else noisy.max()) > 0xFF:
        return pixels, noisy
    return pixels.astype(np.uint8), None if noisy is None else noisy.astype(np.uint8)
