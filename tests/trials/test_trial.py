"""The work on one cell, without Ray."""

import io
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from dae.data import Dataset
from dae.engine import CpuEngine
from dae.model import DenoisingAutoencoder
from dae.training import Images, Training
from sweep.records.grid import Cell, Settings
from sweep.records.record import CellFiles, Failure, Record, Status, read_record, read_verified
from sweep.storage.sealing import Damaged, seal, unseal
from sweep.storage.store import Store
from sweep.trials.job import Job
from sweep.trials.trial import Superseded, Trial

pytestmark = pytest.mark.usefixtures("one_thread")

CELL = Cell(depth=2, latent=5, seed=1)
FILES = CellFiles(CELL.key)
SETTINGS = Settings.usual("mnist-5k", epochs=4, batch_size=16, width=4)


def job(folder: Path, settings: Settings = SETTINGS) -> Job:
    return Job(store=Store(folder), settings=settings, device="cpu", memory_share=1.0, git_commit="0123abc")


def images(dataset: Dataset, settings: Settings = SETTINGS) -> Images:
    return Images(dataset, settings.alpha, "cpu")


def epoch_of(folder: Path, dataset: Dataset, settings: Settings = SETTINGS) -> Trial:
    """A new attempt that has advanced by one epoch."""
    trial = Trial(job(folder, settings), CELL, images(dataset, settings))
    trial.advance(0)
    return trial


def finish(folder: Path, dataset: Dataset, settings: Settings = SETTINGS) -> Record:
    trial = Trial(job(folder, settings), CELL, images(dataset, settings))
    record = trial.advance(math.inf)
    while record.status is Status.RUNNING:  # an error is tried once more
        record = trial.advance(math.inf)
    return record


def numbers(record: Record) -> list[tuple[float, ...]]:
    losses = [(epoch.epoch, epoch.train_loss, epoch.val_loss) for epoch in record.history]
    assert record.test_loss is not None
    return [*losses, (record.test_loss,)]


