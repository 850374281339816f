"""Any truncation or byte flip of any file that a sweep reads back is detected or harmless.

Each case damages one file of a sweep that has a completed and an interrupted cell (made without Ray). All that reads
it gives the true numbers or none, and the damage is named; and `run`'s own path arrives at the numbers of the
undisturbed sweep, to the bit. Never a wrong number, never an exception but those that carry a sentence.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import as_trials_do, request_for
from hypothesis import example, given, settings
from hypothesis import strategies as st
from selection import cases

from dae.data import Dataset
from dae.training import Images
from sweep.analysis.arrays import load_arrays
from sweep.analysis.results import loss_table
from sweep.driver.declaration import cells_to_train, declare
from sweep.driver.drill import compare
from sweep.driver.events import clean_and_noisy
from sweep.evaluation.verify import verify
from sweep.records.grid import Grid, Settings
from sweep.records.record import CellFiles
from sweep.records.sweep import IDENTITY, MANIFEST, SAMPLES, Sweep, gather
from sweep.storage.sealing import Damaged
from sweep.storage.store import Store
from sweep.trials.job import Job
from sweep.trials.trial import Trial

CASES, RECOVERIES = cases(100, nightly=800), 60
GRID = Grid.product((1, 3), (5,), (0,))
SETTINGS = Settings.usual("mnist-5k", epochs=3, batch_size=16, width=4)
DONE, BEGUN = (CellFiles(cell.key) for cell in GRID.cells)
FILES = [MANIFEST, SAMPLES, IDENTITY, DONE.record, DONE.weights, DONE.test, BEGUN.record, BEGUN.checkpoint]

pytestmark = pytest.mark.usefixtures("one_thread")


def go(store: Store, dataset: Dataset, stop_after: int | None = None) -> tuple[Sweep, list[str]]:
    """Train the sweep as `run` does, without Ray; the second cell may be stopped after some epochs."""
    told: list[str] = []
    sweep = declare(request_for(store, GRID, SETTINGS), dataset, told.append)
    images = Images(dataset, SETTINGS.alpha, "cpu")
    for cell in cells_to_train(sweep, GRID, told.append):
        trial = Trial(Job(store, SETTINGS, "cpu", 1.0, None), cell, images)
        if stop_after is None or cell != GRID.cells[1]:
            trial.advance(float("inf"))
        else:
            for _ in range(stop_after):
                trial.advance(0)
    return gather(store), told


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: Dataset) -> Store:
    store = Store(tmp_path_factory.mktemp("whole") / "mnist-5k")
    with as_trials_do():
        go(store, tiny)
    return store


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, tiny: Dataset) -> Store:
    """The first cell is completed, the second one was stopped after two epochs."""
    store = Store(tmp_path_factory.mktemp("begun") / "mnist-5k")
    with as_trials_do():
        go(store, tiny, stop_after=2)
    return store


def damage(data: bytes, kind: str, place: float, value: int) -> bytes:
    at = min(int(place * len(data)), len(data) - 1)
    if kind == "cut":
        return data[:at]
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ value]) + data[at + 1 :]
    if kind == "noise":
        return bytes(data[(i * value) % len(data)] ^ value for i in range(len(data)))
    return data + bytes([value]) * 7


@pytest.fixture(scope="module")
def true_numbers(whole: Store) -> tuple[dict[str, float | None], set[str], dict[str, np.ndarray]]:
    """The numbers of the undamaged sweep: test losses by cell, its loss table, test losses by image."""
    sweep = gather(whole)
    table = {entry for row in loss_table(sweep)[1:] for entry in row[1:]}
    by_image = {key: outputs.loss for key, outputs in load_arrays(sweep).outputs.items()}
    return {record.key: record.test_loss for record in sweep.completed}, table, by_image


def check_readers(store: Store, truth: tuple[dict[str, float | None], set[str], dict[str, np.ndarray]]) -> set[str]:
    """Check that all readers of the folder give the true numbers or none; returns what they report as damaged."""
    losses, table, by_image = truth
    try:
        sweep = gather(store, thorough=True)
    except Damaged:
        return {MANIFEST}
    complaints = {f"cells/{key}" for key in sweep.damaged}
    for record in sweep.completed:
        assert record.test_loss == losses[record.key]
    assert {entry for row in loss_table(sweep)[1:] for entry in row[1:] if entry[:1] == "0"} <= table
    arrays = load_arrays(gather(store))
    for key, outputs in arrays.outputs.items():
        np.testing.assert_array_equal(outputs.loss, by_image[key])
    try:
        clean_and_noisy(sweep)
    except Damaged:
        complaints.add(SAMPLES)
    return complaints


def damaged_copy(folder: Path, begun: Store, name: str, kind: str, place: float, value: int) -> Store:
    store = Store(folder / "mnist-5k")
    shutil.copytree(begun.root, store.root)
    store.path(name).write_bytes(damage(store.read(name), kind, place, value))
    return store


damages = given(
    name=st.sampled_from(FILES),
    kind=st.sampled_from(["cut", "flip", "flip", "flip", "noise", "append"]),
    place=st.integers(0, 999_999).map(lambda part: part / 1_000_000),  # floats: not while denormals are flushed
    value=st.integers(1, 255),
)


@settings(max_examples=CASES)
@damages
def test_damage_is_detected(
    tmp_path_factory: pytest.TempPathFactory,
    begun: Store,
    true_numbers: tuple[dict[str, float | None], set[str], dict[str, np.ndarray]],
    name: str,
    kind: str,
    place: float,
    value: int,
) -> None:
    store = damaged_copy(tmp_path_factory.mktemp("damaged"), begun, name, kind, place, value)
    try:
        owners = check_readers(store, true_numbers)
        owner = name if "/" not in name else name.rsplit("/", 1)[0]
        if owners == set():  # white space in JSON, and what is only read where the manifest is lost
            assert name.endswith(".json") or name == IDENTITY
            assert gather(store) == replace(gather(begun), store=store)
        else:
            assert owners == {owner}
    finally:
        shutil.rmtree(store.root.parent)


@settings(max_examples=RECOVERIES)
@damages
@example(name=DONE.weights, kind="flip", place=0.999, value=1)
@example(name=BEGUN.checkpoint, kind="flip", place=0.5, value=1)
@example(name=BEGUN.checkpoint, kind="flip", place=0.01, value=1)
@example(name=MANIFEST, kind="cut", place=0.0, value=1)
@example(name=IDENTITY, kind="noise", place=0.0, value=77)
def test_the_same_command_mends_it(
    tmp_path_factory: pytest.TempPathFactory,
    whole: Store,
    begun: Store,
    tiny: Dataset,
    name: str,
    kind: str,
    place: float,
    value: int,
) -> None:
    store = damaged_copy(tmp_path_factory.mktemp("damaged"), begun, name, kind, place, value)
    try:
        if name != MANIFEST:
            verify(gather(store), tiny)
        sweep, _ = go(store, tiny)  # nor may it claim another version, where only the digest disagrees
        assert [cell.differs for cell in compare(whole, store)] == [(), ()]
        assert sweep.manifest.id == gather(begun).manifest.id
        assert verify(sweep, tiny) == []
    finally:
        shutil.rmtree(store.root.parent)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, b"", b"\0" * 4096, b"{}"], ids=["gone", "empty", "zeros", "braces"])
def test_a_file_that_is_gone_or_emptied_is_detected(
    tmp_path: Path,
    whole: Store,
    begun: Store,
    tiny: Dataset,
    true_numbers: tuple[dict[str, float | None], set[str], dict[str, np.ndarray]],
    name: str,
    content: bytes | None,
) -> None:
    store = Store(tmp_path / "mnist-5k")
    shutil.copytree(begun.root, store.root)
    store.path(name).unlink()
    if content is not None:
        store.path(name).write_bytes(content)
    if name != MANIFEST or content is not None:
        check_readers(store, true_numbers)
    _, told = go(store, tiny)
    assert [cell.differs for cell in compare(whole, store)] == [(), ()]
    assert content is None or name in {SAMPLES, IDENTITY, BEGUN.record} or told, "a damaged file is mentioned"
