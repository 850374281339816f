"""Checks a sweep folder: test losses are computed again, and all files are checked."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from dae import engine
from dae.architecture import mac_count, parameter_count
from dae.data import Dataset
from dae.model import DenoisingAutoencoder
from dae.testset import TestSet, image_losses, psnr_db
from dae.training import EpochResult, Images, is_collapsed, is_unconverged
from sweep.records.facets import facets
from sweep.records.grid import Cell
from sweep.records.quality import READER, REFERENCE_ARRAYS, REFERENCES, load_quality, load_references, unpack
from sweep.records.record import CellFiles, Record, Status, read_verified
from sweep.records.sweep import CONTROL, IDENTITY, MANIFEST, REMOVED, SAMPLES, Sweep
from sweep.records.words import counted
from sweep.search.ranking import wanted
from sweep.storage.lease import LEASE_FOLDER
from sweep.storage.pack import FOLDER as PACK_FOLDER
from sweep.storage.sealing import Damaged
from sweep.storage.store import LOCK_FILE, MARKER_FOLDER

TOLERANCE = 1e-3
"""Relative difference allowed where another device or torch made the record: GPUs may convolve with 10-bit mantissas
(TF32). The losses of the same CPU type, its instructions and torch have to be equal to the bit."""

ROUNDING = 1e-6
"""The same where the record does not say which instructions its CPU had, or others: sums are then rounded otherwise."""

KNOWN_FILES = {MANIFEST, SAMPLES, IDENTITY, LOCK_FILE, REFERENCES, REFERENCE_ARRAYS, READER}
KNOWN_FOLDERS = {"cells", "report", "wandb", CONTROL, REMOVED, LEASE_FOLDER, MARKER_FOLDER, PACK_FOLDER}


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A contradiction in a sweep folder: the key of the cell or the file, and what is wrong with it."""

    where: str
    what: str


def verify(sweep: Sweep, dataset: Dataset, *, tell: Callable[[str], None] = lambda _line: None) -> list[Disagreement]:
    """Everything in a sweep folder that contradicts the rest of it or the dataset.

    Args:
        sweep: as `gather` read it.
        dataset: loaded with the sweep's settings.
        tell: called with the key of a cell when its loss was computed.
    """
    settings = sweep.manifest.settings
    images = Images(dataset, settings.alpha, "cpu", settings.noise)
    disagreements = list(_check_dataset(sweep, images))
    # As in trials: the bits of a loss depend on both.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        for cell in sweep.manifest.grid.cells:
            at_cell = settings.at(cell)
            under_its_noise = images.under(at_cell.alpha, at_cell.noise)
            disagreements += [Disagreement(cell.key, what) for what in _check_cell(sweep, cell, under_its_noise, tell)]
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
    disagreements += _check_evaluation(sweep)
    disagreements += [Disagreement(name, "is no file of this sweep") for name in _orphans(sweep)]
    return disagreements


def _check_evaluation(sweep: Sweep) -> Iterator[Disagreement]:
    references, qualities = None, load_quality(sweep)
    try:
        references = load_references(sweep)
        if references is not None and references.reader is not None:
            read_verified(sweep.store, READER, {READER: references.reader.sha256})
        if references is None and qualities.by_key:
            yield Disagreement(REFERENCES, "is not there, though cells were evaluated: dae-sweep run computes it")
    except Damaged as error:
        yield Disagreement(REFERENCES, str(error))
    for key, reason in qualities.damaged.items():
        yield Disagreement(key, reason)
    if references is None and not qualities.by_key:
        return
    for record in sweep.completed:
        if record.test_loss is not None and record.key not in {*qualities.by_key, *qualities.damaged}:
            missing = CellFiles(record.key).quality
            yield Disagreement(record.key, f"is not evaluated, {missing} is not there: dae-sweep run computes it")


def _check_dataset(sweep: Sweep, images: Images) -> Iterator[Disagreement]:
    manifest, dataset = sweep.manifest, images.dataset
    if (declared := manifest.dataset.get("fingerprint")) != dataset.fingerprint:
        what = f"declares the dataset {str(declared)[:12]}, at hand is {dataset.fingerprint[:12]}"
        yield Disagreement(MANIFEST, what)
    checked = set()
    for _, facet in facets(sweep):
        samples, settings = facet.manifest.samples, facet.manifest.settings
        if samples not in checked:  # facets may have the same noise
            checked.add(samples)
            yield from _check_noise(facet, images.under(settings.alpha, settings.noise).test_set)


def _check_noise(sweep: Sweep, test_set: TestSet) -> Iterator[Disagreement]:
    """Check the baselines and the sample images of the manifest under one noise."""
    manifest, name = sweep.manifest, sweep.manifest.samples
    for baseline, loss in test_set.baselines().items():
        recorded = manifest.baselines.get(baseline)
        if recorded is None or not math.isclose(recorded, loss, rel_tol=1e-6):
            yield Disagreement(MANIFEST, f"baseline {baseline} is {recorded}, computed anew {loss:.6f}")
    try:
        samples = unpack(read_verified(sweep.store, name, manifest.digests))
    except Damaged as error:
        yield Disagreement(name, str(error))
        return
    for kind, due in zip(("clean", "noisy"), test_set.shown(), strict=True):
        if not np.array_equal(samples.get(kind, ()), due):
            yield Disagreement(name, f"its {kind} {manifest.noun}s are not those of the dataset")


