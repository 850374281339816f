import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make_sweep

from dae.errors import UserError
from sweep.records.agreement import check_settings
from sweep.records.grid import Cell, Grid, Settings
from sweep.records.record import LATER_SETTINGS, Attempt, CellFiles, Epoch, Record, Status, read_record, read_verified
from sweep.records.sweep import MANIFEST, SAMPLES, Manifest, gather
from sweep.storage.sealing import Damaged, digest, dump_json
from sweep.storage.store import Store

CELL = Cell(depth=3, latent=8, seed=0)
GRID = Grid.product((1, 3), (8, 5), (0,))

losses = st.floats(0, 1e6)
texts = st.text(max_size=20)
histories = st.lists(st.tuples(losses, losses, losses), max_size=5).map(
    lambda rows: tuple(
        Epoch(epoch=number, train_loss=train, val_loss=val, seconds=seconds)
        for number, (train, val, seconds) in enumerate(rows, 1)
    )
)
attempts = st.builds(Attempt, token=texts, started_at=texts, ended_at=st.none() | texts, reason=st.none() | texts)
records = st.builds(
    lambda cell, settings, **values: replace(
        Record.new(cell, settings, {"name": "mnist", "fingerprint": "f"}), **values
    ),
    st.builds(Cell, depth=st.integers(1, 9), latent=st.integers(1, 28), seed=st.integers(0, 9)),
    st.builds(Settings, lr=st.floats(1e-9, 1e9), alpha=st.floats(0, 9), epochs=st.integers(1, 99)),
    status=st.sampled_from([Status.COMPLETED, Status.DIVERGED, Status.FAILED, Status.RUNNING]),
    history=histories,
    test_loss=st.none() | losses,
    attempts=st.lists(attempts, max_size=2).map(tuple),
    digests=st.dictionaries(texts, texts, max_size=2),
    environment=st.dictionaries(texts, st.none() | texts, max_size=2),
    collapsed=st.booleans(),
    generation=st.integers(0, 5),
    error=st.none() | texts,
)
manifests = st.builds(
    lambda grid, settings, baselines, name: Manifest.new(
        name=name, grid=grid, settings=settings, dataset={"name": "mnist", "train": 3}, baselines=baselines
    ),
    st.lists(st.builds(Cell, depth=st.integers(1, 9), latent=st.integers(1, 28), seed=st.integers(0, 9))).map(Grid.of),
    st.builds(Settings, lr=st.floats(1e-9, 1e9), train_fraction=st.floats(0.01, 1)),
    st.dictionaries(texts, losses, max_size=2),
    texts,
)


def sample_record(**changes: Any) -> Record:
    history = tuple(Epoch(epoch=n, train_loss=0.1 / n, val_loss=0.2 / n, seconds=1.5) for n in (1, 2, 3))
    record = Record.new(CELL, Settings(), {"name": "mnist", "fingerprint": "f" * 64})
    return replace(record, history=history, test_loss=0.01234, **changes)


# ---- one record


@given(records)
def test_a_record_comes_back(record: Record) -> None:
    assert Record.from_bytes(record.to_bytes()) == record


@given(manifests)
def test_a_manifest_comes_back(manifest: Manifest) -> None:
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@pytest.mark.parametrize("kind", [Record, Manifest])
@given(data=st.data())
def test_a_file_that_was_cut_or_changed_is_damaged_or_the_same(kind: type[Any], data: st.DataObject) -> None:
    original = data.draw(records if kind is Record else manifests)
    content = original.to_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        changed = content[:position]
    else:
        flipped = content[position] ^ 1 << data.draw(st.integers(0, 7))
        changed = content[:position] + bytes([flipped]) + content[position + 1 :]
    with suppress(Damaged, UserError):
        assert kind.from_bytes(changed) == original


def test_every_single_flip_of_a_bit_in_a_record_is_noticed() -> None:
    record = sample_record()
    content = record.to_bytes()
    num_unnoticed = 0
    for position in range(0, len(content), 3):
        changed = content[:position] + bytes([content[position] ^ 2]) + content[position + 1 :]
        try:
            assert Record.from_bytes(changed) == record, f"byte {position}"
            num_unnoticed += 1
        except (Damaged, UserError):
            pass
    assert num_unnoticed < len(content) / 30, "only white space may change unnoticed"


