"""In which order tests run, and how many random cases they try."""

import os
import random
from typing import Any

import pytest

SLOWEST = (
    "driver/test_sweep_end_to_end.py",
    "driver/test_faults.py",
    "trials/test_host.py",
    "driver/test_drill.py",
    "trials/test_private.py",
    "science/test_kernels.py",
    "tracking/test_tracking.py",
    "tracking/test_configuration.py",
    "test_imports.py",
    "trials/test_probe.py",
    "test_boundaries.py",
    "cli/test_cli.py",
    "report/test_report.py",
    "evaluation/test_evaluation.py",
    "tracking/test_sync.py",
    "evaluation/test_damage.py",
    "test_leftovers.py",
)
"""Files that take longest, longest first: one that begins late is all that is left to wait for in the end."""

NIGHTLY = "DAE_SWEEP_NIGHTLY"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="try many more random cases")
    parser.addoption("--shuffle", type=int, metavar="SEED", help="files, and the tests of a file, in random order")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("nightly"):
        os.environ[NIGHTLY] = "1"


def cases(usually: int, nightly: int) -> int:
    """How many a test tries."""
    return nightly if os.environ.get(NIGHTLY) else usually


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    seed = config.getoption("shuffle")
    order = sorted(files, key=_rank) if seed is None else _shuffled(sorted(files), seed)
    items[:] = [item for name in order for item in (files[name] if seed is None else _shuffled(files[name], seed))]


def _rank(file: str) -> int:
    path = file.removeprefix("tests/")
    return SLOWEST.index(path) if path in SLOWEST else len(SLOWEST)


def _shuffled(things: list[Any], seed: int) -> list[Any]:
    return random.Random(seed).sample(things, len(things))
