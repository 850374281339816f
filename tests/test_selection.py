"""The order of tests, and what the options of `selection` change."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import selection

TESTS = Path(__file__).parent


def test_the_slowest_files_are_there() -> None:
    assert len(set(selection.SLOWEST)) == len(selection.SLOWEST)
    assert [file for file in selection.SLOWEST if not (TESTS / file).is_file()] == []


def test_more_cases_are_tried_nightly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(selection.NIGHTLY, raising=False)
    assert selection.cases(100, nightly=800) == 100
    monkeypatch.setenv(selection.NIGHTLY, "1")
    assert selection.cases(100, nightly=800) == 800


def test_shuffled_tests_are_the_same_tests() -> None:
    def collected(*options: str) -> list[str]:
        files = [TESTS / "report/test_words.py", TESTS / "test_selection.py", TESTS / "test_leftovers.py"]
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *options, *files]
        done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=True)
        return [line for line in done.stdout.splitlines() if "::" in line]

    plain, shuffled = collected(), collected("--shuffle", "1")
    assert plain[0].startswith("tests/test_leftovers.py"), "the slowest first"
    assert shuffled == collected("--shuffle", "1") != plain
    assert sorted(shuffled) == sorted(plain)
    files = [line.split("::")[0] for line in shuffled]
    changes = sum(one != other for one, other in itertools.pairwise(files))
    assert changes == len(set(files)) - 1, "what the tests of a file share is made once"
