"""A sweep of own images, not square and in colour: declared, trained, interrupted, read, reported and verified."""

import dataclasses
import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import InProcess, Silent, request_for

from dae import data
from dae.config import ImageShape, Size
from dae.data import Dataset
from dae.errors import UserError
from sweep.analysis.arrays import load_arrays
from sweep.analysis.findings import Findings
from sweep.driver.events import sample_of
from sweep.driver.request import Request
from sweep.driver.runner import run
from sweep.driver.signals import Interrupted, Signals
from sweep.evaluation.verify import verify
from sweep.records.grid import Cell, Grid, Settings
from sweep.records.record import CellFiles, Record, Status, read_record
from sweep.records.sweep import MANIFEST, Manifest, gather
from sweep.report import page
from sweep.report.notebook import LoadedSweep
from sweep.storage.store import Store

SHAPE = ImageShape(20, 12, 3)
SETTINGS = Settings.usual("pictures", image=str(SHAPE), epochs=2, batch_size=16, lr=4e-3)
GRID = Grid.product((1, 2), (4, Size(3, 8)), (0,), image=SHAPE)


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Two flat colours in each picture, without labels."""
    generator = np.random.default_rng(2)
    images = np.empty((104, *SHAPE.array), np.uint8)
    for image in images:
        image[:] = generator.integers(0, 256, 3)
        image[generator.integers(4, 16) :] = generator.integers(0, 256, 3)
    none = np.zeros(0, np.uint8)
    dataset = Dataset(
        "pictures", "d" * 64, images[:64], none, images[64:80], none, images[80:], none, 0, 255, classes=()
    )  # fmt: skip
    monkeypatch.setattr(data, "load", lambda *_, **__: dataset)
    return dataset


def ask(store: Store, **changes: object) -> Request:
    return dataclasses.replace(request_for(store, GRID, SETTINGS, report=True), **changes)


def test_a_sweep_of_pictures(tmp_path: Path, pictures: Dataset, in_process: InProcess) -> None:
    outcome = run(ask(Store(tmp_path / "pictures")), Signals(), Silent())
    sweep, manifest = outcome.sweep, outcome.sweep.manifest
    assert [cell.key for cell in manifest.grid.cells] == [
        "DAE_1_4-s0", "DAE_1_3x8-s0", "DAE_2_4-s0", "DAE_2_3x8-s0",
    ]  # fmt: skip
    assert all(sweep.status(cell) is Status.COMPLETED for cell in manifest.grid.cells)
    described = manifest.dataset
    assert (described["shape"], described["labelled"], described["classes"]) == ("20x12x3", False, [])
    record = sweep.records["DAE_2_3x8-s0"]
    assert (record.latent, record.cell.latent, record.config["image"]) == ("3x8", Size(3, 8), "20x12x3")
    assert record.compression == 4 * 3 * 8 / (20 * 12 * 3)
    assert record.test_sum == pytest.approx((record.test_loss or 0) * 720)
    arrays = load_arrays(sweep)
    assert arrays.samples is not None
    assert not arrays.damaged
    assert arrays.samples.clean.shape == arrays.outputs[record.key].samples.shape == (10, 20, 12, 3)
    assert arrays.samples.class_means.shape == (0, 20, 12, 3)
    picture = sample_of(sweep, record)
    assert (picture.shape, picture.dtype) == ((3 * 20, 10 * 12, 3), np.uint8)
    assert np.array_equal(picture[:20, :12], pictures.test[0])
    text = (tmp_path / "pictures" / "report" / "index.html").read_text()
    assert "digit" not in text
    assert "Left out: the images have no labels." in text
    assert (tmp_path / "pictures" / "report" / "denoised.png").exists()
    rows = (tmp_path / "pictures" / "report" / "results.csv").read_text().splitlines()
    assert ",3x8," in rows[2]
    assert "config.image" in rows[0]
    table = LoadedSweep.of(sweep).cells
    assert table["latent"].tolist() == ["4", "3x8", "4", "3x8"]
    assert verify(sweep, pictures) == []


def test_pictures_go_on_to_the_same_bits(tmp_path: Path, pictures: Dataset, in_process: InProcess) -> None:
    undisturbed, store, signals = Store(tmp_path / "undisturbed"), Store(tmp_path / "pictures"), Signals()
    run(ask(undisturbed, report=False), Signals(), Silent())
    seen: list[str] = []

    def interrupt(key: str) -> None:
        seen.append(key)
        if len(seen) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    in_process.before = interrupt
    with pytest.raises(Interrupted):
        run(ask(store, report=False), signals, Silent())
    in_process.before = lambda _: None
    run(ask(store, report=False), Signals(), Silent())
    for cell in GRID.cells:
        files = CellFiles(cell.key)
        assert store.read(files.weights) == undisturbed.read(files.weights)
        assert read_record(store, cell).test_loss == read_record(undisturbed, cell).test_loss


def test_a_pair_that_a_number_stands_for_is_the_number() -> None:
    assert SETTINGS.plain(Cell(depth=1, latent=Size(7, 4), seed=0)) == Cell(depth=1, latent=4, seed=0)
    assert SETTINGS.plain(Cell(depth=1, latent=Size(4, 7), seed=0)).latent == Size(4, 7)
    assert Settings().plain(Cell(depth=1, latent=Size(13, 13), seed=0)).key == "DAE_1_13-s0"


def test_keys_carry_both_sides() -> None:
    cell = Cell(depth=5, latent=Size(13, 8), seed=2, axes=(("alpha", 0.25),))
    assert cell.key == "DAE_5_13x8-alpha0.25-s2"
    assert Cell.from_key(cell.key) == cell
    record = Record.new(cell, dataclasses.replace(SETTINGS, image="28x28"), {})
    assert Record.from_bytes(record.to_bytes()) == record
    assert record.cell == cell


def test_files_of_28x28_images_say_nothing_of_it(undisturbed: Store) -> None:
    for content in (undisturbed.read(MANIFEST), undisturbed.read(CellFiles("DAE_1_5-s0").record)):
        document = json.loads(content)
        settings = document.get("config", document.get("settings"))
        assert not {"image", "patch"} & settings.keys()
        assert not {"shape", "classes", "labelled"} & document["dataset"].keys()
    manifest = Manifest.from_bytes(undisturbed.read(MANIFEST))
    assert (manifest.settings.shape, manifest.noun, len(manifest.classes)) == (ImageShape(), "digit", 10)


def test_images_of_another_size_are_refused(undisturbed: Store, pictures: Dataset) -> None:
    from sweep.records.agreement import check_sweep

    sweep = gather(undisturbed)
    asked = dataclasses.replace(sweep.manifest.settings, image="20x12x3")
    with pytest.raises(UserError, match="with images of 28x28, those at hand are of 20x12x3"):
        check_sweep(list(sweep.records.values()), asked, sweep.manifest)


def test_classes_of_labelled_pictures_have_their_names(
    tmp_path: Path, pictures: Dataset, monkeypatch: pytest.MonkeyPatch, in_process: InProcess
) -> None:
    labels = (np.arange(104) % 3).astype(np.uint8)  # the test set has no image of the fourth class
    labelled = dataclasses.replace(
        pictures,
        train_labels=labels[:64],
        validation_labels=labels[64:80],
        test_labels=labels[80:],
        classes=("a", "b", "c", "d"),
    )
    monkeypatch.setattr(data, "load", lambda *_, **__: labelled)
    sweep = run(ask(Store(tmp_path / "pictures")), Signals(), Silent()).sweep
    arrays = Findings.of(sweep).arrays
    assert arrays.samples is not None
    assert arrays.samples.labels.tolist() == [0, 1, 2]
    assert arrays.samples.class_means.shape == (4, 20, 12, 3)
    text = (tmp_path / "pictures" / page.FOLDER / "index.html").read_text()
    assert "Test image of class" in text
    assert "Class by class" in text
    with np.load(io.BytesIO(sweep.store.read(sweep.manifest.samples))) as samples:
        assert samples["clean"].dtype == np.float32
