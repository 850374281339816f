"""Ctrl-C, SIGTERM and the warnings of batch systems, for a whole command."""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Self

from sweep.trials.processes import WARNINGS, descendants

HANDLED = (signal.SIGINT, signal.SIGTERM, *WARNINGS)

PATIENCE_S = 20.0
"""How long the work may take to stop; every finished epoch is on disk anyway."""


class Interrupted(BaseException):
    """The user, or the system, asked the command to end; ``signal`` says how."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Signals:
    """The first signal asks, the second one ends the process at once.

    Outside `patient` the first one raises `Interrupted` where the program stands. Inside it only sets ``received``,
    and the work looks at `asked` when it can stop without loss.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._is_patient = False
        self._deadline: threading.Timer | None = None

    def install(self) -> Self:
        """Take the signals over; again after `ray.init`, which takes SIGTERM for itself."""
        for number in HANDLED:
            signal.signal(number, self._handle)
        return self

    def asked(self) -> bool:
        """Whether a signal came."""
        return self.received is not None

    def raise_if_asked(self) -> None:
        """Raise what was put off.

        Raises:
            Interrupted: a signal came.
        """
        self._is_patient = False
        if self._deadline is not None:
            self._deadline.cancel()
        if self.received is not None:
            raise Interrupted(self.received)

    def be_patient(self) -> None:
        """From now on the work looks at `asked` by itself."""
        self._is_patient = True

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.asked():
            _end_at_once(number)
        self.received = number
        if not self._is_patient:
            raise Interrupted(number)
        with suppress(OSError):  # who read it may be gone
            os.write(2, b"\nStopping; once more to end at once.\n")  # print() is not safe in a handler
        # Where the signal reached Ray's processes too, as a batch system's does, Tune may wait for them without end.
        self._deadline = threading.Timer(PATIENCE_S, _end_at_once, (number,))
        self._deadline.daemon = True
        self._deadline.start()


def _end_at_once(number: int) -> None:
    for process in descendants(os.getpid()):  # two of Ray's would outlive this one by a minute
        if "wandb-core" not in process.command:  # ends by itself, and clears up
            process.send(signal.SIGKILL)
    os._exit(128 + number)
