"""Variables, files and settings of other programs that a command meets: it obeys them or does without them."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.trials.environment import HONOURED, environment, isolated, ray_set_aside, set_aside, tune_set_aside

ROOT = Path(__file__).parents[2]
RUN = ("run", "--dataset", "mnist-5k", "--depths", "1", "--latents", "5", "--epochs", "1", "--train-fraction", "0.1",
       "--no-evaluation", "--gpus", "0")  # fmt: skip

FOREIGN = {
    "TUNE_RESULT_DIR": "/nowhere",
    "TUNE_RESULT_BUFFER_LENGTH": "100",
    "TUNE_MAX_PENDING_TRIALS_PG": "nonsense",
    "RAY_ADDRESS": "10.0.0.1:6379",
    "RAY_AIR_LOCAL_CACHE_DIR": "/nowhere",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
    "RAY_JOB_CONFIG_JSON_ENV_VAR": "{",
    "RAY_OVERRIDE_RESOURCES": '{"CPU": 0}',
    "RAY_REDIS_ADDRESS": "10.0.0.1",
    "RAY_RUNTIME_ENV_HOOK": "no.such.hook",
    "RAY_SESSION_NAME": "mine",
    "GOMP_CPU_AFFINITY": "0",
    "KMP_AFFINITY": "granularity=fine,compact",
    "MPLBACKEND": "module://no_such_backend",
    "OMP_NUM_THREADS": "many",
    "OMP_PLACES": "cores",
    "OMP_PROC_BIND": "true",
    "PYTHONINSPECT": "1",
    "PYTHONWARNINGS": "error",
}


def test_variables_of_other_programs_are_set_aside_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("RAY_", "TUNE_"))]:
        monkeypatch.delenv(name)
    for name, value in (FOREIGN | dict.fromkeys(HONOURED, "1") | {"RAY_memory_usage_threshold": "0.9"}).items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with environment({**set_aside(), **tune_set_aside(), **ray_set_aside()}):
        assert FOREIGN.keys() & os.environ.keys() == set()
        assert {*HONOURED, "RAY_memory_usage_threshold"} <= os.environ.keys()
    assert dict(os.environ) == before


@pytest.mark.parametrize(("threads", "is_set_aside"), [("1", False), ("4,2", False), ("0", True), ("", True)])
def test_a_number_of_threads_is_obeyed(monkeypatch: pytest.MonkeyPatch, threads: str, is_set_aside: bool) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert ("OMP_NUM_THREADS" in set_aside()) == is_set_aside


def test_children_find_this_program_and_nothing_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong file')")
    program = "import json, sweep, sys; print(sweep.__file__, '' in sys.path)"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=tmp_path, env=kept | isolated(), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == f"{ROOT / 'sweep/__init__.py'} False\n"


@pytest.fixture
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="e", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_a_run_in_the_worst_of_surroundings(temporary: Path) -> None:
    here, long = temporary / "here", temporary / ("é" * 60)
    for folder in (here, long):
        folder.mkdir()
    for name in ("sweep", "dae", "ray", "torch", "signal"):
        (here / f"{name}.py").write_text("raise SystemExit('the wrong file')")
    foreign = {name: value for name, value in FOREIGN.items() if name != "PYTHONINSPECT"}  # which Python itself obeys
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_", "WANDB", "MPL"))}
    for name in ("HOME", "USER", "LOGNAME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        kept.pop(name, None)
    output = {"PYTHONIOENCODING": "ascii", "FORCE_COLOR": "1", "COLUMNS": "5"}
    place = {"TMPDIR": str(long), "XDG_CACHE_HOME": str(temporary / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sweep", *RUN, "--wandb", "offline", "--storage", str(temporary / "é")],
        cwd=here, env=kept | foreign | output | place, stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    text = done.stdout.decode()
    assert done.returncode == 0, text + done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert "1 of 1 completed in " in text
    assert "latent 5" in text, "a table is not cut to the width of a terminal"
    assert len(text.splitlines()) < 40, "and not drawn again and again"
    assert sorted(entry.name for entry in here.glob("*")) == ["dae.py", "ray.py", "signal.py", "sweep.py", "torch.py"]
    assert list(long.iterdir()) == []


@pytest.mark.slow
def test_without_loopback_ray_is_not_waited_for(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs the rights of root")
    command = [sys.executable, "-m", "sweep", *RUN, "--wandb", "disabled", "--storage", str(tmp_path)]
    done = subprocess.run(
        ["unshare", "-n", *command], cwd=ROOT, capture_output=True, text=True, timeout=15, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "nothing on this machine can connect to 127.0.0.1" in done.stderr
