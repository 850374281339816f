"""The smoke sweep with the lowest versions that pyproject.toml allows and with the newest of the registry.

A sweep is begun, its driver is killed, and the same command goes on; it is reported, tracked offline and read back. The
losses are compared with those of the environment that runs this. Then a short sweep for each private name taken away.
torch is a few GB in the builds of the registry: ``--torch VERSION`` names the one for the lowest versions, ``same`` is
the one that is installed here.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from tests.private_names import NAMES, ROOT

SMALL = ["--dataset", "mnist-5k", "--train-fraction", "0.1", "--cpus", "2", "--gpus", "0", "--wandb", "offline"]
SMOKE = [*SMALL, "--depths", "1,3", "--latents", "5", "--epochs", "12"]
SHORT = [*SMALL, "--depths", "1", "--latents", "5", "--epochs", "2", "--no-report"]
TIMEOUT_S = 300.0
TORCH = ("torch", "torchvision")

READ = """
import json, sys
from pathlib import Path
from sweep import load
from sweep.tracking import files
folder = Path(sys.argv[1])
cells = load(str(folder)).cells
assert (folder / "report/index.html").stat().st_size > 10_000
print(json.dumps([files.last_epoch(file) for file in files.offline(folder)]))
"""


@dataclass
class Environment:
    """A Python with its packages, and what came of it."""

    name: str
    python: Path
    problems: list[str] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)

    def run(self, *words: str, without: str = "") -> "subprocess.Popen[str]":
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_", "WANDB"))}
        paths = os.pathsep.join([str(ROOT / "tests/without"), str(ROOT)])
        variables = {"PYTHONPATH": paths, "DAE_SWEEP_WITHOUT": without, "DAE_SWEEP_NO_EVALUATION": "1"}
        return subprocess.Popen(
            [self.python, *words],
            cwd=self.python.parents[1],
            env=kept | variables | {"CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def output(self, *words: str, without: str = "") -> str:
        """What it printed.

        Raises:
            RuntimeError: it failed, or took too long.
        """
        process = self.run(*words, without=without)
        try:
            text = process.communicate(timeout=TIMEOUT_S)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            text = process.communicate()[0]
        if process.returncode:
            raise RuntimeError(" | ".join(text.strip().splitlines()[-3:])[-400:] or f"exit code {process.returncode}")
        return text

    def installed(self) -> dict[str, str]:
        listed = json.loads(self.output("-m", "pip", "list", "--format", "json", "--disable-pip-version-check"))
        return {package["name"].lower(): package["version"] for package in listed}


def losses(storage: Path) -> dict[str, list[float]]:
    """Test loss of every cell, and its losses epoch by epoch."""
    found = {}
    for file in storage.glob("mnist-5k/cells/*/record.json"):
        record = json.loads(file.read_text())
        if record["status"] == "completed":
            epochs = [epoch[name] for epoch in record["history"] for name in ("train_loss", "val_loss")]
            found[record["key"]] = [record["test_loss"], *epochs]
    return found


def epochs(storage: Path) -> int:
    records = [json.loads(file.read_text()) for file in storage.glob("mnist-5k/cells/*/record.json")]
    return sum(len(record["history"]) for record in records)


def smoke(environment: Environment, storage: Path) -> None:
    """Train, kill, go on, report, read back.

    Raises:
        RuntimeError: what failed.
    """
    command = ["-m", "sweep", "run", "--storage", str(storage), *SMOKE]
    driver = environment.run(*command)
    deadline = time.monotonic() + TIMEOUT_S
    while epochs(storage) < 4 and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if driver.poll() is not None:
        raise RuntimeError(" | ".join(driver.communicate()[0].strip().splitlines()[-3:])[-400:])
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    environment.output(*command)
    environment.losses = losses(storage)
    if len(environment.losses) != 2:
        raise RuntimeError(f"{len(environment.losses)} of 2 cells are completed")
    environment.output("-m", "sweep", "report", "--name", "mnist-5k", "--storage", str(storage))
    tracked = json.loads(environment.output("-c", READ, str(storage / "mnist-5k")).splitlines()[-1])
    if sorted(tracked)[-2:] != [12, 12]:
        raise RuntimeError(f"last epochs in W&B's files: {tracked}")


def build(folder: Path, name: str, packages: list[str]) -> Environment:
    """A new environment.

    Raises:
        RuntimeError: the packages cannot be installed together.
    """
    environment = Environment(name, folder / name / "bin/python")
    if environment.python.exists():
        return environment
    subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([environment.python, *install, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError("not installed: " + " | ".join(done.stderr.strip().splitlines()[-3:]))
    subprocess.run([environment.python, *install, "--no-deps", "-e", ROOT], check=True)
    return environment


def lowest(requirement: Requirement) -> str:
    """The requirement, pinned to the lowest version that the registry has of it."""
    words = [sys.executable, "-m", "pip", "index", "versions", requirement.name, "--disable-pip-version-check"]
    answer = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    line = next(line for line in answer.splitlines() if line.startswith("Available versions:"))
    versions = [Version(text) for text in line.partition(":")[2].split(",")]
    extras = f"[{','.join(requirement.extras)}]" if requirement.extras else ""
    return f"{requirement.name}{extras}=={min(v for v in versions if v in requirement.specifier)}"


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"]]


def compared(environment: Environment, tested: Environment) -> str:
    """How the losses differ from those of the tested environment."""
    pairs = [
        (mine, theirs)
        for key, values in tested.losses.items()
        for mine, theirs in zip(environment.losses[key], values, strict=True)
    ]
    if all(mine == theirs for mine, theirs in pairs):
        return "the same losses to the bit"
    largest = max(abs(mine - theirs) / theirs for mine, theirs in pairs)
    return f"losses within {largest:.1e} of the tested ones"


def without_names(environment: Environment, folder: Path, names: list[str]) -> None:
    """A short sweep with all private names, and one without each of these; all give the same losses."""
    expected = None
    for number, name in enumerate(["", *names]):
        storage = folder / str(number)
        try:
            environment.output("-m", "sweep", "run", "--storage", str(storage), *SHORT, without=name)
            outcome = losses(storage)
            expected = expected or outcome
            same = "the same losses" if outcome == expected and outcome else "OTHER LOSSES"
        except RuntimeError as error:
            same = f"FAILED: {error}"
        if "the same" not in same:
            environment.problems.append(f"without {name}: {same}")
        print(f"  {environment.name}, without {name or 'nothing'}: {same}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", default="lowest", help="of the lowest environment: lowest, same, or a version")
    parser.add_argument("--torchvision", default="", help="its torchvision, if torch is a version")
    parser.add_argument("--only", choices=("lowest", "newest"))
    parser.add_argument("--folder", type=Path, help="keep the environments there, and use those that it has")
    parser.add_argument("--quick", action="store_true", help="take all private names away at once only")
    options = parser.parse_args()
    wanted = requirements()
    science = [each for each in wanted if each.name not in TORCH]
    torch = {
        "lowest": [lowest(each) for each in wanted if each.name in TORCH],
        "same": [f"{name}=={version(name)}" for name in TORCH],
    }.get(options.torch, [f"torch=={options.torch}", f"torchvision=={options.torchvision}"])
    packages = {
        "lowest": [*torch, *map(lowest, science)],
        "newest": [str(each) for each in wanted],
    }
    folder = Path(tempfile.mkdtemp(prefix="v"))
    environments = options.folder.absolute() if options.folder else folder
    rows, failed = [], False
    tested = Environment("tested", Path(sys.executable))
    try:
        smoke(tested, folder / "tested-sweep")
        for name, pinned in packages.items():
            if options.only not in (None, name):
                continue
            print(f"{name}: {' '.join(pinned)}", flush=True)
            try:
                environment = build(environments, name, pinned)
                smoke(environment, folder / f"{name}-sweep")
                outcome = compared(environment, tested)
                print(f"  {name}: {outcome}", flush=True)
                without_names(environment, folder / f"{name}-without", ["all"] if options.quick else [*NAMES, "all"])
                outcome = "; ".join([outcome, *environment.problems])
                failed |= bool(environment.problems)
                rows.append((name, environment.installed(), outcome))
            except RuntimeError as error:
                rows.append((name, {}, f"FAILED: {error}"))
                failed = True
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows.insert(0, ("tested", tested.installed(), "trained, killed, resumed, reported, read back"))
    print("\n" + f"{'':16}" + "".join(f"{name:>16}" for name, _, _ in rows))
    for each in wanted:
        print(f"{each.name:16}" + "".join(f"{found.get(each.name.lower(), '-'):>16}" for _, found, _ in rows))
    for name, _, outcome in rows:
        print(f"{name}: {outcome}")
    print(f"torch {next(e.specifier for e in wanted if e.name == 'torch')} is allowed; only those above were run.")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
