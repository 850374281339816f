"""`dae-sweep denoise` and `sweep.denoise` on a small finished sweep of real digits."""

import io
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner, Result
from PIL import Image

import sweep
from dae import data
from dae.config import ImageShape
from dae.errors import UserError
from sweep.cli import main
from sweep.models import pictures
from sweep.models.denoising import COLOUR_MODEL, GREY_MODEL, denoise
from sweep.models.trained import Scale, TrainedModel, choose, load_model
from sweep.records.grid import Cell, Grid
from sweep.records.record import CellFiles, Record, Status, read_record
from sweep.records.sweep import MANIFEST, gather
from sweep.storage.store import Store

BEST = "DAE_3_8-s0"
Ask = Callable[..., Result]


@pytest.fixture
def ask(undisturbed: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs the command in an empty folder, on the sweep that nobody changes."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str, storage: Path = undisturbed.root.parent) -> Result:
        common = ["--sweep", "mnist-5k", "--storage", str(storage), "--out", "out"]
        return CliRunner().invoke(main, ["denoise", *common, *words])

    return command


@pytest.fixture(scope="module")
def model(undisturbed: Store) -> TrainedModel:
    whole = gather(undisturbed)
    return load_model(whole, choose(whole))


def noisy(height: int, width: int, *channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def save(name: str, pixels: np.ndarray, **options: object) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def opened(path: Path | str) -> Image.Image:
    return Image.open(io.BytesIO(Path(path).read_bytes()))


# ---- arrays


def test_a_test_image_gives_what_the_module_gives(undisturbed: Store, model: TrainedModel) -> None:
    images = data.load("mnist-5k", Path("nowhere")).test[:7]
    denoised = sweep.denoise(images, str(undisturbed.root))
    assert denoised.dtype == np.uint8
    module = sweep.load(str(undisturbed.root)).model(BEST)
    assert not module.training
    with torch.inference_mode():
        plain = module(torch.from_numpy(images).float().unsqueeze(1) / 255).squeeze(1).numpy()
    assert np.array_equal(denoised, np.rint(plain * 255).astype(np.uint8))
    assert np.array_equal(sweep.denoise(images[0], str(undisturbed.root), BEST), denoised[0])


@pytest.mark.parametrize("shape", [(28, 28), (40, 61), (5, 9), (4, 30, 30), (30, 41, 3), (2, 30, 30, 3)])
def test_shape_and_type_stay(model: TrainedModel, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = denoise(model, pixels).pixels
    assert (expected.shape, expected.dtype) == (shape, np.uint8)
    deep = denoise(model, pixels.astype(np.uint16) * 257).pixels
    assert (deep.shape, deep.dtype) == (shape, np.uint16)
    assert np.abs(deep / 257 - expected).max() <= 0.51, "255 of 8 bit is 65535 of 16"
    unit = denoise(model, pixels.astype(np.float32) / 255).pixels
    assert unit.dtype == np.float32
    assert np.abs(unit * 255 - expected).max() <= 0.51


def test_a_colour_picture_is_its_channels(model: TrainedModel) -> None:
    pixels = noisy(33, 47, 3)
    result = denoise(model, pixels)
    assert GREY_MODEL in result.notes
    for channel in range(3):
        assert np.array_equal(result.pixels[..., channel], denoise(model, pixels[..., channel]).pixels)


def test_a_model_of_colour_sees_a_grey_picture_three_times(model: TrainedModel) -> None:
    seen: list[torch.Size] = []

    class Colour(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert torch.equal(images[:, 0], images[:, 1])
            seen.append(images.shape)
            return images * torch.tensor([0.5, 0.75, 1.0]).view(1, 3, 1, 1)

    config = replace(model.config, image=ImageShape(16, 24, 3))
    colour = replace(model, config=config, module=Colour())  # type: ignore[arg-type]
    pixels = noisy(20, 24)
    result = denoise(colour, pixels)
    assert seen
    assert all(shape[1:] == (3, 16, 24) for shape in seen)
    assert result.notes == (COLOUR_MODEL,)
    assert np.abs(result.pixels.astype(float) - pixels * 0.75).max() <= 0.51


def test_the_scale_is_that_of_the_training(model: TrainedModel, undisturbed: Store) -> None:
    same = replace(model, module=Same(), scale=Scale(50, 200))  # type: ignore[arg-type]
    result = denoise(same, np.array([[0, 50, 125, 200, 255]], np.uint8))
    assert result.pixels.tolist() == [[50, 50, 125, 200, 200]]
    assert result.panels[0].tolist() == [[0, 0, 0.5, 1, 1]]
    assert "pixels outside of the 50 to 200 that the model was trained on are clipped" in result.notes
    deep = replace(same, scale=Scale(1000, 40_000))
    assert denoise(deep, np.array([[1000, 20_500, 40_000]], np.uint16)).pixels.tolist() == [[1000, 20_500, 40_000]]
    manifest = gather(undisturbed).manifest
    assert Scale.of(replace(manifest, dataset={"name": "x"})) == Scale(0, 255), "older manifests do not say it"
    assert Scale.of(replace(manifest, dataset={"low": 3, "high": 4095})) == Scale(3, 4095)


class Same(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


@pytest.mark.parametrize(
    "scale", [Scale(), Scale(50, 200), Scale(0, 254), Scale(1000, 40_000), Scale(0, 65_449)], ids=str
)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("is_identity", [False, True], ids=["model", "identity"])
def test_a_picture_is_the_same_in_every_type(
    model: TrainedModel, scale: Scale, kind: type[np.floating], is_identity: bool
) -> None:
    """Of whatever the model was trained on: 255 of uint8 is 65535 of uint16 and 1 of a float."""
    used = replace(model, scale=scale, module=Same() if is_identity else model.module)  # type: ignore[arg-type]
    for dtype in (np.uint8, np.uint16):
        most = np.iinfo(dtype).max
        pixels = np.random.default_rng(0).integers(0, most, (40, 33), dtype=dtype, endpoint=True)
        expected, given = denoise(used, pixels).pixels, denoise(used, pixels.astype(kind) / kind(most)).pixels
        assert given.dtype == kind
        assert np.abs(given.astype(np.float64) * most - expected).max() <= (0.51 if dtype is np.uint8 else 0.6)
    deep = denoise(used, noisy(40, 33).astype(np.uint16) * 257).pixels
    assert np.abs(deep / 257 - denoise(used, noisy(40, 33)).pixels).max() <= 0.51


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 128, 255], r"from 0 to 1, this one from 0 to 255: divide them by 255, or give them as uint8\.$"),
        ([0, 4095], r"from 0 to 4095: divide them by 65535, or give them as uint16\.$"),
        ([0, 1.01], "from 0 to 1.01: divide"),
        ([-0.25, 1], r"from -0\.25 to 1: scale them to that, or clip them with numpy\.clip\(array, 0, 1\)\.$"),
        ([0, 1e6], "from 0 to 1e\\+06: scale"),
    ],
)
def test_floats_outside_of_0_to_1_are_refused(model: TrainedModel, values: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        denoise(model, np.array([values], float))
    assert denoise(model, np.array([[-1e-8, 1 + 1e-8]])).pixels.shape == (1, 2), "rounding is none"


def test_floats_of_ones_own_stay_in_their_numbers(model: TrainedModel, undisturbed: Store) -> None:
    manifest = gather(undisturbed).manifest
    dataset = {"low": 0, "high": 60_000, "offset": -40.0, "factor": 65_535 / 340}
    own = replace(model, module=Same(), scale=Scale.of(replace(manifest, dataset=dataset)))  # type: ignore[arg-type]
    numbers = np.linspace(-40, -40 + 340 * 60_000 / 65_535, 30).reshape(5, 6)
    result = denoise(own, numbers)
    assert np.allclose(result.pixels, numbers, atol=1e-4)
    assert np.allclose(result.panels[0], np.linspace(0, 1, 30).reshape(5, 6), atol=1e-6)
    for wrong in (-41, 301):
        with pytest.raises(
            UserError, match=r"was trained on from -40 to 300: scale them alike, or clip them with numpy"
        ):
            denoise(own, np.array([[0.0, wrong]]))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 4), np.int64), "not of int64"),
        (np.zeros(4, np.uint8), r"shape \(4,\) is no picture"),
        (np.zeros((2, 9, 9, 4), np.uint8), "is no picture"),
        (np.zeros((0, 9), np.uint8), "is no picture"),
        (np.full((9, 9), np.nan), "not finite"),
    ],
)
def test_what_is_no_picture_is_refused(model: TrainedModel, pixels: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        denoise(model, pixels)


def test_a_list_may_have_pictures_of_several_sizes(undisturbed: Store, model: TrainedModel) -> None:
    pictures = [noisy(28, 28), noisy(40, 61, 3), noisy(9, 30).astype(np.float32) / 255]
    denoised = sweep.denoise(pictures, str(undisturbed.root))
    assert isinstance(denoised, list)
    for one, given in zip(denoised, pictures, strict=True):
        assert one.dtype == given.dtype
        assert np.array_equal(one, denoise(model, given).pixels)
    assert isinstance(sweep.denoise(pictures[:1], str(undisturbed.root)), list)
    with pytest.raises(UserError, match="picture 1 of 2, counted from 0: an array of shape"):
        sweep.denoise([pictures[0], noisy(5, 5, 7)[None]], str(undisturbed.root))
    with pytest.raises(UserError, match="list is no array of pictures"):
        denoise(model, [[1, 2], [3]])  # type: ignore[arg-type]


def test_the_threads_of_the_process_stay(model: TrainedModel) -> None:
    before = torch.get_num_threads()
    denoise(model, noisy(28, 28))
    assert torch.get_num_threads() == before


# ---- files


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
def test_a_file_is_written_in_its_format(ask: Ask, suffix: str, channels: tuple[int, ...]) -> None:
    source = save(f"in/picture.{suffix}", noisy(30, 45, *channels))
    answer = ask(str(source))
    assert answer.exit_code == 0, answer.output
    before, after = opened(source), opened(f"out/picture.{suffix}")
    assert (after.format, after.mode, after.size) == (before.format, before.mode, before.size)
    assert (GREY_MODEL in answer.output) == (before.mode == "RGB")


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [(), (3,), (4,)], ids=["grey", "colour", "alpha"])
def test_sixteen_bits_are_kept(ask: Ask, model: TrainedModel, suffix: str, channels: tuple[int, ...]) -> None:
    from dae import png

    pixels = np.random.default_rng(0).integers(0, 2**16, (30, 45, *channels), dtype=np.uint16)
    source = Path(f"deep.{suffix}")
    if suffix == "tif":
        tifffile.imwrite(source, pixels, photometric="rgb" if channels else "minisblack")
    elif channels:
        source.write_bytes(png.encode(pixels))
    else:
        Image.fromarray(pixels).save(source)
    answer = ask(str(source))
    assert answer.exit_code == 0, answer.output
    target = Path("out") / source
    if suffix == "tif":
        after = tifffile.imread(target)
    else:
        after = png.decode(target.read_bytes()) if channels else np.asarray(opened(target)).astype(np.uint16)
    colour = pixels[..., :3] if channels else pixels
    assert after.dtype == np.uint16
    assert np.array_equal(after[..., :3] if channels else after, denoise(model, colour).pixels)
    if channels == (4,):
        assert np.array_equal(after[..., 3], pixels[..., 3])


