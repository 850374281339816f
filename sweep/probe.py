"""How many trials a GPU should take, measured: some train on it side by side, and what they get done is counted.

Knows Ray, not Tune. Without MPS the processes of trials take turns on a GPU. One more of them is worth it as long as
it fills what the others leave idle: validation, files and news between epochs, the launch of small kernels.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sweep import session  # before Ray, which reads its environment when it is imported

# isort: split
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dae.data import Dataset
from sweep.grid import Cell
from sweep.job import Job
from sweep.request import TRIALS_PER_GPU
from sweep.session import Resources

STEPS = ((1,), (2, 3, 4), (6, 8))
"""Numbers of trials that are tried; those of a step start together, the next step only where the last was worth it."""

MEASURED_S = 2.0
"""How long trials train for one measurement, rounded up to whole epochs."""

GAIN = 0.05
"""What more trials have to get done more, as a share."""

WORTHWHILE_S = 120.0
"""A sweep that one trial at a time would finish sooner is not worth measuring for: that takes half a minute."""

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
    cells: Sequence[Cell], job: Job, dataset: Dataset, resources: Resources, check: Callable[[], None]
) -> Choice:
    """Measure how many trials of this sweep get most done on one GPU.

    Args:
        cells: to be trained, longest first; the one in the middle is measured.
        job: what trials share; the device is the one to measure.
        dataset: to train on.
        resources: of the Ray that was joined.
        check: called while it takes its time; what it raises ends the measurement.
    """
    cell = cells[len(cells) // 2]
    epochs = sum(job.settings.at(each).epochs for each in cells)
    measured: dict[int, float] = {}
    with _probes(job, cell, dataset, resources) as more:
        for step in STEPS:
            probes = more(step[-1])
            for count in step:
                try:
                    rates = _wait([probe.train.remote(MEASURED_S) for probe in probes[:count]], check)
                    filled = _wait([probes[0].filled.remote()], check)[0]
                except ray.exceptions.RayError as error:
                    reason = str(error).strip().splitlines()[-1].strip()
                    return _best(measured, f"{count} at a time failed ({reason})")
                measured[count] = sum(rates)
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


class _Probe:
    """A process that trains a cell as a trial would, and leaves nothing behind."""

    def __init__(self, job: Job, cell: Cell, shared: list[Any]) -> None:
        from dae.training import Training
        from sweep.trial import prepare

        images = prepare(job, ray.get(shared[0]))
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


@contextmanager
def _probes(job: Job, cell: Cell, dataset: Dataset, resources: Resources) -> Iterator[Callable[[int], list[Any]]]:
    """Gives a function that brings the probes to a number; they all share one GPU, and are gone afterwards."""
    most = STEPS[-1][-1]
    trial = replace(resources, trials_per_gpu=most).trial
    one_gpu = placement_group([{"CPU": trial["cpu"] * most, "GPU": 1}])
    probe = ray.remote(_Probe).options(
        num_cpus=trial["cpu"],
        num_gpus=trial["gpu"],
        scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=one_gpu),
    )
    job = replace(job, memory_share=FULL)
    probes: list[Any] = []

    def more(count: int) -> list[Any]:
        while len(probes) < count:
            probes.append(probe.remote(job, cell, [session.shared(dataset)]))
        return probes

    try:
        yield more
    finally:
        for each in probes:
            ray.kill(each)
        remove_placement_group(one_gpu)


def _wait(answers: list[Any], check: Callable[[], None]) -> list[Any]:
    while len(ray.wait(answers, num_returns=len(answers), timeout=POLL_S)[0]) < len(answers):
        check()
    values: list[Any] = ray.get(answers)
    return values
