"""What ``dae-sweep run --resolve`` does next: which seeds to add, or why to stop. Decides, and trains nothing.

The order of two architectures is looked at with the numbers of seeds in `statistics.LOOKS` and at no others.
Which pairs get more seeds depends on what was seen; how much chance of a false verdict a look may spend does not.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from sweep.analysis.arrays import Arrays, usable_records
from sweep.analysis.claims import Contrast, Factor, Split
from sweep.analysis.comparer import Comparer
from sweep.analysis.statistics import LOOKS, too_few_images
from sweep.analysis.verdicts import Verdict
from sweep.records.facets import facets
from sweep.records.grid import Cell
from sweep.records.sweep import Manifest, Sweep


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """The next round, or the end.

    Attributes:
        cells: what to train; empty where it ends.
        because: why, as a sentence without its full stop.
        seconds: training time of the cells one after the other, by what their architectures have taken so far.
    """

    cells: tuple[Cell, ...] = ()
    because: str
    seconds: float = 0.0


def with_look(sweep: Sweep) -> Manifest:
    """The manifest with a look recorded at all that is completed; as it was where nothing is new."""
    seen = {key for keys in sweep.manifest.looks for key in keys}
    new = tuple(record.key for record in usable_records(sweep) if record.key not in seen)
    return replace(sweep.manifest, looks=(*sweep.manifest.looks, new)) if new else sweep.manifest


def next_step(sweep: Sweep, contrasts: Sequence[Contrast], max_seeds: int) -> Step:
    """What to do after a look: seeds for all cells of the undecided `comparisons`, until more would decide none."""
    if not contrasts:
        return Step(because="there are no two architectures to compare")
    undecided = [contrast for contrast in contrasts if _is_undecided(contrast)]
    hopeful = [contrast for contrast in undecided if not _why_hopeless(contrast)]
    declared = _declared(sweep)
    wanted = {cell: None for contrast in hopeful for cell in _more_seeds(contrast, declared, max_seeds)}
    if wanted:
        because = f"{len(undecided)} of {len(contrasts)} comparisons are not decided yet"
        if all(contrast.effects[Split.TEST].p is None for contrast in contrasts):
            because = "one seed says nothing of the spread over seeds, so that nothing is decided yet"
        return Step(cells=tuple(wanted), because=because, seconds=sum(_seconds(wanted, sweep)))
    if not undecided:
        return Step(because=f"all {len(contrasts)} comparisons are decided")
    reasons = Counter(_why_hopeless(contrast) or f"--max-seeds {max_seeds} is reached" for contrast in undecided)
    listed = "; ".join(f"{count} because {reason}" for reason, count in reasons.items())
    return Step(because=f"{len(undecided)} of {len(contrasts)} comparisons are not decided: {listed}")


def comparisons(sweep: Sweep, arrays: Arrays) -> list[Contrast]:
    """What is to be decided: all pairs that are comparable, and the averages that the claim on depth is about."""
    return list(_comparisons(sweep, arrays))


def _comparisons(sweep: Sweep, arrays: Arrays) -> Iterator[Contrast]:
    for _, facet in facets(sweep):
        comparer = Comparer(facet, arrays, (Split.TEST,))
        for factor in Factor:
            claim = comparer.claim(factor)
            yield from claim.comparable_pairs()
            yield from (contrast for contrast in claim.answers if len(contrast.cells) > 2)


def _is_undecided(contrast: Contrast) -> bool:
    return contrast.effects[Split.TEST].verdict in {Verdict.NOT_RESOLVED, Verdict.WITHHELD, Verdict.ONE_SEED}


def _why_hopeless(contrast: Contrast) -> str:
    """Why more seeds would not decide it; empty where they may."""
    effect = contrast.effects[Split.TEST]
    if effect.withheld:
        return effect.withheld
    if effect.open_level and effect.estimate and too_few_images(effect.estimate, effect.open_level):
        return "the difference is too small for this number of test images, whatever the seeds"
    return ""


def _declared(sweep: Sweep) -> dict[Cell, set[int]]:
    """The seeds of the grid, by what is compared."""
    seeds: dict[Cell, set[int]] = {}
    for cell in sweep.manifest.grid.cells:
        seeds.setdefault(replace(cell, seed=0), set()).add(cell.seed)
    return seeds


def _more_seeds(contrast: Contrast, declared: dict[Cell, set[int]], max_seeds: int) -> list[Cell]:
    """The cells that bring a comparison to its next look; none where the budget of seeds does not reach it."""
    shared = set.intersection(*(declared[cell] for cell in contrast.cells))
    goal = min(next((look for look in LOOKS if look > len(shared)), max_seeds), max_seeds)
    # Seeds that the sweep has already come first: the cells of other comparisons may be there.
    everywhere = sorted(set.union(*declared.values()))
    unused = (seed for seed in range(len(everywhere) + goal) if seed not in everywhere)
    added = [seed for seed in (*everywhere, *unused) if seed not in shared][: max(0, goal - len(shared))]
    return [replace(cell, seed=seed) for cell in contrast.cells for seed in added if seed not in declared[cell]]


def _seconds(cells: Iterable[Cell], sweep: Sweep) -> Iterator[float]:
    taken: dict[Cell, list[float]] = {}
    for record in usable_records(sweep):
        taken.setdefault(replace(record.cell, seed=0), []).append(sum(epoch.seconds for epoch in record.history))
    means = {cell: fmean(values) for cell, values in taken.items()}
    return (means.get(replace(cell, seed=0), fmean(means.values())) for cell in cells)
