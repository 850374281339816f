"""What is reached without a model, and the sentence on a model that loses to it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import make_sweep

from sweep.analysis.without_model import alternatives, warning
from sweep.records.grid import Grid
from sweep.records.quality import REFERENCES, Baseline, Condition, References
from sweep.records.record import Record
from sweep.records.sweep import MANIFEST, Sweep, gather
from sweep.storage.store import Store

KEY = "DAE_1_13-s0"


def baseline(name: str, family: str, loss: float, tested: int = 200) -> Baseline:
    losses = np.where(np.arange(200) < tested, loss, np.nan).astype(np.float32)
    return Baseline(
        name=name, family=family, latent=None, parameters={}, test_loss=loss, test_psnr_db=None, ssim=0.5,
        accuracy=None, loss=losses,
    )  # fmt: skip


def refer(store: Store, *baselines: Baseline, noise: str = "gaussian", alpha: float = 0.5) -> None:
    condition = Condition(
        noise=noise, alpha=alpha, accuracy_noisy=None, baselines=baselines, read_noisy=np.empty(0, np.uint8)
    )
    none = np.empty(0, np.uint8)
    references = References(
        dataset="f" * 64, train=48000, settings={}, reader=None, conditions=(condition,), labels=none, read_clean=none
    )
    for name, content in references.to_files().items():
        store.write(name, content)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_sweep(tmp_path / "study", Grid.product((1,), (13,), (0,)))


def read(store: Store) -> tuple[Sweep, Record]:
    whole = gather(store)
    return whole, whole.records[KEY]


def test_a_model_that_is_better_is_not_warned_of(store: Store) -> None:
    whole, record = read(store)
    found = alternatives(whole, record)
    assert [(one.name, one.test_loss) for one in found] == [("doing nothing", 0.1163), ("the mean image", 0.0674)]
    assert warning(record, found) is None
    refer(store, baseline("median filter", "filter", 0.05), baseline("PCA 9", "linear", 0.06))
    found = alternatives(whole, record)
    assert [(one.name, one.rank) for one in found[2:]] == [
        ("median filter", "best filter"),
        ("PCA 9", "best linear map"),
    ]
    assert warning(record, found) is None


def test_what_it_loses_to_is_said_in_one_sentence(store: Store) -> None:
    manifest = gather(store).manifest
    store.write(MANIFEST, replace(manifest, baselines={"identity": 0.001, "mean_image": 0.0005}).to_bytes())
    refer(store, baseline("mean filter", "filter", 0.004), baseline("median filter", "filter", 0.002))
    whole, record = read(store)
    assert warning(record, alternatives(whole, record)) == (
        f"{KEY}, whose test loss is {record.test_loss:.5f}, is worse than doing nothing (0.00100) and median filter "
        "(best filter, 0.00200)."
    )


def test_a_filter_that_saw_some_images_is_compared_on_these(store: Store) -> None:
    whole, record = read(store)
    refer(store, baseline("non-local means", "filter", 0.002, tested=50))
    found = alternatives(whole, record)[-1]
    assert found.images == 50
    assert found.model_loss is not None
    assert found.model_loss != record.test_loss
    assert f"(best filter, 0.00200 on 50 test images, on which the model has {found.model_loss:.5f})." in str(
        warning(record, [found])
    )


def test_references_of_other_noise_or_damaged_ones_say_nothing(store: Store) -> None:
    whole, record = read(store)
    refer(store, baseline("median filter", "filter", 0.002), alpha=0.25)
    assert len(alternatives(whole, record)) == 2
    store.write(REFERENCES, b"damaged")
    assert len(alternatives(whole, record)) == 2


def test_a_trial_that_was_not_tested_is_not_warned_of(store: Store) -> None:
    whole, record = read(store)
    refer(store, baseline("median filter", "filter", 0.002, tested=50))
    trial = replace(record, test_loss=None)
    assert warning(trial, alternatives(whole, trial)) is None
