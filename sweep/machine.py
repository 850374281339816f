"""What this machine has to give."""

import os
from importlib.metadata import version

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
