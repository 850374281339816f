"""A user's own images: laws of reading and splitting them, and the layouts and formats in which they come."""

import gzip
import io
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dae.config import ImageShape
from dae.data import Dataset, load
from dae.errors import UserError
from dae.images import picture, tiles
from dae.images.arrangement import _reordered
from dae.images.content import digest_of
from dae.images.location import is_path, name_of
from dae.images.source import describe

Array = npt.NDArray[Any]
NOWHERE = Path("nowhere")


def drawn(count: int, *shape: int, dtype: Any = np.uint8, seed: int = 0) -> Array:
    high = int(np.iinfo(dtype).max) + 1
    return np.random.default_rng(seed).integers(0, high, (count, *(shape or (12, 10)))).astype(dtype)


def save(
    images: Array, folder: Path, labels: Any = None, names: Any = None, suffix: str = "png", **options: Any
) -> Path:
    """The images as files, in a folder a class where there are labels."""
    for index, image in enumerate(images):
        place = folder if labels is None else folder / str(labels[index])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index if names is None else names[index]}.{suffix}", **options)
    return folder


def idx(array: Array) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def read(path: Path, **options: Any) -> Dataset:
    return load(str(path), NOWHERE, **options)


def told(path: Path, **options: Any) -> tuple[Dataset, str]:
    said: list[str] = []
    return read(path, tell=said.append, **options), "; ".join(said)


def contents(dataset: Dataset) -> list[Any]:
    arrays = [dataset.train, dataset.validation, dataset.test]
    arrays += [dataset.train_labels, dataset.validation_labels, dataset.test_labels]
    if dataset.noisy is not None:
        arrays += [dataset.noisy.train, dataset.noisy.validation, dataset.noisy.test]
    return [dataset.fingerprint, *((array.dtype, array.shape, array.tobytes()) for array in arrays)]


def images_of(dataset: Dataset) -> list[set[bytes]]:
    return [{digest_of(image) for image in part} for part in (dataset.train, dataset.validation, dataset.test)]


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(path, **options)
    return str(caught.value)


# ---- laws


def test_the_same_pixels_are_the_same_dataset_wherever_and_however_they_are_stored(tmp_path: Path) -> None:
    images, labels = drawn(40), np.arange(40) % 3
    order = np.random.default_rng(1).permutation(40)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    np.savez_compressed(tmp_path / "b.npz", x=images[order].astype(float), y=labels[order, None])
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx" / "train-images.idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "idx" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels.astype(np.uint8))))
    save(images, tmp_path / "here", labels)
    save(images[order].astype(np.uint16), tmp_path / "there" / "again", labels[order], suffix="tiff")
    datasets = [read(tmp_path / name) for name in ("a.npz", "b.npz", "here", "there/again")]
    assert all(contents(dataset) == contents(datasets[0]) for dataset in datasets)
    assert datasets[0].classes == ("0", "1", "2")
    assert datasets[0].train.dtype == np.uint8
    with_idx = read(tmp_path / "idx")  # its images are given as training images: the test images come from these
    assert with_idx.fingerprint == datasets[0].fingerprint


@pytest.mark.parametrize("names", [("x_train", "x_test"), ("clean", "noisy")])
@pytest.mark.parametrize(
    ("one", "other", "is_refused"),
    [("u1", "u2", True), ("u1", "i8", True), ("f4", "u1", True), ("f4", "f8", False), ("<u2", ">u2", False)],
)
def test_arrays_are_of_one_type_of_number(
    tmp_path: Path, names: tuple[str, str], one: str, other: str, is_refused: bool
) -> None:
    arrays = (drawn(20).astype(one), drawn(20, seed=1).astype(other))
    np.savez(tmp_path / "x.npz", **dict(zip(names, arrays, strict=True)))
    if not is_refused:
        assert len(read(tmp_path / "x.npz").test)
        return
    assert "save all images as one type of number" in refusal(tmp_path / "x.npz")
    with pytest.raises(UserError, match="save all images as one type"):
        describe(str(tmp_path / "x.npz"))


