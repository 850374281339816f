"""What `sweep.tracking.tracker` leaves on disk, read back with wandb's own reader. No server, no mocks of wandb."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tracked import KEY, MANIFEST, Run, assert_no_key, epochs, files, mark_synced, only_run, record, run_cell, runs

from sweep.records.grid import written
from sweep.records.record import Status
from sweep.tracking import files as wandb_files
from sweep.tracking.configuration import MODES, resolve_mode
from sweep.tracking.tracker import Tracker


class Warnings(list[str]):
    """Collects what a tracker warns of."""

    def __call__(self, message: str) -> None:
        self.append(message)


@pytest.fixture(autouse=True)
def home(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder that is the working folder too, and no trace of W&B in the environment."""
    monkeypatch.chdir(clean_environment)
    return clean_environment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sweep = tmp_path / "sweeps" / "tiny é #1"
    sweep.mkdir(parents=True)
    return sweep


@pytest.fixture
def warnings() -> Warnings:
    return Warnings()


@pytest.fixture
def track(folder: Path, warnings: Warnings) -> Iterator[Callable[..., Tracker]]:
    """Starts trackers; closes those that the test did not."""
    trackers: list[Tracker] = []

    def start(mode: str = "offline") -> Tracker:
        trackers.append(Tracker(MANIFEST, folder, mode=mode, project="dae", warn=warnings))
        return trackers[-1]

    yield start
    for tracker in trackers:
        tracker.close()


def in_process(folder: Path, body: str, **environment: str) -> "subprocess.Popen[str]":
    """A driver of its own, with the helpers of this file at hand."""
    script = f"""
import sys, time, os, signal
from pathlib import Path
sys.path[:0] = [{str(Path(__file__).parents[1])!r}, {str(Path(__file__).parents[2])!r}]
from tracked import *
folder = Path({str(folder)!r})
{body}
"""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_every_epoch_of_every_cell_is_there_once(track, folder, warnings):
    tracker = track()
    for latent in (5, 8, 13):
        tracker.started(record(latent))
    for count in (1, 2, 2, 4):
        for latent in (5, 8, 13):
            tracker.progressed(record(latent).key, epochs(count))
    for latent in (5, 8, 13):
        tracker.ended(record(latent, 4, Status.COMPLETED), np.zeros((28, 28, 3), np.uint8))
    tracker.close()

    assert warnings == []
    found = runs(folder)
    assert sorted(found) == ["DAE_1_13-s0", "DAE_1_5-s0", "DAE_1_8-s0"]
    for name, run in found.items():
        assert run.epochs == [1, 2, 3, 4]
        assert [row["_step"] for row in run.rows[:4]] == [1, 2, 3, 4]
        assert [row["train/loss"] for row in run.rows[:4]] == [1, 1 / 2, 1 / 3, 1 / 4]
        assert [row["val/loss"] for row in run.rows[:4]] == [2, 1, 2 / 3, 1 / 2]
        assert run.start["run_group"] == "tiny"
        assert run.start["job_type"] == "cell"
        assert run.start["project"] == "dae"
        assert len(run.start["run_id"]) == 16
        config = run.start["config"]["update"]
        expected = record(int(name.split("_")[2].split("-")[0])).config
        expected = written(expected)
        assert {key: config[key] for key in expected} == expected
        assert config["parameters"] == 100
        assert config["macs"] == 2000
        assert config["compression"] == 7.8
        assert config["dataset_fingerprint"] == "abc"
        assert run.summary["test/loss"] == 0.015
        assert run.summary["test/psnr_db"] == 18.2
        assert run.summary["status"] == "completed"
        assert run.exit_codes == [0]
        steps = {metric["name"]: metric.get("step_metric") for metric in run.of("metric")}
        assert steps["train/loss"] == steps["val/loss"] == "epoch"


def test_the_sample_is_the_image_that_was_given(track, folder):
    tracker = track()
    run_cell(tracker, sample=True)
    tracker.close()
    run = only_run(folder)
    stored = np.asarray(Image.open(run.file.parent / "files" / run.summary["test/sample.path"]))
    np.testing.assert_array_equal(stored, np.arange(28 * 84, dtype=np.uint8).reshape(28, 84))


