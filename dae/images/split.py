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
    where: str, groups: Mapping[bytes, int], missing: Sequence[str], classes: Sequence[str], *, are_tiles: bool
) -> dict[bytes, str]:
    """The split of every image, by its digest.

    Args:
        where: the place of the images, for messages.
        groups: for the digest of every image its class, 0 without classes.
        missing: the splits that were not given: the others get nothing of these images, but for training.
        classes: names of the classes; empty without.
        are_tiles: whether they were cut, for messages.

    Raises:
        UserError: there are too few different images.
    """
    members: dict[int, list[bytes]] = {}
    for digest in sorted(groups):
        members.setdefault(groups[digest], []).append(digest)
    splits: dict[bytes, str] = {}
    for label, digests in sorted(members.items()):
        needed = [split for split in SPLITS if split == TRAIN or split in missing]
        if len(digests) < len(needed):
            of_class = f" of class {classes[label]}" if classes else ""
            number = f"{len(digests)} image{'s' * (len(digests) != 1)}"
            raise UserError(
                f"{where} has {number}{of_class}, copies not counted: {', '.join(needed[:-1])} and {needed[-1]} "
                f"need at least one each{', and no image has tiles in two of them' * are_tiles}. "
                + ("Add images, or put all into one folder without classes." if classes else "Add images.")
            )
        tested = max(1, round(TEST_SHARE * len(digests))) if TEST in missing else 0
        left = len(digests) - tested
        validated = min(max(1, round(VALIDATION_SHARE * left)), left - 1) if VALIDATION in missing else 0
        for index, digest in enumerate(digests):
            splits[digest] = TEST if index < tested else VALIDATION if index < tested + validated else TRAIN
    return splits
