"""The part of an evaluation that does not need the cells, computed while they train, on cores that idle."""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from dae.data import Dataset
from sweep.driver import memory
from sweep.driver.request import Request
from sweep.records.grid import Cell
from sweep.records.sweep import Sweep
from sweep.trials import machine

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from sweep.evaluation.pools import Pools

CORES_OF_A_GPU = 2
"""Left to the trials of a GPU and the driver: a host launches kernels from a thread a trial, one at a time."""


class Ahead:
    """Computes references in a thread's processes, from `begin` on; they are ended with the context.

    Args:
        sweep: its cells are declared, not trained.
        dataset: loaded with the sweep's settings.
        cells: those that are to be evaluated.
        idle: cores for it while cells train; with 0 nothing begins.
        cores: for it when the training has ended, at least as many.
        warn: called with what could not be kept.
        tell: called with the progress.
    """

    def __init__(
        self,
        sweep: Sweep,
        dataset: Dataset,
        cells: Sequence[Cell],
        *,
        idle: int,
        cores: int,
        warn: Callable[[str], None],
        tell: Callable[[str], None],
    ) -> None:
        self._sweep, self._dataset, self._cells = sweep, dataset, cells
        self._idle, self._cores, self._warn, self._tell = idle, cores, warn, tell
        self._thread: threading.Thread | None = None
        self._pools: Pools | None = None
        self._processes, self._is_closed = ExitStack(), False

    @classmethod
    def of(
        cls,
        request: Request,
        sweep: Sweep,
        dataset: Dataset,
        warn: Callable[[str], None],
        tell: Callable[[str], None],
    ) -> Self:
        """That of a run, on the cores and in the memory that its trials leave."""
        cells = [cell for cell in request.grid.cells if not sweep.status(cell).is_final]
        cores = min(request.cpus or machine.cpu_count(), machine.cpu_count())
        if idle := idle_cores(request, cells, cores):
            fitting = partial(memory.evaluations_beside, cells, request.settings, dataset)
            idle, cores = min(idle, fitting(min(request.slots, len(cells)))), min(cores, fitting(0))
        return cls(sweep, dataset, cells, idle=idle, cores=cores, warn=warn, tell=tell)

    def begin(self) -> None:
        """Begin, if cores idle; another call does nothing."""
        if self._idle and self._thread is None:
            self._thread = threading.Thread(target=self._prepare, name="evaluation ahead", daemon=True)
            self._thread.start()

    def finish(self) -> "Executor | None":
        """Wait for the end, on all cores; what has the processes, for more. None where nothing had begun."""
        if self._thread is None:
            return None
        if self._pools is not None and (others := self._cores - self._idle):
            from sweep.evaluation import tasks

            self._pools.add(self._processes.enter_context(tasks.processes(self._dataset, others)), others)
        self._thread.join()
        return self._pools if self._pools is not None and _works(self._pools) else None

    def _prepare(self) -> None:
        from sweep.evaluation import tasks
        from sweep.evaluation.evaluation import prepare
        from sweep.evaluation.pools import Pools

        try:
            pool = self._processes.enter_context(tasks.processes(self._dataset, self._idle, gives_way=True))
            self._pools = Pools()
            self._pools.add(pool, self._idle)
            prepare(self._sweep, self._cells, self._dataset, self._pools, warn=self._warn_if_open, tell=self._tell)
        except Exception:  # of any library: what is missing then, the evaluation computes, and says why it cannot
            return

    def _warn_if_open(self, text: str) -> None:
        if not self._is_closed:  # else it would be told of its own end
            self._warn(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_closed = True
        if self._pools is not None:
            self._pools.close()
        if self._thread is not None and self._thread.is_alive():
            error = error or InterruptedError("the training ended before")  # so that the processes end at once
            kind = type(error)
        self._processes.__exit__(kind, error, traceback)


def _works(executor: "Executor") -> bool:
    """Whether its processes still live."""
    try:
        executor.submit(int).result()
    except Exception:
        return False
    return True


def idle_cores(request: Request, cells: Sequence[Cell], cores: int) -> int:
    """Cores of this machine that no trial of the request will use.

    Args:
        request: what is run.
        cells: those to train.
        cores: which the request may use.
    """
    # A cluster may have this machine; and of a search it is not known what will be evaluated.
    if not cells or not request.evaluation or request.address is not None or request.search is not None:
        return 0
    if request.gpus:
        return max(0, cores - CORES_OF_A_GPU * request.gpus)
    return 0 if request.resolving is not None else max(0, cores - len(cells))
