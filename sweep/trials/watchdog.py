"""Ends what outlives a driver that was killed; in a process of its own, since nothing in the driver could.

Ray's processes end when their driver does. But its two agents first try for 60 s to tell Ray's head, which is dead as
well, of their raylet's death (``report_raylet_error_logs`` in ``ray/_private/process_watcher.py``).
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGKILL

from sweep.trials.environment import environment, isolated
from sweep.trials.processes import Process, deaf, marked
from sweep.trials.ray_private import IDLE_TITLE, TRIAL_TITLES

GRACE_S = 3.0
"""How long they may take to end by themselves."""

LOOK_EVERY_S = 0.1

MARK = "DAE_SWEEP_DRIVER"
"""Environment variable that all of a driver's processes inherit, whoever of them started which."""

KEEPS_MARKS = {"SPT_NOENV": "1"}
"""Ray's processes give themselves titles, which setproctitle else writes over the environment as /proc shows it."""

PATIENT = (IDLE_TITLE, *TRIAL_TITLES, "wandb-core")
"""Ray's workers end with their raylet, once they are its; wandb's process when it has written what is left."""

ENDED = b"the driver has ended what it started\n"


@contextmanager
def watching() -> Iterator[None]:
    """Should this process be killed meanwhile, what it has started is ended; nothing else ever is."""
    driver = Process.of(os.getpid())
    assert driver is not None
    with deaf(), environment(isolated()):
        watchdog = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, f"{MARK}={driver.name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        with environment({MARK: driver.name} | KEEPS_MARKS | isolated()):
            yield
    finally:
        watchdog.communicate(ENDED)


def main() -> None:
    """Wait until the driver says that it has ended, or dies: then end those of its processes that live on."""
    if sys.stdin.buffer.readline() == ENDED:
        return
    # A raylet goes on starting processes for a moment.
    deadline = time.monotonic() + GRACE_S
    while (alive := marked(sys.argv[1])) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)
    for process in alive:
        if not any(name in process.command for name in PATIENT):
            process.send(SIGKILL)


if __name__ == "__main__":
    main()
