"""Sweeps as jobs of a running Ray cluster: submit, list, follow, stop. Knows Ray's jobs and launcher, not Tune.

A job is ``dae-sweep run --address auto`` on the cluster's head, with the `dae` and `sweep` packages that are installed
here. Of this machine nothing else goes along: no environment, no key.
"""

import asyncio
import json
import logging
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import dae
import sweep
from dae.errors import UserError
from sweep.cli.parsing import command_of
from sweep.trials import ray_private
from sweep.trials.head import has_token
from sweep.trials.job import git_commit
from sweep.trials.processes import descendants, everyone
from sweep.trials.shipped import COMMIT, VERSIONS, public

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

CONNECT_TIMEOUT_S = 6.0
ANSWER_TIMEOUT_S = 60.0
TUNNEL_TIMEOUT_S = 60.0
"""How long the launcher may take to find the head and to reach it over SSH."""

STOP_WAIT_S = 60
"""What a stopped job gets between SIGTERM and SIGKILL, where Ray gives 3 s: a run stops within `signals.PATIENCE_S`."""

DASHBOARD_PORT = 8265
VERSION_ENDPOINT = "/api/version"
OPTIONS = "dae-sweep"
"""Key of a job's metadata: the options of its `run`. A job without it is not a sweep of ours."""


class Disconnected(Exception):
    """The cluster stopped answering while a job ran; the job may well go on."""


@dataclass(frozen=True, slots=True)
class SweepJob:
    """A sweep that was submitted.

    Attributes:
        state: ``pending``, ``running``, ``succeeded``, ``failed`` or ``stopped``.
        options: what its `run` was asked for.
        started_at: in seconds since 1970, None while pending; ``ended_at`` likewise.
        exit_code: of its `run`; None before its end, and for one that was stopped or lost.
        message: what Ray says of its state.
    """

    id: str
    state: str
    options: str
    started_at: float | None
    ended_at: float | None
    exit_code: int | None
    message: str

    @classmethod
    def of(cls, details: "JobDetails") -> Self:
        """As Ray tells it."""
        return cls(
            id=details.submission_id,
            state=details.status.value.lower(),
            options=details.metadata[OPTIONS],
            started_at=details.start_time / 1000 if details.start_time else None,
            ended_at=details.end_time / 1000 if details.end_time else None,
            exit_code=details.driver_exit_code,
            message=details.message or "",
        )

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state in {"succeeded", "failed", "stopped"}