@pytest.mark.parametrize("status", [Status.DIVERGED, Status.FAILED])
def test_a_cell_that_did_not_complete_ends_as_failed(track, folder, status):
    tracker = track()
    tracker.started(record())
    tracker.ended(replace(record(5, 2, status), error="loss is nan"), None)
    tracker.close()
    run = only_run(folder)
    assert run.epochs == [1, 2]
    assert run.summary["status"] == status
    assert run.summary["error"] == "loss is nan"
    assert "test/loss" not in run.summary
    assert run.exit_codes == [1]


def test_a_cell_still_open_ends_as_killed_and_is_replaced_when_it_goes_on(track, folder):
    tracker = track()
    tracker.started(record())
    tracker.progressed(record().key, epochs(2))
    tracker.close()
    assert only_run(folder).exit_codes == [255]

    tracker = track()
    tracker.started(record(num_epochs=2))
    tracker.progressed(record().key, epochs(3))
    tracker.ended(record(5, 4, Status.COMPLETED), None)
    tracker.close()
    run = only_run(folder)
    assert run.epochs == [1, 2, 3, 4]
    assert run.exit_codes == [0]


def test_a_cell_that_fails_and_is_tried_again_has_one_run(track, folder):
    tracker = track()
    tracker.started(record())
    tracker.ended(record(5, 2, Status.FAILED), None)
    tracker.started(record(num_epochs=2))
    tracker.ended(record(5, 4, Status.COMPLETED), None)
    tracker.close()
    assert only_run(folder).epochs == [1, 2, 3, 4]


def test_a_trial_that_is_lost_and_goes_on_from_its_checkpoint_repeats_nothing(track, folder):
    tracker = track()
    tracker.started(record())
    tracker.progressed(record().key, epochs(3))
    tracker.started(record(num_epochs=2))
    tracker.progressed(record().key, epochs(3))
    tracker.ended(record(5, 4, Status.COMPLETED), None)
    tracker.close()
    assert only_run(folder).epochs == [1, 2, 3, 4]


def test_a_cell_trained_from_scratch_has_a_run_of_its_own_in_place_of_the_one_before(track, folder):
    tracker = track()
    tracker.started(record(num_epochs=3))
    tracker.started(record(generation=1))
    tracker.ended(record(5, 1, Status.COMPLETED, generation=1), None)
    tracker.close()
    found = sorted((run.start["config"]["update"]["generation"], run.epochs) for run in map(Run, files(folder)))
    assert found == [(1, [1])]


def test_a_run_that_was_synced_stays_when_its_cell_is_trained_from_scratch(track, folder):
    tracker = track()
    tracker.started(record(num_epochs=3))
    tracker.close()
    mark_synced(folder)
    again = track()
    again.ended(record(5, 1, Status.COMPLETED, generation=1), None)
    again.close()
    found = sorted((run.start["config"]["update"]["generation"], run.epochs) for run in map(Run, files(folder)))
    assert found == [(0, [1, 2, 3]), (1, [1])]


def test_wandb_lacks_a_cell_until_its_run_has_ended(track, folder):
    tracker = track()
    tracker.started(record(num_epochs=2))
    tracker.close()
    assert track().lacks(record(5, 4, Status.COMPLETED)), "its driver was killed before it could tell W&B"
    again = track()
    again.ended(record(5, 4, Status.COMPLETED), None)
    again.close()
    assert only_run(folder).epochs == [1, 2, 3, 4]
    assert not track().lacks(record(5, 4, Status.COMPLETED))
    assert track().lacks(record(5, 4, Status.COMPLETED, generation=1))
    assert not track("disabled").lacks(record(8, 4, Status.COMPLETED))


def test_only_later_epochs_follow_a_synced_run(track, folder):
    tracker = track()
    tracker.started(record(num_epochs=2))
    tracker.close()
    mark_synced(folder)
    (synced,) = files(folder)
    before = synced.read_bytes()

    for _ in range(2):
        tracker = track()
        tracker.started(record(num_epochs=2))
        tracker.ended(record(5, 4, Status.COMPLETED), None)
        tracker.close()
        (later,) = set(files(folder)) - {synced}
        run = Run(later)
        assert run.epochs == [3, 4]
        assert run.start["resume"] is True
        assert run.start["run_id"] == Run(synced).start["run_id"]
    assert synced.read_bytes() == before


