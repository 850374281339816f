"""All images of a source, in one array: read, cut into tiles, split, in an order that their content gives."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from dae.config import LEAST_SIZE
from dae.errors import UserError
from dae.images import tiles
from dae.images.arrangement import Collection, Gathered, arranged
from dae.images.arrays import checked_alike
from dae.images.content import digest_of
from dae.images.folder import unreadable
from dae.images.rows import Kind, Numbers, Part, Pixels, Range, Rows, Tell, Unreadable

COPIES = 2
"""Of the images that a sweep holds: the command's own, and the one that all trials, or all that evaluate, share."""
MANY = 10_000
"""Images that take a while to read."""
PROGRAM_BYTES = 600 * 2**20
"""About what the command and Ray take beside."""


@dataclass(slots=True)
class _Scale:
    """From the numbers of a source to pixels of 8 or 16 bits."""

    is_deep: bool
    low: float = 0.0
    factor: float | None = None
    """None where numbers are pixels as they are."""

    @classmethod
    def of(cls, found: Range) -> "_Scale":
        """Whole numbers that fit are kept, others scaled: from 0 to 1 if they lie there, else from end to end."""
        if found.is_whole and found.low >= 0 and found.high <= 0xFFFF:
            return cls(is_deep=found.high > 0xFF)
        low, high = (0.0, 1.0) if found.low >= 0 and found.high <= 1 else (found.low, found.high)
        return cls(True, float(low), float(0xFFFF / (high - low)) if high > low else 1.0)

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Of the pixels."""
        return np.uint16 if self.is_deep else np.uint8

    def pixels(self, images: npt.NDArray[Any]) -> Pixels:
        if self.factor is not None:
            images = np.rint((images.astype(np.float64) - self.low) * self.factor)
        return np.ascontiguousarray(images, np.uint16) if self.is_deep else np.ascontiguousarray(images, np.uint8)

    def room(self, shape: tuple[int, ...]) -> Pixels:
        """An array for such pixels."""
        return np.empty(shape, np.uint16) if self.is_deep else np.empty(shape, np.uint8)


def collect(
    where: str,
    parts: Sequence[Part],
    *,
    patch: int | None,
    skip_unreadable: bool,
    skipped: Sequence[str] = (),
    memory: int | None,
    tell: Tell,
) -> Collection:
    """Read all images.

    Args:
        where: their place, for messages.
        parts: the images by split.
        patch: height and width of the tiles to cut; None for whole images.
        skip_unreadable: leave files out that are no images or damaged.
        skipped: files that were left out already.
        memory: bytes that the machine allows; None where nobody asks.
        tell: is told what a user should know of what was done.

    Raises:
        UserError: they cannot be used together, or do not fit.
    """
    rows, numbers = _rows(parts), _numbers(parts)
    first = first_kind(where, parts, patch)
    count = sum(counts_of(parts, first, patch))
    scale = _Scale.of(_range(rows)) if numbers else _Scale(is_deep=first.bits == 16)
    size = (patch, patch) if patch is not None else (first.height, first.width)
    shape = size if first.channels == 1 else (*size, first.channels)
    _check_fits(where, count, shape, scale.dtype, is_paired=parts[0].noisy is not None, memory=memory)
    if scale.factor is not None:
        tell(f"the numbers in {where} are no whole ones from 0 to 65535: they were scaled to pixels of 16 bits")
    read = Gathered(
        scale.room((count, *shape)),
        None if parts[0].noisy is None else scale.room((count, *shape)),
        skipped=list(skipped),
    )
    if count >= MANY:
        tell(f"reading {count:,} images of {where}")
    for number, part in enumerate(parts):
        _read_part(read, number, part, first, scale, patch=patch, skip_unreadable=skip_unreadable)
    _tell_of(where, rows, read, tell)
    _check_varied(where, read)
    collection = arranged(where, parts, read, patch is not None, tell)
    return collection if scale.factor is None else replace(collection, numbers=Numbers(scale.low, scale.factor))


def _check_varied(where: str, read: Gathered) -> None:
    """Refuse images in which nothing is to be seen; single ones may be of one grey.

    Raises:
        UserError: they are all of the same.
    """
    pixels = read.pixels[: len(read.digests)]
    if len(pixels) and (low := pixels.min()) == pixels.max():
        raise UserError(f"every pixel of every image in {where} is {low}: there is nothing to learn from. Give others.")


def first_kind(where: str, parts: Sequence[Part], patch: int | None) -> Kind:
    """What the first image is like that can be read, as the others have to be.

    Raises:
        UserError: there is none, or it is too small.
    """
    try:
        first = next((kind for part in parts for kind in part.clean.kinds() if kind is not None), None)
    except Unreadable as reason:
        raise unreadable(reason) from reason
    if first is None:
        raise UserError(f"{where} holds no image that can be read.")
    if patch is not None and patch < LEAST_SIZE:
        raise UserError(f"--patch {patch} is out of range: it must be at least {LEAST_SIZE}.")
    if min(first.height, first.width) < LEAST_SIZE:
        raise UserError(
            f"{first.name} is {first.size} pixels: images must have at least {LEAST_SIZE}x{LEAST_SIZE}, "
            "height times width."
        )
    return first


def _rows(parts: Sequence[Part]) -> list[Rows]:
    return [rows for part in parts for rows in (part.clean, part.noisy) if rows is not None]


def _numbers(parts: Sequence[Part]) -> list[tuple[str, np.dtype[Any]]]:
    """The name of every array and the type of its numbers."""
    return [(rows.name(0).rpartition("[")[0], rows.number) for rows in _rows(parts) if rows.number is not None]


def _range(rows: Sequence[Rows]) -> Range:
    ranges = [images.range() for images in rows if images.count]
    found = ranges[0]
    for other in ranges[1:]:
        found = found.union(other)
    return found


def counts_of(parts: Sequence[Part], first: Kind, patch: int | None, *, thorough: bool = False) -> list[int]:
    """How many images or tiles there will be of each part at most.

    Args:
        parts: the images by split.
        first: what the first of them is like, see `first_kind`.
        patch: height and width of the tiles to cut; None for whole images.
        thorough: look at the beginning of every file; for tiles that is done anyway.

    Raises:
        UserError: an image is smaller than a tile, or cannot be used together with the others, as far as that is seen.
    """
    checked_alike(_numbers(parts))
    if patch is None and not thorough:
        return [part.clean.count for part in parts]
    try:
        return [_count_of(part, first, patch) for part in parts]
    except Unreadable as reason:
        raise unreadable(reason) from reason


def _count_of(part: Part, first: Kind, patch: int | None) -> int:
    is_scaled = part.clean.number is not None
    # The images of an array are all alike.
    kinds = islice(part.clean.kinds(), 1) if is_scaled else part.clean.kinds()
    others = repeat(None) if part.noisy is None else part.noisy.kinds()
    count = 0
    for kind, other in zip(kinds, others, strict=False):
        if kind is None:
            continue
        _check_alike(first, kind, patch, is_scaled=is_scaled)
        if other is not None:
            _check_pair(kind, other, is_scaled=is_scaled)
        count += 1 if patch is None else tiles.count(kind.height, kind.width, patch)
    return count * part.clean.count if is_scaled else count


def _check_patch(kind: Kind, patch: int) -> None:
    if min(kind.height, kind.width) < patch:
        raise UserError(
            f"--patch {patch} is larger than {kind.name}, which is {kind.size} pixels: give at most "
            f"{min(kind.height, kind.width)}, or leave the image out."
        )


def _check_fits(
    where: str, count: int, shape: Sequence[int], dtype: type[np.generic], *, is_paired: bool, memory: int | None
) -> None:
    size = count * int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize * (1 + is_paired)
    if memory is not None and COPIES * size + PROGRAM_BYTES > memory:
        raise UserError(
            f"the {count:,} images of {where}, {'x'.join(map(str, shape))} in {np.dtype(dtype).name}"
            f"{' and as many noisy ones' * is_paired}, take {_gib(size)}. A sweep holds them twice, for itself and for "
            f"its trials, and takes {_gib(PROGRAM_BYTES)} beside: {_gib(COPIES * size + PROGRAM_BYTES)} of the "
            f"{_gib(memory)} that this machine or its container allows. Give fewer or smaller images."
        )


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"


def _read_part(
    read: Gathered, number: int, part: Part, first: Kind, scale: _Scale, *, patch: int | None, skip_unreadable: bool
) -> None:
    is_scaled = part.clean.number is not None
    for start, clean, noisy in _pieces(part, read.skipped, skip_unreadable=skip_unreadable):
        for index in range(len(clean)):
            kind = Kind.of(clean[index], part.clean.name(start + index))
            _check_alike(first, kind, patch, is_scaled=is_scaled)
            if noisy is not None:
                assert part.noisy is not None
                _check_pair(kind, Kind.of(noisy[index], part.noisy.name(start + index)), is_scaled=is_scaled)
        pixels = scale.pixels(clean)
        noisy_pixels = None if noisy is None else scale.pixels(noisy)
        for index, image in enumerate(pixels):
            origin = digest_of(image)
            begin = len(read.digests)
            if patch is None:
                read.pixels[begin] = image
                read.digests.append(origin)
                if read.noisy is not None and noisy_pixels is not None:
                    read.noisy[begin] = noisy_pixels[index]
            else:
                corner = tiles.corner(origin, image.shape[0], image.shape[1], patch)
                cut = tiles.cut(image, patch, corner)
                read.pixels[begin : begin + len(cut)] = cut
                read.digests += map(digest_of, cut)
                if read.noisy is not None and noisy_pixels is not None:
                    read.noisy[begin : begin + len(cut)] = tiles.cut(noisy_pixels[index], patch, corner)
            rows = len(read.digests) - begin
            read.origins += [origin] * rows
            read.places += [(number, start + index)] * rows


def _pieces(
    part: Part, skipped: list[str], *, skip_unreadable: bool
) -> Iterator[tuple[int, npt.NDArray[Any], npt.NDArray[Any] | None]]:
    """Clean and noisy images from where on, a piece at a time."""
    step = part.clean.step
    for start in range(0, part.clean.count, step):
        stop = min(start + step, part.clean.count)
        reading = part.clean
        try:
            clean, noisy = part.clean.read(start, stop), None
            if part.noisy is not None:
                reading = part.noisy
                noisy = part.noisy.read(start, stop)
        except Unreadable as reason:
            if not skip_unreadable:
                raise unreadable(reason) from reason
            skipped.append(reading.name(start))
            continue
        yield start, clean, noisy


def _check_alike(first: Kind, kind: Kind, patch: int | None, *, is_scaled: bool) -> None:
    """Refuse images that cannot be trained on together.

    Raises:
        UserError: they differ in colour, bits or, without tiles, in size.
    """
    if kind.channels != first.channels:
        raise UserError(
            f"{first.name} is {first.colour} and {kind.name} {kind.colour}: a dataset is all grey or all colour. Make "
            "them alike, or give folders of their own."
        )
    if kind.bits != first.bits and not is_scaled:
        raise UserError(
            f"{first.name} has {first.bits} bits a channel and {kind.name} {kind.bits}: make them alike, so that equal "
            "numbers mean equal light."
        )
    if patch is None and (kind.height, kind.width) != (first.height, first.width):
        side = min(kind.height, kind.width, first.height, first.width)
        raise UserError(
            f"{first.name} is {first.size} pixels and {kind.name} {kind.size}: images must be of one size. Cut "
            f"tiles of one, such as --patch {min(64, side)}."
        )
    if patch is not None:
        _check_patch(kind, patch)


def _check_pair(clean: Kind, noisy: Kind, *, is_scaled: bool) -> None:
    """Refuse two images that are no pair.

    Raises:
        UserError: they differ in size, colour or bits.
    """
    one, other = ((kind.size, kind.channels, 0 if is_scaled else kind.bits) for kind in (clean, noisy))
    if one != other:
        texts = [f"{kind.name} is {kind.size}, {kind.colour}, {kind.bits} bits" for kind in (noisy, clean)]
        raise UserError(f"{', but '.join(texts)}: a pair is two images of one size, colour and number of bits.")


def _tell_of(where: str, rows: Sequence[Rows], read: Gathered, tell: Tell) -> None:
    if with_alpha := sum(images.with_alpha for images in rows):
        tell(f"{with_alpha:,} of the images of {where} have an alpha channel, which is dropped")
    if read.skipped:
        more = f" and {len(read.skipped) - 3:,} more" * (len(read.skipped) > 3)
        tell(f"skipped {len(read.skipped):,} unreadable in {where}: {', '.join(read.skipped[:3])}{more}")
