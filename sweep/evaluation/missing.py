"""What of a sweep's evaluation is there, in the sweep or beside it, and what is missing."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from dae import baselines
from dae.data import Dataset
from sweep.evaluation import tasks
from sweep.evaluation.shared import SharedReferences, merged
from sweep.evaluation.tasks import SETTINGS, Noise
from sweep.records.grid import Cell, Settings
from sweep.records.quality import READER, Condition, LeftOut, References, load_quality, load_references
from sweep.records.record import Record, read_verified
from sweep.records.sweep import Sweep
from sweep.storage.sealing import Damaged

Tell = Callable[[str], None]


class Missing(NamedTuple):
    """Baselines of one condition to compute: the filters or not, and linear ones with these numbers of elements.

    Others are only to be recorded as left out.
    """

    filters: bool
    latents: tuple[int, ...]
    left_out: tuple[LeftOut, ...]


def find_references(
    sweep: Sweep, cells: Iterable[Cell], dataset: Dataset, warn: Tell
) -> tuple[References | None, dict[Noise, Missing], SharedReferences]:
    """What there is for these cells, in the sweep or beside it, what is missing by noise, and what sweeps share.

    Args:
        sweep: takes over what the storage has.
        cells: those to evaluate, trained or not.
        dataset: loaded with the sweep's settings.
        warn: called with what is damaged.
    """
    shared = SharedReferences.beside(sweep.store, dataset, warn)
    references = _usable_references(sweep, warn) or _first_references(sweep, dataset, shared)
    wanted = _wanted_baselines(sweep.manifest.settings, cells)
    if references is not None:
        references = _with_shared_conditions(sweep, references, wanted, shared, dataset)
    return references, _missing_baselines(wanted, references, dataset), shared


def _usable_references(sweep: Sweep, warn: Tell) -> References | None:
    try:
        references = load_references(sweep)
        if references is None:
            return None
        if references.reader is not None:
            read_verified(sweep.store, READER, {READER: references.reader.sha256})
    except Damaged as error:
        warn(f"{error}: the references are computed anew")
        return None
    return references if dict(references.settings) == SETTINGS else None


def _first_references(sweep: Sweep, dataset: Dataset, shared: SharedReferences) -> References | None:
    """References with the reader that another sweep of the storage trained, now also this one's; None without one."""
    if not dataset.classes:
        return tasks.unread(dataset)
    if (known := shared.reader()) is None:
        return None
    references, weights = known
    sweep.store.write_all({READER: weights} | references.to_files())
    return references


def _with_shared_conditions(
    sweep: Sweep,
    references: References,
    wanted: dict[Noise, set[int]],
    shared: SharedReferences,
    dataset: Dataset,
) -> References:
    """The references with what other sweeps of the storage computed under the noises that are not complete."""
    adopted = references
    for noise in _missing_baselines(wanted, references, dataset):
        if (condition := shared.condition(noise, references.reader)) is not None:
            latents = wanted[noise] | {None}
            kept = tuple(one for one in condition.baselines if one.latent in latents)
            left_out = tuple(one for one in condition.left_out if one.latent in latents)
            adopted = with_condition(adopted, replace(condition, baselines=kept, left_out=left_out))
    if adopted is not references:
        sweep.store.write_all(adopted.to_files())
    return adopted


def with_condition(references: References, condition: Condition) -> References:
    """The references with the condition's baselines beside those that are known."""
    known = references.condition(condition.noise, condition.alpha)
    others = tuple(other for other in references.conditions if other is not known)
    return replace(references, conditions=(*others, condition if known is None else merged(known, condition)))


def to_evaluate(sweep: Sweep) -> list[Record]:
    """Completed cells that are tested."""
    return [record for record in sweep.completed if not sweep.manifest.is_trial(record.cell)]


def _wanted_baselines(settings: Settings, cells: Iterable[Cell]) -> dict[Noise, set[int]]:
    """The numbers of latent elements of the cells, by the noise of their training."""
    latents: dict[Noise, set[int]] = {}
    for cell in cells:
        at_cell = settings.at(cell)
        latents.setdefault(Noise(at_cell.noise, at_cell.alpha), set()).add(at_cell.model(cell).latent_numbers)
    return latents


def _missing_baselines(
    wanted: dict[Noise, set[int]], references: References | None, dataset: Dataset
) -> dict[Noise, Missing]:
    """What is missing under every noise; nothing of conditions that are complete."""
    missing = {}
    for noise, latents in wanted.items():
        condition = None if references is None else references.condition(*noise)
        new = sorted(latents - (condition.latents if condition else set()), reverse=True)
        if condition is None or new:
            reasons = {latent: baselines.reason_without_linear(dataset, latent) for latent in new}
            missing[noise] = Missing(
                condition is None,
                tuple(latent for latent, reason in reasons.items() if reason is None),
                tuple(LeftOut(latent, reason) for latent, reason in reasons.items() if reason is not None),
            )
    return missing


def unevaluated_cells(sweep: Sweep, references: References | None, warn: Tell) -> list[Record]:
    """Cells to evaluate without a quality that this reader took part in."""
    qualities = load_quality(sweep)
    tested = to_evaluate(sweep)
    for record in tested:
        if (reason := qualities.damaged.get(record.key)) is not None:
            warn(f"{reason}: it is computed anew")
    reader = None if references is None else references.reader.sha256 if references.reader else ""
    fresh = {key for key, quality in qualities.by_key.items() if quality.reader == reader}
    return [record for record in tested if record.key not in fresh]
