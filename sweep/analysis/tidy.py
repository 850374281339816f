"""A sweep as tidy rows, one a cell and one a cell and epoch: for ``results.csv``, ``history.csv`` and data frames."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dae.config import Latent
from sweep.records.axes import AXES
from sweep.records.grid import Cell, written
from sweep.records.record import Status
from sweep.records.sweep import Sweep

if TYPE_CHECKING:
    from sweep.analysis.findings import Findings

CELL_COLUMNS = {
    "key": "name of the cell, such as `DAE_5_13-s0`",
    "architecture": "the study's name, such as `DAE_5_13`",
    "depth": "convolutions of one side",
    "latent": "side of the latent maps in pixels; of images that are not square the shorter, or `13x8`, and then text "
    "in all rows",
    "seed": "seed of weights, batch order and noise",
    "alpha": "strength of the noise",
    "averaging": "decay a step of the moving average of the weights",
    "batch_size": "images a batch",
    "latent_channels": "channels of the latent space",
    "lr": "Adam's learning rate",
    "noise": "kind of noise",
    "warmup": "epochs in which the learning rate rises",
    "width": "channels between stem and neck",
    "status": "completed, diverged, failed, pruned, stopped, interrupted, running or missing",
    "collapsed": "no better than predicting the mean image",
    "unconverged": "validation loss still falling by over 1 % an epoch",
    "test_loss": "mean squared error per pixel; empty unless completed",
    "test_psnr_db": "10 log10(1 / test_loss)",
    "test_sum": "test_loss times the numbers of an image (784 for 28x28): the study's loss",
    "ssim": "structural similarity, mean over the test images; empty where not evaluated",
    "accuracy": "share of its denoised test images that the reader reads rightly; empty where not evaluated",
    "parameters": "trainable parameters",
    "macs": "multiply-accumulates of one image, forward, convolutions only",
    "compression": "latent elements per number of the image",
    "generation": "how often the cell was begun anew",
    "started_at": "UTC",
    "finished_at": "UTC",
    "error": "why it failed",
}
"""What `cells` and ``results.csv`` hold, followed by ``config.*``, ``dataset.*`` and ``environment.*``."""

EPOCH_COLUMNS = {
    **{name: CELL_COLUMNS[name] for name in ("key", "architecture", "depth", "latent", "seed", *AXES, "status")},
    "epoch": "from 1",
    "train_loss": "mean over the batches of the epoch, under weights still improving; MSE per pixel",
    "val_loss": "after the epoch; MSE per pixel",
    "seconds": "the epoch took",
}
"""What `epochs` and ``history.csv`` hold."""

_RECORD_COLUMNS = (
    "status", "collapsed", "unconverged", "test_loss", "test_psnr_db", "test_sum", "parameters", "macs", "compression",
    "generation", "started_at", "finished_at", "error",
)  # fmt: skip


def cell_rows(findings: "Findings") -> list[dict[str, Any]]:
    """A row a cell of the whole sweep; what is not there is None."""
    qualities = {key: quality for facet in findings.facets for key, quality in facet.qualities.by_key.items()}
    labels = None if findings.references is None else findings.references.labels
    sweep, rows = findings.whole, []
    latents = _latents(sweep)
    for cell in sweep.manifest.grid.cells:
        record = sweep.records.get(cell.key)
        row: dict[str, Any] = dict.fromkeys(CELL_COLUMNS) | _place(sweep, cell, latents)
        row |= {"status": str(sweep.status(cell)), "error": sweep.damaged.get(cell.key)}
        if record is not None:
            row |= {name: getattr(record, name) for name in _RECORD_COLUMNS} | {"status": str(record.status)}
            if record.status is not Status.COMPLETED:
                row |= dict.fromkeys(("test_loss", "test_psnr_db", "test_sum"))
            config = written(record.config) | {"latent": row["latent"]}
            parts = {"config": config, "dataset": record.dataset, "environment": record.environment}
            for name, part in parts.items():
                row |= {f"{name}.{key}": value for key, value in part.items()}
        if (quality := qualities.get(cell.key)) is not None:
            row["ssim"] = float(quality.ssim.mean(dtype=float))
            row["accuracy"] = None if labels is None else quality.accuracy(labels)
        rows.append(row)
    return rows


def epoch_rows(findings: "Findings") -> list[dict[str, Any]]:
    """A row a cell and finished epoch of the whole sweep."""
    sweep = findings.whole
    latents = _latents(sweep)
    records = (sweep.records.get(cell.key) for cell in sweep.manifest.grid.cells)
    return [
        _place(sweep, record.cell, latents)
        | {"status": str(record.status)}
        | {name: getattr(epoch, name) for name in ("epoch", "train_loss", "val_loss", "seconds")}
        for record in records
        if record is not None
        for epoch in record.history
    ]


def _latents(sweep: Sweep) -> dict[Latent, int | str]:
    """The latent sizes as a column has them: all of one type, so that it can be sorted and grouped by."""
    latents = sweep.manifest.grid.latents
    has_pairs = any(isinstance(latent, tuple) for latent in latents)
    return {latent: str(latent) if has_pairs or isinstance(latent, tuple) else latent for latent in latents}


def _place(sweep: Sweep, cell: Cell, latents: Mapping[Latent, int | str]) -> dict[str, Any]:
    settings = sweep.manifest.settings.at(cell)
    names = ("key", "architecture", "depth", "latent", "seed")
    place = {name: getattr(cell, name) for name in names} | {"latent": latents[cell.latent]}
    return place | {name: getattr(settings, name) for name in AXES}
