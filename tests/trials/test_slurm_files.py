"""The files for Slurm, with stand-ins for its commands: their options are those of `run`, a warning is a requeue."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from sweep.cli.run import run

CLUSTER = Path(__file__).parents[2] / "cluster"

DAE_SWEEP = f"""#!{sys.executable}
import signal, sys
from pathlib import Path
Path("options").write_text("\\n".join(sys.argv[1:]))
signal.signal(signal.SIGUSR1, lambda *_: (print("warned", flush=True), sys.exit(138)))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("ready", flush=True)
if "--quiet" not in sys.argv: signal.pause()
"""
SCONTROL = '#!/bin/bash\n[ "$1" = show ] && echo node1 && exit\necho "$@" > requeued\n'
SRUN = '#!/bin/bash\necho "$@" >> steps\n'


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a job."""
    for name, program in (("dae-sweep", DAE_SWEEP), ("scontrol", SCONTROL), ("srun", SRUN), ("sleep", "#!/bin/sh\n")):
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "8",
        "DAE_SWEEP_STORAGE": "/shared/sweeps",
    }


def options_of(folder: Path) -> dict[str, object]:
    """What `run` makes of the options that it was given."""
    command, *words = (folder / "options").read_text().splitlines()
    assert command == "run"
    context: click.Context = run.make_context("run", words)
    return context.params


@pytest.mark.parametrize(("name", "is_requeued"), [("slurm-array.sh", True), ("slurm-cluster.sh", False)])
def test_a_warning_stops_the_run(slurm: dict[str, str], tmp_path: Path, name: str, is_requeued: bool) -> None:
    command = ["bash", str(CLUSTER / name), "--seeds", "0..4"]
    job = subprocess.Popen(command, cwd=tmp_path, env=slurm, stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    assert job.stdout.readline() == "ready\n"
    time.sleep(0.2)  # until the shell waits
    job.send_signal(signal.SIGUSR1)
    said, _ = job.communicate(timeout=20)
    assert (said, job.returncode) == ("warned\n", 138)
    assert (tmp_path / "requeued").exists() == is_requeued
    given = options_of(tmp_path)
    assert given["seeds"] == (0, 1, 2, 3, 4)
    assert given["storage"] == "/shared/sweeps"


def test_elements_of_an_array_have_sweeps_of_their_own(slurm: dict[str, str], tmp_path: Path) -> None:
    names = set()
    for number in "012":
        command = ["bash", str(CLUSTER / "slurm-array.sh"), "--quiet"]
        subprocess.run(command, cwd=tmp_path, env=slurm | {"SLURM_ARRAY_TASK_ID": number}, check=True)
        names.add(options_of(tmp_path)["dataset"])
    assert names == {"mnist", "fashion-mnist", "kmnist"}
    assert not (tmp_path / "requeued").exists()


def test_a_sweep_on_several_nodes_has_a_ray_on_each(slurm: dict[str, str], tmp_path: Path) -> None:
    command = ["bash", str(CLUSTER / "slurm-cluster.sh"), "--quiet"]
    subprocess.run(command, cwd=tmp_path, env=slurm, check=True)
    steps = sorted((tmp_path / "steps").read_text().splitlines(), key=len)
    assert len(steps) == 2
    assert any("--nodes=2" in step and "--address=node1:24711" in step for step in steps)
    assert any("--nodelist=node1" in step and "--head --port=24711" in step for step in steps)
    assert options_of(tmp_path)["address"] == "node1:24711"
