"""One process a GPU that trains the cells of all its trials, each in a thread of its own. Knows no Ray.

Processes take turns on a GPU; trainings of one process fill what each of them leaves idle. A host is started before
Ray, so that torch is imported and the GPU's kernels are compiled while Ray starts. To Ray and Tune nothing changes: a
trial still is a process of its own that asks for its share of a GPU, only that its `Executor` are at the host.
"""

import multiprocessing
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.managers import BaseManager
from typing import Any, NamedTuple, Protocol

from dae.data import Dataset
from sweep.records.grid import Cell
from sweep.records.record import Record
from sweep.trials.gpus import visible
from sweep.trials.job import Job
from sweep.trials.printing import ByThread
from sweep.trials.processes import belong_to_driver, deaf

CONNECT_TIMEOUT_S = 60.0
"""How long a trial waits for a host that is being started."""

MEMORY_SHARE = 0.9
"""Part of a GPU's memory that its host may take."""

HOST_ENDED = "the host of this GPU's trials ended"


class Address(NamedTuple):
    """Where a host listens, and the key without which it answers nobody."""

    socket: str
    key: bytes


class Executor(Protocol):
    """What does a trial's work."""

    def begin(self, key: str) -> None:
        """Take on a cell."""

    def advance(self, at_least_s: float) -> tuple[Record, float]:
        """As `Trial.advance`: the record, and training images a second."""


# ---- in the host's process


class _Host:
    """What is called from other processes, each connection in a thread of its own."""

    def __init__(self) -> None:
        self._work: Future[tuple[Job, Dataset]] = Future()
        self._images: Any = None
        self._preparing = threading.Lock()
        self._mine = threading.local()
        self._probes: list[Probe] = []

    def prepare(self, job: Job, dataset: Dataset, cells: Sequence[Cell]) -> None:
        """Set the process up for a job, and compile what its ``cells`` need."""
        self._work.set_result((job, dataset))
        from dae.training import Training

        for cell in cells:
            with suppress(Exception):  # told to the trials that it concerns
                Training(job.settings.model(cell), job.settings.training(cell), self._prepared())

    def _prepared(self) -> Any:
        """What cells are trained on; tried again where it failed, on a GPU that others had filled, say."""
        from sweep.trials.trial import prepare

        work = self._work.result(CONNECT_TIMEOUT_S)
        with self._preparing:
            if self._images is None:
                self._images = prepare(*work)
            return self._images

    def begin(self, job: Job, key: str) -> None:
        """Take on a cell, in this thread."""
        from sweep.trials.trial import Trial

        self._mine.trial = Trial(job, Cell.from_key(key), self._prepared())

    def advance(self, at_least_s: float) -> tuple[bytes, float]:
        """As `Trial.advance`, of this thread's trial."""
        import torch

        trial = self._mine.trial
        try:
            record = trial.advance(at_least_s)
        except torch.AcceleratorError:  # an illegal access, say: nothing works on the GPU in this process any more
            os._exit(1)
        return record.to_bytes(), trial.images_per_s

    def measure(self, job: Job, key: str, count: int, at_least_s: float) -> tuple[float, float]:
        """Train a cell ``count`` times side by side: epochs a second in all, and the share of memory in use."""
        while len(self._probes) < count:
            self._probes.append(Probe(job, Cell.from_key(key), self._prepared()))
        with ThreadPoolExecutor(count) as pool:
            rates = list(pool.map(lambda probe: probe.train(at_least_s), self._probes[:count]))
        return sum(rates), self._probes[0].filled()

    def forget_measurements(self) -> None:
        """Free what was measured with."""
        self._probes.clear()


class Probe:
    """Trains a cell as a trial would, and leaves nothing behind."""

    def __init__(self, job: Job, cell: Cell, images: Any) -> None:
        from dae.training import Training

        config, model = job.settings.training(cell), job.settings.model(cell)
        images = images.under(config.alpha, config.noise)
        self._training = Training(model, replace(config, epochs=10**9), images)
        self._device = job.device
        self._training.run_epoch()  # compiles and captures what there is to

    def train(self, at_least_s: float) -> float:
        """Epochs a second over so many seconds."""
        start, epochs = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < at_least_s:
            self._training.run_epoch()
            epochs += 1
        return epochs / elapsed

    def filled(self) -> float:
        """Share of the device's memory that is in use, by whomever; 0 on a CPU."""
        if self._device != "cuda":
            return 0.0
        import torch

        free, total = torch.cuda.mem_get_info()
        return 1 - free / total