def test_an_alpha_channel_is_kept_and_said(ask: Ask) -> None:
    rgba, grey = noisy(30, 30, 4), noisy(30, 30, 2, seed=1)
    save("rgba.png", rgba)
    save("la.png", grey)
    answer = ask("rgba.png", "la.png")
    assert "Note on 2 of 2 pictures: the alpha channel is kept as it is." in answer.output
    assert np.array_equal(np.asarray(opened("out/rgba.png"))[..., 3], rgba[..., 3])
    assert np.array_equal(np.asarray(opened("out/la.png"))[..., 1], grey[..., 1])


def test_how_a_photograph_is_held_stays(ask: Ask) -> None:
    orientation = 274
    exif = Image.Exif()
    exif[orientation] = 6
    save("photo.jpg", noisy(30, 45, 3), exif=exif, dpi=(300, 300))
    assert ask("photo.jpg", "photo.jpg").output.count("->") == 1, "what is given twice is read once"
    after = opened("out/photo.jpg")
    assert (after.getexif()[orientation], after.size, after.info["dpi"]) == (6, (45, 30), (300, 300))


def held(name: str, pixels: np.ndarray, orientation: int) -> Path:
    """A file whose upright pixels these are, as a camera that was held so writes it."""
    from dae import png

    inverse = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180}
    others = {2: Image.Transpose.FLIP_LEFT_RIGHT, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE}
    method = (inverse | others | {7: Image.Transpose.TRANSVERSE}).get(orientation)
    planes = [pixels] if pixels.ndim == 2 else list(np.moveaxis(pixels, -1, 0))
    turned = [np.asarray(Image.fromarray(plane).transpose(method) if method is not None else plane) for plane in planes]
    stored = turned[0] if pixels.ndim == 2 else np.stack(turned, axis=-1)
    exif = Image.Exif()
    exif[274] = orientation
    if pixels.dtype == np.uint8 or pixels.ndim == 2:
        options = {"tiffinfo": {274: orientation}} if name.endswith("tif") else {"exif": exif}
        return save(name, stored, **options)
    if name.endswith("tif"):
        kind = "rgb" if pixels.ndim == 3 else "minisblack"
        tifffile.imwrite(name, stored, photometric=kind, extratags=[(274, "H", 1, orientation, True)])
        return Path(name)
    content = png.encode(stored)
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = len(body).to_bytes(4) + b"eXIf" + body + zlib.crc32(b"eXIf" + body).to_bytes(4)
    Path(name).write_bytes(content[:33] + chunk + content[33:])
    return Path(name)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, ()), (np.uint8, (4,)), (np.uint16, ()), (np.uint16, (3,))])
