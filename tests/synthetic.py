"""Sweep folders with made-up results, written through the same records as real ones. No torch."""

import io
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dae.config import side
from sweep.records.grid import Cell, Grid, Settings
from sweep.records.quality import Baseline, Condition, Quality, ReaderSummary, References
from sweep.records.record import Attempt, CellFiles, Epoch, Record, Status
from sweep.records.sweep import MANIFEST, SAMPLES, Manifest, gather, samples_file
from sweep.storage.sealing import digest
from sweep.storage.store import Store

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
    settings: Settings | None = None,
) -> Store:
    """Write a sweep to ``folder``.

    ``losses`` are test losses by (depth, latent), the rest is invented; seed 0 has them exactly, other seeds
    scatter by ``seed_sd``; on an axis of strength they grow with it. ``statuses`` names the cells that are not
    completed, ``flags`` those that are ``collapsed`` or ``unconverged``. ``digits`` are ten images, drawn if left out.
    """
    statuses, store, settings = statuses or {}, Store(folder), settings or Settings()
    clean = drawn_digits() if digits is None else digits.astype(np.float32)
    generator = np.random.default_rng(7)
    mean_image = clean.mean(axis=0)
    digests, conditions = {}, {}
    for cell in (Cell(depth=1, latent=1, seed=0), *grid.cells):
        file, alpha = samples_file(cell.axes), settings.at(cell).alpha
        if file in digests:
            continue
        samples = _npz(
            clean=clean,
            noisy=np.clip(clean + alpha * generator.standard_normal(clean.shape), 0, 1).astype(np.float32),
            labels=np.arange(10),
            mean_image=mean_image,
            class_means=clean,
        )
        store.write(file, samples)
        digests[file] = digest(samples)
        conditions[file] = {"identity": 0.1163 * alpha / 0.5, "mean_image": 0.0674}
    manifest = Manifest.new(
        name=name,
        grid=grid,
        settings=settings,
        dataset={"name": "mnist", "fingerprint": "f" * 64, "train": 48000, "validation": 12000, "test": num_test},
        baselines=conditions.pop(SAMPLES),
        conditions=conditions,
        digests=digests,
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
            store.write(CellFiles(cell.key).log, f"{cell.key}: epoch 15 <done>\n".encode())
            store.write(CellFiles(cell.key).weights, weights)
            record = replace(record, digests={"test.npz": digest(test), "model.safetensors": digest(weights)})
        store.write(CellFiles(cell.key).record, record.to_bytes())
    return store


def invented_loss(depth: int, latent: float) -> float:
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
    sides = settings.model(cell).latent_sides
    size = cell.latent if isinstance(cell.latent, int) else sides.height * sides.width
    test_loss = losses.get((cell.depth, size), invented_loss(cell.depth, side(cell.latent)))
    test_loss *= settings.at(cell).alpha / settings.alpha
    if cell.seed:
        generator = np.random.default_rng((cell.depth, size, cell.seed))
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


def add_evaluation(store: Store, *, noise: str = "gaussian", alpha: float = 0.5) -> None:
    """Give a made-up sweep the files that `sweep.evaluation` would write; its cells read the better, the less loss."""
    sweep = gather(store)
    generator = np.random.default_rng(11)
    n, labels = sweep.manifest.dataset["test"], np.arange(sweep.manifest.dataset["test"], dtype=np.uint8) % 10
    clean = drawn_digits()

    def read(accuracy: float) -> np.ndarray:
        return np.where(generator.random(n) < accuracy, labels, (labels + 1) % 10).astype(np.uint8)

    def baseline(name: str, family: str, loss: float, latent: int | None = None, **parameters: Any) -> Baseline:
        losses = generator.gamma(6, size=n)
        return Baseline(
            name=name,
            family=family,
            latent=latent,
            parameters=parameters,
            test_loss=loss,
            test_psnr_db=-10 * math.log10(loss),
            ssim=1 - 5 * loss,
            accuracy=1 - 3 * loss,
            loss=(losses * loss / losses.mean()).astype(np.float32),
        )

    latents = sorted({4 * cell.latent**2 for cell in sweep.manifest.grid.cells}, reverse=True)
    baselines = [
        baseline("doing nothing", "none", 0.1163),
        baseline("mean image", "none", 0.0674),
        baseline("mean filter", "filter", 0.059, size=3),
        baseline("median filter", "filter", 0.038, size=5),
        baseline("Gaussian filter", "filter", 0.057, sigma=1.0),
        baseline("Wiener filter", "filter", 0.055, size=3, noise=0.1),
        baseline("total variation", "filter", 0.035, weight=2.0),
        *[baseline(f"PCA {latent}", "linear", 0.05 + latent * 5e-5, latent) for latent in latents],
        *[
            baseline(f"reduced-rank regression {latent}", "linear", 0.02 + 0.2 / latent, latent, ridge=1e-3)
            for latent in latents
        ],
    ]
    references = References(
        dataset=sweep.manifest.dataset["fingerprint"],
        train=sweep.manifest.dataset["train"],
        settings={"ssim": "made up"},
        reader=ReaderSummary(
            accuracy_clean=0.993, accuracy_validation=0.992, epochs=5, parameters=20_000, sha256="j" * 64
        ),
        conditions=(
            Condition(
                noise=noise,
                alpha=alpha,
                accuracy_noisy=0.8,
                baselines=tuple(baselines),
                read_noisy=read(0.8),
            ),
        ),
        labels=labels,
        read_clean=read(0.993),
    )
    for name, content in references.to_files().items():
        store.write(name, content)
    strengths = np.array([0, 0.25, 0.5, 0.75, 1])
    for record in sweep.completed:
        loss = record.test_loss or 0
        shown = np.stack([clean[:3], np.clip(clean[:3] + 0.3, 0, 1), clean[:3] * 0.8], axis=1)
        quality = Quality(
            weights=record.digests.get("model.safetensors", ""),
            reader="j" * 64,
            ssim=np.clip(1 - 8 * loss * generator.gamma(6, size=n) / 6, 0, 1).astype(np.float32),
            read=read(0.99 - 3 * loss),
            shown_index=np.arange(3),
            shown=shown.astype(np.float32),
            robust_noise=np.array([noise] * len(strengths)),
            robust_alpha=strengths,
            robust_loss=loss * (0.5 + (strengths / 0.5) ** 2) / 1.5,
        )
        store.write(CellFiles(record.key).quality, quality.to_bytes())
