"""Who may know whom: what a module loads, seen in a process of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).parent.parent

HEAVY = {"torch", "torchvision", "ray", "wandb"}
SCIENCE_MODULES = ["dae." + path.stem for path in sorted((ROOT / "dae").glob("*.py")) if path.stem != "__init__"]


def loaded_by(*modules: str, code: str = "") -> set[str]:
    """Top-level names of all that importing these modules loads."""
    program = "".join(f"import {module}\n" for module in modules) + code + "\nimport sys; print(*sys.modules)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE"))}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_imports_go_one_way() -> None:
    graph = house.graph()
    assert house.violations(graph) == []
    assert house.circle(graph) == []


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("sweep/records/grid.py", "import sweep.analysis.claims", "analysis stands before records"),
        ("sweep/storage/store.py", "def f():\n    from sweep.cli import run", "cli stands before storage"),
        ("sweep/trials/job.py", "from sweep.tracking import sync", "stand side by side"),
        ("sweep/report/page.py", "import torch.nn", "which only dae, evaluation, models, trials may know"),
        ("dae/noise.py", "from sweep import records", "records stands before dae"),
        ("sweep/records/grid.py", "from sweep.records import matching", "circle"),
    ],
)
def test_an_import_that_goes_another_way_is_seen(tmp_path: Path, file: str, line: str, complaint: str) -> None:
    for package in ("dae", "sweep"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / file).open("a") as source:
        source.write(f"\n{line}\n")
    command = [sys.executable, "-m", "tests.house", "--root", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    if complaint == "circle":
        assert re.search(r"circles: .*grid.* -> .*matching|circles: .*matching.* -> .*grid", done.stdout)
    else:
        assert complaint in done.stdout


def test_the_page_on_architecture_shows_the_imports_there_are() -> None:
    page = house.PAGE.read_text(encoding="utf-8")
    assert page == house.with_drawing(page, house.drawing(house.graph())), "run python -m tests.house --write"
    for name in re.findall(
        r"`((?:cli|driver|evaluation|report|trials|tracking|analysis|search|records|storage)/\w+\.py)", page
    ):
        assert (ROOT / "sweep" / name).is_file(), name


def test_the_science_knows_no_orchestrator() -> None:
    assert loaded_by(*SCIENCE_MODULES) & {"sweep", "ray", "wandb", "click", "matplotlib"} == set()


@pytest.mark.parametrize(
    "module", ["sweep.records.grid", "sweep.storage.opening", "sweep.records.sweep", "sweep.records.facets"]
)
def test_records_are_read_without_anything_heavy(module: str) -> None:
    assert loaded_by(module) & (HEAVY | {"numpy", "matplotlib", "pandas", "scipy", "click", "rich"}) == set()


@pytest.mark.parametrize(
    "module",
    [
        "sweep.analysis.findings",
        "sweep.report.page",
        "sweep.report.notebook",
        "sweep.records.quality",
        "sweep.analysis.ranking",
    ],
)
def test_the_report_needs_no_torch(module: str) -> None:
    assert loaded_by(module) & (HEAVY | {"click"}) == set()


def test_tracking_knows_neither_torch_nor_ray() -> None:
    assert loaded_by("sweep.tracking.tracker") & {"torch", "ray", "wandb"} == set(), (
        "wandb itself is loaded when it is used"
    )


def test_a_trial_knows_no_ray() -> None:
    assert loaded_by("sweep.trials.trial") & {"ray", "wandb", "click", "matplotlib"} == set()


def test_a_training_loads_no_compiler() -> None:
    code = """
import sys
from pathlib import Path
from dae import data
from dae.config import ModelConfig, TrainConfig
from dae.training import Images, Training
images = Images(data.load("mnist-5k", Path(), 0.05), 0.5, "cpu")
training = Training(ModelConfig(depth=1, latent=5), TrainConfig(epochs=1), images)
training.run_epoch(), training.test()
slow = {"torch._dynamo", "torch._inductor", "triton", "sympy"} & set(sys.modules)
assert not slow, slow
"""
    assert "torch" in loaded_by(code=code)


def test_the_driver_does_without_torch() -> None:
    assert loaded_by("sweep.driver.runner", "sweep.trials.job", "sweep.driver.progress") & HEAVY == set()


def test_what_computes_for_the_report_is_loaded_where_it_computes() -> None:
    assert loaded_by("sweep.evaluation.evaluation", "dae.baselines") & (HEAVY | {"scipy", "skimage"}) == set()


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["plan", "--help"], ["--version"]], ids=" ".join)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = f"from sweep.cli import main\ntry: main({words!r})\nexcept SystemExit as end: assert end.code == 0"
    assert loaded_by(code=code) & (HEAVY | {"numpy", "matplotlib", "pandas", "scipy", "rich", "jinja2"}) == set()


def test_plan_and_a_refusal_load_nothing_heavy() -> None:
    for words, code in ((["plan", "--storage", "nowhere"], 0), (["run", "--depths", "0"], 2)):
        program = (
            f"from sweep.cli import main\ntry: main({words!r})\nexcept SystemExit as end: assert end.code == {code}"
        )
        assert loaded_by(code=program) & (HEAVY | {"numpy", "matplotlib"}) == set()


@pytest.mark.parametrize(
    ("module", "name"),
    [("sweep.trials.tuning", "ray"), ("dae.model", "torch"), ("sweep.cli", "click"), ("sweep.trials.trial", "dae")],
)
def test_the_check_itself_can_fail(module: str, name: str) -> None:
    assert name in loaded_by(module)
