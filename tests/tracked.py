"""W&B from the other side: what is tracked, a reader of the files of runs, and as much of a server as answers."""

import json
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from sweep.records.grid import Grid, Settings
from sweep.records.record import Epoch, Record, Status
from sweep.records.sweep import Manifest
from sweep.tracking.tracker import Tracker

KEY = "0123456789abcdef" * 2 + "fedcba98"
MANIFEST = Manifest(
    name="tiny",
    id="f" * 32,
    created_at="2026-01-01T00:00:00.000+00:00",
    grid=Grid.product([1], [5, 8, 13], [0]),
    settings=Settings(epochs=4),
    dataset={"name": "mnist", "fingerprint": "abc"},
)


def epochs(count: int) -> tuple[Epoch, ...]:
    return tuple(Epoch(epoch=e, train_loss=1 / e, val_loss=2 / e, seconds=0.5) for e in range(1, count + 1))


def record(latent: int = 5, num_epochs: int = 0, status: Status = Status.RUNNING, generation: int = 0) -> Record:
    cell = next(cell for cell in MANIFEST.grid.cells if cell.latent == latent)
    return Record(
        key=cell.key,
        architecture=cell.architecture,
        depth=cell.depth,
        latent=cell.latent,
        seed=cell.seed,
        status=status,
        config=MANIFEST.settings.config(cell),
        parameters=100,
        macs=2000,
        compression=7.8,
        dataset={"name": "mnist", "fingerprint": "abc"},
        history=epochs(num_epochs),
        test_loss=0.015 if status is Status.COMPLETED else None,
        test_psnr_db=18.2 if status is Status.COMPLETED else None,
        generation=generation,
    )


def run_cell(tracker: Tracker, latent: int = 5, num_epochs: int = 4, sample: bool = False) -> None:
    """A cell from its first epoch to its end, as a driver reports it."""
    tracker.started(record(latent))
    for count in range(1, num_epochs + 1):
        tracker.progressed(record(latent).key, epochs(count))
    image = np.arange(28 * 84, dtype=np.uint8).reshape(28, 84) if sample else None
    tracker.ended(record(latent, num_epochs, Status.COMPLETED), image)


class Run:
    """A run's file, read by wandb."""

    def __init__(self, file: Path) -> None:
        from wandb.util import get_core_path  # not sooner: where a process is killed, what imported it matters

        self.file = file
        # What `wandb leet inspect --json FILE` runs, without importing wandb for every file.
        command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file", file, file.parent]
        lines = subprocess.run(command, capture_output=True, check=True).stdout.splitlines()
        self.records = [json.loads(line) for line in lines]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line[kind] for line in self.records if line["type"] == kind]

    @property
    def start(self) -> dict[str, Any]:
        return self.of("run")[0]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [history["item"] for history in self.of("history")]

    @property
    def epochs(self) -> list[int]:
        return [row["epoch"] for row in self.rows if "epoch" in row]

    @property
    def summary(self) -> dict[str, Any]:
        return {name: value for summary in self.of("summary") for name, value in summary.get("update", {}).items()}

    @property
    def exit_codes(self) -> list[int]:
        return [exit.get("exit_code", 0) for exit in self.of("exit")]


def epochs_by_cell(folder: Path) -> dict[str, list[list[int]]]:
    """For each cell of a sweep its W&B runs, for each run its epochs."""
    found: dict[str, list[list[int]]] = {}
    for run in map(Run, files(folder)):
        if run.start["job_type"] == "cell":
            found.setdefault(run.start["display_name"], []).append(run.epochs)
    return found


def files(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("*run-*/run-*.wandb"))


def runs(folder: Path) -> dict[str, Run]:
    """The runs of a sweep by name; fails where two have the same."""
    found = [Run(file) for file in files(folder)]
    by_name = {run.start["display_name"]: run for run in found}
    assert len(by_name) == len(found)
    return by_name


def only_run(folder: Path) -> Run:
    (file,) = files(folder)
    return Run(file)


def mark_synced(folder: Path) -> None:
    """What `wandb sync` does in the end."""
    for file in files(folder):
        file.with_name(f"{file.name}.synced").touch()


class Server(ThreadingHTTPServer):
    """Answers as much of W&B's protocol as one run needs; what it takes from it is not what a W&B server would show."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, has_epochs: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.has_epochs = has_epochs
        self.is_silent = threading.Event()
        self.history: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": "dae", "entity": {"id": "e", "name": "lab"}}
        bucket: dict[str, Any] = {"id": "b", "name": variables.get("name"), "displayName": "", "config": "{}"}
        if operation == "RunResumeStatus":
            tail = json.dumps([json.dumps({"_step": self.has_epochs, "_runtime": 1})])
            bucket |= {"summaryMetrics": "{}", "historyTail": tail, "eventsTail": "[]", "wandbConfig": '{"t": {}}'}
            bucket |= {"historyLineCount": self.has_epochs, "logLineCount": 0, "eventsLineCount": 0, "tags": []}
            return {"model": project | {"bucket": bucket if self.has_epochs else None}}
        if operation == "UpsertBucket":
            return {"upsertBucket": {"bucket": bucket | {"project": project}, "inserted": True}}
        if operation == "CreateRunFiles":
            urls = [{"name": name, "uploadUrl": f"{self.url}/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": urls}}
        return {}


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.is_silent.is_set():
            time.sleep(60)
        if "query" in body:
            self.reply({"data": self.server.answer(body["operationName"], body["variables"])})
        else:
            chunk = body.get("files", {}).get("wandb-history.jsonl", {})
            self.server.history += map(json.loads, chunk.get("content", []))
            self.reply({"exitcode": None, "limits": {}})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply({})

    def reply(self, document: dict[str, Any]) -> None:
        content = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def assert_no_key(folder: Path) -> None:
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert contents
    assert not any(KEY.encode() in content for content in contents)
