"""The details of every cell: its configuration, files, the end of its log and its loss curve."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from math import log

from sweep.analysis.findings import Findings
from sweep.analysis.results import flags_of
from sweep.records.grid import Cell, written
from sweep.records.record import CellFiles, Epoch, Status, duration
from sweep.records.sweep import Sweep
from sweep.report.words import mse, share

LOG_LINES = 12
"""Last lines of a cell's log that the page shows; the file has all."""


Facts = Sequence[tuple[str, str]]
"""Names and values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """One cell of the sweep as the page shows it.

    Attributes:
        facts: names and values, the configuration among them.
        files: what the file is and its path below the sweep's folder.
        curve: a picture of its losses as SVG, empty without epochs.
        log: the last lines of what the trial printed.
    """

    key: str
    status: str
    headline: str
    facts: Facts
    files: Sequence[tuple[str, str]]
    curve: str
    log: str
    error: str


def receipts(findings: Findings) -> dict[str, list[Receipt]]:
    """A receipt for every cell of the sweep, by architecture; without the facts that are the same for all cells."""
    labels = None if findings.references is None else findings.references.labels
    read = {
        key: quality.accuracy(labels)
        for facet in findings.facets
        for key, quality in facet.qualities.by_key.items()
        if labels is not None
    }
    sweep = findings.whole
    there = set(sweep.snapshot.names("cells"))
    logs = sweep.snapshot.read_all({CellFiles(cell.key).log for cell in sweep.manifest.grid.cells} & there)
    cells = sweep.manifest.grid.cells
    every = [_receipt(sweep, cell, read.get(cell.key), there, logs) for cell in cells]
    shared = _shared([receipt.facts for receipt in every if receipt.facts])
    by_architecture: dict[str, list[Receipt]] = {}
    for cell, receipt in zip(cells, every, strict=True):
        own = [fact for fact in receipt.facts if fact not in shared]
        by_architecture.setdefault(cell.architecture, []).append(replace(receipt, facts=own))
    return by_architecture


def _shared(facts_of_cells: Sequence[Facts]) -> Set[tuple[str, str]]:
    """The facts that all cells have; none of a single cell."""
    return set.intersection(*map(set, facts_of_cells)) if len(facts_of_cells) > 1 else set()


def _receipt(sweep: Sweep, cell: Cell, read: float | None, there: Set[str], logs: Mapping[str, bytes]) -> Receipt:
    """The receipt of a cell, from the names of the files that are there and the logs."""
    record = sweep.records.get(cell.key)
    if record is None:
        reason = sweep.damaged.get(cell.key, "")
        status = "damaged" if reason else str(Status.MISSING)
        return Receipt(
            key=cell.key, status=status, headline=status, facts=[], files=[], curve="", log="", error=reason
        )  # fmt: skip
    seconds = sum(epoch.seconds for epoch in record.history)
    flags = flags_of(record)
    loss = "" if record.test_loss is None else f"MSE {mse(record.test_loss)}"
    facts = [
        ("test loss", f"{loss} (PSNR {record.test_psnr_db or 0:.2f} dB)" if loss else ""),
        ("read rightly", "" if read is None else share(read)),
        ("epochs", f"{len(record.history)} in {duration(seconds)}"),
        ("attempts", ", ".join(attempt.reason or "unfinished" for attempt in record.attempts)),
        *(
            (name.replace("_", " "), "" if value is None else str(value))
            for name, value in written(record.config).items()
        ),
        *((name.replace("_", " "), str(value)) for name, value in sorted(record.environment.items())),
        *((f"SHA-256 of {name}", value) for name, value in sorted(record.digests.items())),
    ]
    names = CellFiles(cell.key)
    files = [("record", names.record), ("weights", names.weights), ("test outputs", names.test), ("log", names.log)]
    return Receipt(
        key=cell.key,
        status=str(record.status),
        headline=" · ".join([str(record.status), *([loss] if loss else []), *flags]),
        facts=[(name, value) for name, value in facts if value],
        files=[(what, name) for what, name in files if name in there],
        curve=curve(record.history),
        log=_tail(logs.get(names.log, b"")),
        error=record.error or "",
    )


def _tail(log: bytes) -> str:
    lines = log.decode(errors="replace").splitlines()
    return "\n".join(line[:240] for line in lines[-LOG_LINES:])


def curve(history: Sequence[Epoch], width: int = 300, height: int = 110) -> str:
    """Training (dashed) and validation loss by epoch on a logarithmic scale, as a small SVG."""
    losses = [value for epoch in history for value in (epoch.train_loss, epoch.val_loss) if value > 0]
    if not losses:
        return ""
    low, high = log(min(losses)), log(max(losses))
    left, bottom, right = 46, 16, 6

    def place(epoch: Epoch, loss: float) -> str:
        x = left + (width - left - right) * (epoch.epoch - 1) / max(1, len(history) - 1)
        y = 6 + (height - bottom - 6) * (high - log(max(loss, 1e-12))) / ((high - low) or 1)
        return f"{x:.1f},{min(y, height - bottom):.1f}"

    def line(name: str, dashes: str) -> str:
        points = " ".join(place(epoch, getattr(epoch, name)) for epoch in history)
        return f'<polyline points="{points}" fill="none" stroke="#22577a" stroke-width="1.5"{dashes}/>'

    style = 'font-size="9" fill="#5c5c5c"'
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="loss by epoch">{line("train_loss", chr(32) + "stroke-dasharray=" + chr(34) + "4 2" + chr(34))}'
        f"{line('val_loss', '')}"
        f'<text x="{left - 4}" y="10" text-anchor="end" {style}>{max(losses):.4f}</text>'
        f'<text x="{left - 4}" y="{height - bottom}" text-anchor="end" {style}>{min(losses):.4f}</text>'
        f'<text x="{left}" y="{height - 4}" {style}>epoch 1</text>'
        f'<text x="{width - right}" y="{height - 4}" text-anchor="end" {style}>{len(history)}</text></svg>'
    )
