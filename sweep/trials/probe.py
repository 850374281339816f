"""How many trials a GPU should take, measured: some train on it side by side, and what they get done is counted.

Knows Ray, not Tune. One more is worth it as long as it fills what the others leave idle: validation, files and news
between epochs, the launch of small kernels; at a host also the parts of the GPU that one training does not reach.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dae.data import Dataset
from sweep.records.grid import Cell
from sweep.trials import session
from sweep.trials.host import Hosts, Probe, connect
from sweep.trials.job import Job
from sweep.trials.resources import TRIALS_PER_GPU, Resources

STEPS = ((1,), (2, 3, 4), (6, 8))
"""Numbers of trials that are tried; those of a step together, a next step only where the last was worth it."""

MEASURED_S = 2.0
"""How long trials train for one measurement, rounded up to whole epochs."""

GAIN = 0.05
"""What more trials have to get done more, as a share."""

WORTHWHILE_S = 120.0
"""A sweep that one trial at a time would finish sooner is not worth measuring for: that takes up to half a minute."""

FULL = 0.9
"""Share of a GPU's memory that trials may fill."""

POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        trials: that share a GPU.
        epochs_per_s: of all trials together, by their number, as measured.
        because: a sentence for the user.
    """

    trials: int
    epochs_per_s: dict[int, float]
    because: str


def choose(
    cells: Sequence[Cell],
    job: Job,
    dataset: Dataset,
    resources: Resources,
    check: Callable[[], None],
    hosts: Hosts | None,
) -> Choice:
    """Measure how many trials of this sweep get most done on one GPU.

    Args:
        cells: to be trained, longest first; the one in the middle is measured.
        job: what trials share; the device is the one to measure.
        dataset: to train on.
        resources: of the Ray that was joined.
        check: called while it takes its time; what it raises ends the measurement.
        hosts: where trials have their work done; None for processes of their own.
    """
    cell = cells[len(cells) // 2]
    epochs = sum(job.settings.at(trained).epochs for trained in cells)
    measured: dict[int, float] = {}
    measuring = (
        _in_processes(job, cell, dataset, resources, check)
        if hosts is None
        else _host_executor(hosts, job, cell, check)
    )
    with measuring as measure:
        for step in STEPS:
            for count in step:
                try:
                    measured[count], filled = measure(count)
                except Exception as error:  # of the cell, of Ray, of the GPU: the sweep goes on without
                    reason = (str(error) or type(error).__name__).strip().splitlines()[-1].strip()
                    return _best(measured, f"{count} at a time failed ({reason})")
                if count == 1 and epochs / (measured[1] * resources.gpus) < WORTHWHILE_S:
                    because = f"the sweep is too short to measure more ({_listed(measured)})"
                    return Choice(TRIALS_PER_GPU, measured, because)
                if filled * (count + 1) / count > FULL:
                    return _best(measured, "another trial would not fit its memory")
            if not _is_worth(measured, step):
                break
    return _best(measured)


def _best(measured: dict[int, float], stopped: str = "") -> Choice:
    """The fewest trials that get about the most done."""
    if not measured:
        return Choice(TRIALS_PER_GPU, measured, f"nothing could be measured: {stopped}")
    most = max(measured.values())
    trials = min(count for count, rate in measured.items() if rate * (1 + GAIN) >= most)
    return Choice(trials, measured, _listed(measured) + (f"; {stopped}" if stopped else ""))


def _is_worth(measured: dict[int, float], step: tuple[int, ...]) -> bool:
    """Whether the largest number of a step got more done than all smaller ones; one alone says nothing."""
    before = [rate for count, rate in measured.items() if count < step[-1]]
    return not before or measured[step[-1]] > (1 + GAIN) * max(before)


def _listed(measured: dict[int, float]) -> str:
    rates = ", ".join(f"{count}: {rate:.3g}" for count, rate in measured.items())
    return f"epochs a second by trials on a GPU: {rates}"


Measure = Callable[[int], tuple[float, float]]
"""So many trials side by side: epochs a second in all, and the share of the GPU's memory in use."""


@contextmanager
def _host_executor(hosts: Hosts, job: Job, cell: Cell, check: Callable[[], None]) -> Iterator[Measure]:
    """In threads of the first host."""
    address = next(iter(hosts.addresses.values()))

    def measure(count: int) -> tuple[float, float]:
        # A connection belongs to a thread.
        answer = pool.submit(lambda: connect(address).measure(job, cell.key, count, MEASURED_S))
        while not wait([answer], POLL_S).done:
            hosts.revive()
            check()
        rate, filled = answer.result()
        return rate, filled

    with ThreadPoolExecutor(1) as pool:
        try:
            yield measure
        finally:
            hosts.revive()
            with suppress(EOFError, ConnectionError):  # then there is nothing to forget
                connect(address).forget_measurements()


class _Process(Probe):
    """A probe in a process of its own."""

    def __init__(self, job: Job, cell: Cell, shared: list[Any]) -> None:
        from sweep.trials.trial import prepare

        super().__init__(job, cell, prepare(job, ray.get(shared[0])))


@contextmanager
def _in_processes(
    job: Job, cell: Cell, dataset: Dataset, resources: Resources, check: Callable[[], None]
) -> Iterator[Measure]:
    """In processes that share one GPU."""
    most = STEPS[-1][-1]
    trial = replace(resources, trials_per_gpu=most).trial
    one_gpu = placement_group([{"CPU": trial["cpu"] * most, "GPU": 1}])
    process = ray.remote(_Process).options(
        num_cpus=trial["cpu"],
        num_gpus=trial["gpu"],
        scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=one_gpu),
    )
    job = replace(job, memory_share=FULL)
    probes: list[Any] = []

    def measure(count: int) -> tuple[float, float]:
        while len(probes) < next(step[-1] for step in STEPS if count <= step[-1]):
            probes.append(process.remote(job, cell, [session.shared(dataset)]))
        rates = _wait([probe.train.remote(MEASURED_S) for probe in probes[:count]], check)
        (filled,) = _wait([probes[0].filled.remote()], check)
        return sum(rates), filled

    try:
        yield measure
    finally:
        for probe in probes:
            ray.kill(probe)
        remove_placement_group(one_gpu)


def _wait(answers: list[Any], check: Callable[[], None]) -> list[Any]:
    while len(ray.wait(answers, num_returns=len(answers), timeout=POLL_S)[0]) < len(answers):
        check()
    values: list[Any] = ray.get(answers)
    return values
