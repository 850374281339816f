"""A process that the driver has spawned: it ends with the driver, and leaves Ctrl-C to it."""

import multiprocessing
import os
import signal
import threading


def belong_to_driver() -> None:
    """Call this first in a spawned process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver ends what it started
    threading.Thread(target=_end_with_driver, daemon=True).start()


def _end_with_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)