@settings(max_examples=25)
@given(st.permutations(range(11)), st.lists(st.integers(0, 10), max_size=8), st.booleans())
def test_neither_order_nor_copies_move_an_image_and_no_copy_straddles(
    order: list[int], copies: list[int], has_labels: bool
) -> None:
    images, labels = drawn(11), np.arange(11) % 2
    chosen = np.array([*order, *copies])
    with tempfile.TemporaryDirectory() as folder:
        plain, other = Path(folder) / "plain.npz", Path(folder) / "other.npz"
        np.savez(plain, x=images, **({"y": labels} if has_labels else {}))
        np.savez(other, x=images[chosen], **({"y": labels[chosen]} if has_labels else {}))
        dataset, undisturbed = read(other), read(plain)
    assert images_of(dataset) == images_of(undisturbed)
    train, validation, test = images_of(dataset)
    assert not train & validation | train & test | validation & test
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == len(chosen)
    assert (dataset.fingerprint == undisturbed.fingerprint) == (not copies)
    if has_labels:
        known = {digest_of(image): label for image, label in zip(images, labels, strict=True)}
        assert [known[digest_of(image)] for image in dataset.train] == dataset.train_labels.tolist()
        assert set(dataset.test_labels.tolist()) == {0, 1}


def test_a_fifth_is_the_test_set_and_of_the_rest_a_fifth_for_validation(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", drawn(100))
    dataset = read(tmp_path / "x.npy")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (64, 16, 20)
    assert dataset.train_labels.shape == (0,)
    assert dataset.classes == ()
    assert dataset.source == str(tmp_path / "x.npy")
    part = read(tmp_path / "x.npy", train_fraction=0.25)
    assert (part.train == dataset.train[:16]).all()
    assert (part.fingerprint, part.low, part.high) == (dataset.fingerprint, dataset.low, dataset.high)


def test_given_splits_are_kept_and_missing_ones_taken_from_training(tmp_path: Path) -> None:
    images, labels = drawn(60), np.arange(60) % 2
    parts = {"train": slice(40), "val": slice(40, 50), "test": slice(50, 60)}
    for name, part in parts.items():
        save(images[part], tmp_path / "three" / name, labels[part])
    arrays = {f"{name}_images": images[part] for name, part in parts.items()}
    arrays |= {f"{name}_labels": labels[part, None] for name, part in parts.items()}
    np.savez(tmp_path / "medmnist.npz", **arrays)
    three = read(tmp_path / "three")
    assert images_of(three) == [{digest_of(image) for image in images[part]} for part in parts.values()]
    assert contents(read(tmp_path / "medmnist.npz")) == contents(three)
    np.savez(tmp_path / "keras.npz", x_train=images[:50], y_train=labels[:50], x_test=images[50:], y_test=labels[50:])
    keras = read(tmp_path / "keras.npz")
    assert images_of(keras)[2] == images_of(three)[2]
    assert (len(keras.train), len(keras.validation)) == (40, 10)


def test_tiles_of_one_image_stay_together_and_equal_ones_are_kept_once(tmp_path: Path) -> None:
    images = np.full((20, 30, 41), 9, np.uint8)  # every image has the same empty tiles, but for its first one
    for number, image in enumerate(images):
        image[:18, :18] = drawn(1, 18, 18, seed=number)[0]
    dataset, said = told(save(images, tmp_path / "scans"), patch=8)
    assert dataset.shape == ImageShape(8, 8)
    seen = [part.reshape(len(part), -1) for part in (dataset.train, dataset.validation, dataset.test)]
    assert len(np.unique(np.concatenate(seen), axis=0)) == sum(map(len, seen))
    assert "are copies of others and were left out" in said
    sources = [
        {number for number in range(20) if any(_holds(images[number], tile) for tile in _busy(part))}
        for part in (dataset.train, dataset.validation, dataset.test)
    ]
    assert all(sources)
    assert sum(map(len, sources)) == len(set.union(*sources))
    assert dataset.pictures == tuple(map(len, sources))
    assert (
        f"are of {len(sources[0])} images for training, {len(sources[1])} for validation and {len(sources[2])}" in said
    )


def _busy(part: Array) -> Array:
    return part[[len(np.unique(tile)) > 20 for tile in part]]


def _holds(image: Array, tile: Array) -> bool:
    views = np.lib.stride_tricks.sliding_window_view(image, tile.shape)
    return bool((views == tile).all(axis=(2, 3)).any())


@settings(max_examples=30)
@given(st.integers(8, 40), st.integers(8, 40), st.integers(8, 12), st.sampled_from([(), (3,)]))
def test_tiles_do_not_overlap_and_lie_in_the_image(
    height: int, width: int, size: int, colours: tuple[int, ...]
) -> None:
    if min(height, width) < size:
        return
    image = np.arange(height * width * (3 if colours else 1)).reshape(height, width, *colours)
    corner = tiles.corner(bytes(range(32)), height, width, size)
    cut = tiles.cut(image, size, corner)
    assert len(cut) == tiles.count(height, width, size)
    assert len(np.unique(cut)) == cut.size
    assert (cut[0] == image[corner[0] : corner[0] + size, corner[1] : corner[1] + size]).all()
    last = [corner[0] + (height // size - 1) * size, corner[1] + (width // size - 1) * size]
    assert (cut[-1] == image[last[0] : last[0] + size, last[1] : last[1] + size]).all()


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.permutations(range(n)), st.integers(1, n))))
def test_rows_are_reordered_in_place(case: tuple[int, list[int], int]) -> None:
    count, order, kept = case
    images = np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    result = _reordered(images, order[:kept])
    assert result[:, 0, 0].tolist() == order[:kept]
    assert np.shares_memory(result, images)