def test_the_fields_of_a_record_are_those_of_the_contract() -> None:
    document = json.loads(sample_record().to_bytes())
    names = "schema key architecture depth latent seed status collapsed unconverged config history test_loss"
    names += (
        " test_psnr_db parameters macs compression dataset attempts digests environment started_at finished_at error"
    )
    assert set(names.split()) <= set(document)
    assert list(document["history"][0]) == ["epoch", "train_loss", "val_loss", "seconds"]
    assert {"key", "architecture", "status"} <= {name for name, value in document.items() if isinstance(value, str)}
    assert (document["key"], document["architecture"], document["status"]) == ("DAE_3_8-s0", "DAE_3_8", "running")
    assert document["config"]["epochs"] == 15
    assert document["parameters"] == 9797
    assert document["compression"] == pytest.approx(4 * 64 / 784)


def test_the_fields_of_a_manifest_are_readable_json() -> None:
    manifest = Manifest.new(name="m", grid=GRID, settings=Settings(), dataset={"name": "mnist", "fingerprint": "f"})
    document = json.loads(manifest.to_bytes())
    assert document["grid"] == ["DAE_1_8-s0", "DAE_1_5-s0", "DAE_3_8-s0", "DAE_3_5-s0"]
    assert document["settings"]["epochs"] == 15
    assert document["dataset"]["fingerprint"] == "f"


def test_sweeps_have_identities_of_their_own() -> None:
    one, other = (Manifest.new(name="m", grid=GRID, settings=Settings(), dataset={}) for _ in range(2))
    assert one.id != other.id


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"status": "great"}, id="unknown status"),
        pytest.param({"history": [{"epoch": 1}]}, id="epoch without losses"),
        pytest.param({"history": 3}, id="history is a number"),
        pytest.param({"attempts": [{"when": "now"}]}, id="unknown field of an attempt"),
        pytest.param({"history": None}, id="no history"),
    ],
)
def test_a_digest_does_not_make_a_record(change: dict[str, Any]) -> None:
    document = json.loads(sample_record().to_bytes()) | change
    del document["sha256"]
    with pytest.raises(Damaged, match="it is not a record"):
        Record.from_bytes(dump_json(document))


def test_fields_of_a_later_version_are_left_out() -> None:
    document = json.loads(sample_record().to_bytes()) | {"mood": "fine"}
    del document["sha256"]
    assert Record.from_bytes(dump_json(document)) == sample_record()


@pytest.mark.parametrize(("name", "then", "now"), [("initialisation", "he", "lsuv"), ("averaging", 0.0, 0.99)])
def test_a_record_from_before_a_setting_says_what_it_was_made_with(name: str, then: object, now: object) -> None:
    document = json.loads(Record.new(CELL, Settings(initialisation="he"), {"name": "m", "fingerprint": "f"}).to_bytes())
    del document["sha256"]
    for later in LATER_SETTINGS:
        document["config"].pop(later, None)
    record = Record.from_bytes(dump_json(document))
    assert record.config | LATER_SETTINGS == record.config
    with pytest.raises(UserError, match=rf"{name} {then}, this command asks for {now}.*--{name} {then}"):
        check_settings(record, replace(Settings(initialisation="he"), **{name: now}))  # type: ignore[arg-type]


def test_another_schema_is_told_to_the_user() -> None:
    document = json.loads(sample_record().to_bytes()) | {"schema": 2}
    del document["sha256"]
    with pytest.raises(UserError, match=r"written with schema 2, this version reads schema 1"):
        Record.from_bytes(dump_json(document))


def test_the_studys_sum_is_784_times_the_mean() -> None:
    assert sample_record().test_sum == pytest.approx(0.01234 * 784)
    assert Record.new(CELL, Settings(), {}).test_sum is None


def test_only_some_states_are_left_alone_by_another_run() -> None:
    final = {Status.COMPLETED, Status.DIVERGED, Status.PRUNED, Status.STOPPED}
    assert {status for status in Status if status.is_final} == final


def test_the_names_of_a_cells_files() -> None:
    files = CellFiles("DAE_5_13-s0")
    assert vars(files) == {
        "record": "cells/DAE_5_13-s0/record.json",
        "proposal": "cells/DAE_5_13-s0/proposal.json",
        "weights": "cells/DAE_5_13-s0/model.safetensors",
        "test": "cells/DAE_5_13-s0/test.npz",
        "checkpoint": "cells/DAE_5_13-s0/checkpoint.pt",
        "log": "cells/DAE_5_13-s0/log.txt",
        "quality": "cells/DAE_5_13-s0/quality.npz",
    }


