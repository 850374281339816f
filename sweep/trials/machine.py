"""What this machine has to give."""

import os

from dae.data import Dataset
from dae.errors import UserError
from dae.testset import part_bytes
from sweep.trials import cgroup, gpus

RAY_BYTES, TRIAL_BYTES = 600 * 2**20, 500 * 2**20
"""About what Ray and the driver were seen to take, and a trial of mnist-5k or a process that evaluates it."""
PARTS_OF_TRIAL, PARTS_OF_EVALUATION = 7, 11
"""Arrays of the size of a part of the test set that they were seen to hold at most, of larger sets: clean and noisy
images under two noises, the draw, denoised ones and their squares, and what is freed but kept."""


def cpu_count() -> int:
    """Cores this process may use: those that it may run on, and no more than a container's quota is worth."""
    cores = len(os.sched_getaffinity(0))
    quota = cgroup.cpus()
    return cores if quota is None else max(1, min(cores, int(quota)))


def memory_bytes() -> int:
    """Memory this process may use: the machine's, or what a container allows of it."""
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(here, cgroup.memory() or here)


def memory_for_trials(dataset: Dataset) -> int:
    """What Ray and the driver leave of it, and all images twice: the driver's and those that the others share."""
    return memory_bytes() - RAY_BYTES - 2 * dataset.nbytes


def trial_bytes(dataset: Dataset, step: int) -> int:
    """About what a trial on CPUs takes by steps of so many bytes, without the images that are shared."""
    return TRIAL_BYTES + PARTS_OF_TRIAL * part_bytes(dataset.test) + step


def evaluation_bytes(dataset: Dataset) -> int:
    """About what a process takes that evaluates, without the images that are shared."""
    return TRIAL_BYTES + PARTS_OF_EVALUATION * part_bytes(dataset.test)


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