def _check_cell(sweep: Sweep, cell: Cell, images: Images, tell: Callable[[str], None]) -> Iterator[str]:
    record = sweep.records.get(cell.key)
    if cell.key in sweep.damaged:
        yield sweep.damaged[cell.key]
    elif record is None or not record.status.is_final:
        if sweep.manifest.search is not None and cell not in wanted(sweep):
            return  # of a former finalist, that no command asks for any more
        yield f"is {sweep.status(cell)}: the sweep is not complete"
    else:
        yield from _check_record(sweep, record, images)
        if record.status is Status.COMPLETED and not (record.test_loss is None and sweep.manifest.is_trial(cell)):
            try:
                yield from _check_loss(sweep, record, images)
            except Damaged as error:
                yield str(error)
            else:
                tell(cell.key)


def _check_record(sweep: Sweep, record: Record, images: Images) -> Iterator[str]:
    """Check what a record says, without its weights."""
    settings = sweep.manifest.settings
    model = settings.model(record.cell)
    if record.dataset.get("fingerprint") != images.dataset.fingerprint:
        yield f"was trained on other data: {str(record.dataset.get('fingerprint'))[:12]}"
    for name, due in settings.config(record.cell).items():
        if record.config.get(name) != due:
            yield f"was made with {name} {record.config.get(name)}, the sweep declares {due}"
    for name, number in (("parameters", parameter_count(model)), ("macs", mac_count(model))):
        if getattr(record, name) != number:
            yield f"says {getattr(record, name)} {name}, the architecture has {number}"
    if record.status is not Status.COMPLETED:
        return
    if len(record.history) != settings.epochs:
        yield f"has {counted(len(record.history), 'epoch')}, not {settings.epochs}"
    if not all(math.isfinite(loss) for epoch in record.history for loss in (epoch.train_loss, epoch.val_loss)):
        yield "has a loss that is not finite"
    elif record.history:
        history = [EpochResult(**asdict(epoch)) for epoch in record.history]
        mean_image_loss = images.test_set.mean_image_validation_loss
        for flag, is_so in (
            ("collapsed", is_collapsed(history, mean_image_loss)),
            ("unconverged", is_unconverged(history)),
        ):
            if getattr(record, flag) is not is_so:
                yield f"is{'' if getattr(record, flag) else ' not'} marked {flag}, against its own losses"


def _check_loss(sweep: Sweep, record: Record, images: Images) -> Iterator[str]:
    """Compare the test loss of the weights with that of the cell's array and that of its record."""
    files = CellFiles(record.key)
    stored = unpack(read_verified(sweep.store, files.test, record.digests)).get("loss")
    weights = read_verified(sweep.store, files.weights, record.digests)
    losses = _test_losses(weights, record, sweep, images)
    loss = float(losses.mean(dtype=np.float64))
    tolerance = _tolerance(record)
    if record.test_loss is None or not math.isclose(loss, record.test_loss, rel_tol=tolerance):
        yield f"its record says test loss {record.test_loss}, its weights give {loss}"
    if stored is None or stored.shape != losses.shape or not np.allclose(stored, losses, rtol=10 * tolerance, atol=0):
        yield f"{files.test} does not hold the losses that its weights give"
    elif float(stored.mean(dtype=np.float64)) != record.test_loss:
        yield f"its record says test loss {record.test_loss}, the mean of {files.test} is another"
    if record.test_loss is not None and record.test_loss > 0:
        due = psnr_db(record.test_loss)
        if record.test_psnr_db is None or not math.isclose(record.test_psnr_db, due, rel_tol=1e-9):
            yield f"says a PSNR of {record.test_psnr_db} dB, its test loss gives {due}"


def _test_losses(weights: bytes, record: Record, sweep: Sweep, images: Images) -> np.ndarray:
    """Squared error per pixel of every test image, shape (n,).

    Raises:
        Damaged: the weights are not those of the cell's architecture.
    """
    settings = sweep.manifest.settings
    model = DenoisingAutoencoder(settings.model(record.cell))
    try:
        model.load_state_dict(safetensors.torch.load(weights))
    except Exception as error:  # safetensors has its own exception class, torch a RuntimeError of many lines
        raise Damaged(f"its weights do not fit {record.architecture}: {str(error).splitlines()[0]}") from error
    test_set, dataset = images.test_set, images.dataset
    # By the engine that trained it: other implementations of a convolution round differently.
    runner = engine.build(model, settings.training(record.cell), images.train, dataset.low, dataset.high)
    losses = [image_losses(runner.denoise_array(noisy), clean) for _, clean, noisy in test_set.parts()]
    return np.concatenate(losses)


def _tolerance(record: Record) -> float:
    from sweep.trials.trial import environment

    here = environment("cpu", None)
    if any(record.environment.get(name) != here[name] for name in ("torch", "device")):
        return TOLERANCE
    return 0.0 if record.environment.get("instructions") == here["instructions"] else ROUNDING


def _orphans(sweep: Sweep) -> list[str]:
    """Paths of the files and folders below the sweep folder that do not belong to the sweep."""
    known = {Path(name) for name in (*KNOWN_FILES, *sweep.manifest.digests)}
    known |= {Path(name) for cell in sweep.manifest.grid.cells for name in vars(CellFiles(cell.key)).values()}
    folders = {path.parent for path in known} | {Path(name) for name in KNOWN_FOLDERS}
    orphans = []
    for name in sweep.store.names():
        path = Path(name)
        if path.parts[0] in KNOWN_FOLDERS - {"cells"} and not path.name.endswith(".partial"):
            continue
        if path not in (folders if name.endswith("/") else known) and path.parent in folders:
            orphans.append(str(path))
    return orphans
