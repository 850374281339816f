"""What `plan` says of a search."""

import math
from statistics import fmean

import click

from dae.architecture import mac_count
from sweep.records.grid import Settings
from sweep.records.record import Status, duration
from sweep.records.search import Search
from sweep.records.sweep import Sweep, check_sweep, gather
from sweep.search.rungs import rungs
from sweep.storage.sealing import Damaged
from sweep.storage.store import Store


def show(search: Search, settings: Settings, store: Store) -> None:
    """The space, the budget in epochs, what is done of it, and how long the rest may take."""
    sweep = _find(store)
    if sweep is not None:
        check_sweep(sweep.records.values(), settings, sweep.manifest)
    space, epochs = search.space, settings.epochs
    width = max(map(len, space.parameters))
    for name, values in space.parameters.items():
        count = f"{values.size:,}" if math.isfinite(values.size) else "any"
        click.echo(f"{name:<{width}}  {values!s:<20} {count} value{'s' * (count != '1')}")
    smallest, largest = (mac_count(settings.model(cell)) for cell in space.cells_at_ends(settings, search.seed))
    size = f"{space.size:,} points" if math.isfinite(space.size) else "any number of points"
    click.echo(f"\nspace: {size}; {smallest:,} to {largest:,} MACs an image at the ends of its ranges")
    trials = search.trials if math.isinf(space.size) else min(search.trials, int(space.size))
    most, least = trials * epochs, trials * epochs
    if search.scheduler == "asha":
        least = trials + epochs - 1
        places = ", ".join(map(str, rungs(epochs)))
        click.echo(f"asha: ends trials after epoch {places}; a third passes each of these rungs")
    elif search.scheduler == "median":
        least = 4 * epochs + trials - 4
    fresh = min(search.finalists, trials) * search.finalist_seeds
    click.echo(
        f"{search.sampler}: {trials} trials of {epochs} epochs, {max(0, least):,} to {most:,} epochs; then {fresh} "
        f"cells of finalists, {fresh * epochs:,} epochs"
    )
    if sweep is not None:
        _show_done(sweep, search)


def _show_done(sweep: Sweep, search: Search) -> None:
    records = [sweep.records[key] for key in sweep.proposals if key in sweep.records]
    counts = {status: sum(record.status is status for record in records) for status in Status}
    tried = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    left = max(0, search.trials - len(sweep.proposals))
    seconds = [sum(epoch.seconds for epoch in record.history) for record in records if record.status.is_final]
    expected = f", about {duration(left * fmean(seconds))} of training" if seconds and left else ""
    click.echo(f"{sweep.manifest.name}: {len(sweep.proposals)} tried ({tried or 'none'}), {left} to propose{expected}")


def _find(store: Store) -> Sweep | None:
    try:
        return gather(store, thorough=True)
    except (FileNotFoundError, NotADirectoryError, Damaged):
        return None
