"""What a sweep declares before anything is trained: its manifest, its sample images, and the cells left to train."""

import io
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from dae.config import DATASETS
from dae.data import Dataset
from dae.errors import UserError
from dae.testset import ClassMeans, TestSet, parts_of
from sweep.driver.removal import check_none_removed
from sweep.driver.request import Request
from sweep.records.agreement import check_sweep
from sweep.records.grid import STUDY_IMAGE, Cell, Grid, longest_first
from sweep.records.record import CellFiles, Record, check_checkpoint, damage, read_verified, record_of
from sweep.records.sweep import (
    IDENTITY,
    MANIFEST,
    REMOVED,
    SAMPLES,
    Manifest,
    Sweep,
    gather,
    read_proposals,
    samples_file,
)
from sweep.search.ranking import finalists
from sweep.storage.sealing import Damaged, digest, seal, unseal
from sweep.storage.store import Store


def declare(request: Request, dataset: Dataset, warn: Callable[[str], None]) -> Sweep:
    """Write the manifest, or extend the one that is there to the union of both grids.

    Raises:
        UserError: the request contradicts what the sweep already holds.
    """
    store, settings, described = request.store, request.settings, _describe(request, dataset)
    try:
        existing = gather(store)
    except FileNotFoundError:
        existing = None
    except Damaged as error:
        warn(f"{MANIFEST} is damaged ({error}): it is written anew from this command and the records")
        existing = None
    removed = tuple(store.folders(REMOVED)) if existing is None else existing.manifest.removed
    check_none_removed(request.grid, store, removed)
    snapshot = store.snapshot() if existing is None else existing.snapshot
    grid = request.grid if existing else request.grid.union(_recorded(snapshot, removed))
    if existing is None:
        if request.search is not None:
            for proposal in read_proposals(snapshot, snapshot.folders("cells")).values():
                request.search.check_continues(proposal.origin, store.name)
        manifest = Manifest.new(
            name=store.name,
            grid=grid,
            settings=settings,
            dataset=described,
            removed=removed,
            search=request.search,
            **_known_id(store),
        )
        records = gather_records(snapshot, grid)
    else:
        manifest = replace(existing.manifest, grid=grid.union(existing.manifest.grid), search=request.search)
        if "source" in manifest.dataset:  # where they are now, and how they are read there
            now: dict[str, Any] = {name: described[name] for name in ("source", "skip_unreadable") if name in described}
            manifest = replace(manifest, dataset={**_numbers(dataset), **manifest.dataset, **now})
        records = dict(existing.records)
        if request.search is not None:
            manifest = replace(manifest, grid=_asked(replace(existing, manifest=manifest), request.grid))
    if not records and (manifest.settings, manifest.dataset) != (settings, described):
        grid = Grid.of(map(settings.plain, manifest.grid.cells), settings.shape)
        # Without its digest a file counts for nothing: the sample images may be of other data or under other noise.
        manifest = replace(manifest, grid=grid, settings=settings, dataset=described, conditions={}, digests={})
    check_sweep(list(records.values()), settings, None if existing is None else existing.manifest)
    for record in records.values():
        _check_same(record, dataset)
    manifest = _with_samples(manifest, store, dataset)
    if existing is None or manifest != existing.manifest:
        store.write(IDENTITY, seal(manifest.id.encode()))
        store.write(MANIFEST, manifest.to_bytes())
    return gather(store, snapshot=snapshot)


def cells_to_train(sweep: Sweep, grid: Grid, warn: Callable[[str], None]) -> list[Cell]:
    """Cells of ``grid`` to train or to continue, longest first; also completed ones whose files are damaged."""
    todo = []
    unusable = damage(sweep.snapshot, [sweep.records[cell.key] for cell in grid.cells if cell.key in sweep.records])
    for cell in grid.cells:
        reason = unusable.get(cell.key)
        if cell.key in sweep.damaged:
            warn(f"{cell.key}: {sweep.damaged[cell.key]}; the cell is trained again")
            sweep.store.delete(CellFiles(cell.key).record)
        elif sweep.status(cell).is_final:
            if reason is None:
                continue
            warn(f"{reason}; {cell.key} is trained again")
        elif reason is not None:
            warn(f"the checkpoint of {cell.key} is damaged ({reason}): the cell is trained from the start")
        if cell.key in sweep.damaged or sweep.status(cell).is_final:
            try:
                check_checkpoint(sweep.store, cell)
            except Damaged as error:
                warn(f"the checkpoint of {cell.key} is damaged ({error}): the cell is trained from the start")
        todo.append(cell)
    return longest_first(todo, sweep.manifest.settings)


