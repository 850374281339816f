"""A driver that is killed takes with it what it has started, however that came about; and nothing else."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweep.trials.processes import Process, descendants, wait_gone

ROOT = Path(__file__).parents[2]

# A child that starts two processes and ends at once: nothing but their environment tells whose they are. The second
# is called as Ray's workers are.
DRIVER = """
import subprocess, sys
from sweep.trials.watchdog import watching
with watching():
    subprocess.run(["bash", "-c", "sleep 60 >/dev/null & echo $!; (exec -a ray::IDLE sleep 60) >/dev/null & echo $!"])
    print("ready", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def driver(folder: Path = ROOT) -> Iterator[tuple[subprocess.Popen[str], Process, Process]]:
    """A driver under watch, an orphan that it has started, and one that ends by itself."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", DRIVER],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    orphan, worker = (Process.of(int(process.stdout.readline())) for _ in range(2))
    assert orphan is not None
    assert worker is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process, orphan, worker
    finally:
        orphan.send(signal.SIGKILL)
        worker.send(signal.SIGKILL)
        process.kill()
        process.communicate()


def test_an_orphan_of_a_killed_driver_is_ended_and_what_ends_by_itself_is_left_alone() -> None:
    beside = subprocess.Popen(["sleep", "60"])
    with driver() as (process, orphan, worker):
        process.kill()
        assert wait_gone([orphan], 10) == []
        assert worker.is_alive
        assert beside.poll() is None
    beside.kill()
    beside.wait()


def test_files_that_are_called_as_modules_are_do_not_matter(tmp_path: Path) -> None:
    for name in ("sweep", "dae", "ray", "signal"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong file')")
    with driver(tmp_path) as (process, orphan, _):
        process.kill()
        assert wait_gone([orphan], 10) == []


def test_a_warning_of_a_batch_system_does_not_end_the_watchdog() -> None:
    with driver() as (process, orphan, _):
        (watchdog,) = [below for below in descendants(process.pid) if "watchdog" in below.command]
        watchdog.send(signal.SIGUSR1)
        process.kill()
        assert wait_gone([orphan], 10) == []


def test_nothing_is_ended_when_the_driver_ends_well() -> None:
    with driver() as (process, orphan, worker):
        process.communicate("\n", timeout=20)
        assert process.returncode == 0
        assert wait_gone([orphan, worker], 4) == [orphan, worker]