def test_a_picture_is_upright_for_the_model_and_seen_as_before(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    orientation: int,
    suffix: str,
    dtype: type,
    channels: tuple[int, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (12, 20, *channels), dtype=dtype)
    source = held(f"held.{suffix}", pixels, orientation)
    picture = pictures.read(source)
    assert np.array_equal(picture.channels, pixels)
    Path(f"again.{suffix}").write_bytes(pictures.encode(picture))
    assert np.array_equal(pictures.read(Path(f"again.{suffix}")).channels, pixels)
    if dtype is np.uint8 and suffix == "png":
        with opened("again.png") as again, opened(source) as before:
            assert (again.size, again.getexif()[274]) == (before.size, orientation)
            assert np.array_equal(np.asarray(again), np.asarray(before))


def test_the_comparison_stands_upright(ask: Ask, model: TrainedModel) -> None:
    upright = noisy(200, 300)
    held("photo.png", upright, 6)
    answer = ask("photo.png", "--compare")
    assert answer.exit_code == 0, answer.output
    assert opened("out/photo.compare.png").size == (300 * 2 + 4, 200)
    assert np.array_equal(pictures.read(Path("out/photo.png")).pixels, denoise(model, upright).pixels)


def test_a_palette_is_written_in_full_colour_and_said(ask: Ask) -> None:
    Image.fromarray(noisy(30, 30, 3)).quantize(16).save("palette.png")
    answer = ask("palette.png")
    assert "pixels of the kind P are written as RGB" in answer.output
    assert opened("out/palette.png").mode == "RGB"


def test_a_folder_keeps_its_structure(ask: Ask) -> None:
    for name in ("a.png", "one/a.png", "one/b.JPG", ".hidden.png"):
        save(f"in/{name}", noisy(28, 28))
    Path("in/notes.txt").write_text("no picture by its name")
    Path("in/one/loop").symlink_to("..")
    answer = ask("in")
    assert answer.exit_code == 0, answer.output
    there = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*") if path.is_file())
    assert there == ["a.png", "one/a.png", "one/b.JPG"]


def test_an_output_inside_of_the_folder_is_no_input(ask: Ask) -> None:
    save("out/in.png", noisy(28, 28))
    save("b.png", noisy(28, 28))
    answer = ask(".")
    assert answer.exit_code == 0, answer.output
    assert sorted(path.name for path in Path("out").iterdir()) == ["b.png", "in.png"]


def test_what_is_left_out_of_a_folder_is_counted(ask: Ask) -> None:
    for name in ("a.png", "b.png", "b.compare.png", "c.jpg"):
        save(f"in/{name}", noisy(28, 28))
    Path("in/notes.txt").write_text("no picture by its name")
    Path("in/more.csv").write_text("nor this")
    Path("in/c.jpg").write_text("no picture")
    for number in range(5):
        Path(f"in/{number}.bmp").write_bytes(b"BM")
    refused = ask("in")
    assert refused.exit_code == 2
    assert ". --skip-unreadable leaves such files out." in refused.output
    answer = ask("in", "--skip-unreadable")
    assert answer.exit_code == 0, answer.output
    assert "Skipped 6 unreadable: in/0.bmp, in/1.bmp, in/2.bmp and 3 more." in answer.output
    assert "Left out 2 files of other kinds, by name." in answer.output
    assert "Left out 1 file of pictures of before and after, by name." in answer.output
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png"]


def test_what_was_interrupted_goes_on(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        save(f"in/{name}.png", noisy(28, 28, seed=ord(name)))
    undisturbed = ask("in", "--compare", "--add-noise", "--out", "whole")
    assert undisturbed.exit_code == 0, undisturbed.output
    encode, left = pictures.encode, [3]

    def interrupted(picture: pictures.Picture) -> bytes:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return encode(picture)

    with monkeypatch.context() as patched:
        patched.setattr(pictures, "encode", interrupted)
        answer = ask("in", "--compare", "--add-noise")
    assert answer.exit_code == 130
    assert "Interrupted: 1 of 3 pictures are written; the same command with --skip-existing goes on." in answer.output
    answer = ask("in", "--compare", "--add-noise", "--skip-existing")
    assert answer.exit_code == 0, answer.output
    assert "Skipped 1 that is denoised already." in answer.output
    for path in Path("whole").iterdir():
        assert (Path("out") / path.name).read_bytes() == path.read_bytes()
    assert "Skipped 3 that are denoised already." in ask("in", "--skip-existing").output


def test_a_cell_is_named_without_its_only_seed(ask: Ask, undisturbed: Store) -> None:
    save("a.png", noisy(28, 28))
    assert "Model: DAE_1_5-s0 of mnist-5k" in ask("a.png", "--cell", "DAE_1_5").output
    whole = gather(undisturbed)
    several = replace(whole.manifest, grid=Grid.product((1,), (5,), (0, 1)))
    with pytest.raises(UserError, match="DAE_1_5 was trained with 2 seeds: give one of DAE_1_5-s0, DAE_1_5-s1"):
        choose(replace(whole, manifest=several), "DAE_1_5")


def test_a_sweep_may_be_named_by_its_folder(undisturbed: Store, ask: Ask) -> None:
    save("a.png", noisy(28, 28))
    words = ["denoise", "a.png", "--sweep", str(undisturbed.root), "--out"]
    assert CliRunner().invoke(main, [*words, "out"]).exit_code == 0
    gone = CliRunner().invoke(main, ["denoise", "a.png", "--sweep", "gone/away", "--out", "out"])
    assert gone.exit_code == 2
    assert "there is no sweep in" in gone.output, "and not that a.png is there already"
    assert "--name" not in gone.output


def test_a_model_that_loses_to_doing_nothing_is_used_with_a_warning(ask: Ask, sweep_copy: Store) -> None:
    save("a.png", noisy(28, 28))
    manifest = gather(sweep_copy).manifest
    sweep_copy.write(MANIFEST, replace(manifest, baselines={"identity": 1e-4}).to_bytes())
    answer = ask("a.png", storage=sweep_copy.root.parent)
    assert answer.exit_code == 0
    assert "is worse than doing nothing (0.00010)." in answer.stderr


def test_noise_is_added_and_compared(ask: Ask) -> None:
    digit = data.load("mnist-5k", Path("nowhere")).test[3]
    save("digit.png", digit)
    answer = ask("digit.png", "--add-noise", "--compare")
    assert answer.exit_code == 0, answer.output
    before, after = answer.output.split("MSE ")[1].split()[0::2][:2]
    assert 0.08 < float(before) < 0.16
    assert float(after) < float(before)
    first = Path("out/digit.png").read_bytes()
    assert opened("out/digit.compare.png").size == (3 * 28 * 5 + 2 * 5, 28 * 5)
    ask("digit.png", "--overwrite", "--add-noise=0.5")
    assert Path("out/digit.png").read_bytes() == first, "the same noise again"
    ask("digit.png", "--overwrite", "--add-noise", "0.1")
    assert Path("out/digit.png").read_bytes() != first


@pytest.mark.parametrize("words", [["--add-noise"], ["--add-noise=0.2"]])
def test_no_noise_is_added_for_a_model_of_pairs(ask: Ask, sweep_of_pairs: Store, words: list[str]) -> None:
    save("a.png", noisy(28, 28))
    storage = sweep_of_pairs.root.parent
    answer = ask("a.png", *words, storage=storage)
    assert answer.exit_code == 2
    assert f"no noise can be added for {BEST}: it was trained on pairs of clean and noisy images" in answer.output
    assert not Path("out").exists()
    assert ask("a.png", storage=storage).exit_code == 0
    pairs = gather(sweep_of_pairs)
    with pytest.raises(UserError, match="trained on pairs"):
        denoise(load_model(pairs, choose(pairs)), noisy(28, 28), noise=0.5)


# ---- what cannot be


def test_no_input_is_ever_overwritten(ask: Ask) -> None:
    save("out/a.png", noisy(28, 28))
    before = Path("out/a.png").read_bytes()
    for words in (("out/a.png",), ("out/a.png", "--overwrite")):
        answer = ask(*words)
        assert answer.exit_code == 2
        assert "a.png would be overwritten, which is one of the pictures given: give another --out." in answer.output
    assert Path("out/a.png").read_bytes() == before


def test_an_output_that_is_there_is_replaced_only_when_asked(ask: Ask) -> None:
    save("a.png", noisy(28, 28))
    save("out/a.png", noisy(28, 28, seed=1))
    answer = ask("a.png")
    assert answer.exit_code == 2
    assert "a.png is there already: give another --out, --overwrite, or --skip-existing to denoise" in answer.output
    assert ask("a.png", "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "which pictures?"),
        (("nowhere.png",), "there is no file or folder nowhere.png"),
        (("empty",), "the folder empty holds no pictures: PNG, JPEG, TIFF, BMP and WebP are read."),
        (("text.png",), "text.png is no image: PNG, JPEG, TIFF, BMP and WebP are read."),
        (("good.png", "text.png"), "text.png is no image"),
        (("cut.jpg",), "cut.jpg cannot be read: image file is truncated"),
        (("pages.tif",), "pages.tif holds 2 pictures: give files of one."),
        (("deep-pages.tif",), "deep-pages.tif holds 2 pictures: give files of one."),
        (("float.tif",), "float.tif has pixels of the type float32; whole numbers of 8 or 16 bits are read"),
        (("colours.tif",), "colours.tif has pixels of the type float32; whole numbers of 8 or 16 bits are read"),
        (("whole.tif",), "whole.tif has pixels of the type uint32; whole numbers of 8 or 16 bits are read"),
        (("loop.png",), "loop.png cannot be read: Too many levels of symbolic links."),
        (("links", "good.png"), "Too many levels of symbolic links. --skip-unreadable leaves such files out."),
        (("~nobody-of-this-name/x.png",), "there is no file or folder ~nobody-of-this-name/x.png: "),
        (("n" * 400 + ".png",), "there is no file or folder nnn"),
        (("good.png", "--overwrite", "--skip-existing"), "--overwrite and --skip-existing contradict each other"),
        (("text.png", "cut.jpg", "--skip-unreadable"), "none of the 2 pictures can be read, the last since cut.jpg"),
        (("moving.gif",), "moving.gif is a GIF: PNG, JPEG"),
        (("good.png", "other/good.png"), "two pictures would be written to "),
        (("good.png", "--cell", "DAE_3_9-s0"), "there is no cell DAE_3_9-s0 in mnist-5k. Near ones: DAE_3_8-s0, "),
        (("--add-noise", "good.png"), "'good.png' is not a number; where a picture follows, write --add-noise=0.5."),
        (("good.png", "--add-noise=nan"), "nan is out of range"),
        (("good.png", "--out", "s3://bucket/x"), "--out s3://bucket/x: give a file or folder of this machine."),
        (("good.png", "--out", "~nobody-of-this-name/x"), "~nobody-of-this-name stands for is not known here"),
        (("good.png", "--out", "x" * 400), "File name too long"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_denoised_is_said_and_nothing_written(ask: Ask, words: tuple[str, ...], message: str) -> None:
    Path("empty").mkdir()
    Path("text.png").write_text("no image")
    save("good.png", noisy(28, 28))
    save("other/good.png", noisy(28, 28))
    save("moving.gif", noisy(28, 28))
    save("cut.jpg", noisy(90, 90))
    Path("cut.jpg").write_bytes(Path("cut.jpg").read_bytes()[:2000])
    tifffile.imwrite("pages.tif", noisy(2, 28, 28), photometric="minisblack")
    tifffile.imwrite("deep-pages.tif", np.zeros((2, 28, 28, 3), np.uint16), photometric="rgb")
    tifffile.imwrite("float.tif", np.zeros((28, 28), np.float32))
    tifffile.imwrite("colours.tif", np.zeros((28, 28, 3), np.float32), photometric="rgb")
    tifffile.imwrite("whole.tif", np.zeros((28, 28), np.uint32))
    Path("loop.png").symlink_to("loop.png")
    Path("links").mkdir()
    Path("links/loop.png").symlink_to("loop.png")
    Path("links/folder").symlink_to("folder")
    answer = ask(*words)
    assert answer.exit_code == 2, answer.output
    assert message in answer.output
    assert not Path("out").exists()


def test_an_output_that_cannot_be_written_is_said(ask: Ask) -> None:
    save("a.png", noisy(28, 28))
    Path("out").write_text("a file")
    answer = ask("a.png")
    assert answer.exit_code == 2
    assert "--out out: cannot write" in answer.output
    assert "Give a folder that can be made and written." in answer.output


def test_a_sweep_that_is_not_there_is_said(ask: Ask, tmp_path: Path) -> None:
    save("a.png", noisy(28, 28))
    answer = ask("a.png", storage=tmp_path)
    assert answer.exit_code == 2
    assert "there is no sweep in" in answer.output


def change(store: Store, key: str, **values: object) -> None:
    record: Record = replace(read_record(store, Cell.from_key(key)), **values)  # type: ignore[arg-type]
    store.write(CellFiles(key).record, record.to_bytes())


def test_cells_that_have_no_sound_model_are_refused(ask: Ask, sweep_copy: Store) -> None:
    save("a.png", noisy(28, 28))
    sweep_copy.write(CellFiles(BEST).weights, b"damaged")
    answer = ask("a.png", storage=sweep_copy.root.parent)
    assert answer.exit_code == 2
    assert f"cells/{BEST}/model.safetensors does not match its digest" in answer.output
    assert "dae-sweep run trains the cell again" in answer.output
    change(sweep_copy, BEST, status=Status.DIVERGED)
    answer = ask("a.png", "--cell", BEST, storage=sweep_copy.root.parent)
    assert f"{BEST} is diverged, and only a completed cell has a model" in answer.output
    sweep_copy.write(CellFiles(BEST).record, b"{}")
    answer = ask("a.png", "--cell", BEST, storage=sweep_copy.root.parent)
    assert answer.exit_code == 2
    assert f"{BEST}: record.json: it is not the JSON that was written" in answer.output


def test_noise_of_a_strength_that_its_kind_cannot_have_is_refused(ask: Ask, sweep_copy: Store) -> None:
    save("a.png", noisy(28, 28))
    config = read_record(sweep_copy, Cell.from_key(BEST)).config
    change(sweep_copy, BEST, config={**config, "noise": "salt-and-pepper"})
    answer = ask("a.png", "--cell", BEST, "--add-noise=3", storage=sweep_copy.root.parent)
    assert answer.exit_code == 2
    assert "alpha 3.0 is out of range" in answer.output
    assert not Path("out").exists()
    assert ask("a.png", "--cell", BEST, "--add-noise=1", storage=sweep_copy.root.parent).exit_code == 0


def test_a_collapsed_model_is_used_with_a_warning(ask: Ask, sweep_copy: Store) -> None:
    save("a.png", noisy(28, 28))
    change(sweep_copy, BEST, collapsed=True)
    answer = ask("a.png", storage=sweep_copy.root.parent)
    assert answer.exit_code == 0
    assert f"Warning: {BEST} collapsed: it is no better than the mean training image." in answer.output