def _asked(sweep: Sweep, grid: Grid) -> Grid:
    """The cells of a search without those of former finalists that were never begun."""
    asked = {*grid.cells, *finalists(sweep)}
    known = {*sweep.records, *sweep.damaged}
    manifest = sweep.manifest
    cells = (c for c in manifest.grid.cells if c in asked or c.key in known or manifest.is_trial(c))
    return Grid.of(cells, manifest.grid.image)


def _with_samples(manifest: Manifest, store: Store, dataset: Dataset) -> Manifest:
    """Write the sample images under every noise of the sweep, where they are not there yet."""
    noises = {SAMPLES: manifest.settings}
    tested = [cell for cell in manifest.grid.cells if not manifest.is_trial(cell)]
    noises |= {samples_file(cell.axes): manifest.settings.at(cell) for cell in tested}
    for file, settings in noises.items():
        try:
            read_verified(store, file, manifest.digests)
            continue
        except Damaged:
            pass
        test_set = TestSet(dataset, settings.alpha, settings.noise)
        samples = _samples(test_set)
        store.write(file, samples)
        manifest = replace(manifest, digests={**manifest.digests, file: digest(samples)})
        if file == SAMPLES:
            manifest = replace(manifest, baselines=test_set.baselines())
        else:
            manifest = replace(manifest, conditions={**manifest.conditions, file: test_set.baselines()})
    return manifest


def _known_id(store: Store) -> dict[str, str]:
    """The id of a sweep whose manifest is lost."""
    try:
        return {"id": unseal(store.read(IDENTITY)).decode()}
    except (FileNotFoundError, Damaged):
        return {}


def _recorded(store: Store, removed: Collection[str]) -> Grid:
    """The cells that have a folder, where no manifest tells of them; a killed removal leaves some of its own."""
    cells = []
    for folder in set(store.folders("cells")) - set(removed):
        with suppress(ValueError):
            cells.append(Cell.from_key(folder))
    return Grid.of(cells)


def gather_records(store: Store, grid: Grid) -> dict[str, Record]:
    """The readable records of a grid, without a manifest."""
    records = {}
    contents = store.read_all(CellFiles(cell.key).record for cell in grid.cells)
    for cell in grid.cells:
        with suppress(KeyError, Damaged):
            records[cell.key] = record_of(cell, contents[CellFiles(cell.key).record])
    return records


def _check_same(record: Record, dataset: Dataset) -> None:
    if (trained_on := record.dataset["fingerprint"]) != dataset.fingerprint:
        raise UserError(
            f"{record.key} was trained on other data ({trained_on[:12]}) than is at hand ({dataset.fingerprint[:12]}). "
            f"Give another --name, or the {'--data-dir' if dataset.source is None else '--dataset'} it was trained on."
        )


def _describe(request: Request, dataset: Dataset) -> dict[str, Any]:
    """The manifest's ``dataset``; what is as in the study's datasets is left out, as in sweeps of older versions."""
    described: dict[str, Any] = {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "test": len(dataset.test),
        **({} if dataset.source is None else {"source": dataset.source}),
        **({} if dataset.source is None or not request.skip_unreadable else {"skip_unreadable": True}),
    }
    if dataset.name in DATASETS and dataset.shape == STUDY_IMAGE:
        return described
    described |= {"shape": str(dataset.shape), "low": dataset.low, "high": dataset.high}
    described |= {"classes": list(dataset.classes), "labelled": bool(dataset.classes)}
    described |= {} if dataset.pictures is None else {"pictures": list(dataset.pictures)}
    return described | ({"pairs": True} if dataset.noisy is not None else {}) | _numbers(dataset)


def _numbers(dataset: Dataset) -> dict[str, float]:
    """How pixels were made of a user's own numbers; empty where those were pixels."""
    return {} if dataset.numbers is None else asdict(dataset.numbers)


def _samples(test_set: TestSet) -> bytes:
    dataset, (clean, noisy), means = test_set.dataset, test_set.shown(), ClassMeans(test_set.dataset)
    for part in parts_of(dataset.test):
        means.add(part, dataset.unit(dataset.test[part]))
    labels = dataset.test_labels[test_set.samples] if dataset.classes else dataset.test_labels
    arrays = io.BytesIO()
    np.savez(
        arrays,
        clean=clean,
        noisy=noisy,
        labels=labels.astype(np.int64),
        mean_image=test_set.mean_image,
        class_means=means.result(),
    )
    return arrays.getvalue()
