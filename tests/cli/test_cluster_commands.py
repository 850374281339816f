"""`submit` and `jobs` without a cluster: what is refused before one is touched, and a head that does not answer."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sweep.cli import client, main
from sweep.trials import shipped

ROOT = Path(__file__).parents[2]
NOWHERE = ("--address", "http://127.0.0.1:1")
BUCKET = ("--storage", "s3://bucket/sweeps")


@pytest.fixture(autouse=True)
def no_cluster_around(clean_environment: Path, own_signals: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def call(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), prog_name="dae-sweep")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--storage", "s3://b/s", "--frobnicate"), "No such option '--frobnicate'"),
        (("--storage", "s3://b/s", "--depths", "0"), "depth"),
        (("--storage", "s3://b/s", "--epochs", "0"), "epochs"),
        (("--storage", "s3://b/s", "--dataset", "cifar"), "cifar"),
        (("--storage", "s3://b/s", "--max-seeds", "5"), "--max-seeds is a limit of --resolve"),
        (("--storage", "s3://b/s", "--gpus", "-1"), "--gpus -1 is out of range"),
        (("--storage", "s3://b/s", "--axis", "width=0"), "width"),
        (("--storage", "s3://b/s", "--axis", "lr=1e-320"), "lr 1e-320 is out of range"),
        (("--storage", "s3://b/s", "--match-parameters", "--depths", "1"), "--match-parameters"),
        (("--storage", "s3://b/s", "--name", "a/b"), "cannot name a sweep"),
        (("--storage", "s3://b/s", "--address", "auto"), "--address goes before --"),
        (("--storage", "s3://key:secret@b/s"), "holds credentials"),
        (("--storage", "ftp://b/s"), "is not known"),
        ((), "each machine of a cluster has its own"),
        (("--storage", "/mnt/sweeps"), "--shared"),
    ],
    ids=lambda value: " ".join(value) or "no storage" if isinstance(value, tuple) else "",
)
def test_what_run_would_refuse_is_refused_here(words: tuple[str, ...], said: str) -> None:
    result = call("submit", *NOWHERE, "--", *words)
    assert result.exit_code == 2
    assert said in result.output
    assert "no Ray answers" not in result.output, "the cluster was not asked"


def test_a_relative_folder_is_refused_even_if_shared() -> None:
    result = call("submit", *NOWHERE, "--shared", "--", "--storage", "sweeps")
    assert result.exit_code == 2
    assert "is not an absolute path" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "which cluster?"),
        (("--address", "http://h:8265", "--cluster", "c.yaml"), "not both"),
        (("--address", "ray://head:10001"), "would move the driver"),
        (("--address", "head:6379"), "http://HEAD:8265"),
        (("--cluster", "nowhere.yaml"), "there is no such file"),
        (NOWHERE, "no Ray answers at http://127.0.0.1:1 (nothing listens there)"),
    ],
    ids=lambda value: " ".join(value) or "none" if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize(
    "command", [("submit",), ("jobs",), ("jobs", "stop", "x"), ("jobs", "follow", "x")], ids=" ".join
)
def test_a_cluster_that_cannot_be_reached(command: tuple[str, ...], words: tuple[str, ...], said: str) -> None:
    result = call(*command, *words, *(("--", *BUCKET) if command == ("submit",) else ()))
    assert result.exit_code == 2
    assert said in result.output


def test_the_group_and_rays_own_variable_name_the_cluster_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:2")
    assert "http://127.0.0.1:2" in call("jobs", "logs", "x").output
    assert "http://127.0.0.1:1 " in call("jobs", *NOWHERE, "logs", "x").output
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:2")
    assert "http://127.0.0.1:3 " in call("jobs", *NOWHERE, "logs", "x", "--address", "http://127.0.0.1:3").output


def test_a_head_that_says_nothing_is_given_up_within_15_s() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        result = call("jobs", "--address", f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert result.exit_code == 2
    assert "it does not answer in time" in result.output
    assert time.monotonic() - start < 15


@contextmanager
def server(status: int, body: bytes) -> Iterator[str]:
    """A server that answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_a_server_that_is_no_ray() -> None:
    with server(200, b"<html>") as address:
        result = call("jobs", "--address", address)
    assert result.exit_code == 2
    assert "does not do what Ray's job server does" in result.output


def test_another_ray_than_here() -> None:
    with server(200, json.dumps({"ray_version": "2.58.0"}).encode()) as address:
        result = call("submit", "--address", address, "--", *BUCKET)
    assert result.exit_code == 2
    assert "the cluster runs Ray 2.58.0, here is 2.60.0" in result.output


@pytest.mark.parametrize(
    ("status", "said"), [(401, "none was given"), (403, "not its own")], ids=["no token", "another token"]
)
def test_a_cluster_that_wants_its_token(status: int, said: str) -> None:
    with server(status, b"no") as address:
        result = call("jobs", "--address", address)
    assert result.exit_code == 2
    assert said in result.output
    assert "RAY_AUTH_TOKEN" in result.output


def test_without_the_extra_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['aiohttp'] = None\nfrom sweep.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "jobs", *NOWHERE], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert "aiohttp is missing" in done.stderr
    assert "dae-sweep[cluster]" in done.stderr


# ---- what goes along


def test_the_versions_of_all_that_is_asked_for_go_along() -> None:
    pinned = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    sent = client.versions()
    assert {"torch", "ray", "numpy", "wandb", "mlxtend"} <= sent.keys()
    assert not {"pytest", "kubernetes-validate"} & sent.keys()
    by_name = {name.lower(): version for name, version in pinned.items()}
    assert {name: by_name[name.lower()] for name in sent} == sent


def test_a_build_of_the_same_version_is_the_same_version() -> None:
    here = client.versions()
    assert shipped.differences(here) == []
    assert shipped.public("2.14.1+cu130") == shipped.public("2.14.1+cpu") == "2.14.1"
    assert shipped.differences({**here, "torch": "1.0", "nobody": "2"}) == [
        f"torch 1.0 (here: {here['torch']})",
        "nobody 2 (here: not installed)",
    ]


@pytest.mark.parametrize(("ray", "code"), [("2.60.0", 0), ("2.59.0", 2)], ids=["the same", "another"])
def test_the_shipped_end_runs_where_the_versions_are_the_same(ray: str, code: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sweep", "plan", "--storage", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin", shipped.VERSIONS: json.dumps({"ray": ray})},
        check=False,
    )
    assert done.returncode == code
    assert ("9 cells of mnist" in done.stdout) == (code == 0)
    assert ("ray 2.59.0 (here: 2.60.0)" in done.stderr) == (code == 2)


def test_both_packages_go_along_and_nothing_else(tmp_path: Path) -> None:
    copies = [Path(copy) for copy in client.packages(tmp_path)]
    assert [copy.name for copy in copies] == ["dae", "sweep"]
    files = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert {Path("dae/model.py"), Path("sweep/cli/run.py"), Path("sweep/report/page.html.j2")} <= files
    assert not [path for path in files if path.suffix == ".pyc" or "__pycache__" in path.parts]
    assert sum((tmp_path / path).stat().st_size for path in files) < 2**21