def test_runs_of_one_second_are_told_by_a_number_behind_the_id(folder):
    files = [folder / "wandb" / f"offline-run-20261126_120000-{name}" / "run-abc.wandb" for name in ("abc", "abc-1")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.touch()
    assert wandb_files.of_run(folder, "abc") == files
    wandb_files.remove_unsynced(folder, "abc")
    assert list((folder / "wandb").iterdir()) == []


def test_a_run_synced_before_its_end_is_written_again(track, folder):
    tracker = track()
    tracker.started(record(num_epochs=2))
    tracker.close()
    mark_synced(folder)
    (file,) = files(folder)
    os.utime(file, (time.time() + 10, time.time() + 10))
    tracker = track()
    tracker.ended(record(5, 4, Status.COMPLETED), None)
    tracker.close()
    run = only_run(folder)
    assert run.epochs == [1, 2, 3, 4]
    assert run.start["resume"] is True


def test_the_report_holds_table_and_figures_and_replaces_the_one_before(track, folder, tmp_path):
    figure = tmp_path / "loss.png"
    Image.new("L", (8, 6), 7).save(figure)
    for value in (0.02, 0.01):
        tracker = track()
        tracker.report(
            [{"cell": "a", "loss": np.float32(value), "n": 1}, {"cell": "b", "loss": None, "note": Status.FAILED}],
            [figure, tmp_path / "not there.png"],
        )
        tracker.close()
    run = only_run(folder)
    assert run.start["display_name"] == "tiny report"
    assert run.start["job_type"] == "report"
    assert run.start["run_group"] == "tiny"
    table = json.loads((run.file.parent / "files" / run.summary["comparison.path"]).read_text())
    assert table["columns"] == ["cell", "loss", "n", "note"]
    assert table["data"] == [["a", pytest.approx(0.01), 1, None], ["b", None, None, "failed"]]
    assert (run.file.parent / "files" / run.summary["figures/loss.path"]).is_file()
    (artifact,) = run.of("artifact")
    (entry,) = artifact["manifest"]["contents"]
    assert Path(entry["local_path"]).is_file(), "wandb sync would not find the table"

    mark_synced(folder)
    tracker = track()
    tracker.report([{"cell": "a"}], [])
    tracker.close()
    assert len(files(folder)) == 2
    assert len({Run(file).start["run_id"] for file in files(folder)}) == 2


def test_nothing_is_written_elsewhere_and_no_key_anywhere(track, folder, home, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_SERVICE", "3-1-unix-/nobody/listens")
    before = dict(os.environ)
    tracker = track()
    run_cell(tracker, sample=True)
    tracker.report([{"cell": "a"}], [])
    tracker.close()
    assert only_names(folder) == ["wandb"]
    assert only_names(tmp_path) == ["home", "sweeps"]
    assert only_names(home) == []
    # wandb keeps `.temporary` as long as the process lives that has imported it.
    assert all(name.startswith(("offline-run-", ".finished", ".temporary")) for name in only_names(folder / "wandb"))
    assert not [path for path in folder.rglob("*") if path.is_symlink()], "what they lead to is gone"
    assert_no_key(folder)
    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")
    assert tracker.location == str(folder / "wandb")


def only_names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_disabled_tracks_nothing(folder):
    body = """
tracker = Tracker(MANIFEST, folder, mode="disabled", project="dae", warn=print)
run_cell(tracker)
tracker.report([{"cell": "a"}], [])
tracker.close()
assert tracker.mode == "disabled" and tracker.location is None
assert "wandb" not in sys.modules
"""
    process = in_process(folder, body)
    assert process.communicate(timeout=30) == ("", None)
    assert process.returncode == 0
    assert only_names(folder) == []


def test_auto_goes_online_only_with_a_key(home, monkeypatch):
    assert resolve_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert resolve_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert resolve_mode("auto") == "disabled"
    assert resolve_mode("offline") == "offline"
    with pytest.raises(ValueError, match=", ".join(MODES)):
        resolve_mode("sometimes")


def test_auto_finds_a_key_where_wandb_login_puts_it(home, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.example:8080")
    (home / ".netrc").write_text(f"machine elsewhere.example\n  login user\n  password {KEY}\n")
    (home / ".netrc").chmod(0o600)
    assert resolve_mode("auto") == "offline"
    (home / ".netrc").write_text(f"machine wandb.example:8080\n  login user\n  password {KEY}\n")
    assert resolve_mode("auto") == "online"
    assert capfd.readouterr() == ("", "")


def test_online_without_a_key_is_offline_with_one_warning(track, folder, warnings):
    tracker = track("online")
    run_cell(tracker, 5)
    run_cell(tracker, 8)
    tracker.close()
    assert tracker.mode == "offline"
    assert len(warnings) == 1
    assert "API key" in warnings[0]
    assert "dae-sweep sync" in warnings[0]
    assert [run.epochs for run in runs(folder).values()] == [[1, 2, 3, 4]] * 2


def test_online_every_epoch_is_sent_once(serve, track, folder, warnings, capfd):
    server = serve()
    tracker = track("auto")
    run_cell(tracker)
    tracker.close()
    assert warnings == []
    assert tracker.mode == "online"
    assert tracker.location == f"{server.url}/lab/dae"
    assert [row["epoch"] for row in server.history] == [1, 2, 3, 4]
    assert_no_key(folder)
    assert capfd.readouterr() == ("", "")


def test_online_only_what_the_server_lacks_is_sent(serve, track):
    server = serve(has_epochs=2)
    tracker = track("online")
    tracker.started(record(num_epochs=3))
    tracker.ended(record(5, 4, Status.COMPLETED), None)
    tracker.close()
    assert [row["epoch"] for row in server.history] == [3, 4]


@pytest.mark.slow
def test_a_server_lost_in_the_middle_costs_the_upload_only(serve, track, folder, warnings, monkeypatch):
    monkeypatch.setattr("sweep.tracking.service.UPLOAD_TIMEOUT_S", 2)
    server = serve()
    tracker = track("online")
    tracker.started(record())
    tracker.started(record(8))
    tracker.progressed(record().key, epochs(2))
    time.sleep(2)
    server.is_silent.set()
    tracker.ended(record(5, 4, Status.COMPLETED), None)
    tracker.ended(record(8, 4, Status.COMPLETED), None)
    tracker.close()
    assert tracker.mode == "offline"
    assert len(warnings) == 1
    found = runs(folder)
    assert [run.epochs for run in found.values()] == [[1, 2, 3, 4]] * 2
    assert all(run.start["resume"] for run in found.values())
    assert all(run.file.parent.name.startswith("offline-run-") for run in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("server", ["refuses", "is silent"])
def test_a_server_that(server, track, folder, warnings, monkeypatch):
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        monkeypatch.setattr("sweep.tracking.service.INIT_TIMEOUT_S", 2)
        port = 9 if server == "refuses" else listener.getsockname()[1]
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        tracker = track("auto")
        assert tracker.mode == "online"
        begun = time.monotonic()
        run_cell(tracker, 5, sample=True)
        run_cell(tracker, 8)
        assert time.monotonic() - begun < 1.5, "a call waited for the server"
        tracker.close()
    assert tracker.mode == "offline"
    assert len(warnings) == 1
    found = runs(folder)
    assert [run.epochs for run in found.values()] == [[1, 2, 3, 4]] * 2
    assert all(run.file.parent.name.startswith("offline-run-") for run in found.values())
    assert_no_key(folder)


@pytest.mark.slow
def test_close_and_exit_do_not_wait_for_a_silent_server(folder):
    body = """
tracker = Tracker(MANIFEST, folder, mode="online", project="dae", warn=print)
run_cell(tracker)
time.sleep(2)
begun = time.monotonic()
tracker.close(timeout_s=1)
assert time.monotonic() - begun < 6, time.monotonic() - begun
"""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        begun = time.monotonic()
        process = in_process(folder, body, WANDB_BASE_URL=url, WANDB_API_KEY=KEY)
        output, _ = process.communicate(timeout=30)
        assert time.monotonic() - begun < 15
    assert output == "W&B did not finish within 1 s: what it had not written yet is in the records only.\n"
    assert process.returncode == 0


STOP_CORE = """
import wandb
tracker = Tracker(MANIFEST, folder, mode="offline", project="dae", warn=print)
tracker.started(record())
tracker.progressed(record().key, epochs(2))
time.sleep(2)
core = wandb.setup()._connection._proc._process
"""


@pytest.mark.slow
def test_close_and_exit_do_not_wait_for_a_service_that_hangs(folder):
    body = """
core.send_signal(signal.SIGSTOP)
tracker.ended(record(5, 4, Status.COMPLETED), None)
begun = time.monotonic()
tracker.close(timeout_s=2)
assert time.monotonic() - begun < 8, time.monotonic() - begun
assert core.poll() is not None
"""
    begun = time.monotonic()
    process = in_process(folder, STOP_CORE + body)
    output, _ = process.communicate(timeout=30)
    assert time.monotonic() - begun < 10
    assert output == "W&B did not finish within 2 s: what it had not written yet is in the records only.\n"
    assert process.returncode == 0


@pytest.mark.slow
def test_a_service_that_dies_is_replaced(folder):
    body = """
core.send_signal(signal.SIGKILL)
time.sleep(0.5)
tracker.progressed(record().key, epochs(3))
tracker.ended(record(5, 4, Status.COMPLETED), None)
tracker.close()
"""
    process = in_process(folder, STOP_CORE + body)
    assert process.communicate(timeout=30) == ("", None)
    assert process.returncode == 0
    assert only_run(folder).epochs == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_killed_driver_leaves_its_epochs_and_the_next_writes_each_once(track, folder):
    body = """
tracker = Tracker(MANIFEST, folder, mode="offline", project="dae", warn=print)
tracker.started(record())
tracker.progressed(record().key, epochs(3))
while not files(folder) or only_run(folder).epochs != [1, 2, 3]:
    time.sleep(0.1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = in_process(folder, body)
    assert process.communicate(timeout=30) == ("", None)
    assert process.returncode == -signal.SIGKILL
    assert only_run(folder).epochs == [1, 2, 3]

    tracker = track()
    tracker.started(record(num_epochs=2))  # the third epoch had no checkpoint
    tracker.ended(record(5, 4, Status.COMPLETED), None)
    tracker.close()
    assert only_run(folder).epochs == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_killed_driver_leaves_temporary_folders_in_the_sweep_only(folder):
    body = """
made = []
sys.addaudithook(lambda event, given: made.append(given[0]) if event.startswith("tempfile.mk") else None)
tracker = Tracker(MANIFEST, folder, mode="offline", project="dae", warn=print)
run_cell(tracker, num_epochs=1)
tracker.close()
assert len(made) >= 2, made
assert all(Path(each).is_relative_to(folder / "wandb") for each in made), made
"""
    process = in_process(folder, body)
    assert process.communicate(timeout=30) == ("", None)
    assert process.returncode == 0


def test_a_folder_that_cannot_be_written_ends_tracking_with_one_warning(track, folder, warnings):
    (folder / "wandb").write_text("in the way")
    tracker = track()
    run_cell(tracker)
    run_cell(tracker, 8)
    tracker.close()
    assert len(warnings) == 1
    assert "FileExistsError" in warnings[0]
    assert tracker.mode == "disabled"
    assert tracker.location is None


@pytest.mark.slow
def test_a_full_disk_is_noticed(folder):
    body = """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
tracker = Tracker(MANIFEST, folder, mode="offline", project="dae", warn=print)
run_cell(tracker, num_epochs=40)
tracker.close()
"""
    process = in_process(folder, body)
    output, _ = process.communicate(timeout=30)
    assert "is incomplete: is the disk full?" in output
    assert output.count("\n") == 1
    assert process.returncode == 0
