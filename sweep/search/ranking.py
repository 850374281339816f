"""Which trials of a search are its best: by validation loss, never by test loss."""

from collections.abc import Collection
from dataclasses import replace

from sweep.records.grid import Cell
from sweep.records.record import Record, Status
from sweep.records.sweep import Sweep


def ranked(sweep: Sweep) -> list[Record]:
    """The completed trials of a search by validation loss; with two objectives the front of both alone."""
    search = sweep.manifest.search
    assert search is not None
    trials = [record for record in sweep.completed if record.key in sweep.proposals]
    trials.sort(key=lambda record: (record.val_loss or 0.0, sweep.proposals[record.key].number))
    return front(trials) if len(search.objectives) > 1 else trials


def front(trials: Collection[Record]) -> list[Record]:
    """Of trials in the order of their loss those that are cheaper than all before them."""
    kept: list[Record] = []
    for record in trials:
        if not kept or record.macs < kept[-1].macs:
            kept.append(record)
    return kept


def finalists(sweep: Sweep) -> list[Cell]:
    """The best configurations of a search, each with every fresh seed."""
    search = sweep.manifest.search
    assert search is not None
    seeds = range(search.seed + 1, search.seed + 1 + search.finalist_seeds)
    return [replace(record.cell, seed=seed) for record in ranked(sweep)[: search.finalists] for seed in seeds]


def fresh(sweep: Sweep, trial: Record) -> list[Record]:
    """The completed cells of a trial's configuration with fresh seeds, by seed."""
    cells = [cell for cell in sweep.manifest.grid.cells if replace(cell, seed=trial.seed) == trial.cell != cell]
    return [sweep.records[cell.key] for cell in cells if sweep.status(cell) is Status.COMPLETED]
