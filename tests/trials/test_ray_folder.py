"""Ray's files lie in a private folder that ends with the command, and where Ray can work."""

import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dae.errors import UserError
from sweep.trials import ray_folder
from sweep.trials.ray_folder import cause, session_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name."""
    with tempfile.TemporaryDirectory(prefix="p", dir="/tmp") as folder:
        yield Path(folder)


def test_it_is_private_and_gone_afterwards(place: Path) -> None:
    with session_folder(place) as sessions:
        assert stat.S_IMODE(sessions.parent.stat().st_mode) == 0o700
        sessions.mkdir()
        (sessions / "log").write_text("")
    assert list(place.iterdir()) == []


def test_its_logs_stay_after_an_error_until_the_next_one(place: Path) -> None:
    with pytest.raises(OSError, match="no"), session_folder(place) as sessions:
        raise OSError("no")
    assert list(place.iterdir()) == [sessions.parent]
    with session_folder(place):
        assert not sessions.parent.exists()


def test_those_of_killed_commands_go_and_all_others_stay(place: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from sweep.trials.ray_folder import session_folder\n"
        "with session_folder(Path(sys.argv[1])): print(flush=True); sys.stdin.read(); os._exit(9)"
    )
    command = [sys.executable, "-c", program, str(place)]
    living, killed = (
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
    )
    for process in (living, killed):
        assert process.stdout is not None
        process.stdout.readline()
    assert len(list(place.iterdir())) == 2
    (place / "ray").mkdir()  # of a user's own Ray
    (place / "ray-mine").mkdir()
    killed.communicate()
    with session_folder(place):
        names = {entry.name for entry in place.iterdir()}
        assert {"ray", "ray-mine"} <= names
        assert len(names) == 4, "the living one's, ours, and what is not ours"
    living.communicate()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("x" * 90, "too long for Ray's sockets"), ("é", "not ASCII"), ("file/below", "cannot be used")],
)
def test_a_place_where_ray_cannot_work_is_refused_if_it_was_asked_for(place: Path, name: str, reason: str) -> None:
    (place / "file").write_text("")
    with pytest.raises(UserError, match=reason) as refused, session_folder(place / name):
        pass
    assert "--temp-dir" in str(refused.value)


@pytest.mark.parametrize("name", ["x" * 90, "é"])
def test_and_passed_over_if_it_was_not(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / name).mkdir()
    (place / "other").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place / name))
    monkeypatch.setattr(ray_folder, "FALLBACKS", (str(place / "other"),))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with session_folder(None) as sessions:
        assert sessions.parents[1] == place / "other"
    monkeypatch.setattr(ray_folder, "FALLBACKS", ())
    with pytest.raises(UserError, match="Give --temp-dir DIR"), session_folder(None):
        pass


def test_the_longest_socket_is_what_ray_makes() -> None:
    from ray._private.utils import validate_socket_filepath

    longest = "/" * (ray_folder.MOST_BYTES - len(ray_folder.LONGEST_SOCKET)) + ray_folder.LONGEST_SOCKET
    validate_socket_filepath(longest)
    with pytest.raises(OSError, match="cannot exceed"):
        validate_socket_filepath("/" + longest)


def test_what_the_logs_say_is_named(tmp_path: Path) -> None:
    logs = tmp_path / "session_1" / "logs"
    logs.mkdir(parents=True)
    assert cause("The node timed out.", tmp_path) is None
    (logs / "raylet.err").write_text("thread: Resource temporarily unavailable [system:11]")
    assert "ulimit -u" in str(cause("The node timed out.", tmp_path))
