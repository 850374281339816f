"""From a request to a finished sweep; trials run in this process, everything else is real."""

import io
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, SMALL_GRID, InProcess, Silent, request_for
from tracked import Run, files

from dae import data
from dae.data import Dataset
from dae.errors import UserError
from dae.images.rows import Numbers
from dae.training import Training
from sweep.driver.declaration import declare
from sweep.driver.events import TrialEvents
from sweep.driver.request import Request
from sweep.driver.runner import Outcome, run
from sweep.driver.signals import Interrupted, Signals
from sweep.records.grid import Cell, Grid
from sweep.records.record import CellFiles, Failure, Record, Status, read_record, read_verified
from sweep.records.sweep import MANIFEST, SAMPLES, Manifest, gather
from sweep.storage.store import Store
from sweep.trials.host import HOST_ENDED

CELL = Cell(depth=3, latent=8, seed=0)
FILES = CellFiles(CELL.key)
OTHERS = [cell.key for cell in SMALL_GRID.cells if cell != CELL]


def ask(store: Store, **changes: Any) -> Request:
    return replace(request_for(store, SMALL_GRID, SMALL), **changes)


class Warnings(list[str]):
    """Collects what a run warns of."""

    def __call__(self, message: str) -> None:
        self.append(message)


def go(store: Store, signals: Signals | None = None, **changes: Any) -> tuple[Outcome, Warnings]:
    warnings = Warnings()
    return run(ask(store, **changes), signals or Signals(), Silent(warn=warnings)), warnings


