"""What this machine has to give."""

import os

from dae.errors import UserError
from sweep.trials import cgroup, gpus

RAY_BYTES, TRIAL_BYTES = 600 * 2**20, 500 * 2**20
"""About what Ray and the driver were seen to take, and a trial of mnist-5k or a little more."""


def cpu_count() -> int:
    """Cores this process may use: those that it may run on, and no more than a container's quota is worth."""
    cores = len(os.sched_getaffinity(0))
    quota = cgroup.cpus()
    return cores if quota is None else max(1, min(cores, int(quota)))


def memory_bytes() -> int:
    """Memory this process may use: the machine's, or what a container allows of it."""
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(here, cgroup.memory() or here)


def trials_in_memory() -> int:
    """How many trials on CPUs fit into the memory beside Ray and the driver, one at least."""
    return max(1, (memory_bytes() - RAY_BYTES) // TRIAL_BYTES)


def gpu_count() -> int:
    """NVIDIA GPUs this process may use; 0 where torch was built without CUDA."""
    return len(gpus.visible())


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
