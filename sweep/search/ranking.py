"""Which trials of a search are its best: by validation loss, never by test loss."""

from collections.abc import Collection
from dataclasses import replace

from sweep.records.grid import Cell
from sweep.records.record import Record
from sweep.records.sweep import Sweep


def ranked(sweep: Sweep) -> list[Record]:
    """The completed trials of a search by validation loss; with two objectives the front of both alone."""
    search = sweep.manifest.search
    assert search is not None
    trials = completed_trials(sweep)
    return front(trials) if len(search.objectives) > 1 else trials


def completed_trials(sweep: Sweep) -> list[Record]:
    """The completed trials that lie in the space as it is now, by validation loss."""
    search, settings = sweep.manifest.search, sweep.manifest.settings
    assert search is not None
    found = [
        (record.val_loss or 0.0, proposal.number, record.key, record)
        for record in sweep.completed
        if (proposal := sweep.proposals.get(record.key)) is not None
        and search.space.point_of(proposal.point, settings) is not None
    ]
    return [record for *_, record in sorted(found, key=lambda entry: entry[:3])]


def front(trials: Collection[Record]) -> list[Record]:
    """Of trials in the order of their loss those that are cheaper than all before them."""
    kept: list[Record] = []
    for record in trials:
        if not kept or record.macs < kept[-1].macs:
            kept.append(record)
    return kept


def finalists(sweep: Sweep) -> list[Cell]:
    """The best configurations of a search, each with every fresh seed that was not removed."""
    search, removed = sweep.manifest.search, set(sweep.manifest.removed)
    assert search is not None
    seeds = range(search.seed + 1, search.seed + 1 + search.finalist_seeds)
    cells = [replace(record.cell, seed=seed) for record in ranked(sweep)[: search.finalists] for seed in seeds]
    return [cell for cell in cells if cell.key not in removed]


def wanted(sweep: Sweep) -> list[Cell]:
    """The cells that a search is to complete: its trials, and its finalists with their fresh seeds."""
    trials = [cell for cell in sweep.manifest.grid.cells if sweep.manifest.is_trial(cell)]
    return [*trials, *finalists(sweep)]


def fresh(sweep: Sweep) -> dict[Cell, list[Record]]:
    """The completed cells with fresh seeds, by seed, each under the cell of its trial."""
    search = sweep.manifest.search
    assert search is not None
    found: dict[Cell, list[Record]] = {}
    for record in sweep.completed:
        if record.seed != search.seed:
            found.setdefault(replace(record.cell, seed=search.seed), []).append(record)
    return found