def test_files_arrays_and_pairs_with_a_path_of_odd_letters(tmp_path: Path) -> None:
    folder = save(drawn(10), tmp_path / 'it\'s "mine" 日本 *')
    assert read(folder).name == "it's -mine- 日本 -"


# ---- formats


def png(image: Array) -> bytes:
    """A PNG file of 16 bits a channel, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = image.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "tiff", "bmp", "webp"])
@pytest.mark.parametrize("shape", [(9, 8), (8, 9, 3)])
def test_lossless_files_give_their_pixels(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    if suffix == "webp" and len(shape) == 2:
        pytest.skip("WebP has no grey")
    images = drawn(6, *shape)
    dataset = read(save(images, tmp_path / "x", suffix=suffix, **({"lossless": True} if suffix == "webp" else {})))
    assert set.union(*images_of(dataset)) == {digest_of(image) for image in images}
    assert dataset.shape.array == shape


UPRIGHT: dict[int, Callable[[Array], Array]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: lambda image: np.rot90(image),
}
"""By EXIF's orientation, after its standard: 6 is to be turned a quarter clockwise."""


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tiff", "lzw.tiff", "deep.tiff", "deep.png"])
@pytest.mark.parametrize("shape", [(13, 9), (9, 13, 3)])
def test_photographs_are_turned_upright(tmp_path: Path, orientation: int, suffix: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / f"photo.{suffix}"
    image = drawn(1, *shape, dtype=np.uint16 if suffix.startswith("deep") else np.uint8)[0]
    if suffix == "deep.tiff":
        tifffile.imwrite(path, image, photometric="rgb" if image.ndim == 3 else "minisblack",
                         extratags=[(274, "H", 1, orientation, True)])  # fmt: skip
    elif suffix == "deep.png" and image.ndim == 3:
        pytest.skip("Pillow writes no PNG of 16-bit colour, with EXIF data or without")
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(image).save(path, exif=exif, **({"compression": "tiff_lzw"} if "lzw" in suffix else {}))
    pixels, _ = picture.read(path)
    assert np.array_equal(pixels, UPRIGHT[orientation](image))
    kind, _ = picture.kind_of(path)
    assert (kind.height, kind.width) == pixels.shape[:2]


@pytest.mark.parametrize("kind", ["png", "tiff", "rgb.png", "rgba.png", "rgb.tiff"])
def test_sixteen_bits_are_kept(tmp_path: Path, kind: str) -> None:
    channels = {"rgb.png": (3,), "rgba.png": (4,), "rgb.tiff": (3,)}.get(kind, ())
    images = drawn(6, 9, 8, *channels, dtype=np.uint16)
    for index, image in enumerate(images):
        path = tmp_path / f"{index}.{kind}"
        if kind.endswith(".png"):
            path.write_bytes(png(image))
        elif channels:
            tifffile.imwrite(path, image, photometric="rgb")
        else:
            Image.fromarray(image).save(path)
    dataset, said = told(tmp_path)
    plain = images[..., :3] if channels else images
    assert dataset.train.dtype == np.uint16
    assert set.union(*images_of(dataset)) == {digest_of(image) for image in plain}
    assert ("alpha channel, which is dropped" in said) == (kind == "rgba.png")


@pytest.mark.parametrize("mode", ["1", "LA", "P", "RGBA", "CMYK"])
def test_other_modes_become_grey_or_colour(tmp_path: Path, mode: str) -> None:
    for index, image in enumerate(drawn(6, 9, 8, 3)):
        Image.fromarray(image).convert(mode).save(tmp_path / f"{index}.{'jpg' if mode == 'CMYK' else 'png'}")
    dataset, said = told(tmp_path)
    assert dataset.shape == ImageShape(9, 8, 1 if mode in ("1", "LA") else 3)
    assert ("alpha" in said) == (mode in ("LA", "RGBA"))


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (lambda images: images, (12, 10)),
        (lambda images: images[..., None], (12, 10)),
        (lambda images: images[:, None], (12, 10)),
        (lambda images: np.asfortranarray(images), (12, 10)),
        (lambda images: np.stack([images] * 3, axis=-1), (12, 10, 3)),
        (lambda images: np.stack([images] * 3, axis=1), (12, 10, 3)),
        (lambda images: np.stack([images] * 4, axis=-1), (12, 10, 3)),
    ],
    ids=["nhw", "nhw1", "n1hw", "fortran", "nhw3", "n3hw", "rgba"],
)
@pytest.mark.parametrize("dtype", ["u1", "i8", ">u2", "f4"])
def test_every_layout_of_an_array(tmp_path: Path, layout: Callable[[Array], Array], shape: Any, dtype: str) -> None:
    images = drawn(9)
    np.save(tmp_path / "x.npy", layout(images).astype(dtype))
    dataset = read(tmp_path / "x.npy")
    assert dataset.shape.array == shape == describe(str(tmp_path / "x.npy")).shape.array
    plain = images if len(shape) == 2 else np.stack([images] * 3, axis=-1)
    assert set.union(*images_of(dataset)) == {digest_of(image) for image in plain}


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (-40.5, 300)])
def test_floating_point_numbers_are_scaled_to_sixteen_bits_and_that_is_said(
    tmp_path: Path, low: float, high: float
) -> None:
    images = np.random.default_rng(0).uniform(low, high, (9, 8, 8)).astype("f4")
    images.flat[:2] = low, high
    np.save(tmp_path / "x.npy", images)
    dataset, said = told(tmp_path / "x.npy")
    assert "scaled to pixels of 16 bits" in said
    pixels = np.concatenate([dataset.train, dataset.validation, dataset.test])
    restored = np.sort((pixels / 0xFFFF * (high - low) + low).ravel())
    assert np.abs(restored - np.sort(images.ravel())).max() <= (high - low) / 0xFFFF
    numbers = dataset.numbers
    assert numbers is not None
    assert np.allclose(np.sort((pixels / numbers.factor + numbers.offset).ravel()), restored, atol=(high - low) / 1e6)


