"""What a trial prints goes into its cell's log, also where several trials share a process."""

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO


class ByThread(io.TextIOBase):
    """Standard output and error of a process whose threads each print into a file of their own, or nowhere."""

    def __init__(self) -> None:
        self._open = threading.local()

    def write(self, text: str) -> int:
        """Write into the file of this thread, if it has one."""
        file: TextIO | None = getattr(self._open, "file", None)
        return len(text) if file is None else file.write(text)

    @contextmanager
    def into(self, file: TextIO) -> Iterator[None]:
        """Meanwhile what this thread prints goes into ``file``."""
        self._open.file = file
        try:
            yield
        finally:
            self._open.file = None


@contextmanager
def printing_into(file: TextIO) -> Iterator[None]:
    """Meanwhile what this thread prints goes into ``file``; what others print too, unless it goes `ByThread`."""
    if isinstance(sys.stdout, ByThread):
        with sys.stdout.into(file):
            yield
    else:
        with redirect_stdout(file), redirect_stderr(file):
            yield