@pytest.fixture(scope="module")
def undisturbed_cell(tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Store:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    store = Store(tmp_path_factory.mktemp("cell"))
    assert finish(store.root, tiny).status is Status.COMPLETED
    torch.set_num_threads(before)
    torch.set_flush_denormal(False)
    return store


def assert_same_cell(store: Store, other: Store) -> None:
    one, two = read_record(store, CELL), read_record(other, CELL)
    assert (one.status, two.status) == (Status.COMPLETED, Status.COMPLETED)
    assert numbers(one) == numbers(two)
    assert store.read(FILES.weights) == other.read(FILES.weights)
    with np.load(store.path(FILES.test)) as left, np.load(other.path(FILES.test)) as right:
        assert set(left) == set(right)
        assert all(left[name].tobytes() == right[name].tobytes() for name in left)


# ---- to the end


def test_a_completed_cell_leaves_these_files(undisturbed_cell: Store) -> None:
    folder = undisturbed_cell.path(f"cells/{CELL.key}")
    assert sorted(path.name for path in folder.iterdir()) == ["log.txt", "model.safetensors", "record.json", "test.npz"]
    record = read_record(undisturbed_cell, CELL)
    assert sorted(record.digests) == ["model.safetensors", "test.npz"]
    for name in (FILES.weights, FILES.test):
        assert read_verified(undisturbed_cell, name, record.digests)


def test_the_record_of_a_completed_cell_is_consistent(undisturbed_cell: Store, tiny: Dataset) -> None:
    record = read_record(undisturbed_cell, CELL)
    assert (record.key, record.architecture, record.status) == ("DAE_2_5-s1", "DAE_2_5", Status.COMPLETED)
    assert record.config == SETTINGS.config(CELL)
    assert record.dataset == {"name": tiny.name, "fingerprint": tiny.fingerprint}
    assert [epoch.epoch for epoch in record.history] == [1, 2, 3, 4]
    assert all(epoch.seconds > 0 for epoch in record.history)
    assert record.test_loss is not None
    with np.load(undisturbed_cell.path(FILES.test)) as test:
        assert test["loss"].shape == (len(tiny.test),)
        assert record.test_loss == test["loss"].mean(dtype=np.float64)
        assert test["samples"].shape == (10, 28, 28)
    assert record.test_psnr_db == pytest.approx(-10 * math.log10(record.test_loss))
    (attempt,) = record.attempts
    assert attempt.reason == "completed"
    assert attempt.ended_at is not None
    assert record.started_at == attempt.started_at
    assert record.finished_at is not None
    assert record.started_at <= attempt.ended_at <= record.finished_at
    assert (record.error, record.generation) == (None, 0)
    assert record.environment["git_commit"] == "0123abc"
    assert record.environment["torch"] == torch.__version__
    assert {"python", "torch", "ray", "device", "git_commit"} <= set(record.environment)


def test_the_weights_are_those_of_the_plain_module_and_give_the_test_loss(
    undisturbed_cell: Store, tiny: Dataset
) -> None:
    weights = safetensors.torch.load(undisturbed_cell.read(FILES.weights))
    model = DenoisingAutoencoder(SETTINGS.model(CELL))
    model.load_state_dict(weights)
    record, test_set = read_record(undisturbed_cell, CELL), images(tiny).test_set
    assert sum(tensor.numel() for tensor in weights.values()) == record.parameters
    with torch.inference_mode():
        denoised = model(torch.from_numpy(test_set.noisy).unsqueeze(1)).squeeze(1).numpy()
    assert float(np.square(denoised - test_set.clean).mean()) == pytest.approx(record.test_loss, rel=1e-5)
    samples = np.load(io.BytesIO(undisturbed_cell.read(FILES.test)))["samples"]
    np.testing.assert_allclose(denoised[test_set.samples], samples, atol=1e-5)


def test_the_log_tells_every_epoch(undisturbed_cell: Store) -> None:
    lines = undisturbed_cell.path(FILES.log).read_text().splitlines()
    assert "DAE_2_5-s1 begins after epoch 0 on cpu" in lines[0]
    assert [f" epoch {number}: " in line for number, line in enumerate(lines[1:5], 1)] == [True] * 4


def test_the_same_cell_gives_the_same_bits(undisturbed_cell: Store, tiny: Dataset, tmp_path: Path) -> None:
    finish(tmp_path, tiny)
    assert_same_cell(Store(tmp_path), undisturbed_cell)


def test_another_seed_gives_other_bits(undisturbed_cell: Store, tiny: Dataset, tmp_path: Path) -> None:
    other = replace(CELL, seed=2)
    Trial(job(tmp_path), other, images(tiny)).advance(math.inf)
    assert Store(tmp_path).read(CellFiles(other.key).weights) != undisturbed_cell.read(FILES.weights)


# ---- interrupted and continued


@pytest.mark.parametrize("stops", [(1,), (2,), (3,), (1, 1, 1)], ids=str)
def test_a_continued_cell_is_as_one_never_interrupted(
    undisturbed_cell: Store, tiny: Dataset, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    started = []
    for stop in stops:
        trial = Trial(job(tmp_path), CELL, images(tiny))
        for _ in range(stop):
            record = trial.advance(0)
        started.append(record.started_at)
        assert record.status is Status.RUNNING
    record = finish(tmp_path, tiny)
    assert_same_cell(Store(tmp_path), undisturbed_cell)
    assert [attempt.reason for attempt in record.attempts] == [*["interrupted"] * len(stops), "completed"]
    assert all(attempt.ended_at for attempt in record.attempts)
    assert record.generation == 0
    assert {*started, record.started_at} == {record.started_at}, "a cell starts once"
    assert not Store(tmp_path).exists(FILES.checkpoint)


def test_an_unfinished_cell_says_on_disk_how_far_it_is(tiny: Dataset, tmp_path: Path) -> None:
    trial = epoch_of(tmp_path, tiny)
    assert trial.advance(0) == read_record(Store(tmp_path), CELL)
    record = read_record(Store(tmp_path), CELL)
    assert (record.status, len(record.history), record.finished_at) == (Status.RUNNING, 2, None)
    state = torch.load(io.BytesIO(unseal(Store(tmp_path).read(FILES.checkpoint))), weights_only=True)
    assert len(state["training"]["history"]) == 2
    assert not Store(tmp_path).exists(FILES.weights)


def test_the_checkpoint_is_the_truth_where_the_record_lags(
    undisturbed_cell: Store, tiny: Dataset, tmp_path: Path
) -> None:
    trial = epoch_of(tmp_path, tiny)
    behind = Store(tmp_path).read(FILES.record)
    trial.advance(0)
    Store(tmp_path).write(FILES.record, behind)  # killed between the two writes
    again = Trial(job(tmp_path), CELL, images(tiny))
    assert len(again.advance(0).history) == 3
    finish(tmp_path, tiny)
    assert_same_cell(Store(tmp_path), undisturbed_cell)


def test_epochs_are_grouped_by_time(tiny: Dataset, tmp_path: Path) -> None:
    trial = Trial(job(tmp_path), CELL, images(tiny))
    assert len(trial.advance(0).history) == 1
    assert trial.advance(1e9).status is Status.COMPLETED


# ---- damage


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:-1], id="cut by a byte"),
        pytest.param(lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:], id="one bit"),
        pytest.param(lambda data: data[-500:] + data, id="garbage"),
        pytest.param(lambda data: seal(b"sealed, but no checkpoint"), id="sealed garbage"),
    ],
)
def test_a_damaged_checkpoint_means_from_the_start_as_a_new_generation(
    undisturbed_cell: Store, tiny: Dataset, tmp_path: Path, damage
) -> None:
    epoch_of(tmp_path, tiny).advance(0)
    store = Store(tmp_path)
    store.write(FILES.checkpoint, damage(store.read(FILES.checkpoint)))
    trial = Trial(job(tmp_path), CELL, images(tiny))
    assert [epoch.epoch for epoch in trial.advance(0).history] == [1]
    record = finish(tmp_path, tiny)
    assert record.generation == 1
    assert_same_cell(store, undisturbed_cell)
    assert "the checkpoint cannot be used" in store.path(FILES.log).read_text()