def snapshot(folder: Path, *, without: str = "") -> dict[str, tuple[int, bytes]]:
    """Time of change and content of every file; the lock is not looked at."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock" and not (without and without in path.parts)
    }


def assert_same_results(store: Store, undisturbed: Store) -> None:
    for cell in SMALL_GRID.cells:
        files = CellFiles(cell.key)
        found, expected = read_record(store, cell), read_record(undisturbed, cell)
        assert found.status is Status.COMPLETED
        assert store.read(files.weights) == undisturbed.read(files.weights), cell.key
        assert (found.test_loss, found.digests["model.safetensors"]) == (
            expected.test_loss,
            expected.digests["model.safetensors"],
        )
        assert [replace(epoch, seconds=0) for epoch in found.history] == [
            replace(epoch, seconds=0) for epoch in expected.history
        ]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load(SMALL.dataset, Path("nowhere"), SMALL.train_fraction)


# ---- declaring


def test_a_new_sweep_is_declared_with_its_samples(tmp_path: Path, digits: Dataset) -> None:
    sweep = declare(ask(Store(tmp_path / "name")), digits, warn=pytest.fail)
    manifest = sweep.manifest
    assert (manifest.name, manifest.grid, manifest.settings) == ("name", SMALL_GRID, SMALL)
    assert manifest.dataset == {
        "name": "mnist-5k", "fingerprint": digits.fingerprint, "train": 320, "validation": 800, "test": 1000,
    }  # fmt: skip
    assert manifest.baselines["identity"] > manifest.baselines["mean_image"] > 0
    with np.load(io.BytesIO(read_verified(sweep.store, SAMPLES, manifest.digests))) as samples:
        assert samples["labels"].tolist() == list(range(10))
        assert samples["clean"].shape == samples["noisy"].shape == (10, 28, 28)
        assert not np.array_equal(samples["clean"], samples["noisy"])
    assert sweep.records == {}


def test_what_pixels_were_made_of_is_declared(tmp_path: Path, digits: Dataset) -> None:
    store, numbers = Store(tmp_path / "name"), Numbers(offset=-40.5, factor=192.5)
    own = replace(digits, name="mine", source="/mine.npy", numbers=numbers)
    declared = declare(ask(store), own, warn=pytest.fail).manifest
    assert (declared.dataset["offset"], declared.dataset["factor"]) == (-40.5, 192.5)
    older = {name: value for name, value in declared.dataset.items() if name not in ("offset", "factor")}
    store.write(MANIFEST, replace(declared, dataset=older).to_bytes())
    assert declare(ask(store), own, warn=pytest.fail).manifest.dataset == declared.dataset


def test_declaring_again_writes_nothing(tmp_path: Path, digits: Dataset) -> None:
    store = Store(tmp_path / "name")
    first = declare(ask(store), digits, warn=pytest.fail)
    before = snapshot(tmp_path)
    assert declare(ask(store), digits, warn=pytest.fail).manifest == first.manifest
    assert snapshot(tmp_path) == before


def test_a_larger_and_a_smaller_request_make_the_union(sweep_copy: Store, digits: Dataset) -> None:
    identity = gather(sweep_copy).manifest.id
    more = Grid.product((2,), (5,), (0, 1))
    for grid in (more, Grid.of([CELL])):
        sweep = declare(ask(sweep_copy, grid=grid), digits, warn=pytest.fail)
        assert sweep.manifest.grid == SMALL_GRID.union(more)
        assert sweep.manifest.id == identity
        assert len(sweep.completed) == 4


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("epochs", 4), ("batch_size", 16), ("lr", 0.002), ("alpha", 0.25), ("width", 8), ("latent_channels", 2),
        ("train_fraction", 0.2),
    ],
)  # fmt: skip
def test_a_request_that_contradicts_the_records_is_refused(
    sweep_copy: Store, digits: Dataset, name: str, asked: Any
) -> None:
    before = snapshot(sweep_copy.root)
    found = getattr(SMALL, name)
    with pytest.raises(UserError) as refusal:
        declare(ask(sweep_copy, settings=replace(SMALL, **{name: asked})), digits, warn=pytest.fail)
    message = str(refusal.value)
    assert f"was made with {name} {found}, this command asks for {asked}" in message
    assert "give another --name" in message.lower()
    assert f"--{name.replace('_', '-')} {found} to go on" in message
    assert snapshot(sweep_copy.root) == before


def test_other_data_under_the_same_name_is_refused(sweep_copy: Store, digits: Dataset) -> None:
    other = replace(digits, fingerprint="e" * 64)
    with pytest.raises(UserError, match=r"was trained on other data \(\w{12}\) than is at hand \(e{12}\)"):
        declare(ask(sweep_copy), other, warn=pytest.fail)


def test_settings_may_change_as_long_as_nothing_was_trained(tmp_path: Path, digits: Dataset) -> None:
    store = Store(tmp_path / "name")
    declare(ask(store), digits, warn=pytest.fail)
    changed = replace(SMALL, epochs=9)
    assert declare(ask(store, settings=changed), digits, warn=pytest.fail).manifest.settings == changed


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 1}'])
def test_a_damaged_manifest_is_written_anew_from_the_records(
    sweep_copy: Store, digits: Dataset, content: bytes
) -> None:
    sweep_copy.write(MANIFEST, content)
    cells = snapshot(sweep_copy.path("cells"))
    warnings = Warnings()
    sweep = declare(ask(sweep_copy, grid=Grid.of([replace(CELL, seed=1)])), digits, warnings)
    assert len(warnings) == 1
    assert warnings[0].startswith("sweep.json is damaged (")
    assert sweep.manifest.grid == SMALL_GRID.union(Grid.of([replace(CELL, seed=1)]))
    assert len(sweep.completed) == 4
    assert snapshot(sweep_copy.path("cells")) == cells


def test_a_damaged_manifest_does_not_open_the_way_for_other_settings(sweep_copy: Store, digits: Dataset) -> None:
    sweep_copy.write(MANIFEST, b"")
    with pytest.raises(UserError, match=r"was made with epochs 3, this command asks for 4"):
        declare(ask(sweep_copy, settings=replace(SMALL, epochs=4)), digits, Warnings())


def test_damaged_samples_are_made_again(sweep_copy: Store, digits: Dataset) -> None:
    before = sweep_copy.read(SAMPLES)
    sweep_copy.write(SAMPLES, before[:-1])
    sweep = declare(ask(sweep_copy), digits, Warnings())
    with np.load(io.BytesIO(before)) as old, np.load(io.BytesIO(sweep_copy.read(SAMPLES))) as new:
        assert all(np.array_equal(old[name], new[name]) for name in old)
    assert read_verified(sweep_copy, SAMPLES, sweep.manifest.digests)


# ---- running


def test_a_run_completes_every_cell_the_costly_ones_first(
    in_process: InProcess, tmp_path: Path, undisturbed: Store
) -> None:
    store = Store(tmp_path / "sweeps" / "mnist-5k")
    outcome, warnings = go(store)
    assert in_process.rounds == [["DAE_3_8-s0", "DAE_3_5-s0", "DAE_1_8-s0", "DAE_1_5-s0"]]
    assert (outcome.stopped_because, outcome.tracked_at, warnings) == (None, None, [])
    assert len(outcome.sweep.completed) == 4
    assert_same_results(store, undisturbed)


def test_a_finished_sweep_is_left_alone(in_process: InProcess, sweep_copy: Store) -> None:
    before = snapshot(sweep_copy.root)
    outcome, warnings = go(sweep_copy)
    assert (in_process.rounds, warnings) == ([], [])
    assert len(outcome.sweep.completed) == 4
    assert snapshot(sweep_copy.root) == before


def test_an_extension_trains_only_what_is_new(in_process: InProcess, sweep_copy: Store) -> None:
    before = snapshot(sweep_copy.path("cells"))
    outcome, _ = go(sweep_copy, grid=Grid.product((1,), (5,), (0, 1, 2)))
    assert in_process.rounds == [["DAE_1_5-s1", "DAE_1_5-s2"]]
    assert len(outcome.sweep.completed) == 6
    after = snapshot(sweep_copy.path("cells"))
    assert {name: after[name] for name in before} == before


def cut(data: bytes) -> bytes:
    return data[:-9]


def flip(data: bytes) -> bytes:
    return data[:100] + bytes([data[100] ^ 4]) + data[101:]


@pytest.mark.parametrize("damage", [cut, flip, lambda data: b""], ids=["cut", "flip", "empty"])
@pytest.mark.parametrize("file", [FILES.record, FILES.weights, FILES.test], ids=["record", "weights", "test"])
def test_a_damaged_file_is_named_and_its_cell_trained_again(
    in_process: InProcess, sweep_copy: Store, undisturbed: Store, file: str, damage: Callable[[bytes], bytes]
) -> None:
    sweep_copy.write(file, damage(sweep_copy.read(file)))
    before = snapshot(sweep_copy.root, without=CELL.key)
    outcome, warnings = go(sweep_copy)
    (warning,) = warnings
    assert CELL.key in warning
    assert file.rsplit("/", 1)[-1] in warning
    assert "trained again" in warning
    assert in_process.rounds == [[CELL.key]]
    assert len(outcome.sweep.completed) == 4
    assert snapshot(sweep_copy.root, without=CELL.key) == before, "the rest stands"
    assert_same_results(sweep_copy, undisturbed)


@pytest.mark.parametrize("file", [FILES.weights, FILES.test], ids=["weights", "test"])
def test_a_lost_file_is_named_and_its_cell_trained_again(
    in_process: InProcess, sweep_copy: Store, undisturbed: Store, file: str
) -> None:
    sweep_copy.delete(file)
    _, warnings = go(sweep_copy)
    assert warnings == [f"{file} is not there; {CELL.key} is trained again"]
    assert_same_results(sweep_copy, undisturbed)


def test_a_lost_record_means_a_cell_to_train(in_process: InProcess, sweep_copy: Store, undisturbed: Store) -> None:
    sweep_copy.delete(FILES.record)
    _, warnings = go(sweep_copy)
    assert (warnings, in_process.rounds) == ([], [[CELL.key]])
    assert_same_results(sweep_copy, undisturbed)


def interrupt_after(in_process: InProcess, num_epochs: int) -> Signals:
    """Ctrl-C after so many epochs of the run."""
    signals, count = Signals(), iter(range(num_epochs + 1))

    def before(_key: str) -> None:
        if next(count) == num_epochs:
            os.kill(os.getpid(), signal.SIGINT)

    in_process.before = before
    return signals


def test_a_signal_keeps_every_epoch_and_the_same_request_goes_on(
    in_process: InProcess, tmp_path: Path, undisturbed: Store
) -> None:
    store = Store(tmp_path / "sweeps" / "mnist-5k")
    for num_epochs in (1, 2):
        with pytest.raises(Interrupted, match="SIGINT") as interrupt:
            go(store, interrupt_after(in_process, num_epochs))
        assert interrupt.value.exit_code == 130
        found = gather(store)
        # The epoch at work is finished: the second one of the first cell, and of the next cell.
        states = [(str(record.status), len(record.history)) for record in found.records.values()]
        assert sorted(states) == [*[("completed", 3)] * (num_epochs - 1), ("interrupted", 2)]
    in_process.before = lambda _key: None
    go(store)
    assert_same_results(store, undisturbed)
    assert [len(keys) for keys in in_process.rounds] == [4, 4, 3]


def test_a_damaged_checkpoint_is_named_and_its_cell_trained_again(
    in_process: InProcess, tmp_path: Path, undisturbed: Store
) -> None:
    store = Store(tmp_path / "sweeps" / "mnist-5k")
    with pytest.raises(Interrupted):
        go(store, interrupt_after(in_process, 1))
    in_process.before = lambda _key: None
    store.write(FILES.checkpoint, cut(store.read(FILES.checkpoint)))
    _, warnings = go(store)
    assert_same_results(store, undisturbed)
    (warning,) = warnings
    assert CELL.key in warning
    assert "checkpoint" in warning


def test_diverged_cells_are_not_tried_again_and_failed_ones_are(
    in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, settings = Store(tmp_path / "wild"), replace(SMALL, lr=1e12)  # too much for depth 3, not for depth 1

    def broken(_self: Training) -> None:
        raise RuntimeError(f"made to fail with {len(_self.weights()['encoder.0.bias'])} channels")

    with monkeypatch.context() as patch:
        patch.setattr(Training, "test", broken)
        outcome, _ = go(store, settings=settings, grid=Grid.product((1, 3), (5,), (0,)))
    sweep = outcome.sweep
    assert [sweep.status(cell) for cell in sweep.manifest.grid.cells] == [Status.FAILED, Status.DIVERGED]
    diverged = snapshot(store.path("cells/DAE_3_5-s0"))
    outcome, warnings = go(store, settings=settings, grid=Grid.product((1, 3), (5,), (0,)))
    assert in_process.rounds[-1] == ["DAE_1_5-s0"]
    assert [outcome.sweep.status(cell) for cell in sweep.manifest.grid.cells] == [Status.COMPLETED, Status.DIVERGED]
    assert (warnings, snapshot(store.path("cells/DAE_3_5-s0"))) == ([], diverged)


def test_two_cells_with_one_error_end_the_run_and_say_why(
    in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Training) -> None:
        raise RuntimeError(
            f"no room for {sum(each.numel() for each in self.weights().values())} weights"
        )  # another number each time

    monkeypatch.setattr(Training, "test", broken)
    outcome, _ = go(Store(tmp_path / "name"))
    assert outcome.stopped_because is not None
    assert "DAE_3_5-s0 and DAE_3_8-s0 failed with the same error: RuntimeError: no room" in outcome.stopped_because
    states = [outcome.sweep.status(cell) for cell in SMALL_GRID.cells]
    assert states == [Status.MISSING, Status.MISSING, Status.FAILED, Status.FAILED]


def test_a_cell_that_ran_out_of_memory_has_a_second_round_after_the_others(
    in_process: InProcess, tmp_path: Path, undisturbed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Training.run_epoch

    def greedy(self: Training) -> Any:
        if len(in_process.rounds) == 1 and len(self.weights()) == 12 and len(self.history) == 1:  # depth 3
            raise MemoryError
        return original(self)

    monkeypatch.setattr(Training, "run_epoch", greedy)
    store = Store(tmp_path / "sweeps" / "mnist-5k")
    outcome, _ = go(store)
    assert in_process.rounds[1:] == [["DAE_3_8-s0", "DAE_3_5-s0"]]
    assert len(outcome.sweep.completed) == 4
    assert_same_results(store, undisturbed)


def test_a_batch_larger_than_the_training_split_is_refused(in_process: InProcess, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"batch size 321 is larger than the 320 training images: lower --batch-size"):
        go(Store(tmp_path / "name"), settings=replace(SMALL, batch_size=321))
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_that_another_run_holds_is_refused(in_process: InProcess, sweep_copy: Store) -> None:
    before = snapshot(sweep_copy.root)
    with sweep_copy.lock(), pytest.raises(UserError) as refusal:
        go(sweep_copy)
    assert str(refusal.value).startswith(f"process {os.getpid()} on ")
    assert "is already at the sweep" in str(refusal.value)
    assert "give another --name" in str(refusal.value)
    assert snapshot(sweep_copy.root) == before


def test_what_killed_writers_left_aside_is_swept_up(in_process: InProcess, sweep_copy: Store) -> None:
    sweep_copy.write(f"cells/{CELL.key}/.record.json.0123.partial", b"half")
    go(sweep_copy)
    assert not list(sweep_copy.root.rglob("*.partial"))


def test_the_report_and_its_table_go_to_wandb_once_something_is_completed(
    in_process: InProcess, sweep_copy: Store
) -> None:
    go(sweep_copy, report=True, wandb_mode="offline")
    assert sweep_copy.exists("report/index.html")
    (run,) = [run for run in map(Run, files(sweep_copy.root)) if run.start["job_type"] == "report"]
    table = json.loads((run.file.parent / "files" / run.summary["comparison.path"]).read_text())
    assert [row[0] for row in table["data"]] == [cell.key for cell in SMALL_GRID.cells]
    assert "figures/test_loss.path" in run.summary


# ---- the events


class Listener:
    """Keeps what it was told, as a display and as a tracker."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values, **named: self.told.append((name, *values, *named.values()))


