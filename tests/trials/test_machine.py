"""What a machine has to give: what a container allows of its cores and memory, and the GPUs that CUDA would show."""

import os
from pathlib import Path

import pytest

from sweep.trials import cgroup, gpus, machine


def group(folder: Path, membership: str, **files: str) -> tuple[Path, Path]:
    """A mount of control groups and the file that says which of them a process is in."""
    for name, content in files.items():
        file = folder / "mount" / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")
    (folder / "membership").write_text(membership + "\n")
    return folder / "mount", folder / "membership"


V1 = "4:memory:/job\n3:cpu,cpuacct:/job\n1:name=systemd:/"


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/", {"cpu.max": "100000 100000"}, 1.0),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000", "cgroup.procs": ""}, 1.5),
        ("0::/of/the/host", {"cpu.max": "50000 100000"}, 0.5),
        (V1, {"cpu,cpuacct/job/cpu.cfs_quota_us": "200000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}, 2.0),
        (V1, {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1.0),
        (V1, {"cpu,cpuacct/job/cpu.cfs_quota_us": "-1", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}, None),
        ("0::/\n" + V1, {"unified/cpu.max": "300000 100000"}, 3.0),
        ("0::/", {"cpu.max": "nonsense"}, None),
        ("nonsense", {}, None),
    ],
)
def test_the_quota_of_a_container(tmp_path: Path, membership: str, files: dict[str, str], cpus: float | None) -> None:
    assert cgroup.cpus(*group(tmp_path, membership, **files)) == cpus


@pytest.mark.parametrize(
    ("membership", "files", "memory"),
    [
        ("0::/", {"memory.max": str(2**30)}, 2**30),
        ("0::/", {"memory.max": "max"}, None),
        ("0::/a", {"memory.max": str(2**31), "a/memory.max": str(2**30)}, 2**30),
        (V1, {"memory/job/memory.limit_in_bytes": str(2**29)}, 2**29),
        (V1, {"memory/job/memory.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_the_memory_of_a_container(tmp_path: Path, membership: str, files: dict[str, str], memory: int | None) -> None:
    assert cgroup.memory(*group(tmp_path, membership, **files)) == memory


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cgroup.cpus(tmp_path, tmp_path / "none") is None
    assert cgroup.memory(tmp_path, tmp_path / "none") is None


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (2.0, 2), (2.9, 2), (0.5, 1), (64.0, 8)])
def test_cores_are_what_affinity_and_quota_allow(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cgroup, "cpus", lambda: quota)
    assert machine.cpu_count() == cores


UUIDS = ("GPU-aa11-0", "GPU-aa22-1", "GPU-bb33-2")
PARTS = ("MIG-11", "MIG-22")


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, ["0", "1", "2"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("none", []),
        ("0,1", ["0", "1"]),
        (" 2 , 0 ", ["2", "0"]),
        ("0,-1,1", ["0"]),
        ("-1,0", []),
        ("0,7,1", ["0"]),
        ("7", []),
        ("0,,1", ["0"]),
        ("1,0,1", []),
        ("GPU-aa11-0,GPU-bb", ["GPU-aa11-0", "GPU-bb"]),
        ("GPU-aa", []),
        ("GPU-cc", []),
        ("GPU-bb,GPU-cc,GPU-aa11", ["GPU-bb"]),
        ("GPU-bb33,GPU-bb", []),
        ("GPU-bb,0", ["GPU-bb"]),
        ("0,GPU-bb", ["0"]),
        ("MIG-11,MIG-22", ["MIG-11"]),
        ("MIG-33", []),
    ],
)
def test_gpus_are_those_that_cuda_shows(given: str | None, names: list[str]) -> None:
    assert gpus.chosen(given, UUIDS, PARTS) == names


def test_torch_reads_the_variable_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.cuda import _parse_visible_devices

    for given in ("-1", "NoDevFiles", "0,1", "0,-1,1", "1,0,1", "-1,0"):
        monkeypatch.setenv(gpus.VISIBLE, given)
        assert [str(number) for number in _parse_visible_devices()] == gpus.chosen(given, UUIDS), given