def test_whole_numbers_are_pixels_as_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", drawn(9).astype(float))
    assert read(tmp_path / "x.npy").numbers is None


def test_pairs_keep_together(tmp_path: Path) -> None:
    clean = drawn(20, 16, 16)
    noisy = 255 - clean
    save(clean, tmp_path / "pairs" / "clean")
    save(noisy, tmp_path / "pairs" / "noisy", suffix="bmp")  # names count, endings do not
    np.savez(tmp_path / "pairs.npz", noisy=noisy, clean=clean)
    dataset, arrays = read(tmp_path / "pairs"), read(tmp_path / "pairs.npz")
    assert contents(dataset) == contents(arrays)
    for whole in (dataset, read(tmp_path / "pairs", patch=8)):
        assert whole.noisy is not None
        for split in ("train", "validation", "test"):
            assert (getattr(whole.noisy, split) == 255 - getattr(whole, split)).all()
    assert describe(str(tmp_path / "pairs")).has_noise
    assert dataset.fingerprint != read(tmp_path / "pairs" / "clean").fingerprint


def test_the_noise_of_pairs_is_clipped_to_the_range_of_clean_images_as_drawn_noise_is(tmp_path: Path) -> None:
    clean = drawn(20, 16, 16) // 2 + 60
    np.savez(tmp_path / "pairs.npz", clean=clean, noisy=drawn(20, 16, 16, seed=1))
    dataset = read(tmp_path / "pairs.npz")
    assert (dataset.low, dataset.high) == (60, 187)
    assert dataset.noisy is not None
    for noise in (dataset.noisy.train, dataset.noisy.validation, dataset.noisy.test):
        assert (noise.min(), noise.max()) == (60, 187)


