"""What a container or a batch system allows this process: the limits of its control groups, version 1 and 2."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

UNLIMITED = 1 << 60
"""Version 1 writes a limit of memory near 2**63 where there is none."""


def cpus(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> float | None:
    """Cores' worth of time a second; None without a limit."""
    quotas = [
        *_limits(mount, membership, "", _quota),
        *_limits(mount, membership, "cpu", _quota_1),
    ]
    return min(quotas, default=None)


def memory(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> int | None:
    """Bytes; None without a limit."""
    limits = [
        *_limits(mount, membership, "", lambda folder: _number(folder / "memory.max")),
        *_limits(mount, membership, "memory", lambda folder: _number(folder / "memory.limit_in_bytes")),
    ]
    return int(min(limits)) if limits and min(limits) < UNLIMITED else None


def _limits(mount: Path, membership: Path, controller: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    """The limits of this process's group and of all above it; ``controller`` is empty for version 2."""
    with suppress(OSError, ValueError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller not in controllers.split(","):
                continue
            roots = [mount / controllers, mount / controller] if controller else [mount, mount / "unified"]
            for root in dict.fromkeys(roots):
                group = root / path.lstrip("/")  # in a container its own group is the root: none but that is there
                for folder in dict.fromkeys([group, *(above for above in group.parents if above.is_relative_to(root))]):
                    with suppress(OSError, ValueError):
                        if (limit := read(folder)) is not None:
                            yield limit


def _quota(folder: Path) -> float | None:
    quota, period = (folder / "cpu.max").read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_1(folder: Path) -> float | None:
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    return None if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text())


def _number(file: Path) -> float | None:
    text = file.read_text().strip()
    return None if text == "max" else int(text)
