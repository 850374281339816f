"""What `dae-sweep run` is asked for."""

from dataclasses import dataclass
from pathlib import Path

from sweep.driver.rounds import Resolving
from sweep.records.grid import Grid, Settings
from sweep.records.search import Search
from sweep.storage.store import Store
from sweep.trials.resources import TRIALS_PER_GPU


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A sweep to run, and where and how.

    Attributes:
        cpus: cores the sweep may use in all; None for all that a cluster has.
        gpus: likewise.
        trials_per_gpu: how many share a GPU; None to measure what is best.
        project: of W&B; None for what wandb was told, else a default.
        address: of a Ray cluster that runs; None for a Ray of this command's own.
        source: where a user's own images are; None for a dataset with a name.
        skip_unreadable: whether to leave out files there that are no images.
        resolving: how far seeds are added while verdicts are undecided; None for the seeds of the grid alone.
        search: how cells are proposed; None for those of the grid.
        deadline: when a search proposes no more, by `time.monotonic`; None without one.
        revive: whether cells go on that were pruned or stopped.
        evaluation: whether to compute what the report shows beside the test losses.
        report: whether to write it.
        temp_dir: where a Ray of this command's own keeps its sockets and logs; None for the usual place.
    """

    store: Store
    grid: Grid
    settings: Settings
    data_dir: Path
    cpus: int | None
    gpus: int | None
    trials_per_gpu: int | None
    wandb_mode: str
    project: str | None
    max_retries: int = 3
    address: str | None = None
    allow_autoscaling: bool = False
    source: str | None = None
    skip_unreadable: bool = False
    resolving: Resolving | None = None
    search: Search | None = None
    deadline: float | None = None
    revive: bool = False
    evaluation: bool = False
    report: bool = False
    temp_dir: Path | None = None

    @property
    def slots(self) -> int:
        """Trials that run at the same time, as far as is known before a cluster is joined."""
        return (self.gpus or 0) * (self.trials_per_gpu or TRIALS_PER_GPU) or self.cpus or 1