class _Manager(BaseManager):
    """Python's own way to call an object of another process."""


EXPOSED = ("prepare", "begin", "advance", "measure", "forget_measurements")
_Manager.register("host", exposed=EXPOSED)


def _serve(address: Address, gpu: str) -> None:
    belong_to_driver()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # to the whole group, as a batch system's: the driver ends its trials
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    sys.stdout = sys.stderr = ByThread()
    nowhere = os.open(os.devnull, os.O_WRONLY)  # what C libraries print would go across the display
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    host = _Host()
    _Manager.register("host", lambda: host, exposed=EXPOSED)
    server: Any = _Manager(address.socket, address.key).get_server()
    server.create(None, "host")  # one who holds it for good, for it would be forgotten with the last connection
    server.serve_forever()


# ---- in a trial's process


class HostExecutor:
    """The executor of a trial that leaves its work to a host."""

    def __init__(self, address: Address, job: Job) -> None:
        self._address, self._job = address, job
        self._host: Any = None
        self._key: str | None = None

    def begin(self, key: str) -> None:
        """Take on a cell. Not at once: Tune tries again what fails in a step, and not what fails between two trials."""
        self._key = key

    def advance(self, at_least_s: float) -> tuple[Record, float]:
        """As `Trial.advance`: the record, and training images a second.

        Raises:
            ConnectionError: the host has ended.
        """
        with _losing():
            if self._host is None:
                self._host = connect(self._address)
            if self._key is not None:
                self._host.begin(self._job, self._key)
                self._key = None
            record, images_per_s = self._host.advance(at_least_s)
        return Record.from_bytes(record), images_per_s


def connect(address: Address) -> Any:
    """The host that listens there, or will in a moment.

    Raises:
        ConnectionError: none does.
    """
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    while True:
        manager = _Manager(address.socket, address.key)
        try:
            manager.connect()
            return manager.host()  # type: ignore[attr-defined]  # registered above
        except (EOFError, ConnectionError):
            if time.monotonic() > deadline:
                raise ConnectionError("none has started") from None
            time.sleep(0.05)


@contextmanager
def _losing() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise ConnectionError(f"{HOST_ENDED} ({error or type(error).__name__})") from None


# ---- in the driver


class Hosts:
    """The hosts of this machine's GPUs."""

    def __init__(self, gpus: int, job: Job, dataset: Dataset, cells: Sequence[Cell]) -> None:
        self._work = (job, dataset, cells)
        self.addresses = {gpu: _new_address() for gpu in _names(gpus)}
        self._processes = {gpu: self._start(gpu) for gpu in self.addresses}

    def _start(self, gpu: str) -> Any:
        context = multiprocessing.get_context("spawn")
        address = self.addresses[gpu]
        process = context.Process(target=_serve, args=(address, gpu), name=f"host of GPU {gpu}", daemon=True)
        # Ctrl-C is for the driver, also before the host has said so; what it starts inherits this.
        with deaf(signal.SIGINT):
            process.start()
        threading.Thread(target=self._prepare, args=(address,), daemon=True).start()
        return process

    def _prepare(self, address: Address) -> None:
        with suppress(Exception):  # its trials meet the same, and say so
            connect(address).prepare(*self._work)

    def revive(self) -> None:
        """Start those anew that have died; their trials connect to them when they are tried again."""
        for gpu, process in self._processes.items():
            if not process.is_alive():
                with suppress(OSError):  # no more processes, or no memory for one: the next look may find some
                    self._processes[gpu] = self._start(gpu)

    def close(self) -> None:
        """End them; every finished epoch is on disk."""
        for process in self._processes.values():
            process.kill()
            process.join()


@contextmanager
def hosting(gpus: int, job: Job, dataset: Dataset, cells: Sequence[Cell]) -> Iterator[Hosts]:
    """A host for each of this machine's GPUs that is used; they are gone afterwards.

    Args:
        gpus: how many.
        job: as trials get it; its memory share is the host's.
        dataset: that all trials share.
        cells: examples of what is trained, to compile for.
    """
    hosts = Hosts(gpus, job, dataset, cells)
    try:
        yield hosts
    finally:
        hosts.close()


def _new_address() -> Address:
    # In Linux's abstract namespace: no file of it is left when a host is killed.
    return Address(f"\0dae-sweep-{secrets.token_hex(8)}", secrets.token_bytes(32))


def _names(gpus: int) -> list[str]:
    """Of as many GPUs, as Ray calls those that it gives to trials."""
    return visible()[:gpus] or [str(number) for number in range(gpus)]
