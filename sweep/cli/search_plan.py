"""What `plan` says of a search."""

import math
from dataclasses import replace
from statistics import fmean

import click

from dae.architecture import mac_count, step_bytes
from sweep.records.agreement import check_sweep
from sweep.records.grid import Settings
from sweep.records.record import Record, Status, duration
from sweep.records.search import Search
from sweep.records.sweep import Sweep, gather
from sweep.records.words import counted, span
from sweep.search.ranking import finalists
from sweep.search.rungs import LEAST_OTHERS, rungs
from sweep.storage.sealing import Damaged
from sweep.storage.store import Store


def show(search: Search, settings: Settings, store: Store, slots: int) -> None:
    """The space, the budget in epochs, what is done of it, and how long the rest may take.

    Args:
        search: as the command asks for it.
        settings: likewise.
        store: where the search is, if it was begun.
        slots: trials that run at the same time.
    """
    sweep = _find(store)
    if sweep is not None:
        check_sweep(sweep.records.values(), settings, sweep.manifest)
    space, epochs = search.space, settings.epochs
    width = max(map(len, space.parameters))
    for name, values in space.parameters.items():
        count = counted(int(values.size), "value") if math.isfinite(values.size) else "any value"
        click.echo(f"{name:<{width}}  {values!s:<20} {count}")
    cells = space.cells_at_ends(settings, search.seed)
    smallest, largest = (mac_count(settings.model(cell)) for cell in cells)
    least_bytes, most_bytes = (step_bytes(settings.model(cell), settings.at(cell).batch_size) for cell in cells)
    size = counted(int(space.size), "point") if math.isfinite(space.size) else "any number of points"
    click.echo(f"\nspace: {size}; {span(smallest, largest)} MACs an image at the ends of its ranges")
    click.echo(f"a step takes about {span(*(math.ceil(size / 2**20) for size in (least_bytes, most_bytes)))} MiB")
    trials = search.trials if math.isinf(space.size) else min(search.trials, int(space.size))
    most, least = trials * epochs, trials * epochs
    if search.scheduler == "asha":
        least = trials + epochs - 1
        places = ", ".join(map(str, rungs(epochs)))
        click.echo(f"asha: ends trials after epoch {places}; a third passes each of these rungs")
    elif search.scheduler == "median":
        free = min(trials, LEAST_OTHERS)  # of so few the median says nothing
        least = free * epochs + trials - free
    fresh = min(search.finalists, trials) * search.finalist_seeds
    if trials < search.trials:
        click.echo(f"--trials {search.trials}: the space has no more than {counted(trials, 'point')}")
    click.echo(
        f"{search.sampler}: {counted(trials, 'trial')} of {counted(epochs, 'epoch')}, {span(least, most)} epochs in "
        f"all; then {counted(fresh, 'cell')} of finalists, {counted(fresh * epochs, 'epoch')}"
    )
    if sweep is None:
        click.echo("how long that takes is known once a first trial has ended")
    else:
        _show_done(replace(sweep, manifest=replace(sweep.manifest, search=search)), trials, fresh, slots)


def _show_done(sweep: Sweep, trials: int, fresh: int, slots: int) -> None:
    records = [sweep.records[key] for key in sweep.proposals if key in sweep.records]
    counts = {status: sum(record.status is status for record in records) for status in Status}
    tried = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    left = max(0, trials - len(sweep.proposals))
    begun = [sweep.records.get(key) for key in sweep.proposals]
    unfinished = [record for record in begun if record is None or not record.status.is_final]
    if not left and not unfinished:  # what its finalists are is known
        fresh = sum(not sweep.status(cell).is_final for cell in finalists(sweep))
    parts = [f"{left} to propose"]
    parts += [f"{len(unfinished)} to go on with"] * bool(unfinished) + [
        f"{counted(fresh, 'cell')} of finalists to train"
    ]
    click.echo(f"{sweep.manifest.name}: {len(sweep.proposals)} tried ({tried or 'none'}), {', '.join(parts)}")
    ended = [_seconds(record) for record in records if record.status.is_final and record.history]
    if not ended:
        click.echo("how long that takes is known once a first trial has ended")
    elif left or unfinished or fresh:
        whole = fmean(epoch.seconds for record in records for epoch in record.history) * sweep.manifest.settings.epochs
        rest = [max(0.0, fmean(ended) - (_seconds(record) if record else 0.0)) for record in unfinished]
        expected = (left * fmean(ended) + sum(rest) + fresh * whole) / slots
        click.echo(f"about {duration(expected)} of training, {slots} at a time")


def _seconds(record: Record) -> float:
    return sum(epoch.seconds for epoch in record.history)


def _find(store: Store) -> Sweep | None:
    try:
        return gather(store, thorough=True)
    except (FileNotFoundError, NotADirectoryError, Damaged):
        return None
