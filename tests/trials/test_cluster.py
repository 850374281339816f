"""Sweeps on a real cluster: two hosts, `ray up` with the file of cluster/ over SSH, jobs, `ray down`.

The tests go one after the other on one cluster, in the order of the file; the last one takes it down.
"""

import json
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from conftest import SMALL, make_undisturbed
from lab import CLIENT, ROOT, Host, Lab, lab, missing

from sweep.records.grid import Cell, Grid
from sweep.records.record import CellFiles, Status
from sweep.records.sweep import gather
from sweep.storage.store import Store
from sweep.trials.job import git_commit

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TOKEN = "5" * 64
KEY = "c" * 40
"""A W&B key that the client has and nobody else may see."""

SMALL_SWEEP = "--dataset mnist-5k --depths 1,3 --latents 5,8 --train-fraction 0.1 --epochs 3 --batch-size 32"


@dataclass
class Launched:
    """A cluster that `ray up` started in a lab."""

    lab: Lab
    config: Path
    said: str

    @property
    def head(self) -> Host:
        return self.lab.hosts[0]

    @property
    def storage(self) -> str:
        return str(self.lab.shared / "sweeps")

    def dae_sweep(self, *words: str, timeout_s: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command of the client."""
        return self.lab.run("dae-sweep", *words, timeout_s=timeout_s, **environment)

    def jobs(self) -> dict[str, str]:
        """State of every job, by its id."""
        listed = self.dae_sweep("jobs", "--cluster", str(self.config))
        assert listed.returncode == 0, listed.stdout
        return {line.split()[0]: line.split()[1] for line in listed.stdout.splitlines()}

    def store(self, name: str) -> Store:
        return Store(Path(self.storage) / name)


BUCKET = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "something",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": f"http://{CLIENT}:5000",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""How the hosts, and the client, reach the S3 server of the lab."""


@contextmanager
def s3_server(of: Lab) -> Iterator[None]:
    """Moto's server on the client's address, with a bucket named ``digits``."""
    with (of.folder / "s3.log").open("w") as log:
        server = subprocess.Popen(
            of.command(["python", "-m", "moto.server", "-H", CLIENT, "-p", "5000"]),
            cwd=ROOT,
            env=of.environment,
            stdout=log,
            stderr=log,
        )
    make = "import boto3; boto3.client('s3').create_bucket(Bucket='digits')"
    try:
        wait_until(lambda: of.run("python", "-c", make, **BUCKET).returncode == 0, 120, "an S3 server")
        yield
    finally:
        server.kill()
        server.wait()


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait, as long as a loaded machine needs."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.5)


def on_premise(of: Lab) -> dict[str, object]:
    """cluster/on-premise.yaml with its three lines changed, and its name: SSH shares connections by it."""
    content: dict[str, object] = yaml.safe_load((ROOT / "cluster" / "on-premise.yaml").read_text())
    content["cluster_name"] = of.name
    head, *workers = [host.address for host in of.hosts]
    content["provider"] = {"type": "local", "head_ip": head, "worker_ips": workers}
    content["auth"] = {"ssh_user": "root", "ssh_private_key": str(of.key)}
    return content


@pytest.fixture(scope="module")
def launched() -> Iterator[Launched]:
    if absent := missing():
        pytest.skip(f"NO CLUSTER WAS TESTED: this machine lacks {', '.join(absent)} (make cluster-tools installs them)")
    folder = Path(tempfile.mkdtemp(prefix="dae", dir="/tmp"))  # short: Ray puts sockets below it
    try:
        with lab(folder / "lab") as made:
            variables = "".join(f"export {name}={value}\n" for name, value in BUCKET.items())
            for host in made.hosts:  # the environment of this checkout stands for what pip would install there
                installed = host.home / "dae-sweep"
                installed.mkdir()
                (installed / ".venv").symlink_to(ROOT / ".venv")
                shutil.copy(ROOT / "constraints.txt", installed / ".installed")
                with (host.home / ".bashrc").open("a") as profile:
                    profile.write(variables)
            token = Path(made.environment["HOME"]) / ".ray" / "auth_token"
            token.parent.mkdir()
            token.write_text(TOKEN)
            config = made.folder / "cluster.yaml"
            config.write_text(yaml.safe_dump(on_premise(made)))
            up = made.run("ray", "up", "--yes", "--no-config-cache", config)
            assert up.returncode == 0, up.stdout
            yield Launched(made, config, up.stdout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_ray_up_starts_ray_on_both_hosts(launched: Launched) -> None:
    def cpus() -> list[str]:
        status = launched.lab.run("ray", "exec", launched.config, "RAY_AUTH_MODE=token ray status")
        return re.findall(r"/(\d+\.0) CPU", status.stdout)

    wait_until(lambda: cpus() == ["2.0"], 300, "one core of each host")


def test_a_submitted_sweep_gives_the_numbers_of_this_machine(launched: Launched, undisturbed: Store) -> None:
    words = f"--storage {launched.storage} --wandb offline {SMALL_SWEEP}".split()
    done = launched.dae_sweep(
        "submit", "--cluster", str(launched.config), "--shared", "--follow", "--", *words, WANDB_API_KEY=KEY
    )
    assert done.returncode == 0, done.stdout
    assert "4 of 4 completed" in done.stdout
    assert re.search(r"mnist-5k-\w{6} succeeded after", done.stdout)
    found, here = gather(launched.store("mnist-5k")), gather(undisturbed)
    for cell in here.manifest.grid.cells:
        there = found.records[cell.key]
        assert there.test_loss == here.records[cell.key].test_loss
        assert there.environment["git_commit"] == git_commit()
        weights = CellFiles(cell.key).weights
        assert found.store.read(weights) == here.store.read(weights), "bit for bit"


def test_its_report_is_made_here(launched: Launched) -> None:
    done = launched.dae_sweep("report", "--storage", launched.storage, "--name", "mnist-5k")
    assert done.returncode == 0, done.stdout
    assert launched.store("mnist-5k").path("report/index.html").is_file()


def test_jobs_lists_it_and_its_output_can_be_read_again(launched: Launched) -> None:
    [(job, state)] = launched.jobs().items()
    assert state == "succeeded"
    for verb in ("logs", "follow"):
        again = launched.dae_sweep("jobs", verb, job, "--cluster", str(launched.config))
        assert again.returncode == 0, again.stdout
        assert "4 of 4 completed" in again.stdout


def test_a_stopped_sweep_keeps_every_finished_epoch(launched: Launched) -> None:
    words = f"--name long --storage {launched.storage} --wandb offline --dataset mnist-5k --depths 1,3 --latents 5"
    log = launched.lab.folder / "follow.log"
    where = ["--cluster", str(launched.config)]
    with log.open("w") as output:
        following = subprocess.Popen(
            launched.lab.command(
                ["dae-sweep", "submit", *where, "--shared", "--follow", "--", *words.split(), "--epochs", "900"]
            ),
            cwd=ROOT,
            env=launched.lab.environment | {"WANDB_API_KEY": KEY},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: "epoch 2/900" in log.read_text() or following.poll() is not None, 400, "epochs")
        assert following.poll() is None, log.read_text()
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 130, log.read_text()
    finally:
        following.terminate()  # SIGKILL would leave its tunnel behind
        following.wait()
    assert "goes on without you" in log.read_text()
    [job] = re.findall(r"dae-sweep jobs stop (long-\w+) --cluster", log.read_text())[-1:]
    assert launched.jobs()[job] == "running"
    assert not [line for host in launched.lab.hosts for line in host.environments() if KEY in line]

    stopped = launched.dae_sweep("jobs", "stop", job, *where)
    assert stopped.returncode == 0, stopped.stdout
    assert f"{job} stopped" in stopped.stdout
    assert "SIGTERM: every finished epoch is kept" in stopped.stdout
    followed = launched.dae_sweep("jobs", "follow", job, *where)
    assert followed.returncode == 143, followed.stdout
    [supervisor] = launched.head.tmp.glob(f"ray/session_2*/logs/jobs/supervisor-{job}.log")
    assert "terminated gracefully with SIGTERM" in supervisor.read_text()
    found = gather(launched.store("long"))
    assert found.records
    for key, record in found.records.items():
        seen = [int(epoch) for epoch in re.findall(rf"{key}\s+epoch (\d+)/900", followed.stdout)]
        assert found.status(Cell.from_key(key)) is Status.INTERRUPTED
        assert len(record.history) >= max(seen, default=0)


def test_nine_cells_in_a_bucket_with_a_host_lost_and_replaced(launched: Launched, tmp_path: Path) -> None:
    """The numbers are those of the same nine cells trained here without Ray, all bits of them."""
    grid, settings = Grid.product((1, 3, 5), (13, 8, 5), (0,)), replace(SMALL, epochs=6)
    here = Store(tmp_path / "mnist-5k")
    make_undisturbed(here, grid, settings)
    words = "--storage s3://digits/sweeps --wandb disabled --train-fraction 0.1 --epochs 6 --dataset mnist-5k"
    where = ["--cluster", str(launched.config)]
    worker = launched.lab.hosts[1]
    with s3_server(launched.lab):
        submitted = launched.dae_sweep("submit", *where, "--", *words.split())
        assert submitted.returncode == 0, submitted.stdout
        [job] = re.findall(r"^(mnist-5k-\w{6}) is submitted", submitted.stdout)

        def trains_there() -> bool:
            logs = launched.head.tmp.glob(f"ray/session_2*/logs/job-driver-{job}.log")
            half = any(log.read_text().count("completed, test loss") >= 2 for log in logs)
            return half and any("ray::CellTrial" in line or "ResourceTrainable" in line for line in worker.processes())

        wait_until(trains_there, 500, "a few cells, and one at work on the worker")
        launched.lab.kill(worker)
        launched.lab.boot(worker)
        followed = launched.dae_sweep("jobs", "follow", job, *where, timeout_s=900)
        print(followed.stdout)
        assert followed.returncode == 0, followed.stdout
        assert "9 of 9 completed" in followed.stdout
        read = (
            "import json; from sweep.records.sweep import gather; from sweep.storage.opening import open_store\n"
            "records = gather(open_store('s3://digits/sweeps', 'mnist-5k')).records.values()\n"
            "print(json.dumps({each.key: [each.test_loss, [h.val_loss for h in each.history]] for each in records}))"
        )
        there = json.loads(launched.lab.run("python", "-c", read, **BUCKET).stdout)
    expected = {key: [each.test_loss, [h.val_loss for h in each.history]] for key, each in gather(here).records.items()}
    assert there == expected
    wait_until(lambda: any("raylet" in line for line in worker.processes()), 400, "the worker's replacement")


def test_the_key_of_this_machine_is_nowhere_in_the_cluster(launched: Launched) -> None:
    program = (
        "import sys; from sweep.cli.client import Cluster, forwarded\n"
        "from pathlib import Path\n"
        "with forwarded(Path(sys.argv[1])) as url: print(Cluster(url)._client.list_jobs())"
    )
    told = launched.lab.run("python", "-c", program, launched.config)
    assert "mnist-5k" in told.stdout, told.stdout
    assert KEY not in told.stdout
    searched = [path for host in launched.lab.hosts for path in host.tmp.rglob("*") if path.is_file()]
    searched += [path for path in launched.lab.shared.rglob("*") if path.is_file()]
    assert any("job-driver" in path.name for path in searched)
    assert not [path for path in searched if KEY.encode() in path.read_bytes()]


def test_another_token_is_refused(launched: Launched) -> None:
    where = ("jobs", "--cluster", str(launched.config))
    other = launched.dae_sweep(*where, RAY_AUTH_TOKEN="6" * 64)
    assert (other.returncode, "the token given is not its own" in other.stdout) == (2, True), other.stdout
    none = launched.dae_sweep(*where, RAY_AUTH_MODE="disabled")
    assert (none.returncode, "none was given" in none.stdout) == (2, True), none.stdout


def test_a_head_that_is_not_there_is_said_within_15_s(launched: Launched) -> None:
    start = time.monotonic()
    done = launched.dae_sweep("jobs", "--address", "http://10.99.0.99:8265")
    assert done.returncode == 2, done.stdout
    assert "no Ray answers at http://10.99.0.99:8265" in done.stdout
    assert time.monotonic() - start < 15


def test_a_job_that_is_not_there(launched: Launched) -> None:
    done = launched.dae_sweep("jobs", "stop", "nobody", "--cluster", str(launched.config))
    assert (done.returncode, "there is no sweep nobody" in done.stdout) == (2, True), done.stdout


def test_ray_down_leaves_nothing(launched: Launched) -> None:
    down = launched.lab.run("ray", "down", "--yes", launched.config)
    assert down.returncode == 0, down.stdout
    start = time.monotonic()
    for host in launched.lab.hosts:
        wait_until(lambda host=host: not host.processes(), 400, f"nothing to run on {host.name}")
        print(f"{host.name}: nothing runs {time.monotonic() - start:.0f} s after ray down")
    gone = launched.dae_sweep("jobs", "--cluster", str(launched.config))
    assert gone.returncode == 2, gone.stdout
    assert "Ray's launcher does not reach the head" in gone.stdout
