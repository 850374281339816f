"""How many trials a GPU should take. Real processes on a real Ray; where there is no GPU, its GPU is a number."""

import json
import subprocess
import sys
from pathlib import Path

from sweep.trials.probe import _best, _is_worth

RATES = {1: 10.0, 2: 15.0, 3: 15.6, 4: 15.7}


def test_the_fewest_trials_are_chosen_that_get_about_the_most_done() -> None:
    assert _best(RATES).trials == 2, "3 and 4 are less than a twentieth above"
    assert _best({1: 10.0, 2: 10.4}).trials == 1
    assert _best({1: 10.0, 2: 6.0}).trials == 1
    assert _best({1: 10.0}).trials == 1
    assert _best(RATES).because == "epochs a second by trials on a GPU: 1: 10, 2: 15, 3: 15.6, 4: 15.7"


def test_what_ended_the_measurement_is_said_and_nothing_measured_is_the_default() -> None:
    assert _best({1: 10.0}, "another would not fit").because.endswith("1: 10; another would not fit")
    assert _best({}, "1 trial failed").trials == 3
    assert "nothing could be measured: 1 trial failed" in _best({}, "1 trial failed").because


def test_more_are_tried_as_long_as_the_largest_number_gets_more_done() -> None:
    assert _is_worth({1: 10.0}, (1,)), "one alone says nothing"
    assert _is_worth({1: 10.0, 2: 19.0, 3: 28.0, 4: 36.0}, (2, 3, 4))
    assert not _is_worth(RATES, (2, 3, 4))


SCRIPT = """
import json, sys
from dataclasses import asdict
from pathlib import Path
import time
from sweep.trials import host, probe, session
import ray
from dae import data
from sweep.records.grid import Cell, Settings
from sweep.trials.job import Job
from sweep.storage.store import Store
from sweep.trials.resources import Resources

class Stop(BaseException): ...

def stop():
    raise Stop

def tell(choice):
    free = {}
    while time.sleep(0.1) or free.get("GPU") != 1 or free.get("CPU") != 2:
        free = ray.available_resources()
    print("CHOICE", json.dumps(asdict(choice)), flush=True)

store = Store(Path(sys.argv[1]))
probe.STEPS, probe.MEASURED_S, probe.POLL_S = ((1, 2),), 0.3, 0.05
resources = Resources(cpus=2, gpus=1, trials_per_gpu=3)
dataset = data.load("mnist-5k", Path("nowhere"), 0.1)
settings = Settings.usual("mnist-5k", train_fraction=0.1, batch_size=32)
cells = [Cell.from_key("DAE_1_5-s0")] * 9
with session.local_cluster(resources, 2**20, lambda: None):
    jobs = {device: Job(store, settings, device, 0.3, None) for device in ("cpu", "cuda")}

    def choose(device, hosts=None, worthwhile_s=0, check=lambda: None):
        probe.WORTHWHILE_S = worthwhile_s
        try:
            tell(probe.choose(cells, jobs[device], dataset, resources, check, hosts))
        except Stop:
            tell(probe.Choice(0, {}, "stopped"))

    choose("cpu")
    choose("cuda")
    choose("cpu", check=stop)
    with host.hosting(1, jobs["cpu"], dataset, cells[:1]) as hosts:
        choose("cpu", hosts)
        choose("cpu", hosts, check=stop)
        choose("cpu", hosts, worthwhile_s=1e9)
    with host.hosting(1, jobs["cuda"], dataset, cells[:1]) as hosts:
        choose("cuda", hosts)
"""


def test_trials_are_measured_side_by_side_and_leave_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("CHOICE ")]
    measured, broken, stopped, at_host, stopped_at_host, short, broken_at_host = said
    assert list(tmp_path.iterdir()) == []
    for choice in (measured, at_host):
        assert list(choice["epochs_per_s"]) == ["1", "2"]
        assert all(rate > 0 for rate in choice["epochs_per_s"].values())
        assert str(choice["trials"]) in choice["epochs_per_s"]
    assert stopped["because"] == stopped_at_host["because"] == "stopped", "an interrupt ends it, and the GPU is free"
    assert (short["trials"], list(short["epochs_per_s"])) == (3, ["1"])
    assert short["because"].startswith(
        "the sweep is too short to measure more (epochs a second by trials on a GPU: 1: "
    )
    if not _has_gpu():
        for choice in (broken, broken_at_host):
            assert (choice["trials"], choice["epochs_per_s"]) == (3, {})
            assert "nothing could be measured: 1 at a time failed" in choice["because"]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
