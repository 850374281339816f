"""Any truncation or byte flip of any file that a sweep reads back is detected or harmless.

Each case damages one file of a finished or of an interrupted sweep (made without Ray), then asks everything that reads
it: the state of the sweep, its loss table and arrays, `verify`, and `run`'s own path, which has to arrive at the
numbers of the undisturbed sweep, to the bit. Never a wrong number, never an exception but those that carry a sentence.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dae.data import Dataset
from dae.errors import UserError
from dae.training import Images
from sweep.analysis import load_arrays, loss_table
from sweep.drill import compare
from sweep.grid import Grid, Settings
from sweep.job import Job
from sweep.records import IDENTITY, MANIFEST, SAMPLES, CellFiles, Sweep, gather
from sweep.runner import Request, _todo, declare
from sweep.store import Damaged, Store
from sweep.trial import Trial
from sweep.verify import verify

CASES = 400
GRID = Grid.product((1, 3), (5,), (0,))
SETTINGS = Settings(dataset="mnist-5k", epochs=3, batch_size=16, width=4)
DONE, BEGUN = (CellFiles(cell.key) for cell in GRID.cells)
FILES = [MANIFEST, SAMPLES, IDENTITY, DONE.record, DONE.weights, DONE.test, BEGUN.record, BEGUN.checkpoint]

pytestmark = pytest.mark.usefixtures("one_thread")


def request(store: Store) -> Request:
    return Request(
        store=store,
        grid=GRID,
        settings=SETTINGS,
        data_dir=Path("nowhere"),
        cpus=1,
        gpus=0,
        trials_per_gpu=1,
        wandb_mode="disabled",
        project="",
    )


def go(store: Store, dataset: Dataset, stop_after: int | None = None) -> tuple[Sweep, list[str]]:
    """What `run` does, without Ray; the second cell may be left after so many epochs."""
    told: list[str] = []
    sweep = declare(request(store), dataset, told.append)
    images = Images(dataset, SETTINGS.alpha, "cpu")
    for cell in _todo(sweep, told.append):
        trial = Trial(Job(store, SETTINGS, "cpu", 1.0, None), cell, images)
        if stop_after is None or cell != GRID.cells[1]:
            trial.advance(float("inf"))
        else:
            for _ in range(stop_after):
                trial.advance(0)
    return gather(store), told


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: Dataset, bits: None) -> Store:
    store = Store(tmp_path_factory.mktemp("whole") / "mnist-5k")
    go(store, tiny)
    return store


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, tiny: Dataset, bits: None) -> Store:
    """The first cell is completed, the second one was left after two epochs."""
    store = Store(tmp_path_factory.mktemp("begun") / "mnist-5k")
    go(store, tiny, stop_after=2)
    return store


@pytest.fixture(scope="module")
def bits() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def damage(data: bytes, kind: str, place: float, value: int) -> bytes:
    at = min(int(place * len(data)), len(data) - 1)
    if kind == "cut":
        return data[:at]
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ value]) + data[at + 1 :]
    if kind == "noise":
        return bytes(data[(i * value) % len(data)] ^ value for i in range(len(data)))
    return data + bytes([value]) * 7


def check_readers(store: Store, whole: Store, dataset: Dataset, name: str) -> None:
    """Whatever reads the folder gives the numbers that were written, or none."""
    try:
        sweep = gather(store)
    except (Damaged, UserError):
        assert name == MANIFEST
        return
    true = {key: record.test_loss for key, record in gather(whole).records.items()}
    for record in sweep.completed:
        assert record.test_loss == true[record.key]
    due = {cell for row in loss_table(gather(whole))[1:] for cell in row[1:]}
    assert {cell for row in loss_table(sweep)[1:] for cell in row[1:] if cell[:1] == "0"} <= due
    for key, outputs in load_arrays(sweep).outputs.items():
        assert (outputs.loss == load_arrays(gather(whole)).outputs[key].loss).all()
    verify(sweep, dataset)


@settings(max_examples=CASES)
@given(
    name=st.sampled_from(FILES),
    kind=st.sampled_from(["cut", "flip", "flip", "flip", "noise", "append"]),
    place=st.integers(0, 999_999).map(lambda part: part / 1_000_000),  # floats: not while denormals are flushed
    value=st.integers(1, 255),
)
@example(name=DONE.weights, kind="flip", place=0.999, value=1)
@example(name=BEGUN.checkpoint, kind="flip", place=0.5, value=1)
@example(name=BEGUN.checkpoint, kind="flip", place=0.01, value=1)
@example(name=MANIFEST, kind="cut", place=0.0, value=1)
@example(name=IDENTITY, kind="noise", place=0.0, value=77)
def test_damage_is_detected_or_harmless(
    tmp_path_factory: pytest.TempPathFactory,
    whole: Store,
    begun: Store,
    tiny: Dataset,
    name: str,
    kind: str,
    place: float,
    value: int,
) -> None:
    store = Store(tmp_path_factory.mktemp("damaged") / "mnist-5k")
    shutil.copytree(begun.root, store.root)
    store.path(name).write_bytes(damage(store.read(name), kind, place, value))
    try:
        check_readers(store, whole, tiny, name)
        try:
            sweep, _ = go(store, tiny)
        except UserError as refusal:  # a schema of another version may only be claimed where the digest agrees
            pytest.fail(f"refused: {refusal}")
        assert [cell.differs for cell in compare(whole, store)] == [(), ()]
        assert sweep.manifest.id == gather(begun).manifest.id
        assert verify(sweep, tiny) == []
    finally:
        shutil.rmtree(store.root.parent)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, b"", b"\0" * 4096, b"{}"], ids=["gone", "empty", "zeros", "braces"])
def test_a_file_that_is_gone_or_emptied_is_detected(
    tmp_path: Path, whole: Store, begun: Store, tiny: Dataset, name: str, content: bytes | None
) -> None:
    store = Store(tmp_path / "mnist-5k")
    shutil.copytree(begun.root, store.root)
    store.path(name).unlink()
    if content is not None:
        store.path(name).write_bytes(content)
    if name != MANIFEST or content is not None:
        check_readers(store, whole, tiny, name)
    _, told = go(store, tiny)
    assert [cell.differs for cell in compare(whole, store)] == [(), ()]
    assert content is None or name in {SAMPLES, IDENTITY, BEGUN.record} or told, "a damaged file is mentioned"
