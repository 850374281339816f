"""Ends what outlives a driver that was killed; in a process of its own, since nothing in the driver could.

Ray's processes end when their driver does. But its two agents first try for 60 s to tell Ray's head, which is dead as
well, of their raylet's death (``report_raylet_error_logs`` in ``ray/_private/process_watcher.py``).
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from signal import SIGKILL

from sweep.processes import Process, marked

GRACE_S = 3.0
"""How long they may take to end by themselves."""

LOOK_EVERY_S = 0.1
"""How often to look what there is, while the driver starts processes."""

MARK = "DAE_SWEEP_DRIVER"
"""Environment variable that all of a driver's processes inherit, whoever of them started which."""

PATIENT = ("ray::IDLE", "ray::CellTrial", "ray::ResourceTrainable", "wandb-core")
"""Ray's workers end with their raylet, once they are its; wandb's process when it has written what is left."""

STARTED, WELL = b"started\n", b"all is well\n"


@contextmanager
def watching() -> Iterator[Callable[[], None]]:
    """Should this process be killed meanwhile, what it has started is ended; nothing else ever is.

    Yields:
        To be called when what outlives it has been started.
    """
    driver = Process.of(os.getpid())
    assert driver is not None
    watchdog = subprocess.Popen(
        [sys.executable, "-m", __name__, f"{MARK}={driver.name}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.environ[MARK] = driver.name

    def all_started() -> None:
        assert watchdog.stdin is not None
        with suppress(OSError):  # somebody ended the watchdog
            os.write(watchdog.stdin.fileno(), STARTED)

    try:
        yield all_started
    finally:
        del os.environ[MARK]
        watchdog.communicate(WELL)


def main() -> None:
    """Wait for the driver's last word, or for its death: then end those of its processes that live on."""
    mark, found, is_starting = sys.argv[1], dict[str, Process](), True

    def look() -> None:
        # Early and often: a process that gives itself a title, as Ray's do, writes it over its environment.
        found.update({each.name: each for each in marked(mark)})

    while True:
        said = b""
        if select.select([0], [], [], LOOK_EVERY_S if is_starting else None)[0]:
            said = os.read(0, 1024)
            if WELL in said:
                return
            if not said:
                break
        if is_starting:
            look()
        is_starting = is_starting and STARTED not in said
    # A raylet goes on starting processes for a moment. The number of one that is gone may be anybody's by now.
    deadline = time.monotonic() + GRACE_S
    look()
    while any(each.is_alive for each in found.values()) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)
        look()
    for process in found.values():
        now = Process.of(process.pid) if process.is_alive else None
        if now is not None and not any(name in now.command for name in PATIENT):
            process.send(SIGKILL)


if __name__ == "__main__":
    main()
