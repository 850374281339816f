"""A token goes through a tunnel of ours, and to nobody who listens in its place."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dae.errors import UserError
from sweep.cli import client

LISTEN = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Path]:
    """Stands in for Ray's launcher: a program that gets the port as ``sys.argv[1]``; the configuration to give."""

    def stand_in(program: str) -> Path:
        popen = client.subprocess.Popen

        def start(command: list[str], **options: object) -> object:
            port = command[command.index("--port") + 1]
            return popen([sys.executable, "-c", program, port], **options)  # type: ignore[call-overload]

        monkeypatch.setattr(client.subprocess, "Popen", start)
        monkeypatch.setattr(client, "TUNNEL_TIMEOUT_S", 3.0)
        config = tmp_path / "cluster.yaml"
        config.write_text("")
        return config

    return stand_in


def test_a_tunnel_of_the_launcher_is_used(launcher: Callable[[str], Path]) -> None:
    below = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LISTEN!r}, sys.argv[1]])"
    with client.forwarded(launcher(below)) as url:
        assert client._tunnels[url]()
    assert client._tunnels == {}


def test_who_takes_the_port_first_is_told_no_token(
    launcher: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = launcher("import time; time.sleep(60)")

    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]

        class Free:
            def __enter__(self) -> "Free":
                return self

            def __exit__(self, *_: object) -> None: ...
            def bind(self, _address: object) -> None: ...
            def getsockname(self) -> tuple[str, int]:
                return "127.0.0.1", port

        monkeypatch.setattr(client.socket, "socket", Free)
        with pytest.raises(UserError, match="does not reach the head"), client.forwarded(config):
            pytest.fail("the stranger was taken for the tunnel")


def test_a_tunnel_that_has_ended_is_told_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = object.__new__(client.Cluster)
    cluster.address = "http://127.0.0.1:1"
    monkeypatch.setitem(client._tunnels, cluster.address, lambda: False)
    with pytest.raises(UserError, match="the tunnel to the cluster's head"):
        cluster.jobs()
