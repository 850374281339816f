"""The methods of a store in a folder and in a bucket, the lease, and the messages of a bucket that fails."""

import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from s3 import BUCKET, S3, serve, wait_for
from synthetic import add_evaluation, make_sweep
from test_store import child, kill

from dae.errors import UserError
from sweep import denoise
from sweep.analysis.arrays import load_arrays
from sweep.cli import main
from sweep.driver.declaration import cells_to_train
from sweep.evaluation import verify
from sweep.records import sweep as sweeps
from sweep.records.grid import Grid
from sweep.records.quality import load_quality
from sweep.records.record import CellFiles
from sweep.records.sweep import gather
from sweep.storage import bucket as buckets
from sweep.storage import lease, pack, requests, uris
from sweep.storage.bucket import ObjectStore
from sweep.storage.lease import LEASE_FOLDER, Held
from sweep.storage.opening import open_storage, open_store
from sweep.storage.sealing import digest
from sweep.storage.store import Store, Unreadable, Unwritable

pytest.importorskip("moto")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with serve(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3:
    """The server, in the environment of this process."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment(HOME=str(tmp_path)).items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture(scope="module")
def gcs() -> Iterator[int]:
    """Port of an emulator of Google Cloud Storage."""
    pytest.importorskip("gcp_storage_emulator")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["start", "--host=127.0.0.1", f"--port={port}", "--in-memory", f"--default-bucket={BUCKET}"]
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "gcp_storage_emulator", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        yield port
    finally:
        server.kill()
        server.wait()


KINDS = ["folder", pytest.param("s3", marks=pytest.mark.cluster), pytest.param("gs", marks=pytest.mark.cluster)]


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A storage of every kind, new for every test."""
    if request.param == "folder":
        return str(tmp_path / "sweeps")
    if request.param == "gs":
        port = request.getfixturevalue("gcs")
        query = f"anonymous=true&scheme=http&endpoint_override=127.0.0.1:{port}"
        return f"gs://{BUCKET}/{uuid.uuid4().hex}/my sweeps?{query}"
    request.getfixturevalue("s3")
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/my sweeps"


@pytest.fixture
def store(storage: str) -> Store:
    store = open_store(storage, "mnist é")
    store.create()
    return store


# ---- the contract


def test_what_was_written_last_is_read(store: Store) -> None:
    assert not store.exists("a/b/file")
    for data in (b"first", b"", bytes(range(256)) * 50_000):
        store.write("a/b/file", data)
        assert store.exists("a/b/file")
        assert store.read("a/b/file") == data
        assert store.download("a/b/file").read_bytes() == data
    store.delete("a/b/file")
    store.delete("a/b/file")
    assert not store.exists("a/b/file")
    with pytest.raises(FileNotFoundError):
        store.read("a/b/file")
    assert not store.exists("a/b"), "a folder is no file"


def test_several_are_read_at_once_and_missing_ones_left_out(store: Store) -> None:
    for number in range(20):
        store.write(f"cells/{number}/file", b"%d" % number)
    assert store.read_all(f"cells/{number}/file" for number in range(-3, 23)) == {
        f"cells/{number}/file": b"%d" % number for number in range(20)
    }


def test_folders_and_names_are_listed_in_order(store: Store) -> None:
    assert (store.folders(), store.names(), store.names("nowhere"), store.folders("nowhere")) == ([], [], [], [])
    for name in ("b/x", "a/x", "a/c/y", ".hidden/x", "file"):
        store.write(name, b"")
    assert store.folders() == ["a", "b"]
    assert store.names() == [".hidden/", ".hidden/x", "a/", "a/c/", "a/c/y", "a/x", "b/", "b/x", "file"]
    assert store.names("a") == ["a/c/", "a/c/y", "a/x"]


def test_the_whole_storage_lists_its_sweeps(storage: str) -> None:
    for name in ("two", "one"):
        open_store(storage, name).write("sweep.json", b"")
    whole = open_storage(storage)
    assert whole.folders() == ["one", "two"]
    shown = storage.partition("?")[0]
    assert whole.uri() == shown
    assert open_store(storage, "one").uri("sweep.json") == f"{shown}/one/sweep.json"


def test_lines_are_added_to_a_log(store: Store) -> None:
    for line in ("first", "größe"):
        with store.log("cells/a/log.txt") as log:
            print(line, file=log)
    buckets._log.uri = ""  # as another process finds it
    with store.log("cells/a/log.txt") as log:
        print("third", file=log)
    assert store.read("cells/a/log.txt").decode() == "first\ngröße\nthird\n"


def test_what_is_left_in_the_spool_is_in_the_storage(store: Store) -> None:
    def put(changes: dict[str, bytes | None]) -> None:
        with store.spool("wandb") as folder:
            for name, data in changes.items():
                path = folder / "wandb" / name
                if data is None:
                    path.unlink()
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
            if changes.get("fails"):
                raise KeyError

    put({"run-a/x": b"1", "run-b/y": b"2", ".finished/a": b""})
    with pytest.raises(KeyError):
        put({"run-a/x": b"11", "run-b/y": None, "fails": b"too"})
    files = {name: store.read(name) for name in store.names("wandb") if not name.endswith("/")}
    assert files == {"wandb/run-a/x": b"11", "wandb/.finished/a": b"", "wandb/fails": b"too"}
    with store.spool("wandb") as folder:
        ages = {name: (folder / name).stat().st_mtime_ns for name in files}
    assert ages["wandb/.finished/a"] <= ages["wandb/run-a/x"] <= ages["wandb/fails"], "age says what is synced"


HOLDER = """
import sys, time
from sweep.storage import lease
from sweep.storage.opening import open_store
lease.BEAT_S = 1
with open_store(sys.argv[1], "mnist é").lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_sweep_has_one_holder_and_a_killed_one_lets_go(storage: str, store: Store) -> None:
    assert not store.locked()
    holder = child(HOLDER, storage)
    try:
        assert store.locked()
        with pytest.raises(Held, match=rf"^process {holder.pid} on "), store.lock():
            pass
    finally:
        kill(holder)
    assert not store.locked()
    with store.lock() as is_held:
        assert is_held()
        assert store.locked()
    assert not store.locked()


def test_of_many_who_want_it_at_once_one_holds_it_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.2)
    holding, most, held = 0, 0, 0
    guard = threading.Lock()

    def want() -> None:
        nonlocal holding, most, held
        try:
            with store.lock():
                with guard:
                    holding, held = holding + 1, held + 1
                    most = max(most, holding)
                time.sleep(0.1)
                with guard:
                    holding -= 1
        except Held:
            pass

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 1, "never two"
    assert held >= 1 or isinstance(store, ObjectStore), "all may leave a bucket where they came at the same moment"


# ---- buckets


@pytest.fixture
def bucket(s3: S3) -> ObjectStore:
    store = open_store(f"s3://{BUCKET}/{uuid.uuid4().hex}", "mnist")
    assert isinstance(store, ObjectStore)
    return store


@pytest.mark.cluster
def test_each_operation_costs_few_requests(bucket: ObjectStore, s3: S3) -> None:
    def cost(operation: Callable[[], object]) -> int:
        before = len(s3.line.requests)
        operation()
        return len(s3.line.requests) - before

    assert cost(lambda: bucket.write("a", b"x" * 1_000_000)) == 1
    assert cost(lambda: bucket.read("a")) == 2
    assert cost(lambda: bucket.names()) == 1
    assert cost(lambda: bucket.exists("a")) == 1
    with pytest.raises(FileNotFoundError):
        bucket.read("b")
    assert cost(lambda: bucket.read_all(["b"])) == 1


def test_threads_that_write_the_logs_of_several_cells_lose_no_line(store: Store) -> None:
    def write(cell: int) -> None:
        time.sleep(0.1 * cell)  # so that they do not all begin at the same moment
        for line in range(5):
            with store.log(f"cells/{cell}/log.txt") as log:
                meeting.wait(30)
                log.write(f"line {line} of {cell}\n")

    meeting = threading.Barrier(4)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    for cell in range(4):
        lines = store.read(f"cells/{cell}/log.txt").decode().splitlines()
        assert lines == [f"line {line} of {cell}" for line in range(5)]


def test_threads_that_download_the_same_file_read_all_of_it(store: Store) -> None:
    content = bytes(range(256)) * 4000
    store.write("file", content)
    if isinstance(store, ObjectStore):
        buckets._temporary_folder().cleanup()
        buckets._temporary_folder.cache_clear()
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: store.download("file").read_bytes(), range(24))) == {content}


@pytest.mark.cluster
def test_the_files_of_many_cells_are_asked_for_side_by_side(
    bucket: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = Grid.product((1, 3), (5, 8), range(5))
    folder = make_sweep(tmp_path / "study", grid)
    add_evaluation(folder)
    bucket.write_all(folder.read_all(name for name in folder.names() if not name.endswith("/")))
    inner, guard = requests.uninterruptible, threading.Lock()
    under_way, most = 0, 0

    def counted(request: Callable[[], object]) -> object:
        nonlocal under_way, most
        with guard:
            under_way += 1
            most = max(most, under_way)
        try:
            time.sleep(0.1)
            return inner(request)
        finally:
            with guard:
                under_way -= 1

    monkeypatch.setattr(requests, "uninterruptible", counted)
    sweep = gather(bucket)
    for read in (
        lambda: gather(bucket, thorough=True),
        lambda: cells_to_train(sweep, grid, pytest.fail),
        lambda: load_arrays(sweep),
        lambda: load_quality(sweep),
    ):
        most = 0
        read()
        assert most > 4, "one after the other"


@pytest.fixture
def packed(bucket: ObjectStore, s3: S3, tmp_path: Path) -> ObjectStore:
    """A sweep of 40 cells, of which all but the last are packed."""
    folder = make_sweep(tmp_path / "study", Grid.product((1, 3), (5, 8), range(10)))
    add_evaluation(folder)
    contents = folder.read_all(name for name in folder.names() if not name.endswith("/"))
    newest = {name: data for name, data in contents.items() if "DAE_3_8-s9" in name}
    bucket.write_all({name: data for name, data in contents.items() if name not in newest})
    time.sleep(pack.CLOCK_STEP_NS / 1e9 + 0.1)
    bucket.write_all(newest)
    sweeps.pack(gather(bucket))
    return bucket


@pytest.mark.cluster
def test_a_packed_sweep_is_read_in_few_requests_and_is_the_same(packed: ObjectStore, s3: S3) -> None:
    files = [CellFiles(record.key) for record in gather(packed).completed]
    small, large = [name for names in files for name in (names.test, names.quality)], [names.weights for names in files]
    before = len(s3.line.requests)
    sweep, contents, digests = gather(packed, thorough=True), packed.read_all(small), packed.digests(large)
    assert len(s3.line.requests) - before < 40, "of four files of 40 cells each"
    packed.delete(pack.INDEX)
    assert gather(packed, thorough=True) == sweep
    assert packed.read_all(small) == contents
    assert packed.digests(large) == digests


@pytest.mark.cluster
def test_what_reads_a_sweep_of_many_cells_lists_its_bucket_once(packed: ObjectStore, s3: S3) -> None:
    before = len(s3.line.requests)
    sweep = gather(packed, thorough=True)
    load_arrays(sweep)
    load_quality(sweep)
    cells_to_train(sweep, sweep.manifest.grid, pytest.fail)
    sweeps.pack(sweep)
    lists = [line for line in s3.line.requests[before:] if "list-type" in line and lease.LEASE_FOLDER not in line]
    assert len(lists) == 1, lists


@pytest.mark.cluster
def test_a_folder_is_gone_with_its_last_file(bucket: ObjectStore) -> None:
    for name in ("cells/a/record.json", "cells/b/record.json", "removed/a/record.json"):
        bucket.write(name, b"content")
    bucket.delete("cells/a/record.json")
    bucket.delete("removed/a/record.json")
    assert (bucket.folders("cells"), bucket.folders("removed")) == (["b"], [])
    assert bucket.names() == ["cells/", "cells/b/", "cells/b/record.json"]


@pytest.mark.cluster
def test_a_snapshot_is_the_store_as_it_was(packed: ObjectStore) -> None:
    snapshot = packed.snapshot()
    names = packed.names()
    assert [snapshot.names(name) for name in ("", "cells", "cel")] == [names, packed.names("cells"), []]
    assert [snapshot.folders(name) for name in ("", "cells")] == [packed.folders(), packed.folders("cells")]
    files = [name for name in names if not name.endswith("/")]
    assert snapshot.read_all(files) == packed.read_all(files)
    packed.write("cells/new/record.json", b"")
    assert (snapshot.names(), "new" in snapshot.folders("cells")) == (names, False)
    assert "new" in packed.folders("cells")


@pytest.mark.cluster
def test_what_was_put_again_or_removed_since_is_not_read_from_the_pack(packed: ObjectStore) -> None:
    sweep = gather(packed)
    changed, removed, lost = (sweep.completed[number] for number in (0, 1, 2))
    content = packed.read(CellFiles(changed.key).record)
    packed.write(CellFiles(changed.key).record, content[::-1])
    packed.delete(CellFiles(removed.key).record)
    packed.write(CellFiles(lost.key).weights, bytes(len(packed.read(CellFiles(lost.key).weights))))
    sweep = gather(packed, thorough=True)
    assert set(sweep.damaged) == {changed.key, lost.key}
    assert removed.key not in sweep.records


@pytest.mark.cluster
def test_what_verifies_a_packed_sweep_reads_its_files(packed: ObjectStore, s3: S3) -> None:
    sweep, before = gather(packed), len(s3.line.requests)
    unpacked = gather(packed.unpacked())
    assert unpacked == sweep
    assert sum("/record.json" in line for line in s3.line.requests[before:]) == 2 * len(sweep.records)
    assert not [name for name in verify._orphans(unpacked) if name.startswith(pack.FOLDER)]


@pytest.mark.cluster
def test_a_damaged_pack_costs_nothing_but_time(packed: ObjectStore) -> None:
    sweep = gather(packed, thorough=True)
    for name in packed.names(pack.FOLDER):
        for damage in (packed.read(name)[:-30], b"", packed.read(name).replace(b"epoch", b"hcope")):
            packed.write(name, damage)
            again = gather(packed, thorough=True)
            assert (again.records, again.damaged) == (sweep.records, sweep.damaged), name


WRITER = """
import sys, time
from sweep.storage.opening import open_store
store = open_store(sys.argv[1], "mnist")
print("ready", flush=True)
while True:
    store.write("file", b"new" * 3_000_000)
"""


@pytest.mark.cluster
def test_a_killed_writer_leaves_a_whole_object(bucket: ObjectStore) -> None:
    old = b"old" * 3_000_000
    for delay_s in (0.02, 0.1, 0.3):
        bucket.write("file", old)
        writer = child(WRITER, bucket.uri().removesuffix("/mnist"))
        time.sleep(delay_s)
        kill(writer)
        assert bucket.read("file") in (old, b"new" * 3_000_000)


INTERRUPTED = """
import os, signal, sys, time
from sweep.storage import uris
from sweep.storage.opening import open_store

store = open_store(sys.argv[1], "mnist")
filesystem = store.filesystem

class Slow:
    def open_output_stream(self, path):
        stream = filesystem.open_output_stream(path)
        os.kill(os.getpid(), signal.SIGUSR1)  # between opening and writing
        time.sleep(0.3)
        return stream

def interrupt(*_):
    raise KeyError

signal.signal(signal.SIGUSR1, interrupt)
uris.filesystem = lambda *_: Slow()
print("ready", flush=True)
try:
    store.write("file", b"new")
except KeyError:
    print("interrupted", flush=True)
"""


@pytest.mark.cluster
def test_a_signal_amid_a_put_does_not_put_half(bucket: ObjectStore) -> None:
    # Left to itself, pyarrow closes a stream that an exception leaves behind, and with it puts what is in it so far.
    bucket.write("file", b"old")
    writer = child(INTERRUPTED, bucket.uri().removesuffix("/mnist"))
    assert "interrupted" in writer.communicate(timeout=20)[0]
    assert writer.returncode == 0
    assert bucket.read("file") in (b"old", b"new")


@pytest.mark.cluster
def test_a_server_that_goes_away_and_comes_back_is_waited_for(bucket: ObjectStore, s3: S3) -> None:
    bucket.write("file", b"before")
    s3.line.cut()
    threading.Timer(1.5, s3.line.join).start()
    start = time.monotonic()
    bucket.write("file", b"after")
    assert 1 < time.monotonic() - start < 15
    assert bucket.read("file") == b"after"


@pytest.mark.cluster
def test_a_server_that_stays_away_is_given_up(bucket: ObjectStore, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = ObjectStore(bucket.root, bucket.scheme, bucket.options, patience_s=1)
    s3.line.cut()
    try:
        with pytest.raises(Unwritable, match=r"^cannot write s3://digits/\w+/mnist/file: it does not answer \("):
            impatient.write("file", b"")
        with pytest.raises(Unreadable, match=r"^cannot read s3://digits/\w+/mnist/file: it does not answer \("):
            impatient.read("file")
    finally:
        s3.line.join()


@pytest.mark.cluster
def test_a_lease_expires_by_the_clock_of_the_store(bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a machine that is no more: nobody can look whether its process lives.
    entry = json.dumps({"holder": "process 7 on elsewhere", "host": "elsewhere", "boot": "", "pid": 7})
    bucket.write(f"{LEASE_FOLDER}/{uuid.uuid4().hex}", entry.encode())
    monkeypatch.setattr(lease, "EXPIRY_S", 2.0)
    monkeypatch.setattr(lease, "BEAT_S", 0.5)
    assert bucket.locked()
    start = time.monotonic()
    with bucket.lock():
        assert time.monotonic() - start > 1, "not at once"
        assert bucket.names(LEASE_FOLDER)
    assert time.monotonic() - start < 10


@pytest.mark.cluster
def test_a_holder_who_was_cut_off_and_replaced_knows(bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "EXPIRY_S", 2.0)
    monkeypatch.setattr(lease, "BEAT_S", 0.3)
    with bucket.lock() as is_held:
        with monkeypatch.context() as away:
            away.setattr(lease.Lease, "_put", lambda *_: (_ for _ in ()).throw(OSError))
            time.sleep(2.5)
        for name in bucket.names(LEASE_FOLDER):
            bucket.delete(name)
        other = lease.Lease(bucket)
        other._put()
        deadline = time.monotonic() + 10
        while is_held() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not is_held()


# ---- what users are told


def command(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["report", "status", "verify", "sync", "plan", "run"])
def test_every_command_says_that_a_bucket_is_missing(s3: S3, own_signals: None, name: str) -> None:
    result = command(name, "--storage", "s3://nowhere/sweeps")
    assert result.exit_code == 2
    assert re.search(r"^Error: there is no bucket 'nowhere' at 127.0.0.1:\d+\. Make it first, or give", result.stderr)


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "these credentials do not permit it"),
        ("AWS_ACCESS_KEY_ID", "AKIAWRONG", "these credentials do not permit it"),
    ],
    ids=["secret", "key"],
)
def test_wrong_credentials_are_said_and_never_shown(
    s3: S3, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    uris.filesystem.cache_clear()
    result = command("status", "--storage", f"s3://{BUCKET}/sweeps")
    uris.filesystem.cache_clear()
    assert result.exit_code == 2
    assert f"cannot use the storage s3://{BUCKET}: {message}" in result.stderr
    assert "Check AWS_ACCESS_KEY_ID" in result.stderr
    assert value not in result.output
    assert s3.secret_key not in result.output


@pytest.mark.cluster
def test_an_endpoint_that_does_not_answer_is_said_within_seconds(s3: S3) -> None:
    start = time.monotonic()
    uri = f"s3://{BUCKET}/sweeps?endpoint_override=127.0.0.1:1&scheme=http"
    result = command("run", "--dataset", "mnist-5k", "--storage", uri)
    assert result.exit_code == 2
    assert re.search(r"does not answer \(.*\)\. Is 127.0.0.1:1 the right endpoint", result.stderr)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://key:geheim@bucket/x", "holds credentials"),
        ("s3://bucket/x?secret_key=geheim", "holds credentials"),
        ("gs://bucket/x?access_token=geheim", "holds credentials"),
        ("s3://bucket/x?colour=geheim", "storage option colour is not known: scheme, endpoint_override, region"),
        ("s3:///x", "names no bucket: write s3://BUCKET/FOLDER"),
        ("hdfs://host/x", "storage hdfs:// is not known: give a folder"),
    ],
    ids=lambda value: value[:24],
)
def test_a_uri_that_cannot_be_used_is_refused_without_its_secret(uri: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as refusal:
        open_store(uri, "mnist")
    assert "geheim" not in str(refusal.value)


def test_a_file_uri_is_the_folder(tmp_path: Path) -> None:
    assert open_store(f"file://{tmp_path}/a", "mnist") == open_store(tmp_path / "a", "mnist")


SWEEP = ["--dataset", "mnist-5k", "--train-fraction", "0.1", "--epochs", "2", "--depths", "1", "--latents", "5,8"]


@pytest.mark.cluster
def test_a_sweep_in_a_bucket_is_the_sweep_in_a_folder(
    s3: S3, tmp_path: Path, clean_environment: Path, in_process: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All commands that do not start Ray, reading as they read many cells."""
    monkeypatch.setattr(pack, "FEW", 0)
    uri = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    folder = tmp_path / "sweeps"
    for storage in (str(folder), uri):
        result = command("run", *SWEEP, "--storage", storage, "--quiet")
        assert result.exit_code == 0, result.output
        assert f"Report: {storage}/mnist-5k/report/index.html" in result.output
        assert f"W&B runs: {storage}/mnist-5k/wandb" in result.output
    one, other = open_store(folder, "mnist-5k"), open_store(uri, "mnist-5k")

    def files(store: Store) -> list[str]:
        names = [
            name
            for name in store.names()
            if not name.startswith((".l", ".pack", "wandb/off")) and not name.endswith("/")
        ]
        return [name for name in names if not name.endswith((".lock", ".id")) and "/.temporary/" not in name]

    assert [re.sub("finished/.*", "", name) for name in files(one)] == [
        re.sub("finished/.*", "", name) for name in files(other)
    ]
    for name in files(one):
        if name.endswith((".npz", ".safetensors")):
            assert one.read(name) == other.read(name), name
    runs = [name for name in other.names("wandb") if name.endswith(".wandb")]
    assert len(runs) == 3, "a run a cell and the report's"
    assert len(other.names("wandb/.finished")) == 2
    for name, exit_code, message in (
        ("status", 0, "mnist-5k: 2 of 2 completed"),
        ("plan", 0, "2 cells of mnist-5k: 2 completed"),
        ("report", 0, f"Report: {uri}/mnist-5k/report/index.html"),
        ("verify", 0, "every test loss, file and number agrees"),
        ("sync", 2, "3 of 3 runs are to be uploaded, but no W&B key is configured"),
    ):
        words = {"status": [], "plan": SWEEP}.get(name, ["--dataset", "mnist-5k"])
        result = command(name, *words, "--storage", uri)
        assert (result.exit_code, message in result.output.replace("\n", " ")) == (exit_code, True), result.output
    again = command("run", *SWEEP, "--storage", uri, "--quiet")
    assert again.exit_code == 0, again.output
    assert sorted(name for name in other.names("wandb") if name.endswith(".wandb"))[:2] == sorted(runs)[:2]
    assert not subprocess.run(
        [sys.executable, "-c", "import sweep.storage.store, sys; sys.exit('pyarrow' in sys.modules)"], check=False
    ).returncode


HOSTED = """
import sys
from sweep import cli
from sweep.driver import training
from sweep.trials import machine
job = training._job
training._job = lambda sweep, device, share: job(sweep, "cpu", share)
machine.gpu_count = lambda: 1
sys.argv[0] = "dae-sweep"
cli.main()
"""
"""Trains as on a GPU, in threads of one host, but on the CPU."""


@pytest.mark.cluster
@pytest.mark.slow
def test_a_host_writes_several_cells_into_a_bucket_at_a_time(s3: S3, clean_environment: Path) -> None:
    uri = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    del environment["CUDA_VISIBLE_DEVICES"]
    options = ["--gpus", "1", "--cpus", "2", "--trials-per-gpu", "2", "--seeds", "0,1", "--epochs", "6"]
    words = ["run", *SWEEP, *options, "--wandb", "disabled", "--no-report", "--storage", uri]
    done = subprocess.run(
        [sys.executable, "-c", HOSTED, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost" not in done.stdout + done.stderr
    sweep = gather(open_store(uri, "mnist-5k"))
    for cell in sweep.manifest.grid.cells:
        assert len(sweep.records[cell.key].attempts) == 1
        lines = sweep.store.read(CellFiles(cell.key).log).decode().splitlines()
        assert f"{cell.key} begins after epoch 0 on cpu" in lines[0]
        assert len(lines) == 7


# ---- models


def test_a_model_is_taken_out_of_every_storage(
    storage: str, undisturbed: Store, tmp_path: Path, own_signals: None
) -> None:
    store = open_store(storage, "mnist-5k")
    store.create()
    store.write_all(undisturbed.read_all(name for name in undisturbed.names() if not name.endswith(("/", ".lock"))))
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")

    def ask(*words: str) -> str:
        answer = CliRunner().invoke(main, [*words, "--storage", storage])
        assert answer.exit_code == 0, answer.output
        return answer.output

    assert ask("best", "mnist-5k").startswith("DAE_3_8-s0")
    ask("denoise", str(tmp_path / "picture.png"), "--sweep", "mnist-5k", "--out", str(tmp_path / "out"))
    denoised = np.asarray(Image.open(io.BytesIO((tmp_path / "out" / "picture.png").read_bytes())))
    assert np.array_equal(denoised, denoise(pixels, "mnist-5k", storage=storage))
    assert np.array_equal(denoised, denoise(pixels, str(undisturbed.root)))
    model = tmp_path / "model.safetensors"
    ask("export", "mnist-5k", "--format", "safetensors", "--out", str(model))
    assert digest(model.read_bytes()) in (tmp_path / "model.safetensors.md").read_text()
