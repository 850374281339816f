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

from sweep.processes import Process, descendants

GRACE_S = 3.0
"""How long they may take to end by themselves."""

LOOK_EVERY_S = 0.1
"""How often to look what there is, while the driver starts processes."""

PATIENT = ("ray::IDLE", "ray::CellTrial", "ray::ResourceTrainable", "default_worker", "wandb-core")
"""Ray's workers end with their raylet, and wandb's process when it has written what is left."""

STARTED, WELL = b"started\n", b"all is well\n"


@contextmanager
def watching() -> Iterator[Callable[[], None]]:
    """Should this process be killed meanwhile, what it has started is ended; nothing else ever is.

    Yields:
        To be called when it has started everything: what it starts later is left alone.
    """
    watchdog = subprocess.Popen(
        [sys.executable, "-m", __name__, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def all_started() -> None:
        assert watchdog.stdin is not None
        with suppress(OSError):  # somebody ended the watchdog
            os.write(watchdog.stdin.fileno(), STARTED)

    try:
        yield all_started
    finally:
        watchdog.communicate(WELL)


def main() -> None:
    """Wait for the driver's last word, or for its death: then end those of its processes that live on."""
    driver, found, is_starting = int(sys.argv[1]), dict[str, Process](), True
    while True:
        said = b""
        if select.select([0], [], [], LOOK_EVERY_S if is_starting else None)[0]:
            said = os.read(0, 1024)
            if WELL in said:
                return
            if not said:
                break
        if is_starting:
            found |= {each.name: each for each in descendants(driver) if each.pid != os.getpid()}
        is_starting = is_starting and STARTED not in said
    # A raylet goes on starting processes for a moment. The number of one that is gone may be anybody's by now.
    deadline = time.monotonic() + GRACE_S
    while (alive := [each for each in found.values() if each.is_alive]) and time.monotonic() < deadline:
        found |= {each.name: each for known in alive for each in descendants(known.pid)}
        time.sleep(LOOK_EVERY_S)
    for process in found.values():
        now = Process.of(process.pid) if process.is_alive else None
        if now is not None and not any(name in now.command for name in PATIENT):
            process.send(SIGKILL)


if __name__ == "__main__":
    main()
