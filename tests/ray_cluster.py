"""A real Ray cluster on loopback: every node is a raylet of its own, and can be killed."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sweep.trials.processes import descendants, wait_gone

RAY = str(Path(sys.executable).with_name("ray"))
START_TIMEOUT_S = 240


@dataclass
class RayNode:
    """One node: ``ray start --block`` and what it started."""

    name: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it as a machine ends whose plug is pulled."""
        below = descendants(self.process.pid)
        for each in below:
            each.send(signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        wait_gone(below, 10)


@dataclass
class RayCluster:
    """A head and its nodes, raylets on one machine; they let in who has the token."""

    folder: Path
    port: int
    environment: Mapping[str, str]
    nodes: list[RayNode] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{ray_address()}:{self.port}"

    def add(self, *, cpus: int, gpus: int = 0, before: str = "", **environment: str) -> RayNode:
        """Start a node, and wait until it has joined; ``before`` is a line of shell to run in its own mounts."""
        is_head = not self.nodes
        name = f"node-{len(self.nodes)}"
        words = [RAY, "start", "--block", f"--num-cpus={cpus}", f"--num-gpus={gpus}", f"--node-name={name}"]
        words += ["--object-store-memory=80000000", "--disable-usage-stats"]
        words += (
            ["--head", f"--port={self.port}", f"--temp-dir={self.folder}", "--include-dashboard=false"]
            if is_head
            else [f"--address={self.address}"]
        )
        if before:
            words = ["unshare", "--mount", "sh", "-c", f'{before} && exec "$@"', "sh", *words]
        log = (self.folder / f"node{len(self.nodes)}.log").open("wb")
        with log:
            process = subprocess.Popen(words, env={**self.environment, **environment}, stdout=log, stderr=log)
        node = RayNode(name, process)
        self.nodes.append(node)
        deadline = time.monotonic() + START_TIMEOUT_S
        while b"Ray runtime started" not in Path(log.name).read_bytes():
            assert process.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < deadline, Path(log.name).read_text()
            time.sleep(0.2)
        return node


def ray_address() -> str:
    """The address that Ray takes for this machine's."""
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())


@contextmanager
def ray_cluster(**environment: str) -> Iterator[RayCluster]:
    """No node yet; gone with all it started when the context ends."""
    folder = Path(tempfile.mkdtemp(prefix="ds", dir="/tmp"))  # short: sockets below it have at most 107 characters
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "120",
    }
    cluster = RayCluster(folder, port, os.environ | own | environment)
    try:
        yield cluster
    finally:
        for node in reversed(cluster.nodes):
            node.kill()
        shutil.rmtree(folder, ignore_errors=True)
