"""Whether the trials of a run fit into the memory of this machine."""

from collections.abc import Sequence

from dae.architecture import step_bytes
from dae.data import Dataset
from sweep.records.grid import Cell, Settings
from sweep.records.words import counted
from sweep.trials import machine

GIB = 2**30


def shortage(
    cells: Sequence[Cell], settings: Settings, dataset: Dataset, trials: int, *, is_search: bool = False
) -> str | None:
    """What of a training on CPUs may not fit, with numbers; None where it fits.

    Args:
        cells: those to train; where more may follow, they are as the largest of these.
        settings: of their sweep.
        dataset: which they are trained on.
        trials: how many run at a time.
        is_search: whether cells of which a step alone does not fit are left out: they fail at once, as was said.
    """
    steps = {cell: step_bytes(settings.model(cell), settings.at(cell).batch_size) for cell in cells}
    if is_search:
        cells = [cell for cell in cells if steps[cell] <= machine.memory_bytes()]
        if not cells:
            return None
    falling = sorted(cells, key=lambda cell: -steps[cell])
    largest = falling[0]
    chosen = sorted((*falling, *[largest] * (trials - len(cells))), key=lambda cell: -steps[cell])[:trials]
    each = [machine.trial_bytes(dataset, steps[cell]) for cell in chosen]
    room = machine.memory_for_trials(dataset)
    fitting = next((count for count in range(trials, 0, -1) if sum(each[:count]) <= room), 0)
    if fitting == trials:
        return None
    where = f"may not fit into {_gib(machine.memory_bytes())}, all that this machine or its container allows"
    size = (
        f"{_gib(each[0])}, {_gib(steps[largest])} of it for a training step with batches of "
        f"{settings.at(largest).batch_size}; the program and all images twice take "
        f"{_gib(machine.RAY_BYTES + 2 * dataset.nbytes)} beside"
    )
    name = largest.key.rpartition("-")[0]
    if fitting:
        what = f"{counted(trials, 'trial')} at a time {where}: they take about {_gib(sum(each))}, "
        what += f"the largest, {name}, {size}"
        return f"{what}. --cpus {fitting} would"
    what = f"{name} {where}: a trial of it takes about {size}"
    if 2 * steps[largest] > each[0]:
        return f"{what}. Lower batch size or width, or train on smaller images"
    return f"{what}. --cpus 1 takes the least" if trials > 1 else what


def evaluations_beside(cells: Sequence[Cell], settings: Settings, dataset: Dataset, trials: int) -> int:
    """How many processes that evaluate fit beside so many trials of the largest of these cells."""
    largest = max(step_bytes(settings.model(cell), settings.at(cell).batch_size) for cell in cells)
    room = machine.memory_for_trials(dataset) - trials * machine.trial_bytes(dataset, largest)
    return max(0, room // machine.evaluation_bytes(dataset))


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.0f} MiB"
