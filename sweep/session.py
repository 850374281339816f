"""A Ray of this command's own, and what a sweep may take of it. Knows Ray, not Tune."""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sweep import caches
from sweep.watchdog import watching

# Read when Ray is imported or its workers start.
os.environ |= {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as there, the ports of a local Ray are on loopback
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
}
caches.keep_beside_ray()
if "RAY_AUTH_MODE" not in os.environ:  # a token of this process's own, in no file of the home folder
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
import ray  # noqa: E402  (reads the environment when it is imported)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What a sweep may use in all, and how many trials share a GPU."""

    cpus: int
    gpus: int
    trials_per_gpu: int
    cpus_per_trial: int = 1

    @property
    def trial(self) -> dict[str, float]:
        """What one trial asks of Ray. One thread a trial: a GPU trial needs a core only to feed it."""
        if not self.gpus:
            return {"cpu": self.cpus_per_trial}
        return {"cpu": min(1.0, self.cpus / (self.gpus * self.trials_per_gpu)), "gpu": 1 / self.trials_per_gpu}

    @property
    def memory_share(self) -> float:
        """Part of a GPU's memory for one trial; each process's CUDA context takes some hundred MB beside it."""
        return 0.9 / self.trials_per_gpu

    @property
    def alone(self) -> "Resources":
        """The same machine, one trial at a time on each GPU, or on all cores."""
        return Resources(cpus=self.cpus, gpus=self.gpus, trials_per_gpu=1, cpus_per_trial=self.cpus)

    @property
    def slots(self) -> int:
        """Trials that run at the same time."""
        return self.gpus * self.trials_per_gpu or self.cpus // self.cpus_per_trial


@contextmanager
def local_cluster(resources: Resources, dataset_bytes: int) -> Iterator[None]:
    """A Ray of this command's own, closed to others by its token, gone when it ends."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Ray's own answer to SIGTERM, an exception wherever the program stands, would take the place of ours.
    ray._private.utils.set_sigterm_handler = lambda _handler: None
    ray.init(
        address="local",
        num_cpus=max(resources.cpus, 1),
        num_gpus=resources.gpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=max(128 * 2**20, 2 * dataset_bytes),
    )
    try:
        with watching():
            yield
    finally:
        ray.shutdown()


def folder() -> Path:
    """Where Ray keeps the files of this session; gone with the machine's temporary files."""
    return Path(ray._private.worker._global_node.get_session_dir_path())