def test_idx_files_of_emnist_and_qmnist(tmp_path: Path) -> None:
    images, labels = drawn(30, 8, 9), (np.arange(30) % 3 + 1).astype(np.uint8)
    emnist, qmnist = tmp_path / "emnist", tmp_path / "qmnist"
    for folder in (emnist, qmnist):
        folder.mkdir()
    for split, part in (("train", slice(20)), ("test", slice(20, 30))):
        name = f"emnist-letters-{split}"
        (emnist / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images[part].swapaxes(1, 2).copy())))
        (emnist / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels[part])))
        (qmnist / f"qmnist-{split}-images-idx3-ubyte").write_bytes(idx(images[part]))
        numbers = np.repeat(labels[part, None], 8, axis=1).astype(">i4")
        content = bytes([0, 0, 12, 2]) + np.array(numbers.shape, ">u4").tobytes() + numbers.tobytes()
        (qmnist / f"qmnist-{split}-labels-idx2-int").write_bytes(content)
    dataset, said = told(emnist)
    assert "lie on their side" in said
    assert dataset.classes == ("1", "2", "3")
    assert contents(dataset) == contents(read(qmnist))
    assert images_of(dataset)[2] == {digest_of(image) for image in images[20:]}


@pytest.mark.parametrize("name", ["my.idx", "images-idx3-ubyte", "digits-images-idx3-ubyte.gz", "x.dat"])
def test_an_idx_file_of_any_name(tmp_path: Path, name: str) -> None:
    images = drawn(20, 8, 9)
    content = idx(images)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    dataset = read(tmp_path / name)
    assert set.union(*images_of(dataset)) == {digest_of(image) for image in images}


