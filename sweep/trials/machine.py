"""What this machine has to give."""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path

import pynvml

from dae.errors import UserError


def cpu_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def gpu_count() -> int:
    """NVIDIA GPUs this process may use; 0 where torch was built without CUDA."""
    if "+cpu" in version("torch"):
        return 0
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        present = int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return present if visible is None else min(present, len([part for part in visible.split(",") if part.strip()]))


def check_gpus(asked: int) -> None:
    """Refuse GPUs that are not there; Ray would wait for them without end.

    Raises:
        UserError: fewer are there.
    """
    found = gpu_count()
    if asked > found:
        raise UserError(
            f"--gpus {asked}: this machine has {found or 'no'} usable GPU{'s' * (found > 1)}, "
            f"and {cpu_count()} CPU cores. Give --gpus {found}" + (" to train on the CPU." if not found else ".")
        )


def keep_beside_ray() -> None:
    """Tell Triton and torch (compiled code) and matplotlib (the list of fonts), which would use the home folder."""
    beside = Path(tempfile.gettempdir()) / "ray"
    os.environ.setdefault("TRITON_CACHE_DIR", str(beside / "triton"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(beside / "torchinductor"))
    os.environ.setdefault("MPLCONFIGDIR", str(beside / "matplotlib"))
