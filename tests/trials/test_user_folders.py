"""What libraries want of the user's account is private, and is there where the system has none."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sweep.trials import user_folders

ROOT = Path(__file__).parents[2]


@pytest.fixture
def unset(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in user_folders.CACHES:
        monkeypatch.delenv(name, raising=False)
    return clean_environment


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_caches_lie_in_a_folder_of_the_user_alone(unset: Path) -> None:
    variables = user_folders.variables()
    folder = unset / ".cache" / "dae-sweep"
    assert {variables[name] for name in user_folders.CACHES} == {
        str(folder / name) for name in user_folders.CACHES.values()
    }
    assert mode(folder) == 0o700


def test_the_place_for_caches_may_be_given(unset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("MPLCONFIGDIR", "/mine")
    variables = user_folders.variables()
    assert variables["TRITON_CACHE_DIR"] == str(tmp_path / "xdg" / "dae-sweep" / "triton")
    assert "MPLCONFIGDIR" not in variables


def test_a_folder_that_others_can_write_is_closed(unset: Path) -> None:
    folder = unset / ".cache" / "dae-sweep"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    user_folders.variables()
    assert mode(folder) == 0o700


@pytest.mark.parametrize("kind", ["another user's", "a link", "a file"])
def test_a_folder_that_is_not_ours_is_not_used(
    unset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = unset / ".cache" / "dae-sweep"
    folder.parent.mkdir()
    if kind == "a link":
        (tmp_path / "planted").mkdir()
        folder.symlink_to(tmp_path / "planted")
    elif kind == "a file":
        folder.write_text("")
    else:
        folder.mkdir()
        if os.geteuid() != 0:
            pytest.skip("needs the rights of root")
        os.chown(folder, 4711, 4711)
    private = tmp_path / "private"
    monkeypatch.setattr(user_folders, "_temporary", lambda: private)
    assert user_folders.variables()["TRITON_CACHE_DIR"] == str(private / "triton")


PROGRAM = """
import getpass, os, shutil, tempfile  # before other rights: Python itself may lie where only root may read
from pathlib import Path
from sweep.trials import user_folders
os.setgid(4711); os.setuid(4711)
os.environ |= user_folders.variables()
folder = Path(os.environ["TRITON_CACHE_DIR"]).parent
print(folder, Path.home(), getpass.getuser(), oct(folder.stat().st_mode & 0o777))
"""


@pytest.mark.parametrize("home", [None, "/proc", "/nonexistent/home"])
def test_without_a_home_that_can_be_written_caches_end_with_the_process(home: str | None) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs the rights of root")
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:  # in none that only root may enter
        Path(temporary).chmod(0o777)
        variables = {"PATH": os.environ["PATH"], "TMPDIR": temporary, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=variables | ({} if home is None else {"HOME": home}),
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
        folder, told_home, name, access = done.stdout.split()
        assert str(Path(folder).parent) == temporary
        assert told_home == (home or folder)
        assert (name, access) == ("uid4711", "0o700")
        assert os.listdir(temporary) == [], "it ended with the process"  # noqa: PTH208