# ---- a record among others


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (sample_record(key="DAE_3_8-s1"), "it is the record of DAE_3_8-s1"),
        (sample_record(seed=1), "it is the record of DAE_3_8-s0"),
        (replace(sample_record(), history=sample_record().history[1:]), "its epochs are not 1, 2, 3"),
        (replace(sample_record(), history=sample_record().history[::-1]), "its epochs are not 1, 2, 3"),
        (replace(sample_record(), history=sample_record().history[:1] * 2), "its epochs are not 1, 2, 3"),
    ],
)
def test_a_record_in_the_wrong_place_or_order_is_damaged(tmp_path: Path, record: Record, message: str) -> None:
    store = Store(tmp_path)
    store.write(CellFiles(CELL.key).record, record.to_bytes())
    with pytest.raises(Damaged, match=message):
        read_record(store, CELL)


def test_a_file_is_verified_against_whoever_vouches_for_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("cells/a/test.npz", b"arrays")
    digests = {"test.npz": digest(b"arrays")}
    assert read_verified(store, "cells/a/test.npz", digests) == b"arrays"
    with pytest.raises(Damaged, match=r"cells/a/test.npz does not match its digest"):
        read_verified(store, "cells/a/test.npz", {})
    store.write("cells/a/test.npz", b"arrayz")
    with pytest.raises(Damaged, match=r"cells/a/test.npz does not match its digest"):
        read_verified(store, "cells/a/test.npz", digests)
    store.delete("cells/a/test.npz")
    with pytest.raises(Damaged, match=r"cells/a/test.npz is not there"):
        read_verified(store, "cells/a/test.npz", digests)


# ---- a sweep folder


def test_a_sweep_is_what_its_folder_says(tmp_path: Path) -> None:
    statuses = {"DAE_1_5-s0": Status.FAILED, "DAE_3_8-s0": Status.DIVERGED, "DAE_3_5-s0": Status.MISSING}
    sweep = gather(make_sweep(tmp_path, GRID, statuses=statuses))
    assert [sweep.status(cell) for cell in GRID.cells] == [
        Status.COMPLETED, Status.FAILED, Status.DIVERGED, Status.MISSING,
    ]  # fmt: skip
    assert [record.key for record in sweep.completed] == ["DAE_1_8-s0"]
    assert sweep.damaged == {}


def test_a_running_cell_is_interrupted_where_nobody_runs(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, GRID, statuses={"DAE_3_8-s0": Status.RUNNING})
    assert gather(store).status(CELL) is Status.INTERRUPTED
    with store.lock():
        assert gather(store).status(CELL) is Status.RUNNING
    assert json.loads(store.read(CellFiles(CELL.key).record))["status"] == "running", "reading changes nothing"


def test_a_damaged_record_is_a_hole_with_a_name(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, GRID)
    for content in (b"", b"{}", store.read(CellFiles(CELL.key).record)[:-20], b"null"):
        store.write(CellFiles(CELL.key).record, content)
        sweep = gather(store)
        assert list(sweep.damaged) == [CELL.key]
        assert sweep.damaged[CELL.key].startswith("record.json: ")
        assert sweep.status(CELL) is Status.MISSING
        assert len(sweep.completed) == 3


def test_a_swapped_record_is_not_taken_for_the_other_cells(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, GRID)
    store.write(CellFiles(CELL.key).record, store.read(CellFiles("DAE_1_8-s0").record))
    assert gather(store).damaged == {CELL.key: "record.json: it is the record of DAE_1_8-s0"}


def test_a_cell_that_the_manifest_does_not_declare_is_not_in_the_sweep(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, GRID)
    store.write("cells/DAE_9_9-s9/record.json", b"whatever")
    assert len(gather(store).records) == 4


def test_a_folder_without_a_manifest_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        gather(Store(tmp_path / "nothing"))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"not json"])
def test_a_damaged_manifest_is_said_to_be(tmp_path: Path, content: bytes) -> None:
    store = make_sweep(tmp_path, GRID)
    store.write(MANIFEST, content)
    with pytest.raises(Damaged):
        gather(store)


def test_the_manifest_vouches_for_the_samples(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, GRID)
    manifest = gather(store).manifest
    assert read_verified(store, SAMPLES, manifest.digests)
    store.write(SAMPLES, store.read(SAMPLES)[:-1])
    with pytest.raises(Damaged, match=r"samples.npz does not match"):
        read_verified(store, SAMPLES, manifest.digests)
