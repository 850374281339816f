"""The split of images into training, validation and test, by their content alone.

The digests of the images, not their places or names, say which image goes where. Equal images go the same way. Where
there are classes each is split for itself, so that none is missing from a split.
"""

from collections.abc import Mapping, Sequence

from dae.errors import UserError
from dae.images.rows import SPLITS, TEST, TRAIN, VALIDATION

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.2
"""Of what is not the test set."""


def by_content(
    where: str,
    groups: Mapping[bytes, int],
    missing: Sequence[str],
    classes: Sequence[str],
    *,
    are_tiles: bool,
    uncounted: str = "copies",
) -> dict[bytes, str]:
    """The split of every image, by its digest.

    Args:
        where: the place of the images, for messages.
        groups: for the digest of every image its class, 0 without classes.
        missing: the splits that were not given: the others get nothing of these images, but for training.
        classes: names of the classes; empty without.
        are_tiles: whether they were cut, for messages.
        uncounted: what is not among ``groups``, for messages.

    Raises:
        UserError: there are too few different images.
    """
    if not groups:
        _sizes(where, 0, missing, f", {uncounted} not counted", name=None, are_tiles=are_tiles)
    members: dict[int, list[bytes]] = {}
    for digest in sorted(groups):
        members.setdefault(groups[digest], []).append(digest)
    splits: dict[bytes, str] = {}
    for label, digests in sorted(members.items()):
        name = classes[label] if classes else None
        tested, validated = _sizes(
            where, len(digests), missing, f", {uncounted} not counted", name=name, are_tiles=are_tiles
        )
        for index, digest in enumerate(digests):
            splits[digest] = TEST if index < tested else VALIDATION if index < tested + validated else TRAIN
    return splits


def kept_share(where: str, counts: Mapping[str | None, int], missing: Sequence[str], *, are_tiles: bool) -> float:
    """What part of images of which so many are of each class stays for training; copies may make it another.

    Args:
        where: the place of the images, for messages.
        counts: by the name of the class; None where there are no classes.
        missing: the splits that were not given.
        are_tiles: whether they are to be cut, for messages.

    Raises:
        UserError: there are too few images.
    """
    total = sum(counts.values())
    taken = [_sizes(where, count, missing, "", name=name, are_tiles=are_tiles) for name, count in counts.items()]
    return 1 - sum(map(sum, taken)) / total if total else 0.0


def _sizes(
    where: str, count: int, missing: Sequence[str], counted: str, *, name: str | None, are_tiles: bool
) -> tuple[int, int]:
    """How many of the images of a class are for the test and for validation."""
    needed = [split for split in SPLITS if split == TRAIN or split in missing]
    if count < len(needed):
        of_class = "" if name is None else f" of class {name}"
        raise UserError(
            f"{where} has {count} image{'s' * (count != 1)}{of_class}{counted}: {', '.join(needed[:-1])} and "
            f"{needed[-1]} need at least one each{', and no image has tiles in two of them' * are_tiles}. "
            + ("Add images." if name is None else "Add images, or put all into one folder without classes.")
        )
    tested = max(1, round(TEST_SHARE * count)) if TEST in missing else 0
    left = count - tested
    validated = min(max(1, round(VALIDATION_SHARE * left)), left - 1) if VALIDATION in missing else 0
    return tested, validated
