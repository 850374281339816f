"""The check at the end of every test run, shown able to fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from leftovers import MARK

HEAD = "import os, subprocess, tempfile\nfrom pathlib import Path\n\n"
LEAKS = {
    "process": "subprocess.Popen(['sleep', '100'], start_new_session=True)",
    "without_mark": "subprocess.Popen(['sleep', '101'], env={}, stdout=tempfile.TemporaryFile())",
    "temporary": "tempfile.mkdtemp(prefix='wandb')",
    "home": "Path('~/.cache').expanduser().mkdir()",
    "working_folder": "Path('sweeps').mkdir()",
}

DEATH = {"death": "subprocess.Popen(['sleep', '102'], start_new_session=True); os._exit(1)"}


def run(folder: Path, *leaks: str, workers: int = 0) -> "subprocess.CompletedProcess[str]":
    """A test run of its own, whose tests leave these things behind."""
    folder.mkdir()
    tests = [f"def test_{name}():\n    {(LEAKS | DEATH)[name]}\n" for name in leaks] or [
        "def test_nothing():\n    pass\n"
    ]
    (folder / "test_one.py").write_text(HEAD + "\n".join(tests))
    plugin = Path(__file__).with_name("leftovers.py").read_text()
    (folder / "leftovers.py").write_text(plugin.replace("GRACE_S = 10.0", "GRACE_S = 0.2"))
    options = ["-p", "leftovers", "-p", "no:cacheprovider", f"-n{workers}"]
    command = [sys.executable, "-m", "pytest", *options, "test_one.py"]
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    environment |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder.parent)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_left_behind_is_named_and_fails_the_run(tmp_path: Path, workers: int) -> None:
    done = run(tmp_path / "leaky", *LEAKS, workers=workers)
    assert done.returncode == 1
    assert "5 passed" in done.stdout
    left = done.stdout.split("left behind")[1]
    assert ": sleep 100\n" in left
    assert ": sleep 101\n" in left
    assert left.count("file ") == 3
    for name in ("/wandb", "/home/.cache", "/leaky/sweeps"):
        assert name in left


def test_what_a_worker_that_died_has_left_is_found(tmp_path: Path) -> None:
    done = run(tmp_path / "dying", *DEATH, workers=1)
    assert done.returncode == 1
    assert ": sleep 102\n" in done.stdout.split("left behind")[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_leaves_nothing_passes(tmp_path: Path, workers: int) -> None:
    done = run(tmp_path / "clean", workers=workers)
    assert (done.returncode, "left behind" in done.stdout) == (0, False), done.stdout + done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["clean"], "its own folder is gone"
