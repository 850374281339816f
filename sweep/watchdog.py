"""Ends what outlives a driver that was killed; in a process of its own, since nothing in the driver could.

Ray's processes end when their driver does. But its two agents first try for 60 s to tell Ray's head, which is dead as
well, of their raylet's death (``report_raylet_error_logs`` in ``ray/_private/process_watcher.py``).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGKILL

from sweep.processes import Process, descendants, wait_gone

GRACE_S = 3.0
"""How long they may take to end by themselves."""


@contextmanager
def watching() -> Iterator[None]:
    """Should this process be killed meanwhile, what it has started by now is ended; nothing else ever is."""
    # Ray's workers end with their raylet, and wandb's process when it has written what is left.
    patient = ("ray::IDLE", "default_worker", "wandb-core")
    started = [each for each in descendants(os.getpid()) if not any(name in each.command for name in patient)]
    watchdog = subprocess.Popen(
        [sys.executable, "-m", __name__, *(each.name for each in started)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        watchdog.communicate(b"all is well")


def main() -> None:
    """Wait for a word of the driver's, or for its death: then end the processes named that live on."""
    if sys.stdin.read():
        return
    for process in wait_gone([Process.named(name) for name in sys.argv[1:]], GRACE_S):
        process.send(SIGKILL)


if __name__ == "__main__":
    main()
