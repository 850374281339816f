"""`dae-sweep export`: what is written computes the same, and its card tells how to call it."""

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import sweep
from dae.errors import UserError
from sweep.cli import main
from sweep.models import formats
from sweep.models.export import export
from sweep.models.trained import choose, load_model
from sweep.records.record import CellFiles
from sweep.records.sweep import gather
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
def test_the_card_says_how_to_get_what_the_module_gives(ask: Ask, undisturbed: Store, name: str) -> None:
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

    usage = re.search(r"```python\n(.*?)```", card, re.S)
    assert usage is not None
    assert len(usage[1].splitlines()) <= 6
    noisy = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    names = {"noisy": noisy if "NumPy" in card else torch.from_numpy(noisy)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's, of torch.jit
        exec(usage[1].replace(f'"{file.name}"', f'"{file}"'), names)
    module = sweep.load(str(undisturbed.root)).model(BEST)
    with torch.inference_mode():
        plain = module(torch.from_numpy(noisy)).numpy()
    assert np.abs(np.asarray(torch.as_tensor(names["denoised"]).detach()) - plain).max() <= 1e-5


def test_the_card_of_a_model_of_pairs_names_their_noise(ask: Ask, sweep_of_pairs: Store) -> None:
    answer = ask("--format", "safetensors", "--out", "x/", storage=sweep_of_pairs.root.parent)
    assert answer.exit_code == 0, answer.output
    card = Path(f"x/mnist-5k-{BEST}.safetensors.md").read_text()
    assert "| noise | the noise of the dataset's own pairs |" in card
    assert "trained to remove the noise of the dataset's own pairs from images such as those of mnist-5k" in card
    assert "gaussian" not in card
    assert "strength" not in card


def test_a_file_may_be_named(ask: Ask) -> None:
    answer = ask("--format", "safetensors", "--out", "model.bin", "--cell", "DAE_1_5-s0")
    assert answer.exit_code == 0, answer.output
    assert Path("model.bin").exists()
    assert "DAE_1_5-s0" in Path("model.bin.md").read_text()
    again = ask("--format", "safetensors", "--out", "model.bin")
    assert again.exit_code == 2
    assert "model.bin is there already: give another --out, or --overwrite." in again.output
    assert ask("--format", "safetensors", "--out", "model.bin", "--overwrite").exit_code == 0


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