def test_a_lost_checkpoint_means_from_the_start_as_a_new_generation(
    undisturbed_cell: Store, tiny: Dataset, tmp_path: Path
) -> None:
    epoch_of(tmp_path, tiny).advance(0)
    Store(tmp_path).delete(FILES.checkpoint)
    assert finish(tmp_path, tiny).generation == 1
    assert_same_cell(Store(tmp_path), undisturbed_cell)


@pytest.mark.parametrize(
    ("settings", "dataset_change"),
    [
        pytest.param(replace(SETTINGS, lr=2e-3), {}, id="lr"),
        pytest.param(replace(SETTINGS, alpha=0.25), {}, id="alpha"),
        pytest.param(replace(SETTINGS, epochs=3), {}, id="epochs"),
        pytest.param(SETTINGS, {"fingerprint": "e" * 64}, id="dataset"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_not_continued(
    tiny: Dataset, tmp_path: Path, settings: Settings, dataset_change: dict[str, str]
) -> None:
    epoch_of(tmp_path, tiny, settings)
    other = replace(tiny, **dataset_change)  # type: ignore[arg-type]
    expected = finish(tmp_path / "fresh", other)
    assert numbers(finish(tmp_path, other)) == numbers(expected)
    assert "belongs to another configuration" in Store(tmp_path).path(FILES.log).read_text()


def test_a_damaged_record_beside_a_sound_checkpoint_costs_nothing(
    undisturbed_cell: Store, tiny: Dataset, tmp_path: Path
) -> None:
    epoch_of(tmp_path, tiny).advance(0)
    Store(tmp_path).write(FILES.record, b"{}")
    trial = Trial(job(tmp_path), CELL, images(tiny))
    assert [epoch.epoch for epoch in trial.advance(0).history] == [1, 2, 3]
    finish(tmp_path, tiny)
    assert_same_cell(Store(tmp_path), undisturbed_cell)


def test_killed_after_the_weights_and_before_the_record_loses_one_epoch(
    undisturbed_cell: Store, tiny: Dataset, tmp_path: Path
) -> None:
    trial = epoch_of(tmp_path, tiny)
    trial.advance(0)
    trial.advance(0)
    before = shutil.copytree(tmp_path, tmp_path.with_name("before"))
    trial.advance(0)
    for name in (FILES.weights, FILES.test):
        shutil.copy(Store(tmp_path).path(name), Store(before).path(name))
    assert finish(before, tiny).status is Status.COMPLETED
    assert_same_cell(Store(before), undisturbed_cell)


# ---- two attempts


def test_a_superseded_attempt_writes_no_more(tiny: Dataset, tmp_path: Path) -> None:
    old = epoch_of(tmp_path, tiny)
    new = epoch_of(tmp_path, tiny)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "log.txt"}
    with pytest.raises(Superseded, match="has taken over from"):
        old.advance(math.inf)
    assert {path: path.read_bytes() for path in files} == files
    assert new.advance(math.inf).status is Status.COMPLETED


def test_a_superseded_attempt_does_not_complete_the_cell_either(tiny: Dataset, tmp_path: Path) -> None:
    old = epoch_of(tmp_path, tiny)
    old.advance(0)
    old.advance(0)  # only the last epoch is left
    new = epoch_of(tmp_path, tiny)
    with pytest.raises(Superseded):
        old.advance(0)
    # The new one continued after epoch 3 and finished the cell.
    assert new.record.status is Status.COMPLETED
    assert read_record(Store(tmp_path), CELL) == new.record


# ---- bad ends


def test_a_loss_that_is_not_finite_ends_the_cell_as_diverged(tiny: Dataset, tmp_path: Path) -> None:
    record = finish(tmp_path, tiny, replace(SETTINGS, lr=1e30))
    assert record == read_record(Store(tmp_path), CELL)
    assert record.status is Status.DIVERGED
    assert record.error is not None
    assert record.error.startswith("epoch 1: training loss ")
    assert "nan" in record.error
    assert (record.test_loss, record.test_psnr_db, record.digests) == (None, None, {})
    assert record.finished_at is not None
    assert record.attempts[-1].reason == record.error
    assert not Store(tmp_path).exists(FILES.weights)


def test_an_epoch_before_the_divergence_stays_in_the_record(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = epoch_of(tmp_path, tiny)
    monkeypatch.setattr(trial._training._engine, "validate", lambda *_: math.inf)  # type: ignore[union-attr]
    record = trial.advance(math.inf)
    assert record.status is Status.DIVERGED
    assert [epoch.epoch for epoch in record.history] == [1]
    assert record.error is not None
    assert record.error.startswith("epoch 2: ")
    assert not Store(tmp_path).exists(FILES.checkpoint), "nothing will go on from it"


def test_an_exception_ends_the_cell_as_failed_with_its_traceback_in_the_log(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_self: Training) -> None:
        raise RuntimeError("the cat is on the keyboard")

    monkeypatch.setattr(Training, "test", broken)
    record = finish(tmp_path, tiny)
    assert record == read_record(Store(tmp_path), CELL)
    assert (record.status, record.test_loss) == (Status.FAILED, None)
    assert record.error == "RuntimeError: the cat is on the keyboard"
    assert record.failure is Failure.PROGRAM
    assert [attempt.reason for attempt in record.attempts] == [record.error] * 2
    assert not Store(tmp_path).exists(FILES.weights)
    log = Store(tmp_path).path(FILES.log).read_text()
    assert "Traceback (most recent call last)" in log
    assert "in broken" in log
    assert capsys.readouterr() == ("", ""), "the trial's words go to its log"


def test_an_error_that_does_not_come_again_costs_nothing(
    undisturbed_cell: Store, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = epoch_of(tmp_path, tiny)
    trial.advance(0)

    def broken(*_: object) -> float:
        raise RuntimeError("a cosmic ray")

    with monkeypatch.context() as patch:
        patch.setattr(trial._training._engine, "train_epoch", broken)  # type: ignore[union-attr]
        record = trial.advance(0)
    assert (record.status, len(record.history)) == (Status.RUNNING, 2)
    record = trial.advance(math.inf)
    assert [attempt.reason for attempt in record.attempts] == ["RuntimeError: a cosmic ray", "completed"]
    assert record.error is None
    assert_same_cell(Store(tmp_path), undisturbed_cell)


def test_what_the_driver_has_noted_as_lost_is_not_written_over(tiny: Dataset, tmp_path: Path) -> None:
    trial = epoch_of(tmp_path, tiny)
    (attempt,) = trial.record.attempts
    noted = replace(trial.record, attempts=(replace(attempt, ended_at="2026-01-01T00:00:00+00:00", reason="lost"),))
    Store(tmp_path).write(FILES.record, noted.to_bytes())
    with pytest.raises(Superseded, match="was given up: lost"):
        trial.advance(0)
    assert read_record(Store(tmp_path), CELL) == noted


def test_a_gpu_that_is_lost_to_its_process_is_left_to_the_next_one(
    undisturbed_cell: Store, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = epoch_of(tmp_path, tiny)

    def broken(*_: object) -> float:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as patch:
        patch.setattr(trial._training._engine, "train_epoch", broken)  # type: ignore[union-attr]
        with pytest.raises(torch.AcceleratorError):
            trial.advance(0)
    assert read_record(Store(tmp_path), CELL).status is Status.RUNNING
    assert "illegal memory access" in Store(tmp_path).path(FILES.log).read_text()
    assert [attempt.reason for attempt in finish(tmp_path, tiny).attempts] == ["interrupted", "completed"]
    assert_same_cell(Store(tmp_path), undisturbed_cell)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("could not create a primitive"),
    ],
    ids=["Python", "GPU", "CUDA", "CPU", "cuBLAS", "oneDNN"],
)
def test_a_cell_that_ran_out_of_memory_says_what_to_lower(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def greedy(*_: object) -> float:
        raise error

    monkeypatch.setattr(CpuEngine, "train_epoch", greedy)
    record = Trial(job(tmp_path), CELL, images(tiny)).advance(0)
    assert (record.status, record.failure) == (Status.FAILED, Failure.MEMORY)
    assert record.error is not None
    assert record.error.startswith("out of memory (")
    assert "lower --batch-size or --width" in record.error


def test_a_failed_cell_continues_where_it_failed(
    undisturbed_cell: Store, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: Training) -> None:
        raise RuntimeError("the cat is on the keyboard")

    with monkeypatch.context() as patch:
        patch.setattr(Training, "test", broken)
        assert finish(tmp_path, tiny).status is Status.FAILED
    record = finish(tmp_path, tiny)
    assert (record.error, record.generation, record.attempts[-1].reason) == (None, 0, "completed")
    assert "begins after epoch 3" in Store(tmp_path).path(FILES.log).read_text().split("keyboard")[-1]
    assert_same_cell(Store(tmp_path), undisturbed_cell)


def test_weights_that_were_changed_do_not_pass_for_the_cells(undisturbed_cell: Store, tmp_path: Path) -> None:
    store = Store(shutil.copytree(undisturbed_cell.root, tmp_path / "copy"))
    weights = store.read(FILES.weights)
    store.write(FILES.weights, weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(Damaged, match=r"model.safetensors does not match its digest"):
        read_verified(store, FILES.weights, read_record(store, CELL).digests)
