"""A folder of images: flat, a subfolder a class, splits of either, and pairs of clean and noisy ones."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dae.errors import UserError
from dae.images import picture
from dae.images.rows import TEST, TRAIN, VALIDATION, Kind, Part, Range, Unreadable

CLEAN, NOISY = "clean", "noisy"
SPLIT_FOLDERS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
} | {
    "test": TEST,
    "testing": TEST,
}
NO_IMAGES = ("thumbs.db", "desktop.ini", "__macosx")
"""What file managers and archives leave, beside hidden files, in lower case."""


class Pictures:
    """Files of images, as `dae.images.rows.Rows`."""

    step = 1
    number: np.dtype[Any] | None = None

    def __init__(self, files: Sequence[Path], *, skip_unreadable: bool) -> None:
        self.files, self.count, self.with_alpha = files, len(files), 0
        self._skip_unreadable = skip_unreadable

    def name(self, index: int) -> str:
        """The file's path."""
        return str(self.files[index])

    def kinds(self) -> Iterator[Kind | None]:
        """From the beginning of each file.

        Raises:
            Unreadable: one is no image, and such are not skipped.
        """
        for file in self.files:
            try:
                yield picture.kind_of(file)[0]
            except Unreadable:
                if not self._skip_unreadable:
                    raise
                yield None

    def range(self) -> Range:
        """Whatever a pixel of 16 bits may be; files hold pixels."""
        return Range(0, 0xFFFF, is_whole=True)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """The images; one at a time, since they may differ in size."""
        pixels, has_alpha = picture.read(self.files[start])
        self.with_alpha += has_alpha
        return pixels[None]


