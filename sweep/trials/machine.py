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
    available = gpu_count()
    if asked > available:
        raise UserError(
            f"--gpus {asked}: this machine has {available or 'no'} usable GPU{'s' * (available > 1)}, "
            f"and {cpu_count()} CPU cores. Give --gpus {available}"
            + (" to train on the CPU." if not available else ".")
        )


def cache_folders() -> dict[str, str]:
    """Environment variables for Triton, torch (compiled code) and matplotlib (fonts), which would use the home folder.

    Those that the user has set are not among them.
    """
    beside_ray = Path(tempfile.gettempdir()) / "ray"
    folders = {"TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "torchinductor", "MPLCONFIGDIR": "matplotlib"}
    return {name: str(beside_ray / folder) for name, folder in folders.items() if name not in os.environ}
