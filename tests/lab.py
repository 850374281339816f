"""Machines for the tests of clusters: hosts with addresses, processes and temporary files of their own, and sshd.

Each is a set of Linux namespaces. The hosts hang on a bridge in a namespace of their own, so that this
machine's network is not touched, and all processes of a host end with its first one. Needs root, iproute2 and
openssh-server.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOOLS = {"ip": "iproute2", "ssh": "openssh-client", "sshd": "openssh-server", "rsync": "rsync", "unshare": "util-linux"}
CLIENT = "10.99.0.1"

# In the host, before its sshd: a /tmp of its own, which holds its home too; what the hosts share stays where it is.
BOOT = """
set -e
hostname {name}
for shared in {shared}; do
    case $shared in /tmp/*) mkdir -p {tmp}/"${{shared#/tmp/}}"; mount --bind "$shared" {tmp}/"${{shared#/tmp/}}";; esac
done
mount --bind {passwd} /etc/passwd
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount --rbind {tmp} /tmp
exec /usr/sbin/sshd -D -e -f /tmp/sshd_config
"""
SSHD = """
HostKey /tmp/host_key
AuthorizedKeysFile /tmp/authorized_keys
PermitRootLogin yes
StrictModes no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
"""


def missing() -> list[str]:
    """Debian packages that a lab needs and that are not here; root's rights likewise."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    absent = [package for tool, package in TOOLS.items() if shutil.which(tool, path=path) is None]
    return absent or ([] if os.geteuid() == 0 else ["the rights of root"])


@dataclass
class Host:
    """One machine: its namespace's name, its address, and the process that all others of it hang on."""

    name: str
    address: str
    tmp: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        """Its user's home, as seen from outside."""
        return self.tmp / "home"

    def processes(self) -> list[str]:
        """Command lines of all that run there, sshd and its sessions apart."""
        lines = [
            _read(pid, "cmdline") for pid in self._pids() if _read(pid, "stat").rpartition(")")[2].split()[:1] != ["Z"]
        ]
        return [line for line in lines if line and not line.startswith("sshd") and "/usr/sbin/sshd" not in line]

    def environments(self) -> list[str]:
        """The environments of all that run there."""
        return [_read(pid, "environ") for pid in self._pids()]

    def _pids(self) -> list[int]:
        assert self.process is not None
        children = _read(self.process.pid, f"task/{self.process.pid}/children").split()
        inside = [Path(f"/proc/{child}/ns/pid").readlink() for child in children]
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):  # gone meanwhile
                if entry.name.isdigit() and (entry / "ns/pid").readlink() in inside:
                    found.append(int(entry.name))
        return found


def _read(pid: int, what: str) -> str:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


@dataclass
class Lab:
    """Hosts on one network, and a place on it for the client, at `CLIENT`."""

    folder: Path
    hosts: list[Host] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the client's namespace; the hosts' begin with it."""
        return f"dae{os.getpid() % 100_000}"

    @property
    def shared(self) -> Path:
        """A folder that is the same one on all hosts and here."""
        return self.folder / "shared"

    @property
    def key(self) -> Path:
        """The client's SSH key."""
        return self.folder / "id"

    @property
    def environment(self) -> dict[str, str]:
        """For the client: its own home and temporary files, nothing of Ray's or W&B's."""
        kept = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
        return kept | {
            "HOME": str(self.folder / "home"),
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "RAY_TMPDIR": str(self.folder),
            "TMPDIR": str(self.folder),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def command(self, words: Sequence[str | Path], at: str | None = None) -> list[str]:
        """A command line that runs the words on the client's network, or on a host's."""
        return ["ip", "netns", "exec", at or self.name, *map(str, words)]

    def run(
        self, *words: str | Path, at: str | None = None, timeout_s: float = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it and wait; its output holds the errors too."""
        return subprocess.run(
            self.command(words, at),
            cwd=ROOT,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def boot(self, host: Host) -> None:
        """Start the host; what it had in its /tmp is still there."""
        boot = BOOT.format(name=host.name, tmp=host.tmp, passwd=host.tmp / "passwd", shared=f"'{ROOT}' '{self.shared}'")
        with (self.folder / f"{host.name}.log").open("ab") as log:
            host.process = subprocess.Popen(
                self.command(
                    [
                        "unshare",
                        "--pid",
                        "--mount",
                        "--uts",
                        "--fork",
                        "--kill-child",
                        "--mount-proc",
                        "bash",
                        "-c",
                        boot,
                    ],
                    host.name,
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self, host: Host) -> None:
        """Cut its power."""
        if host.process is not None:
            host.process.kill()
            host.process.wait()

    def wait_for_ssh(self, timeout_s: float = 20) -> None:
        """Until all hosts answer."""
        options = ["-i", self.key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        deadline = time.monotonic() + timeout_s
        for host in self.hosts:
            while (done := self.run("ssh", *options, f"root@{host.address}", "true")).returncode:
                assert time.monotonic() < deadline, f"{host.name}: {done.stdout}"
                time.sleep(0.3)


@contextmanager
def lab(folder: Path, count: int = 2) -> Iterator[Lab]:
    """A lab with some hosts, all gone at the end. The folder's path has to be short: Ray puts sockets there."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    made = Lab(folder)
    made.shared.mkdir(parents=True)
    (folder / "home").mkdir()
    Path("/run/sshd").mkdir(exist_ok=True)
    _keygen(made.key)
    try:
        ip("netns", "add", made.name)
        ip("-n", made.name, "link", "set", "lo", "up")
        ip("-n", made.name, "link", "add", "br0", "type", "bridge")
        ip("-n", made.name, "addr", "add", f"{CLIENT}/24", "dev", "br0")
        ip("-n", made.name, "link", "set", "br0", "up")
        for number in range(1, count + 1):
            host = Host(f"{made.name}-{number}", f"10.99.0.{10 + number}", folder / f"node{number}")
            made.hosts.append(host)
            ip("netns", "add", host.name)
            ip("-n", made.name, "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", host.name)
            ip("-n", made.name, "link", "set", f"v{number}", "master", "br0", "up")
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            ip("-n", host.name, "link", "set", "eth0", "up")
            ip("-n", host.name, "link", "set", "lo", "up")
            ip("-n", host.name, "route", "add", "default", "via", CLIENT)  # by it Ray finds its own address
            host.home.mkdir(parents=True)
            _keygen(host.tmp / "host_key")
            shutil.copy(made.key.with_suffix(".pub"), host.tmp / "authorized_keys")
            (host.tmp / "sshd_config").write_text(SSHD)
            (host.home / ".bashrc").write_text("export RAY_OVERRIDE_RESOURCES='{\"CPU\": 1}'\n")
            root, *others = Path("/etc/passwd").read_text().splitlines(keepends=True)
            assert root.startswith("root:")
            (host.tmp / "passwd").write_text("".join(["root:x:0:0:root:/tmp/home:/bin/bash\n", *others]))
            made.boot(host)
        made.wait_for_ssh()
        yield made
    finally:
        for host in made.hosts:
            made.kill(host)
        for name in [host.name for host in made.hosts] + [made.name]:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