class Cluster:
    """The job server of a Ray cluster.

    Args:
        address: URL of the head's dashboard.

    Raises:
        UserError: nothing answers there, or it is not a Ray that lets us in; said within `CONNECT_TIMEOUT_S`.
    """

    def __init__(self, address: str) -> None:
        if not address.startswith(("http://", "https://")):
            reason = (
                "ray:// would move the driver, and with it tracking, into the cluster. " if "ray://" in address else ""
            )
            raise UserError(
                f"--address {address}: {reason}Jobs go to the head's dashboard, such as http://HEAD:{DASHBOARD_PORT}."
            )
        self.address = address.rstrip("/")
        with self._explained():
            self._client = _client(self.address)

    @property
    def ray_version(self) -> str | None:
        """The Ray that the cluster runs, if its job server has said so; the job itself looks again."""
        return ray_private.version_of_server(self._client)

    def submit(self, name: str, words: Sequence[str], *, any_versions: bool = False) -> str:
        """Hand in ``dae-sweep run``, or ``search``, with these options; the id of the job.

        Args:
            name: of the sweep; the job's id begins with it.
            words: the options, checked already; after the word ``search`` those of a search.
            any_versions: do without the check that the head has the packages of this machine.
        """
        program, options = command_of(words)
        job_id = f"{re.sub(r'[^A-Za-z0-9_.-]', '-', name)[:40]}-{secrets.token_hex(3)}"  # Ray makes paths of it
        environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
        if commit := git_commit():
            environment[COMMIT] = commit
        if not any_versions:
            environment[VERSIONS] = json.dumps(versions())
        with self._explained(), tempfile.TemporaryDirectory(prefix="dae-sweep-") as folder:
            self._client.submit_job(
                # In place of the shell: a signal reaches the driver, and its exit code is the job's.
                entrypoint="exec "
                + shlex.join(["python3", "-P", "-m", "sweep", program, "--address", "auto", *options]),
                submission_id=job_id,
                metadata={OPTIONS: shlex.join(words)},
                runtime_env={"py_modules": packages(Path(folder)), "env_vars": environment},
            )
        return job_id

    def jobs(self) -> list[SweepJob]:
        """All sweeps that were submitted to this cluster since it began, oldest first."""
        with self._explained():
            jobs = self._client.list_jobs()
        ours = [SweepJob.of(job) for job in jobs if job.submission_id and OPTIONS in (job.metadata or {})]
        return sorted(ours, key=lambda job: job.started_at or 0.0)

    def job(self, job_id: str) -> SweepJob:
        """One of them.

        Raises:
            UserError: there is none of this id.
        """
        for job in self.jobs():
            if job.id == job_id:
                return job
        raise UserError(f"there is no sweep {job_id} at {self.address}; dae-sweep jobs lists what was submitted.")

    def logs(self, job_id: str) -> str:
        """All that the job's `run` has printed."""
        self.job(job_id)
        with self._explained():
            return str(self._client.get_job_logs(job_id))

    def follow(self, job_id: str, write: Callable[[str], None]) -> SweepJob:
        """Hand on what the job prints, from its beginning, until it ends.

        Raises:
            Disconnected: the cluster stopped answering.
        """
        self.job(job_id)

        async def copy() -> None:
            async for lines in self._client.tail_job_logs(job_id):
                write(lines)

        import aiohttp

        try:
            asyncio.run(copy())
        except (RuntimeError, OSError, aiohttp.ClientError) as error:
            raise Disconnected(f"{self.address} stopped answering ({error})") from error
        return self.wait(job_id, ANSWER_TIMEOUT_S)

    def stop(self, job_id: str) -> SweepJob:
        """Ask the job's `run` to end, as SIGTERM does, and wait until it has; the job as it ended."""
        if not self.job(job_id).is_over:
            with self._explained():
                self._client.stop_job(job_id)
        return self.wait(job_id, STOP_WAIT_S + ANSWER_TIMEOUT_S)

    def wait(self, job_id: str, timeout_s: float) -> SweepJob:
        """The job once it is over, or as it is when the time is up."""
        deadline = time.monotonic() + timeout_s
        while not (job := self.job(job_id)).is_over and time.monotonic() < deadline:
            time.sleep(0.5)
        return job

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What can go wrong between here and the head, in a sentence."""
        import requests

        if not _tunnels.get(self.address, lambda: True)():
            raise UserError(f"the tunnel to the cluster's head, at {self.address}, has ended: give the command again.")
        try:
            yield
        except UserError:
            raise
        except (ConnectionError, requests.ConnectionError, requests.Timeout) as error:
            reason = "it does not answer in time" if isinstance(error, requests.Timeout) else "nothing listens there"
            raise UserError(
                f"no Ray answers at {self.address} ({reason}). Give the URL of the head's dashboard as this machine "
                "sees it, start one (cluster/README.md), or reach it through --cluster FILE."
            ) from error
        except Exception as error:
            from ray.exceptions import AuthenticationError  # not before `_client`: Ray reads its environment then

            if not isinstance(error, AuthenticationError):
                raise UserError(f"{self.address} does not do what Ray's job server does: {error}") from error
            missing = "required" in str(error)
            raise UserError(
                f"the cluster at {self.address} refuses us: "
                + ("it asks for a token, and none was given" if missing else "the token given is not its own")
                + ". Give the cluster's token in RAY_AUTH_TOKEN, or in ~/.ray/auth_token."
            ) from error


def _client(address: str) -> Any:
    """Ray's `JobSubmissionClient`, with an end to its patience.

    Raises:
        UserError: ``ray[default]`` is not installed.
    """
    # Ray would prefer these to the address that it is given.
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)
    if "RAY_AUTH_MODE" not in os.environ and has_token():
        os.environ["RAY_AUTH_MODE"] = "token"
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        import aiohttp  # noqa: F401  (Ray says less clearly what is missing)
        import requests
        from ray.job_submission import JobSubmissionClient
    except ImportError as missing:
        raise UserError(
            f"clusters need more of Ray than is installed here ({missing.name} is missing): "
            "pip install 'dae-sweep[cluster]'."
        ) from missing

    for name in ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)
    # Asked first: within a time, whatever becomes of Ray's own client.
    requests.get(f"{address}{VERSION_ENDPOINT}", timeout=CONNECT_TIMEOUT_S)
    return ray_private.with_timeouts(JobSubmissionClient, _timeout)(address)


def _timeout(endpoint: str) -> tuple[float, float]:
    """Seconds to connect, and to answer."""
    return CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S if endpoint == VERSION_ENDPOINT else ANSWER_TIMEOUT_S


def versions() -> dict[str, str]:
    """Of every package that dae-sweep asks for by name, as installed here."""
    from packaging.requirements import Requirement

    requirements = [Requirement(line) for line in metadata.requires("dae-sweep") or ()]
    return {package.name: public(metadata.version(package.name)) for package in requirements if package.marker is None}


def packages(folder: Path) -> list[str]:
    """Copies of the installed `dae` and `sweep`, of their own files alone."""
    copies = []
    for package in (dae, sweep):
        source = Path(str(package.__file__)).parent
        copy = shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        copies.append(str(copy))
    return copies


@contextmanager
def forwarded(config: Path) -> Iterator[str]:
    """The dashboard of a cluster that ``ray up CONFIG`` has started, on a port of this machine, through SSH.

    Raises:
        UserError: the launcher does not find the head or does not reach it.
    """
    if not config.is_file():
        raise UserError(f"--cluster {config}: there is no such file. cluster/ has one for each kind of place.")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = "from importlib.metadata import entry_points as e; e(group='console_scripts')['ray'].load()()"
    ports = ["--port", str(port), "--remote-port", str(DASHBOARD_PORT)]
    with tempfile.TemporaryFile("w+") as said:
        launcher = subprocess.Popen(
            [sys.executable, "-P", "-c", ray, "dashboard", str(config), *ports],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C here is not for it
        )
        try:
            deadline = time.monotonic() + TUNNEL_TIMEOUT_S
            while launcher.poll() is None and time.monotonic() < deadline and not _is_tunnel(port, launcher.pid):
                time.sleep(0.2)
            if not _is_tunnel(port, launcher.pid):
                said.seek(0)
                last = [line.strip() for line in said.read().splitlines() if line.strip()]
                raise UserError(
                    f"Ray's launcher does not reach the head of {config}: {last[-1] if last else 'it says nothing'}. "
                    f"Is it up (ray up {config}), and does ray attach {config} work?"
                )
            url = f"http://127.0.0.1:{port}"
            _tunnels[url] = partial(_is_tunnel, port, launcher.pid)
            try:
                yield url
            finally:
                del _tunnels[url]
        finally:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGTERM)
            launcher.wait()


_tunnels: dict[str, Callable[[], bool]] = {}
"""By URL, whether a tunnel of ours still listens there; asked before a token goes out."""

LISTENING = "0A"
"""How the kernel writes the state of a socket that waits for connections."""


def _is_tunnel(port: int, launcher: int) -> bool:
    """Whether the launcher, or an ssh that it shares, is what listens at the port of this machine.

    Any process may take the port before the launcher does, and would be told the token.
    """
    listeners = _listeners(port)
    ours = descendants(launcher)
    ours += [process for process in everyone() if re.match(r"ssh: .*\[mux\]", process.command)]  # ControlMaster
    return bool(listeners) and listeners <= {file for process in ours for file in process.files}


def _listeners(port: int) -> set[str]:
    """The sockets that listen at the port, as /proc names the files of processes."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if row[3] == LISTENING and row[1].endswith(f":{port:04X}")}
