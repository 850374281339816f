"""`dae-sweep sync` with wandb's own sync, against as much of a server as answers it."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tracked import KEY, MANIFEST, Server, assert_no_key, files, record, run_cell

from sweep.cli import main
from sweep.records.record import Status
from sweep.records.sweep import MANIFEST as MANIFEST_FILE
from sweep.storage.store import Store
from sweep.tracking.tracker import Tracker

pytestmark = [pytest.mark.usefixtures("clean_environment", "own_signals")]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "sweeps" / "tiny")
    found.write(MANIFEST_FILE, MANIFEST.to_bytes())
    return found


def track(store: Store) -> Tracker:
    return Tracker(MANIFEST, store.root, mode="offline", project="dae", warn=pytest.fail)


def written(store: Store) -> None:
    """Two cells, offline."""
    tracker = track(store)
    run_cell(tracker, 5)
    run_cell(tracker, 8)
    tracker.close()


def sync(store: Store) -> Result:
    return CliRunner().invoke(main, ["sync", "--storage", str(store.root.parent), "--name", store.root.name])


def epochs_of(server: Server) -> list[int]:
    return sorted(row["epoch"] for row in server.history if "epoch" in row)


def test_every_epoch_is_uploaded_once_however_often_it_is_asked(store: Store, serve: Callable[..., Server]) -> None:
    written(store)
    server = serve()
    first = sync(store)
    assert first.exit_code == 0, first.output
    assert first.output == "2 runs uploaded, 0 had been before, 0 missing\n"
    assert epochs_of(server) == [1, 1, 2, 2, 3, 3, 4, 4]
    again = sync(store)
    assert (again.exit_code, again.output) == (0, "0 runs uploaded, 2 had been before, 0 missing\n")
    assert epochs_of(server) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert_no_key(store.root)


def test_an_interrupted_cell_uploaded_half_way_is_uploaded_to_its_end(
    store: Store, serve: Callable[..., Server]
) -> None:
    tracker = track(store)
    tracker.started(record(num_epochs=2))
    tracker.close()
    server = serve()
    assert sync(store).exit_code == 0
    assert epochs_of(server) == [1, 2]
    tracker = track(store)
    tracker.started(record(num_epochs=2))
    tracker.ended(record(5, 4, Status.COMPLETED), None)
    tracker.close()
    assert sync(store).output == "1 run uploaded, 1 had been before, 0 missing\n"
    assert epochs_of(server) == [1, 2, 3, 4]


def test_without_a_key_it_says_so(store: Store) -> None:
    written(store)
    result = sync(store)
    assert result.exit_code == 2
    assert "2 of 2 runs are to be uploaded, but no W&B key is configured: run `wandb login`" in result.output
    assert len(files(store.root)) == 2


def test_a_server_that_is_not_there_costs_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written(store)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    result = sync(store)
    assert result.exit_code == 2
    assert "does not answer (" in result.output
    assert "sync again" in result.output


def test_a_server_that_never_answers_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written(store)
    monkeypatch.setattr("sweep.tracking.sync.REACH_TIMEOUT_S", 0.3)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        result = sync(store)
    assert result.exit_code == 2
    assert "does not answer" in result.output


def test_what_cannot_be_uploaded_is_named(store: Store, serve: Callable[..., Server]) -> None:
    written(store)
    broken = files(store.root)[0]
    broken.write_bytes(b"noise" * 100)
    serve()
    result = sync(store)
    assert result.exit_code == 1
    assert "1 run uploaded, 0 had been before, 1 missing" in result.output
    assert str(broken.parent) in result.output
    assert "wandb sync said: " in result.output


def test_a_sweep_without_runs_has_nothing_missing(store: Store) -> None:
    result = sync(store)
    assert (result.exit_code, result.output) == (0, "0 runs uploaded, 0 had been before, 0 missing\n")


def test_a_sweep_that_is_running_is_left_alone(store: Store) -> None:
    with store.lock():
        result = sync(store)
    assert result.exit_code == 2
    assert "sync when it has ended" in result.output


def test_no_sweep_is_a_matter_for_the_user(tmp_path: Path) -> None:
    assert sync(Store(tmp_path / "none" / "x")).exit_code == 2


def test_nothing_is_written_elsewhere(
    store: Store, serve: Callable[..., Server], clean_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clean_environment)
    written(store)
    serve()
    threads, environment = threading.active_count(), dict(os.environ)
    sync(store)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["home", "sweeps"]
    assert list(clean_environment.iterdir()) == []
    assert dict(os.environ) == environment
    assert threading.active_count() <= threads + 1


def names(folder: Path) -> list[Any]:
    return sorted(entry.name for entry in folder.iterdir())


def test_its_cache_is_gone_afterwards(store: Store, serve: Callable[..., Server]) -> None:
    written(store)
    serve()
    sync(store)
    assert all(name == ".finished" or name.startswith("offline-run-") for name in names(store.path("wandb")))