@pytest.mark.parametrize("prefix", ["", "digits-", "my-own-"])
def test_idx_files_of_no_split_are_told_by_images_and_labels(tmp_path: Path, prefix: str) -> None:
    images, labels = drawn(20, 8, 9), (np.arange(20) % 2).astype(np.uint8)
    (tmp_path / f"{prefix}images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / f"{prefix}labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    np.savez(tmp_path.parent / f"{prefix}same.npz", x=images, y=labels)
    assert contents(read(tmp_path)) == contents(read(tmp_path.parent / f"{prefix}same.npz"))
    (tmp_path / f"{prefix}train-images-idx3-ubyte").write_bytes(idx(images))
    assert "with a split in their names and files without" in refusal(tmp_path)
    (tmp_path / "other-test-images-idx3-ubyte").write_bytes(idx(images))
    assert "put the files of one of them into a folder of its own" in refusal(tmp_path)


# ---- words, and what is left out


def test_what_is_unreadable_is_left_out_with_its_label(tmp_path: Path) -> None:
    images, labels = drawn(24), np.arange(24) % 2
    folder = save(images, tmp_path / "x", labels)
    whole = read(folder)
    (folder / "0" / "3.txt").write_text("no image")
    broken = io.BytesIO()
    Image.fromarray(drawn(1, 64, 64)[0]).save(broken, "jpeg")
    (folder / "1" / "0.jpg").write_bytes(broken.getvalue()[:-900])
    (folder / ".hidden").write_text("not looked at")
    dataset, said = told(folder, skip_unreadable=True)
    assert contents(dataset) == contents(whole)
    assert "skipped 2 unreadable" in said
    assert "3.txt" in said
    assert "3.txt is no image of a kind that is read" in refusal(folder)


def test_labels_that_are_not_everywhere_are_left_out_in_words(tmp_path: Path) -> None:
    save(drawn(20), tmp_path / "train", np.arange(20) % 2)
    save(drawn(6, seed=1), tmp_path / "test", np.zeros(6, int))
    dataset, said = told(tmp_path)
    assert dataset.classes == ()
    assert dataset.test_labels.shape == (0,)
    assert "no test image of" in said


def test_copies_across_given_splits_are_told_of_every_two(tmp_path: Path) -> None:
    images, others = drawn(20), drawn(9, seed=1)
    np.savez(tmp_path / "x.npz", x_train=images, x_val=np.concatenate([others, images[:4]]), x_test=images[3:8])
    dataset, said = told(tmp_path / "x.npz")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (20, 13, 5)
    assert "5 of the test images of" in said
    assert "4 of the validation images of" in said
    assert said.count("are training images too: the splits are kept as they were given") == 2
    assert f"1 of the test images of {tmp_path / 'x.npz'} are validation images too" in said


@pytest.mark.parametrize("given_name", ["x_test", "x_val"])
def test_a_split_that_is_made_shares_no_image_with_any(tmp_path: Path, given_name: str) -> None:
    images = drawn(60)
    np.savez(tmp_path / "x.npz", x_train=np.concatenate([images, images[:30]]), **{given_name: images[:30]})
    dataset, said = told(tmp_path / "x.npz")
    train, validation, test = images_of(dataset)
    made, given_images = (validation, test) if given_name == "x_test" else (test, validation)
    assert made
    assert not made & (train | given_images)
    assert given_images == {digest_of(image) for image in images[:30]} <= train
    assert said.count("images too") == 1
    np.savez(tmp_path / "same.npz", x_train=images, **{given_name: images})
    assert "has 0 images, copies and what given splits share not counted" in refusal(tmp_path / "same.npz")


def test_a_class_that_loses_the_tiles_of_a_split_is_said(tmp_path: Path) -> None:
    save(drawn(12, 16, 16), tmp_path / "busy")
    for number in range(12):  # the images differ, and have no more than two different tiles
        tiles = np.array([200 * (number >> bit & 1) for bit in range(4)], np.uint8).reshape(2, 2)
        save(tiles.repeat(8, 0).repeat(8, 1)[None], tmp_path / "plain", names=[number])
    dataset, said = told(tmp_path, patch=8)
    assert f"no validation image of {tmp_path} is of class plain: trained without labels" in said
    assert "46 of the 96 tiles" in said
    assert dataset.classes == ()
    assert {len(part) for part in (dataset.train_labels, dataset.validation_labels, dataset.test_labels)} == {0}
    (tmp_path / "flat").mkdir()
    for path in (tmp_path / "busy", tmp_path / "plain"):
        for file in path.iterdir():
            file.rename(tmp_path / "flat" / f"{path.name}{file.name}")
        path.rmdir()
    flat = read(tmp_path / "flat", patch=8)
    assert len(flat.train) + len(flat.validation) + len(flat.test) == 50


@settings(max_examples=40, deadline=None)
@given(
    st.integers(6, 40),
    st.integers(1, 3),
    st.sampled_from([(), ("val",), ("test",), ("val", "test")]),
    st.sampled_from([None, 8]),
)
def test_how_many_images_will_be_trained_on_is_known_before_they_are_read(
    count: int, classes: int, given_splits: tuple[str, ...], patch: int | None
) -> None:
    arrays: dict[str, Any] = {}
    for seed, split in enumerate(("train", *given_splits)):
        name = split if given_splits else "all"
        prefix = "" if name == "all" else f"_{split}"
        images = drawn(count if split == "train" else 7 * classes, 17, 9, seed=seed)
        arrays |= {f"x{prefix}": images, f"y{prefix}": np.arange(len(images)) % classes}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npz"
        np.savez(path, **arrays)
        if count // classes < 3 - len(given_splits):
            with pytest.raises(UserError, match="need at least one each"):
                describe(str(path), patch)
            assert "need at least one each" in refusal(path, patch=patch)
            return
        dataset = read(path, patch=patch)
        assert describe(str(path), patch).training == len(dataset.train)


def test_labels_that_look_like_numbers_are_names(tmp_path: Path) -> None:
    for number, names in enumerate((("--1", "2"), ("1-", "2"), ("-", "2"), ("-1", "10"))):
        np.savez(tmp_path / f"{number}.npz", x=drawn(20), y=np.array([*names] * 10))
    assert read(tmp_path / "0.npz").classes == ("--1", "2")
    assert read(tmp_path / "1.npz").classes == ("1-", "2")
    assert read(tmp_path / "2.npz").classes == ("-", "2")
    assert read(tmp_path / "3.npz").classes == ("-1", "10")


@pytest.mark.parametrize("shape", [(0,), (0, 1), (0, 1, 1)])
def test_an_empty_split_with_labels_of_any_shape_is_said(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(
        tmp_path / "x.npz", x_train=drawn(20), y_train=np.arange(20) % 2, x_test=drawn(0), y_test=np.zeros(shape, int)
    )
    assert "has no image for test: add some" in refusal(tmp_path / "x.npz")


@pytest.mark.parametrize("broken", ["clean", "noisy"])
def test_of_a_pair_the_file_is_named_that_cannot_be_read(tmp_path: Path, broken: str) -> None:
    for number, name in enumerate(("clean", "noisy")):
        save(drawn(20, seed=number), tmp_path / name)
    whole = read(tmp_path)
    (tmp_path / broken / "7.png").write_text("no image")
    assert f"{broken}/7.png is no image" in refusal(tmp_path)
    dataset, said = told(tmp_path, skip_unreadable=True)
    assert f"skipped 1 unreadable in {tmp_path}: {tmp_path / broken / '7.png'}" in said
    assert len(set.union(*images_of(whole)) - set.union(*images_of(dataset))) == 1


@pytest.mark.parametrize("place", ["clean", "noisy"])
def test_what_is_no_image_is_skipped_among_pairs_too(tmp_path: Path, place: str) -> None:
    images, labels = drawn(20), np.arange(20) % 2
    save(images, tmp_path / "clean", labels)
    save(255 - images, tmp_path / "noisy", labels)
    whole = read(tmp_path)
    for name in ("README.txt", "3.txt"):  # with a counterpart but for the ending, and without
        (tmp_path / place / "1" / name).write_text("no image")
    assert ".txt is no image" in refusal(tmp_path)
    dataset, said = told(tmp_path, skip_unreadable=True)
    assert contents(dataset) == contents(whole)
    assert "skipped 2 unreadable" in said
    save(drawn(1, seed=5), tmp_path / place / "1", names=["more"])
    assert "more.png has no counterpart" in refusal(tmp_path, skip_unreadable=True)


def test_images_that_do_not_fit_are_refused_with_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", drawn(1000, 64, 64))
    said = refusal(tmp_path / "x.npy", memory=605 * 2**20)
    assert "the 1,000 images" in said
    assert "64x64 in uint8, take 3.9 MiB" in said
    assert "0.6 GiB" in said
    read(tmp_path / "x.npy", memory=620 * 2**20)


def test_constant_images_are_no_error_but_nothing_else_is(tmp_path: Path) -> None:
    images = drawn(20)
    images[3], images[4] = 0, 255
    np.save(tmp_path / "some.npy", images)
    np.save(tmp_path / "all.npy", np.full((20, 9, 9), 7))
    read(tmp_path / "some.npy")
    assert "every pixel of every image" in refusal(tmp_path / "all.npy")


def test_a_path_is_told_from_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("tiles", "mnist"):
        (tmp_path / name).mkdir()
    paths = ["tiles", "./mnist", "a/b", ".", "/x"]
    assert [text for text in [*paths, "mnist", "mnist-5k", "imagenet", ""] if is_path(text)] == paths
    assert [name_of(text) for text in ("tiles/", "./mnist", "a/..b:c", "x.npz", "mnist-5k", "/")] == [
        "tiles", "own-mnist", "b-c", "x", "mnist-5k", "images",
    ]  # fmt: skip