def events(store: Store) -> tuple[TrialEvents, Listener]:
    tracker = Listener()
    return TrialEvents(gather(store), Listener(), tracker, pytest.fail), tracker  # type: ignore[arg-type]


@pytest.mark.parametrize(("reason", "again"), [(f"ConnectionError: {HOST_ENDED} (EOFError)", True), ("killed", False)])
def test_a_cell_given_up_with_its_host_has_another_round(sweep_copy: Store, reason: str, again: bool) -> None:
    sweep_copy.delete(CellFiles(CELL.key).record)
    listening, _ = events(sweep_copy)
    listening.lost(CELL.key, reason, is_final=True)
    assert listening.again_alone == [CELL] * again


def test_tune_is_left_nothing_to_keep_of_what_a_trial_reported() -> None:
    from sweep.trials.tuning import _Forwarder

    record, listener = Record.new(CELL, SMALL, {}), Listener()
    needed = {"done": False, "training_iteration": 1, "trial_id": "a"}
    result = {"record": record, "images_per_s": 7.0, "node": "n", "pid": 1, "time_total_s": 2.0} | needed
    _Forwarder(listener).on_trial_result(1, [], SimpleNamespace(trial_id="a"), result)  # type: ignore[arg-type]
    assert listener.told == [("progressed", record, 7.0)]
    assert result == needed


