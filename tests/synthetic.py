"""Sweep folders with made-up results, written through the same records as real ones. No torch."""

import io
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sweep.grid import Cell, Grid, Settings
from sweep.records import MANIFEST, SAMPLES, Attempt, CellFiles, Epoch, Manifest, Record, Status
from sweep.store import Store, digest

STUDY_LOSSES = {
    (1, 13): 0.01532, (1, 8): 0.01639, (1, 5): 0.02012,
    (3, 13): 0.01095, (3, 8): 0.01110, (3, 5): 0.01255,
    (5, 13): 0.01009, (5, 8): 0.01063, (5, 5): 0.01069,
}  # fmt: skip
"""Test losses of the reference: full MNIST, width 16, one seed, 15 epochs."""

STUDY_GRID = Grid.product((1, 3, 5), (13, 8, 5), (0,))
TIME = "2025-01-02T03:04:05.678+00:00"
ENVIRONMENT = {"python": "3.11.7", "torch": "2.14.1", "ray": "2.60.0", "device": "cpu", "git_commit": "0123abc"}


def make_sweep(
    folder: Path,
    grid: Grid = STUDY_GRID,
    *,
    losses: Mapping[tuple[int, int], float] = STUDY_LOSSES,
    statuses: Mapping[str, Status] | None = None,
    flags: Mapping[str, str] | None = None,
    digits: np.ndarray | None = None,
    num_test: int = 200,
    seed_sd: float = 1e-4,
    name: str = "study",
    errors: Mapping[str, str] | None = None,
) -> Store:
    """Write a sweep to ``folder``.

    ``losses`` are test losses by (depth, latent), the rest is invented; seed 0 has them exactly, other seeds
    scatter by ``seed_sd``. ``statuses`` names the cells that are not completed, ``flags`` those that are
    ``collapsed`` or ``unconverged``. ``digits`` are ten images, drawn if left out.
    """
    statuses, store, settings = statuses or {}, Store(folder), Settings()
    clean = drawn_digits() if digits is None else digits.astype(np.float32)
    generator = np.random.default_rng(7)
    mean_image = clean.mean(axis=0)
    samples = _npz(
        clean=clean,
        noisy=np.clip(clean + 0.5 * generator.standard_normal(clean.shape), 0, 1).astype(np.float32),
        labels=np.arange(10),
        mean_image=mean_image,
        class_means=clean,
    )
    store.write(SAMPLES, samples)
    manifest = Manifest.new(
        name=name,
        grid=grid,
        settings=settings,
        dataset={"name": "mnist", "fingerprint": "f" * 64, "train": 48000, "validation": 12000, "test": num_test},
        baselines={"identity": 0.1163, "mean_image": 0.0674},
        digests={SAMPLES: digest(samples)},
    )
    manifest = replace(manifest, id="0" * 32, created_at=TIME)
    store.write(MANIFEST, manifest.to_bytes())
    for cell in grid.cells:
        status = statuses.get(cell.key, Status.COMPLETED)
        if status is Status.MISSING:
            continue
        record = _record(cell, settings, status, losses, seed_sd, (flags or {}).get(cell.key), (errors or {}))
        if status is Status.COMPLETED:
            assert record.test_loss is not None
            test = outputs(record.test_loss, clean, mean_image, num_test, seed=cell.seed)
            weights = b"not read by what this sweep is for"
            store.write(CellFiles(cell.key).test, test)
            store.write(CellFiles(cell.key).weights, weights)
            record = replace(record, digests={"test.npz": digest(test), "model.safetensors": digest(weights)})
        store.write(CellFiles(cell.key).record, record.to_bytes())
    return store


def invented_loss(depth: int, latent: int) -> float:
    """A smooth surface through the middle of the reference, for grids it does not cover."""
    return 0.0088 + 0.006 / depth + 0.02 / (latent * math.sqrt(depth))


def _record(
    cell: Cell,
    settings: Settings,
    status: Status,
    losses: Mapping[tuple[int, int], float],
    seed_sd: float,
    flag: str | None,
    errors: Mapping[str, str],
) -> Record:
    test_loss = losses.get((cell.depth, cell.latent), invented_loss(cell.depth, cell.latent))
    if cell.seed:
        generator = np.random.default_rng((cell.depth, cell.latent, cell.seed))
        test_loss += seed_sd * float(generator.standard_normal())
    is_done = status is Status.COMPLETED
    epochs = settings.epochs if is_done else 6
    return replace(
        Record.new(cell, settings, {"name": "mnist", "fingerprint": "f" * 64}),
        status=status,
        collapsed=flag == "collapsed",
        unconverged=flag == "unconverged",
        history=tuple(_epoch(n, test_loss) for n in range(1, epochs + 1)),
        test_loss=test_loss if is_done else None,
        test_psnr_db=-10 * math.log10(test_loss) if is_done else None,
        attempts=(Attempt(token="t", started_at=TIME, ended_at=TIME, reason=str(status)),),
        environment=ENVIRONMENT,
        started_at=TIME,
        finished_at=TIME if status.is_final else None,
        error=errors.get(cell.key, "RuntimeError: made to fail") if status is Status.FAILED else None,
    )


def _epoch(n: int, floor: float) -> Epoch:
    above = 1 + 1.8 * math.exp(-(n - 1) / 2.2) + 0.25 / n - 0.25 / 15
    late = 1 + 2.6 * math.exp(-(n - 1) / 1.6) + 0.4 / n - 0.4 / 15
    return Epoch(epoch=n, train_loss=floor * late * 1.004, val_loss=floor * above * 1.01, seconds=4.25)


def outputs(loss: float, clean: np.ndarray, mean_image: np.ndarray, num_test: int, *, seed: int = 0) -> bytes:
    """A cell's ``test.npz``: images pulled towards the mean the more, the higher the loss."""
    generator = np.random.default_rng(seed)
    per_image = generator.gamma(6, size=num_test)
    pull = min(0.9, 12 * loss)
    rebuilt = (1 - pull) * clean + pull * mean_image
    return _npz(
        loss=(per_image * loss / per_image.mean()).astype(np.float32),
        samples=rebuilt.astype(np.float32),
        class_means=rebuilt.astype(np.float32),
        to_mean=np.full(num_test, 0.0674 * (1 - pull) ** 2, np.float32),
    )


def drawn_digits() -> np.ndarray:
    """The digits 0 to 9 in a blocky font, (10, 28, 28) in [0, 1]."""
    rows = ["75557", "26227", "71747", "71717", "55711", "74717", "74757", "71111", "75757", "75717"]
    digits = np.zeros((10, 28, 28), np.float32)
    for digit, row in enumerate(rows):
        bits = np.array([[int(bit) for bit in f"{int(line):03b}"] for line in row], np.float32)
        digits[digit, 4:24, 8:20] = np.kron(bits, np.ones((4, 4), np.float32))
    return digits


def _npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()
