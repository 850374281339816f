"""The files of an evaluation: written, read back, and not used when they are damaged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import add_evaluation, make_sweep

from sweep.records.quality import REFERENCE_ARRAYS, REFERENCES, Quality, load_quality, load_references
from sweep.records.record import CellFiles
from sweep.records.sweep import gather
from sweep.storage.sealing import Damaged
from sweep.storage.store import Store

KEY = "DAE_3_8-s0"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = make_sweep(tmp_path / "study")
    add_evaluation(made)
    return made


def test_a_sweep_that_was_never_evaluated_has_nothing(tmp_path: Path) -> None:
    sweep = gather(make_sweep(tmp_path / "study"))
    assert load_references(sweep) is None
    assert not load_quality(sweep).by_key
    assert not load_quality(sweep).damaged


def test_references_come_back_as_they_were_written(store: Store) -> None:
    sweep = gather(store)
    references = load_references(sweep)
    assert references is not None
    condition = references.condition("gaussian", 0.5)
    assert condition is not None
    median = condition.baseline("median filter")
    assert median is not None
    assert median.parameters == {"size": 5}
    assert median.loss.mean(dtype=float) == pytest.approx(median.test_loss)
    assert (condition.read_noisy == references.labels).mean() == pytest.approx(0.8, abs=0.1)
    assert references.condition("gaussian", 0.25) is None
    assert condition.baseline("magic") is None
    again = references.to_files()
    assert {name: store.read(name) for name in again} == again


def test_quality_comes_back_as_it_was_written(store: Store) -> None:
    qualities = load_quality(gather(store))
    assert len(qualities.by_key) == 9
    data = store.read(CellFiles(KEY).quality)
    assert Quality.from_bytes(data).to_bytes() == data
    quality = qualities.by_key[KEY]
    assert quality.shown.shape == (3, 3, 28, 28)
    assert quality.accuracy(quality.read) == 1
    assert list(quality.robust_noise) == ["gaussian"] * 5


@pytest.mark.parametrize("name", [REFERENCES, REFERENCE_ARRAYS])
@pytest.mark.parametrize("harm", [lambda data: data[:-9], lambda data: data.replace(b"0", b"1", 1), lambda _: b""])
def test_damaged_references_are_named(store: Store, name: str, harm: object) -> None:
    store.write(name, harm(store.read(name)))  # type: ignore[operator]
    with pytest.raises(Damaged, match=name):
        load_references(gather(store))


def test_lost_arrays_are_named(store: Store) -> None:
    store.delete(REFERENCE_ARRAYS)
    with pytest.raises(Damaged, match="not there"):
        load_references(gather(store))


def test_references_of_other_data_are_not_used(store: Store) -> None:
    sweep = gather(store)
    other = replace(sweep, manifest=replace(sweep.manifest, dataset={**sweep.manifest.dataset, "train": 480}))
    with pytest.raises(Damaged, match="other data"):
        load_references(other)


@pytest.mark.parametrize("harm", [lambda data: data[:-9], lambda data: data[:200] + b"x" + data[201:], lambda _: b""])
def test_a_damaged_quality_is_named_and_costs_no_other(store: Store, harm: object) -> None:
    name = CellFiles(KEY).quality
    store.write(name, harm(store.read(name)))  # type: ignore[operator]
    qualities = load_quality(gather(store))
    assert list(qualities.damaged) == [KEY]
    assert name in qualities.damaged[KEY]
    assert len(qualities.by_key) == 8


def test_a_quality_of_other_weights_is_not_used(store: Store) -> None:
    quality = load_quality(gather(store)).by_key[KEY]
    store.write(CellFiles(KEY).quality, replace(quality, weights="f" * 64).to_bytes())
    qualities = load_quality(gather(store))
    assert "other weights" in qualities.damaged[KEY]
    assert KEY not in qualities.by_key


def test_nothing_is_unpickled(store: Store) -> None:
    quality = load_quality(gather(store)).by_key[KEY]
    broken = replace(quality, ssim=np.array([None]))
    with pytest.raises(Damaged):
        Quality.from_bytes(broken.to_bytes())
