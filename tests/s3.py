"""A real S3 server on loopback (moto's), behind a line that can be cut and that counts what goes over it."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

BUCKET = "digits"
SETUP_REQUESTS = 4
"""Of the tests' own, before the server asks for credentials."""


@dataclass
class Line:
    """Forwards a port of its own to the server's; while it is cut, nobody listens and who was connected is dropped."""

    server_port: int
    port: int = 0
    requests: list[str] = field(default_factory=list)
    _listener: socket.socket | None = None
    _open: set[socket.socket] = field(default_factory=set)

    def join(self) -> None:
        """Let requests through."""
        listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False, backlog=64)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        """Drop everything."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for each in list(self._open):  # who forwards them closes them
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self.server_port))
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client, server), daemon=True).start()

    def _connect(self, client: socket.socket, server: socket.socket) -> None:
        """Forward both ways until both ends are done; thousands of connections left open would use up the files."""
        self._open.update((client, server))
        back = threading.Thread(target=self._forward, args=(server, client, False), daemon=True)
        back.start()
        self._forward(client, server, True)
        back.join()
        self._open.difference_update((client, server))
        client.close()
        server.close()

    def _forward(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if counts:
                    found = re.findall(rb"(?:^|\n)((?:GET|PUT|POST|HEAD|DELETE) /\S*) HTTP/1.1", data)
                    self.requests += [line.decode() for line in found]
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class S3:
    """The server, a bucket in it and credentials for it."""

    line: Line
    access_key: str
    secret_key: str
    pid: int

    def environment(self, **other: str) -> dict[str, str]:
        """What a process needs to use it."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.line.port}",
            "AWS_EC2_METADATA_DISABLED": "true",
        } | other


@contextmanager
def serve(folder: Path) -> Iterator[S3]:
    """The server, for as long as the context lasts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "moto.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env=os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": str(SETUP_REQUESTS)},
            stdout=log,
            stderr=log,
        )
    line = Line(port)
    try:
        wait_for(port)
        access_key, secret_key = _set_up(port)
        line.join()
        yield S3(line, access_key, secret_key, server.pid)
    finally:
        line.cut()
        server.kill()
        server.wait()


def wait_for(port: int, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "moto's server did not start"
            time.sleep(0.05)


def _set_up(port: int) -> tuple[str, str]:
    """A bucket and a user who may do everything."""
    import boto3

    def client(service: str):  # type: ignore[no-untyped-def]
        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="root",
            aws_secret_access_key="root",
        )

    client("s3").create_bucket(Bucket=BUCKET)
    users = client("iam")
    users.create_user(UserName="user")
    key = users.create_access_key(UserName="user")["AccessKey"]
    everything = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
    users.put_user_policy(UserName="user", PolicyName="all", PolicyDocument=everything)
    return key["AccessKeyId"], key["SecretAccessKey"]
