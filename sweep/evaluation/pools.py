"""An executor of several others, to which more can be added while tasks wait."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from functools import partial
from typing import Any


class Pools(Executor):
    """Gives every task to a process that idles, so that no executor is asked for more than it has processes."""

    def __init__(self) -> None:
        self._idle: list[Executor] = []  # one entry for every process
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._lock = threading.RLock()  # a task may be done as soon as it is given away
        self._is_closed = False

    def add(self, executor: Executor, processes: int) -> None:
        """Give tasks to these processes too."""
        with self._lock:
            self._idle[:0] = [executor] * processes  # those that have begun come first, these are not started yet
            self._start()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `Executor`."""
        future: Future[Any] = Future()
        with self._lock:
            if self._is_closed:
                raise CancelledError
            self._waiting.append((future, partial(function, *args, **kwargs)))
            self._start()
        return future

    def close(self) -> None:
        """Take no more tasks, and start none that wait."""
        with self._lock:
            self._is_closed = True
            while self._waiting:
                self._waiting.popleft()[0].cancel()

    def _start(self) -> None:
        while self._idle and self._waiting:
            executor = self._idle.pop()
            future, task = self._waiting.popleft()
            try:
                executor.submit(task).add_done_callback(partial(self._done, executor, future))
            except Exception as error:  # the executor is broken
                future.set_exception(error)

    def _done(self, executor: Executor, future: Future[Any], done: Future[Any]) -> None:
        error = CancelledError() if done.cancelled() else done.exception()
        with self._lock:
            self._idle.append(executor)
            self._start()
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(done.result())
