"""What a sweep may use of its machines, and what a trial asks for. Arithmetic alone: no Ray."""

import math
from dataclasses import dataclass, replace

TRIALS_PER_GPU = 3
"""How many share a GPU where nobody says or measures it."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a machine offers to Ray; its name is its address where it was given none."""

    id: str
    name: str
    cpus: float
    gpus: float

    def fits(self, trial: dict[str, float]) -> int:
        """How many such trials run on it at the same time."""
        offers = {"cpu": self.cpus, "gpu": self.gpus}
        # Ray counts in ten-thousandths.
        return min((int(offers[name] / asked + 1e-4) for name, asked in trial.items() if asked), default=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What a sweep may use in all, and how many trials share a GPU.

    Attributes:
        nodes: the machines of a cluster; none stands for this one.
    """

    cpus: int
    gpus: int
    trials_per_gpu: int
    cpus_per_trial: int = 1
    nodes: tuple[Node, ...] = ()

    @property
    def trial(self) -> dict[str, float]:
        """What one trial asks of Ray. One thread a trial: a GPU trial needs a core only to feed it."""
        if not self.gpus:
            return {"cpu": self.cpus_per_trial}
        # So that no GPU lies idle for want of cores: the share that the poorest machine with GPUs can give.
        machines = [(node.cpus, node.gpus) for node in self.nodes if node.gpus] or [(self.cpus, self.gpus)]
        cpu = min(1.0, *(cpus / (gpus * self.trials_per_gpu) for cpus, gpus in machines))
        return {"cpu": cpu, "gpu": 1 / self.trials_per_gpu}

    @property
    def memory_share(self) -> float:
        """Part of a GPU's memory for a trial without a host; its CUDA context takes some hundred MB beside it."""
        return 0.9 / self.trials_per_gpu

    def capped_to(self, count: int) -> "Resources":
        """No more cores than so many trials take, as Ray starts a process for each before any is asked for."""
        return replace(self, cpus=min(self.cpus, math.ceil(min(self.slots, count) * self.trial["cpu"])))

    @property
    def alone(self) -> "Resources":
        """The same machines, one trial at a time on each GPU, or on all cores of a machine."""
        cores = max((int(node.cpus) for node in self.nodes), default=self.cpus)
        return replace(self, trials_per_gpu=1, cpus_per_trial=cores)

    @property
    def slots(self) -> int:
        """Trials that run at the same time."""
        allowed = self.gpus * self.trials_per_gpu or max(self.cpus // self.cpus_per_trial, 1)
        return min(allowed, sum(node.fits(self.trial) for node in self.nodes) or allowed) if self.nodes else allowed