def test_a_process_lost_for_good_ends_its_cell_as_failed(sweep_copy: Store, digits: Dataset) -> None:
    running = replace(Record.new(CELL, SMALL, {"name": "mnist-5k", "fingerprint": digits.fingerprint}), generation=2)
    sweep_copy.write(FILES.record, running.to_bytes())
    one, tracker = events(sweep_copy)
    one.lost(CELL.key, "SIGKILL", is_final=False)
    (attempt,) = read_record(sweep_copy, CELL).attempts
    assert (attempt.token, attempt.reason) == ("", "lost: SIGKILL"), "it died before it could write its name"
    assert read_record(sweep_copy, CELL).status is Status.RUNNING
    one.lost(CELL.key, "SIGKILL", is_final=True)
    record = read_record(sweep_copy, CELL)
    assert (record.status, record.failure) == (Status.FAILED, Failure.LOST)
    assert record.error == "its process was lost: SIGKILL"
    assert record.finished_at is not None
    assert record.generation == 2
    assert tracker.told == [("ended", record, None)]


def test_a_process_lost_before_its_first_word_ends_its_cell_as_failed(sweep_copy: Store) -> None:
    sweep_copy.delete(FILES.record)
    one, _ = events(sweep_copy)
    one.lost(CELL.key, "no such file", is_final=True)
    record = read_record(sweep_copy, CELL)
    assert (record.status, record.config) == (Status.FAILED, SMALL.config(CELL))


def test_a_process_lost_after_its_last_word_changes_nothing(sweep_copy: Store) -> None:
    before = snapshot(sweep_copy.root)
    one, _ = events(sweep_copy)
    one.lost(CELL.key, "SIGKILL", is_final=True)
    assert snapshot(sweep_copy.root) == before


def test_wandb_is_told_of_a_cell_once_and_of_its_end_with_a_picture(sweep_copy: Store) -> None:
    one, tracker = events(sweep_copy)
    record = read_record(sweep_copy, CELL)
    begun = replace(record, status=Status.RUNNING, history=record.history[:1], test_loss=None)
    for news in (begun, replace(begun, history=record.history[:2]), record):
        one.progressed(news, 100.0)
    assert [name for name, *_ in tracker.told] == ["started", "progressed", "progressed", "ended"]
    _, ended, picture = tracker.told[-1]
    assert ended == record
    assert (picture.shape, picture.dtype) == ((3 * 28, 10 * 28), np.uint8)
    assert picture.max() > 200, "clean digits are white"


def test_the_manifest_is_not_touched_by_who_reads_it(sweep_copy: Store) -> None:
    manifest = gather(sweep_copy).manifest
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest == gather(sweep_copy).manifest
