"""`dae-sweep export`: what is written computes the same, and its card tells how to call it."""

import re
import warnings
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
from dae.config import ImageShape
from dae.errors import UserError
from dae.model import DenoisingAutoencoder
from sweep.cli import main
from sweep.models import formats
from sweep.models.denoising import denoise
from sweep.models.export import export
from sweep.models.pictures import read
from sweep.models.trained import Scale, choose, load_model
from sweep.records.record import CellFiles
from sweep.records.sweep import MANIFEST, gather
from sweep.storage.sealing import digest
from sweep.storage.store import Store

BEST = "DAE_3_8-s0"
Ask = Callable[..., Result]
FORMATS = [pytest.param(name, marks=pytest.mark.slow if name in ("onnx", "pt2") else ()) for name in formats.FORMATS]


@pytest.fixture
def ask(undisturbed: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    monkeypatch.chdir(tmp_path)

    def command(*words: str, storage: Path = undisturbed.root.parent) -> Result:
        return CliRunner().invoke(main, ["export", "mnist-5k", "--storage", str(storage), *words])

    return command


@pytest.mark.parametrize("name", FORMATS)
def test_the_card_says_how_to_get_what_the_module_gives(
    ask: Ask, undisturbed: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = ask("--format", name, "--out", "exported/")
    assert answer.exit_code == 0, answer.output
    difference = re.search(r"differ from the model's by at most (\S+) ", answer.output)
    assert difference is not None
    assert float(difference[1]) <= 1e-5
    file = Path("exported") / f"mnist-5k-{BEST}{formats.FORMATS[name].suffix}"
    card = Path(f"{file}.md").read_text()
    assert digest(file.read_bytes()) in card
    record = gather(undisturbed).records[BEST]
    assert f"| test loss | {record.test_loss:.6f} " in card
    assert str(record.dataset["fingerprint"]) in card

    assert f"`dae-sweep denoise PICTURE --sweep mnist-5k --cell {BEST} --out FOLDER`" in card

    pixels = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    Image.fromarray(pixels).save(file.parent / "picture.png")
    monkeypatch.chdir(file.parent)
    run(card)
    expected = sweep.denoise(pixels[:28, :28], str(undisturbed.root)).astype(int)
    with Image.open("denoised.png") as written:
        assert (written.mode, written.size) == ("L", (28, 28))
        assert np.abs(np.asarray(written) - expected).max() <= 1, "but for what is rounded"


def run(card: str) -> None:
    """The program on the card, as it stands."""
    program = re.search(r"```python\n(.*?)```", card, re.S)
    assert program is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's, of torch.jit
        exec(program[1], {})


@pytest.mark.parametrize(
    ("channels", "scale"),
    [
        (1, Scale(60, 187)),
        (3, Scale(60, 187)),
        (1, Scale(1000, 40_000)),
        (3, Scale(1000, 40_000)),
        (1, Scale(0, 60_000, -40.0, 200.0)),
        (3, Scale(0, 60_000, -40.0, 200.0)),
    ],
    ids=str,
)
def test_the_program_reads_and_writes_pictures_of_the_model_s_kind(
    undisturbed: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, scale: Scale
) -> None:
    whole = gather(undisturbed)
    monkeypatch.chdir(tmp_path)
    plain = load_model(whole, choose(whole))
    config = replace(plain.config, image=ImageShape(16, 24, channels))
    torch.manual_seed(0)
    model = replace(plain, config=config, scale=scale, module=DenoisingAutoencoder(config).eval())
    shape, generator = (20, 30) if channels == 1 else (20, 30, 3), np.random.default_rng(0)
    if scale.factor is not None:
        pixels = generator.uniform(*scale.range_of(float), shape)
        np.save("picture.npy", pixels)
    else:
        pixels = generator.integers(0, np.iinfo(scale.pixel_type).max, shape, dtype=scale.pixel_type)
        if scale.pixel_type is np.uint16 and channels == 3:
            tifffile.imwrite("picture.tif", pixels, photometric="rgb")
        else:
            Image.fromarray(pixels).save("picture.png")
    exported = export(whole, model, "safetensors", "model.safetensors")
    Path("model.safetensors").write_bytes(exported.content)
    run(exported.card)
    written = next(path for path in Path().glob("denoised.*"))
    clean = np.load(written) if written.suffix == ".npy" else read(written).pixels
    expected = denoise(model, pixels[:16, :24]).pixels
    assert clean.shape == expected.shape
    assert np.abs(clean - expected.astype(float)).max() <= (1 if scale.factor is None else 1e-3)


def test_a_trial_of_a_search_is_not_tested_and_exported(undisturbed: Store) -> None:
    whole = gather(undisturbed)
    record = replace(whole.records[BEST], test_loss=None, test_psnr_db=None)
    text = export(whole, load_model(whole, record), "safetensors", "x.safetensors").card
    assert "| test loss | not tested: a trial of a search |" in text
    assert "is worse than" not in text


def test_a_model_that_is_worse_than_doing_nothing_is_said_to_be(ask: Ask, sweep_copy: Store) -> None:
    manifest = gather(sweep_copy).manifest
    sweep_copy.write(MANIFEST, replace(manifest, baselines={"identity": 1e-4, "mean_image": 0.1}).to_bytes())
    loss = gather(sweep_copy).records[BEST].test_loss
    answer = ask("--format", "safetensors", "--out", "x/", storage=sweep_copy.root.parent)
    assert answer.exit_code == 0, answer.output
    text = Path(f"x/mnist-5k-{BEST}.safetensors.md").read_text()
    sentence = f"{BEST}, whose test loss is {loss:.5f}, is worse than doing nothing (0.00010)."
    assert text.startswith(f"# {BEST}\n\n**{sentence}**\n")


def test_the_card_of_a_model_of_pairs_names_their_noise(ask: Ask, sweep_of_pairs: Store) -> None:
    answer = ask("--format", "safetensors", "--out", "x/", storage=sweep_of_pairs.root.parent)
    assert answer.exit_code == 0, answer.output
    card = Path(f"x/mnist-5k-{BEST}.safetensors.md").read_text()
    assert "| noise | the noise of the dataset's own pairs |" in card
    assert "trained to remove the noise of the dataset's own pairs from images such as those of mnist-5k" in card
    assert "gaussian" not in card
    assert "strength" not in card


def test_a_file_may_be_named(ask: Ask) -> None:
    out = ("--out", "model.safetensors")
    answer = ask("--format", "safetensors", *out, "--cell", "DAE_1_5-s0")
    assert answer.exit_code == 0, answer.output
    assert Path("model.safetensors").is_file()
    assert "DAE_1_5-s0" in Path("model.safetensors.md").read_text()
    again = ask("--format", "safetensors", *out)
    assert again.exit_code == 2
    assert "model.safetensors is there already: give another --out, or --overwrite." in again.output
    assert ask("--format", "safetensors", *out, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("out", "folder"), [(None, "."), ("Modelle", "Modelle"), ("v1.0", "v1.0"), ("there.pt", "there.pt"), ("x/", "x")]
)
def test_what_has_no_ending_of_a_format_is_a_folder(ask: Ask, out: str | None, folder: str) -> None:
    Path("there.pt").mkdir()
    answer = ask("--format", "safetensors", *([] if out is None else ["--out", out]))
    assert answer.exit_code == 0, answer.output
    there = sorted(path.name for path in Path(folder).iterdir() if path.is_file())
    assert there == [f"mnist-5k-{BEST}.safetensors", f"mnist-5k-{BEST}.safetensors.md"]


def test_a_sweep_may_be_named_by_its_folder(undisturbed: Store, tmp_path: Path) -> None:
    words = ["export", str(undisturbed.root), "--format", "safetensors", "--out", str(tmp_path / "x")]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert (tmp_path / "x" / f"mnist-5k-{BEST}.safetensors").is_file()


def test_what_computes_something_else_is_not_written(undisturbed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gather(undisturbed)
    model = load_model(whole, choose(whole))
    wrong = replace(formats.FORMATS["safetensors"], read=lambda _content, model: lambda x: model.module(x) + 1e-3)
    monkeypatch.setitem(formats.FORMATS, "safetensors", wrong)
    with pytest.raises(UserError, match=r"gives other images than DAE_3_8-s0, by up to 0\.001: nothing is written"):
        export(whole, model, "safetensors", "model.safetensors")


def test_what_is_not_installed_is_named_with_its_extra(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    find = formats.importlib.util.find_spec
    monkeypatch.setattr(
        formats.importlib.util, "find_spec", lambda name, *rest: None if "onnx" in name else find(name, *rest)
    )
    answer = ask("--format", "onnx", "--out", "x/")
    assert answer.exit_code == 2
    assert "onnx, onnxscript, onnxruntime not installed: pip install 'dae-sweep[export]'" in answer.output
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--format", "tflite", "--out", "x/"),
            "unknown format 'tflite'. Known ones: onnx, torchscript, pt2, safe",
        ),
        (("--format", "pt2", "--out", "x/", "--cell", "DAE_3_9-s0"), "there is no cell DAE_3_9-s0 in mnist-5k. Near"),
        (("--format", "safetensors", "--out", "/proc/nowhere/"), "--out /proc/nowhere/: cannot write"),
        (
            ("--format", "onnx", "--out", "x/model.pt"),
            "--out x/model.pt: .pt is the ending of torchscript, and --format is onnx: give model.onnx, a folder, or "
            "--format torchscript.",
        ),
        (("--format", "safetensors", "--out", "n" * 400), "File name too long"),
    ],
)
def test_what_cannot_be_exported_is_said(ask: Ask, words: tuple[str, ...], message: str) -> None:
    answer = ask(*words)
    assert answer.exit_code == 2
    assert message in answer.output
    assert not Path("x").exists()


def test_damaged_weights_are_refused(ask: Ask, sweep_copy: Store) -> None:
    sweep_copy.write(CellFiles(BEST).weights, b"damaged")
    answer = ask("--format", "safetensors", "--out", "x/", storage=sweep_copy.root.parent)
    assert answer.exit_code == 2
    assert "does not match its digest" in answer.output
    assert not Path("x").exists()
