"""Which picture files are read, and where each goes."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Routes:
    """The picture files among what was given.

    Attributes:
        todo: those to denoise.
        done: how many were left out since their denoised pictures are there.
        others: of the files of folders that were left out, how many of which kind.
    """

    todo: list[Route]
    done: int
    others: Counter[str] = field(default_factory=Counter)


def routes(given: Sequence[str], output: Path, *, overwrite: bool, skip_existing: bool, compare: bool) -> Routes:
    """The picture files among what is given, files and folders; those of a folder keep their path in it.

    Args:
        given: paths.
        output: the folder that they go to.
        overwrite: files that are there may be replaced.
        skip_existing: leave out pictures whose denoised ones are there.
        compare: pictures of before and after are written too.

    Raises:
        UserError: there is none, two would go to one file, or a file is there already.
    """
    others: Counter[str] = Counter()
    found = [Route(source, target) for text in given for source, target in _sources(_path(text), output, others)]
    by_source = {_real(route.source): route for route in found}  # what is given twice is read once
    unique = list(by_source.values())
    counts = Counter(path for route in unique for path in _targets(route, compare=compare))
    if twice := next((path for path, count in counts.items() if count > 1), None):
        raise UserError(f"two pictures would be written to {output / twice}: denoise them to folders of their own.")
    for path in counts:
        if _real(output / path) in by_source:
            raise UserError(
                f"{output / path} would be overwritten, which is one of the pictures given: give another --out."
            )
    if skip_existing:
        todo = [route for route in unique if not os.path.lexists(output / route.target)]
        return Routes(todo, len(unique) - len(todo), others)
    there = [path for path in counts if os.path.lexists(output / path)]
    if there and not overwrite:
        raise UserError(
            f"{output / there[0]} is there already: give another --out, --overwrite, or --skip-existing to denoise the "
            "others alone."
        )
    return Routes(unique, 0, others)


def _targets(route: Route, *, compare: bool) -> list[Path]:
    return [route.target, *[route.comparison] * compare]


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"there is no file or folder {text}: {str(error).rstrip('.')}.") from error


def _real(path: Path) -> str:
    """Where the path leads; of links in a circle, that of the first."""
    return os.path.realpath(path)


def _sources(path: Path, output: Path, others: Counter[str]) -> Iterator[tuple[Path, Path]]:
    """The picture files in a folder, or the file itself, each with its path in the output folder."""
    if not os.path.lexists(path):
        raise UserError(f"there is no file or folder {path}.")
    if not os.path.isdir(path):  # noqa: PTH112  (no error, whatever the path is)
        yield path, Path(path.name)
        return
    sources = sorted(_walk(path, _real(output), others))
    if not sources:
        raise UserError(f"the folder {path} holds no pictures: {READABLE}.")
    for source in sources:
        yield source, source.relative_to(path)


def _walk(folder: Path, output: str, others: Counter[str]) -> Iterable[Path]:
    """The picture files below a folder, without those of the output folder, hidden ones and earlier comparisons."""
    for root, folders, names in os.walk(folder):
        inside = [name for name in folders if not name.startswith(".")]
        folders[:] = [name for name in inside if _real(Path(root) / name) != output]
        for name in names:
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() not in SUFFIXES:
                others["of other kinds"] += 1
            elif name.endswith(COMPARISON):
                others["of pictures of before and after"] += 1
            else:
                yield Path(root) / name
