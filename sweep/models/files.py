"""Which picture files are read, and where each goes."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dae.errors import UserError
from sweep.models.pictures import READABLE

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
"""Of the files of a folder these are taken for pictures."""
COMPARISON = ".compare.png"
"""Ends the name of a picture of before and after."""


@dataclass(frozen=True, slots=True)
class Route:
    """A picture file and where it goes: ``target`` is its path below the output folder."""

    source: Path
    target: Path

    @property
    def comparison(self) -> Path:
        """Where the picture of before and after goes, below the output folder."""
        return self.target.with_name(self.target.stem + COMPARISON)


def routes(given: Sequence[str], output: Path, *, overwrite: bool, compare: bool) -> list[Route]:
    """The picture files among what is given, files and folders; those of a folder keep their path in it.

    Raises:
        UserError: there is none, two would go to one file, or a file is there already.
    """
    found = [Route(source, target) for text in given for source, target in _sources(Path(text).expanduser(), output)]
    by_source = {route.source.resolve(): route for route in found}  # what is given twice is read once
    unique = list(by_source.values())
    targets = [path for route in unique for path in [route.target, *[route.comparison] * compare]]
    if (
        twice := next((path for path in targets if targets.count(path) > 1), None)
        if len(set(targets)) < len(targets)
        else None
    ):
        raise UserError(f"two pictures would be written to {output / twice}: denoise them to folders of their own.")
    for path in targets:
        if (output / path).resolve() in by_source:
            raise UserError(
                f"{output / path} would be overwritten, which is one of the pictures given: give another --out."
            )
        if (output / path).exists() and not overwrite:
            raise UserError(f"{output / path} is there already: give another --out, or --overwrite.")
    return unique


def _sources(path: Path, output: Path) -> Iterator[tuple[Path, Path]]:
    """The picture files in a folder, or the file itself, each with its path in the output folder."""
    if not path.exists():
        raise UserError(f"there is no file or folder {path}.")
    if not path.is_dir():
        yield path, Path(path.name)
        return
    sources = sorted(_walk(path, output.resolve()))
    if not sources:
        raise UserError(f"the folder {path} holds no pictures: {READABLE}.")
    for source in sources:
        yield source, source.relative_to(path)


def _walk(folder: Path, output: Path) -> Iterable[Path]:
    """The picture files below a folder, without those of the output folder and without hidden ones."""
    for root, folders, names in os.walk(folder):
        inside = [name for name in folders if not name.startswith(".")]
        folders[:] = [name for name in inside if (Path(root) / name).resolve() != output]
        for name in names:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(root) / name