class Tree:
    """The folders and files below a folder, hidden ones and loops of links aside.

    Attributes:
        skipped: files that are no images and were left out.
    """

    def __init__(self, *, skip_unreadable: bool) -> None:
        self.skipped: list[str] = []
        self._skip_unreadable = skip_unreadable

    def parts(self, folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> list[Part]:
        """The images of the folder in whichever layout it has.

        Raises:
            UserError: it has none, or they cannot be told apart.
        """
        above = _descended(folder, above)
        folders, files = listing(folder)
        names = {entry.name.lower(): entry for entry in folders}
        if CLEAN in names or NOISY in names:
            self._refuse_others(folder, folders, files, (CLEAN, NOISY))
            if missing := {CLEAN, NOISY} - names.keys():
                raise UserError(
                    f"{folder} has no folder {missing.pop()}/: pairs are two folders, clean/ and noisy/, with files of "
                    "the same names. Add it, or rename the other where these are no pairs."
                )
            return self._pairs(names[CLEAN], names[NOISY], above)
        splits = {name: split for name, split in SPLIT_FOLDERS.items() if name in names}
        if TRAIN in splits.values():
            self._refuse_others(folder, folders, files, splits)
            if len(set(splits.values())) < len(splits):
                raise UserError(f"{folder} has two folders of one split among {', '.join(splits)}: keep one of each.")
            return [
                Part(split, part.clean, part.noisy, part.labels)
                for name, split in splits.items()
                for part in self.parts(names[name], above)
            ]
        if len(splits) == len(folders) > 0:
            raise UserError(f"{folder} has {', '.join(splits)} and no train/: put the training images into train/.")
        return [self._classes(folder, folders, files, above)]

    def _classes(
        self, folder: Path, folders: Sequence[Path], files: Sequence[Path], above: frozenset[tuple[int, int]]
    ) -> Part:
        """Images in one folder, or in a folder a class."""
        if not folders:
            if not files:
                raise UserError(f"{folder} holds no image: give a folder of {', '.join(picture.FORMATS)} files.")
            return Part(None, self._pictures(files))
        self._refuse_files(folder, files)
        classes = {inner.name: below(inner, above) for inner in folders}
        if empty := [name for name, images in classes.items() if not images]:
            raise UserError(f"{folder / empty[0]} holds no image: a folder is a class; add images or remove it.")
        labels = np.repeat(list(classes), [len(images) for images in classes.values()])
        return Part(None, self._pictures([file for images in classes.values() for file in images]), labels=labels)

    def _pictures(self, files: Sequence[Path]) -> Pictures:
        return Pictures(files, skip_unreadable=self._skip_unreadable)

    def _pairs(self, clean: Path, noisy: Path, above: frozenset[tuple[int, int]]) -> list[Part]:
        counterparts = self._by_stem(noisy, below(noisy, above))
        parts: list[Part] = []
        for part in self.parts(clean, above):
            assert isinstance(part.clean, Pictures)
            if part.noisy is not None:
                raise UserError(
                    f"{clean} holds clean/ and noisy/ again: pairs are two folders with files of the same names."
                )
            files = self._by_stem(clean, part.clean.files)
            self._without_counterpart(files, counterparts, noisy)
            places = {file: index for index, file in enumerate(part.clean.files)}
            labels = None if part.labels is None else part.labels[[places[file] for file in files.values()]]
            others = [counterparts.pop(stem) for stem in files]
            parts.append(Part(part.split, self._pictures(list(files.values())), self._pictures(others), labels))
        self._without_counterpart(counterparts, {}, clean)
        return parts

    def _by_stem(self, folder: Path, files: Iterable[Path]) -> dict[Path, Path]:
        """Files below a folder by their place in it, without the ending of the name: formats of a pair may differ."""
        found: dict[Path, Path] = {}
        for file in files:
            stem = file.relative_to(folder).with_suffix("")
            if (other := found.get(stem)) is None:
                found[stem] = file
                continue
            if self._is_left_out(other):
                found[stem] = file
            elif not self._is_left_out(file):
                raise UserError(f"{other} and {file} have one name but for the ending: a pair is one file of each.")
        return found

    def _without_counterpart(self, files: dict[Path, Path], counterparts: Mapping[Path, Path], where: Path) -> None:
        """Take those files out that have no counterpart and are no images.

        Raises:
            UserError: one is an image, or such are not skipped.
        """
        missing = [stem for stem in files if stem not in counterparts]
        if images := [files[stem] for stem in missing if not self._is_left_out(files[stem])]:
            raise UserError(_no_counterpart(images[0], where, len(images)))
        for stem in missing:
            del files[stem]

    def _is_left_out(self, file: Path) -> bool:
        """Whether the file is no image, and is skipped as such.

        Raises:
            UserError: it is none, and such are not skipped.
        """
        try:
            picture.kind_of(file)
        except Unreadable as reason:
            if not self._skip_unreadable:
                raise unreadable(reason) from reason
            self.skipped.append(str(file))
            return True
        return False

    def _refuse_others(
        self, folder: Path, folders: Iterable[Path], files: Sequence[Path], allowed: Iterable[str]
    ) -> None:
        """Refuse what stands beside folders that have a meaning."""
        allowed = tuple(allowed)
        if others := [inner.name for inner in folders if inner.name.lower() not in allowed]:
            raise UserError(
                f"{folder} has {others[0]}/ beside {' and '.join(f'{name}/' for name in allowed)}: move it "
                "elsewhere, or rename those where they are classes."
            )
        self._refuse_files(folder, files)

    def _refuse_files(self, folder: Path, files: Sequence[Path]) -> None:
        """Refuse files beside folders; those that are no images are unreadable ones like any other."""
        for file in files:
            if not self._is_left_out(file):
                raise UserError(
                    f"{file} is an image beside folders of images: put all into {folder} itself, or all into folders, "
                    "one a class."
                )


def unreadable(reason: Unreadable) -> UserError:
    """What a user is told of it."""
    return UserError(f"{reason}. Remove or mend it, or give --skip-unreadable to go on without such files.")


def listing(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files in it by name, without hidden ones and what file managers leave.

    Raises:
        UserError: it cannot be read.
    """
    folders: list[Path] = []
    files: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in NO_IMAGES:
                    continue
                (folders if _is_folder(entry) else files).append(folder / entry.name)
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}. Give a folder that can be read.") from error
    return sorted(folders), sorted(files)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; it is no image either
        return False


def below(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> list[Path]:
    """All files in a folder and its folders.

    Raises:
        UserError: a link in it leads back above it.
    """
    above = _descended(folder, above)
    folders, files = listing(folder)
    return files + [file for inner in folders for file in below(inner, above)]


def _descended(folder: Path, above: frozenset[tuple[int, int]]) -> frozenset[tuple[int, int]]:
    """The folders above what is in this one, of which ``above`` are those above itself."""
    try:
        status = folder.stat()
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}. Give a folder that can be read.") from error
    identity = status.st_dev, status.st_ino
    if identity in above:
        raise UserError(f"{folder} is a link to a folder that holds it, so that it has no end: remove the link.")
    return above | {identity}


def _no_counterpart(file: Path, where: Path, count: int) -> str:
    more = "" if count == 1 else f", nor do {count - 1:,} more have one"
    return (
        f"{file} has no counterpart of that name in {where}{more}: clean/ and noisy/ must have files of the same names."
    )
