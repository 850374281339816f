"""Whose a Ray is that `--address auto` finds."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dae.errors import UserError
from sweep.trials import head, ray_private

ADDRESS = "10.1.2.3:6379"
STRANGER = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")


@contextmanager
def node(user: int, address: str = ADDRESS) -> Iterator[None]:
    """A process of this user with the command line of a node of the cluster at ``address``."""
    # Not Python, which may lie where this user may not read.
    words = ["/opt/ray/raylet", "-c", "echo; read line", "raylet", f"--gcs-address={address}"]
    process = subprocess.Popen(
        words, executable="/bin/sh", user=user, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        assert process.stdin is not None
        process.stdin.close()


@needs_root
def test_a_node_of_another_user_is_refused() -> None:
    with node(STRANGER), pytest.raises(UserError, match=rf"another user \(uid {STRANGER}\).*--address {ADDRESS}"):
        head._check_owner(ADDRESS)


@needs_root
def test_a_node_of_ones_own_is_joined_whoever_else_has_one() -> None:
    with node(STRANGER), node(0):
        head._check_owner(ADDRESS)
    with node(STRANGER, "10.1.2.3:7000"), node(0):
        head._check_owner(ADDRESS)


@needs_root
def test_an_address_that_another_user_wrote_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    head._check_owner(ADDRESS)
    (tmp_path / "ray").mkdir()
    current = tmp_path / "ray" / "ray_current_cluster"
    current.write_text(ADDRESS)
    head._check_owner(ADDRESS)
    os.chown(current, STRANGER, STRANGER)
    with pytest.raises(UserError, match="another user"):
        head._check_owner(ADDRESS)


def test_nodes_are_known_by_their_command() -> None:
    assert ray_private.is_node_of("/x/raylet --a=1 --gcs-address=127.0.0.1:6379 --b", "10.0.0.1:6379")
    assert not ray_private.is_node_of("/x/raylet --gcs-address=127.0.0.1:6380", "10.0.0.1:6379")
    assert not ray_private.is_node_of("python worker.py --gcs-address=127.0.0.1:6379", "127.0.0.1:6379")
    assert not ray_private.is_node_of("", "127.0.0.1:6379")
