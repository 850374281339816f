"""A user's own images through the commands: what is refused, and with nothing written; names, resuming, pairs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import InProcess
from PIL import Image
from synthetic import drawn_digits

from sweep.cli import main
from sweep.driver import runner
from sweep.records.sweep import gather
from sweep.storage.store import Store

RUN = ["--depths", "1", "--latents", "5", "--epochs", "1", "--batch-size", "8"]
MACHINE = ["--gpus", "0", "--cpus", "1", "--wandb", "disabled", "--no-report"]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: Path, own_signals: None) -> Path:
    """An empty working folder beside ``tmp_path / "mine"``, where the images are."""
    folder = tmp_path / "work"
    folder.mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "mine"


def ask(*words: object) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words], prog_name="dae-sweep")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def digits(count: int, seed: int = 0) -> tuple[Any, Any]:
    labels = np.arange(count) % 10
    greys = np.random.default_rng(seed).uniform(100, 255, (count, 28, 28))
    return (drawn_digits()[labels] * greys).astype(np.uint8), labels


def images(folder: Path, count: int = 12, *shape: int, start: int = 0, suffix: str = "png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(start)
    for number in range(start, start + count):
        pixels = generator.integers(0, 256, shape or (28, 28)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.{suffix}")
    return folder


def array(path: Path, *shape: int, **values: Any) -> Path:
    numbers = np.random.default_rng(0).random(shape or (20, 28, 28))
    if values:
        np.savez(path, **values)
    else:
        np.save(path, numbers)
    return path


# ---- bad input

Make = Callable[[Path], object]


def _truncated(folder: Path) -> None:
    images(folder, 6, 28, 28, 3)
    images(folder, 1, 64, 64, 3, start=9, suffix="jpg")
    whole = (folder / "009.jpg").read_bytes()
    (folder / "009.jpg").write_bytes(whole[: len(whole) // 2])


def _copied(folder: Path) -> None:
    for number in range(9):
        (images(folder / "x", 1) / "000.png").rename(folder / f"{number}.png")
    (folder / "x").rmdir()


def _not_finite(folder: Path) -> None:
    numbers = np.random.default_rng(0).random((20, 28, 28))
    numbers[7, 3, 4] = np.nan
    np.save(folder / "x.npy", numbers)


def _looped(folder: Path) -> None:
    images(folder / "a")
    (folder / "a" / "back").symlink_to(folder)


def _idx_cut(folder: Path) -> None:
    head = bytes([0, 0, 8, 3]) + np.array([50, 28, 28], ">u4").tobytes()
    (folder / "train-images-idx3-ubyte").write_bytes(head + bytes(5000))


BAD: dict[str, tuple[Make, str, list[str], list[str]]] = {
    "empty": (lambda f: None, "", [], ["mine holds no image", "give a folder of PNG"]),
    "not-there": (lambda f: None, "gone", [], ["there is no file or folder", "mine/gone", "give the --dataset path"]),
    "one": (lambda f: images(f, 1), "", [], ["has 1 image", "need at least one each", "Add images"]),
    "copies": (_copied, "", [], ["has 1 image, copies not counted", "need at least one each"]),
    "no-image": (
        lambda f: (images(f, 40), (f / "notes.txt").write_text("x")), "", [],
        ["notes.txt is no image", "--skip-unreadable"],
    ),
    "truncated": (_truncated, "", [], ["009.jpg cannot be read", "--skip-unreadable"]),
    "colours": (
        lambda f: (images(f, 5), images(f, 1, 28, 28, 3, start=7)), "", [],
        ["000.png is grey", "007.png colour", "alike"],
    ),
    "sizes": (lambda f: (images(f, 5), images(f, 1, 28, 32, start=7)), "", [], ["28x28", "28x32", "--patch 28"]),
    "large-patch": (lambda f: images(f), "", ["--patch", "64"], ["--patch 64 is larger", "000.png", "at most 28"]),
    "tiny-patch": (lambda f: images(f), "", ["--patch", "4"], ["--patch 4 is out of range", "at least 8"]),
    "named-patch": (lambda f: None, "mnist-5k", ["--patch", "14"], ["--patch 14 cuts images of your own"]),
    "nan": (_not_finite, "x.npy", [], ["x.npy[7]", "NaN or infinite", "replace"]),
    "flat": (lambda f: array(f / "x.npy", 20, 784), "x.npy", [], ["array of 2 dimensions", "(n, height, width)"]),
    "five": (lambda f: array(f / "x.npy", 2, 2, 2, 2, 2), "x.npy", [], ["array of 5 dimensions"]),
    "two-channels": (lambda f: array(f / "x.npy", 9, 28, 28, 2), "x.npy", [], ["(9, 28, 28, 2)", "1 or 3"]),
    "objects": (
        lambda f: np.save(f / "x.npy", np.array([{}] * 9, object)), "x.npy", [], ["Python objects", "never unpickled"],
    ),
    "object-labels": (
        lambda f: array(f / "x.npz", x=np.zeros((9, 28, 28)), y=np.array([{}] * 9)), "x.npz", [], ["never unpickled"],
    ),
    "pair-names": (
        lambda f: (images(f / "clean"), images(f / "noisy", 11)), "", [],
        ["clean/011.png has no counterpart", "same names"],
    ),
    "pair-sizes": (
        lambda f: (images(f / "clean"), images(f / "noisy", 12, 30, 30)), "", [], ["30x30", "28x28", "a pair is"],
    ),
    "pair-shapes": (
        lambda f: array(f / "x.npz", clean=np.zeros((9, 28, 28)), noisy=np.zeros((8, 28, 28))), "x.npz", [],
        ["(8, 28, 28)", "(9, 28, 28)", "in the same order"],
    ),
    "half-pair": (lambda f: images(f / "clean"), "", [], ["has no folder noisy/"]),
    "labels": (
        lambda f: array(f / "x.npz", x=np.zeros((9, 28, 28)), y=np.zeros(8)), "x.npz", [],
        ["8 labels", "9", "one each"],
    ),
    "bomb": (lambda f: images(f, 3, 60, 60), "", [], ["more than the 3,000 pixels"]),
    "loop": (_looped, "", [], ["a/back is a link to a folder that holds it", "remove the link"]),
    "self": (lambda f: (images(f), (f / "me").symlink_to("me")), "", [], ["me is no file, or a link that"]),
    "single": (
        lambda f: [images(f / name, 1, start=n) for n, name in enumerate("abc")], "", [],
        ["1 image of class a", "need at least one each", "without classes"],
    ),
    "types": (
        lambda f: array(f / "x.npz", clean=np.zeros((9, 28, 28), "u1"), noisy=np.zeros((9, 28, 28), "u2")), "x.npz", [],
        ["clean is of uint8", "noisy of uint16", "one type of number"],
    ),
    "empty-split": (
        lambda f: array(
            f / "x.npz", train_images=np.zeros((9, 28, 28)), train_labels=np.arange(9)[:, None],
            val_images=np.zeros((0, 28, 28)), val_labels=np.zeros((0, 1)),
        ), "x.npz", [], ["has no image for validation", "add some"],
    ),
    "pair-kinds": (
        lambda f: (images(f / "clean"), images(f / "noisy", 12, 28, 28, 3)), "", [],
        ["noisy/000.png is 28x28, colour", "clean/000.png is 28x28, grey", "a pair is"],
    ),
    "pair-text": (
        lambda f: (images(f / "clean"), images(f / "noisy"), (f / "clean" / "a.txt").write_text("x")), "", [],
        ["clean/a.txt is no image", "--skip-unreadable"],
    ),
    "pair-twice": (
        lambda f: (images(f / "clean"), images(f / "clean", 1, suffix="bmp"), images(f / "noisy")), "", [],
        ["clean/000.bmp and", "clean/000.png have one name but for the ending"],
    ),
    "constant": (lambda f: np.save(f / "x.npy", np.full((20, 28, 28), 7)), "x.npy", [], ["every pixel", "is 7"]),
    "idx": (_idx_cut, "", [], ["train-images-idx3-ubyte cannot be read", "ends before its array"]),
    "test-only": (lambda f: images(f / "test"), "", [], ["no train/"]),
    "unknown-arrays": (lambda f: array(f / "x.npz", foo=np.zeros(3)), "x.npz", [], ["the arrays foo", "x_train"]),
    "no-array": (lambda f: (f / "x.txt").write_text("x"), "x.txt", [], ["x.txt is none of the files that hold images"]),
    "odd-letters": (lambda f: images(f / "it's \"这\"", 1), "it's \"这\"", [], ["it's \"这\" has 1 image"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_sentence_and_nothing_is_written(
    mine: Path, work: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, place, options, phrases = BAD[case]
    make(mine)
    monkeypatch.setattr(runner.Training, "run", lambda *_: pytest.fail("it went on to train"))
    if case == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    before = sorted(mine.rglob("*")) if case != "loop" else []
    dataset = place if place == "mnist-5k" else mine / place
    result = ask("run", "--dataset", dataset, *options, *RUN, *MACHINE)
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2, result.output
    assert said.startswith("Error: ")
    assert said.count("Error") == 1
    for phrase in phrases:
        assert phrase in said
    assert list(work.iterdir()) == []
    assert case == "loop" or sorted(mine.rglob("*")) == before


SEEN_IN_PIXELS = ("copies", "truncated", "nan", "constant", "idx")
"""Of the bad input what only shows where all of it is read."""


@pytest.mark.parametrize("case", [case for case in BAD if case not in SEEN_IN_PIXELS])
def test_a_plan_refuses_what_a_run_does(mine: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, place, options, phrases = BAD[case]
    make(mine)
    if case == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    result = ask("plan", "--dataset", place if place == "mnist-5k" else mine / place, *options, *RUN)
    assert result.exit_code == 2, result.output
    assert all(phrase in " ".join(result.stderr.split()) for phrase in phrases)


@pytest.mark.parametrize("option", ["--dataset", "--storage", "--temp-dir"])
def test_the_home_of_nobody_is_said(mine: Path, work: Path, option: str) -> None:
    images(mine)
    rest = [] if option == "--dataset" else ["--dataset", mine]
    result = ask("run", option, "~nobody-of-this-name/x", *rest, *RUN, *MACHINE)
    assert result.exit_code == 2
    assert "the home folder that ~nobody-of-this-name stands for is not known" in " ".join(result.stderr.split())


# ---- good input


def test_a_folder_of_ones_own_is_trained_resumed_verified_and_followed_to_where_it_was_moved(
    mine: Path, work: Path, in_process: InProcess
) -> None:
    for number, (image, label) in enumerate(zip(*digits(80), strict=True)):
        (mine / "my digits" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(mine / "my digits" / str(label) / f"{number}.png")
    assert ask("run", "--dataset", mine / "my digits", *RUN, *MACHINE).exit_code == 0
    manifest = gather(Store(work / "sweeps" / "my digits")).manifest
    assert manifest.dataset["source"] == str(mine / "my digits")
    assert (manifest.settings.dataset, manifest.settings.patch) == ("my digits", None)

    grid = ["--depths", "1", "--latents", "5"]
    resumed = ask("run", "--name", "my digits", *grid, "--seeds", "0,1", *MACHINE)
    assert resumed.exit_code == 0, resumed.output
    assert in_process.rounds == [["DAE_1_5-s0"], ["DAE_1_5-s1"]]

    (mine / "my digits").rename(mine / "elsewhere")
    lost = ask("run", "--name", "my digits", *MACHINE)
    assert lost.exit_code == 2
    assert f"images in {mine}/my digits, and there is no such file or folder" in " ".join(lost.stderr.split())
    assert ask("verify", "--name", "my digits").exit_code == 2
    found = ask("run", "--name", "my digits", "--dataset", mine / "elsewhere", *grid, "--seeds", "2", *MACHINE)
    assert found.exit_code == 0, found.output
    manifest = gather(Store(work / "sweeps" / "my digits")).manifest
    assert manifest.dataset["source"] == str(mine / "elsewhere")
    verified = ask("verify", "--name", "my digits")
    assert verified.exit_code == 0, verified.output

    next((mine / "elsewhere").rglob("*.png")).unlink()
    other = ask("run", "--name", "my digits", *grid, "--seeds", "3", *MACHINE)
    assert other.exit_code == 2
    assert "was trained on other data" in other.stderr


def test_an_array_of_ones_own_by_its_bare_name(work: Path, in_process: InProcess) -> None:
    x, y = digits(60)
    np.savez("digits.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    grid = [word for word in RUN if word not in ("--batch-size", "8")]
    result = ask("run", "--dataset", "digits.npz", *grid, *MACHINE)
    assert result.exit_code == 0, result.output
    settings = gather(Store(work / "sweeps" / "digits")).manifest.settings
    assert (settings.batch_size, settings.lr, settings.warmup) == (10, 4e-3, 1)  # as for the small dataset
    other = [word if word != "1" else "2" for word in grid]
    assert "epochs" in ask("run", "--dataset", "digits.npz", *other, *MACHINE).stderr
    assert ask("plan", "--dataset", "digits.npz").exit_code == 0
    Path("digits.npz").rename("moved.npz")
    assert "1 completed" in ask("status").stdout


def test_what_is_skipped_is_counted(mine: Path, in_process: InProcess) -> None:
    for number, (image, label) in enumerate(zip(*digits(80), strict=True)):
        (mine / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image).save(mine / str(label) / f"{number}.png")
    (mine / "3" / "notes.txt").write_text("x")
    result = ask("run", "--dataset", mine, "--skip-unreadable", *RUN, *MACHINE)
    assert result.exit_code == 0, result.output
    assert "skipped 1 unreadable" in result.stdout


@pytest.mark.parametrize("command", ["run", "search"])
def test_a_sweep_remembers_that_files_are_skipped(mine: Path, work: Path, in_process: InProcess, command: str) -> None:
    images(mine, 20)
    begin = RUN
    if command == "search":
        pytest.importorskip("optuna")
        space = ["--space", "depth=1", "--space", "latent=5", "--trials", "1", "--finalists", "1", "--seeds", "1"]
        begin = [*space, "--epochs", "1", "--batch-size", "8"]
    (mine / "notes.txt").write_text("x")
    name = ["--name", "mine"]
    assert ask(command, "--dataset", mine, *name, *begin, *MACHINE).exit_code == 2
    begun = ask(command, "--dataset", mine, *name, "--skip-unreadable", *begin, *MACHINE)
    assert begun.exit_code == 0, begun.output
    manifest = gather(Store(work / "sweeps" / "mine")).manifest
    assert manifest.dataset["skip_unreadable"] is True
    for words in ([command, *name, *MACHINE], [command, "--dataset", mine, *name, *MACHINE], ["plan", *name]):
        again = ask(*words)
        assert again.exit_code == 0, again.output
    assert gather(Store(work / "sweeps" / "mine")).manifest == manifest


def test_skipping_may_begin_later_and_is_in_no_other_manifest(mine: Path, work: Path, in_process: InProcess) -> None:
    images(mine, 20)
    assert ask("run", "--dataset", mine, *RUN, *MACHINE).exit_code == 0
    store = Store(work / "sweeps" / "mine")
    assert "skip_unreadable" not in gather(store).manifest.dataset
    (mine / "notes.txt").write_text("x")
    assert ask("run", "--name", "mine", *MACHINE).exit_code == 2
    assert ask("run", "--name", "mine", "--skip-unreadable", *MACHINE).exit_code == 0
    assert gather(store).manifest.dataset["skip_unreadable"] is True
    assert ask("run", "--name", "mine", *MACHINE).exit_code == 0


@pytest.mark.parametrize(("trained", "options"), [(12, []), (60, ["--train-fraction", "0.2"])])
def test_the_usual_batch_fits_into_the_training_images(
    mine: Path, in_process: InProcess, trained: int, options: list[str]
) -> None:
    generator = np.random.default_rng(0)
    x_train, x_test = (generator.integers(0, 256, (count, 8, 8)).astype(np.uint8) for count in (trained, 500))
    np.savez(mine / "x.npz", x_train=x_train, x_test=x_test)
    grid = ["--depths", "1", "--latents", "4", "--epochs", "1"]
    result = ask("run", "--dataset", mine / "x.npz", *grid, *options, *MACHINE)
    assert result.exit_code == 0, result.output


def test_a_search_of_small_images_has_a_space_that_they_allow(mine: Path, work: Path, in_process: InProcess) -> None:
    pytest.importorskip("optuna")
    images(mine, 20, 8, 30)
    few = ["--trials", "1", "--sampler", "random", "--finalists", "1", "--seeds", "1", "--epochs", "1"]
    result = ask("search", "--dataset", mine, *few, *MACHINE)
    assert result.exit_code == 0, result.output
    search = gather(Store(work / "sweeps" / "mine-search")).manifest.search
    assert search is not None
    assert search.space.texts["latent"] == "4..8"


@pytest.mark.parametrize("options", [["--alpha", "0.5"], ["--noise", "blur"], ["--axis", "alpha=0.1,0.5"]])
@pytest.mark.parametrize("command", ["run", "plan"])
def test_noise_is_refused_where_pairs_bring_it(mine: Path, work: Path, command: str, options: list[str]) -> None:
    images(mine / "clean")
    images(mine / "noisy")
    result = ask(command, "--dataset", mine, *RUN, *options)
    assert result.exit_code == 2
    assert "it holds pairs, whose noisy images are its noise" in " ".join(result.stderr.split())
    assert list(work.iterdir()) == []


def test_a_submitted_sweep_needs_the_whole_path(mine: Path) -> None:
    images(mine)
    run = ["--storage", "s3://bucket/sweeps", "--dataset"]
    result = ask("submit", "--address", "http://127.0.0.1:1", "--", *run, "../mine")
    assert result.exit_code == 2
    assert "--dataset ../mine is not an absolute path" in result.stderr
