"""The record of a cell, and the names and checks of the files beside it. No torch, no Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from dae.architecture import mac_count, parameter_count
from dae.config import GAUSSIAN, HE, ImageShape, parse_latent
from sweep.records.axes import Value
from sweep.records.grid import Cell, Settings, written
from sweep.storage.sealing import Damaged, digest, dump_json, load_json, unseal
from sweep.storage.store import Store

SCHEMA = 1
LATER_SETTINGS: dict[str, Any] = {
    "latent_bias": 0.0,
    "noise": GAUSSIAN,
    "initialisation": HE,
    "warmup": 0,
    "averaging": 0.0,
    "image": str(ImageShape()),
    "patch": None,
}
"""Settings that the first records do not have, with the values that those were made with."""
CELLS_AT_A_TIME = 64
"""Whose files are read side by side and held in memory together."""
LOST = "lost: "
"""Begins the reason of an attempt whose process or node died."""
DRAINED = "drained: "
"""Begins the reason of an attempt whose node was drained, as spot nodes are; not counted as a loss."""


class Status(StrEnum):
    """How far a cell has come."""

    COMPLETED = "completed"
    DIVERGED = "diverged"
    FAILED = "failed"
    PRUNED = "pruned"
    """The scheduler of a search ended it early."""
    STOPPED = "stopped"
    """A user ended it, from outside of its run."""
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """The record says running, but no live run holds the sweep; never written."""
    MISSING = "missing"
    """The cell has no record; never written."""

    @property
    def is_final(self) -> bool:
        """Whether another run does not train the cell again."""
        return self in {Status.COMPLETED, Status.DIVERGED, Status.PRUNED, Status.STOPPED}


class Failure(StrEnum):
    """Why a cell failed."""

    MEMORY = "memory"
    """The device or the host ran out of memory; the cell may succeed when trained alone."""
    PROGRAM = "program"
    """An error in the code or the data, which other cells will have too."""
    LOST = "lost"
    """Its process or node died more often than is retried."""
    STORAGE = "storage"
    """The sweep folder could not be read or written. Trials report it; it is never written."""


class CellFiles:
    """Paths of a cell's files below the sweep folder."""

    def __init__(self, key: str) -> None:
        folder = f"cells/{key}"
        self.record = f"{folder}/record.json"
        self.proposal = f"{folder}/proposal.json"
        self.weights = f"{folder}/model.safetensors"
        self.test = f"{folder}/test.npz"
        self.quality = f"{folder}/quality.npz"
        self.checkpoint = f"{folder}/checkpoint.pt"
        self.log = f"{folder}/log.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """One finished epoch, counted from 1. Losses are mean squared errors per pixel; ``seconds`` is its duration."""

    epoch: int
    train_loss: float
    val_loss: float
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One trial's work on a cell; ``reason`` says how it ended, None while it runs. Times as `now` gives them."""

    token: str
    started_at: str
    ended_at: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Everything known of one cell: the fields of ``record.json``.

    Losses are mean squared errors per pixel; ``test_psnr_db`` is 10 log10(1 / test_loss).
    """

    key: str
    architecture: str
    depth: int
    latent: int | str
    """A number, or height and width such as ``13x8``."""
    seed: int
    status: Status
    config: Mapping[str, Any]
    parameters: int
    macs: int
    compression: float
    dataset: Mapping[str, str]
    schema: int = SCHEMA
    axes: Mapping[str, Value] = field(default_factory=dict)
    """Where ``config`` differs from the sweep's settings."""
    collapsed: bool = False
    unconverged: bool = False
    history: tuple[Epoch, ...] = ()
    test_loss: float | None = None
    test_psnr_db: float | None = None
    dead_latent_channels: int | None = None
    """Number of latent channels that are 0 for every image, so that the latent is smaller than its architecture's."""
    generation: int = 0
    """How often the cell was started again from its first epoch; a W&B run belongs to one generation."""
    attempts: tuple[Attempt, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    started_at: str | None = None
    finished_at: str | None = None
    error: str | None = None
    failure: Failure | None = None

    @classmethod
    def new(cls, cell: Cell, settings: Settings, dataset: Mapping[str, str]) -> Self:
        """The record of a cell whose training begins."""
        model = settings.model(cell)
        return cls(
            key=cell.key,
            architecture=cell.architecture,
            depth=cell.depth,
            latent=cell.latent_label,
            seed=cell.seed,
            axes=dict(cell.axes),
            status=Status.RUNNING,
            config=settings.config(cell),
            parameters=parameter_count(model),
            macs=mac_count(model),
            compression=model.compression,
            dataset=dataset,
        )

    @property
    def cell(self) -> Cell:
        """The cell of this record."""
        latent = parse_latent(self.latent) if isinstance(self.latent, str) else self.latent
        return Cell(depth=self.depth, latent=latent, seed=self.seed, axes=tuple(self.axes.items()))

    @property
    def times_lost(self) -> int:
        """How many of its attempts ended because their process or node died."""
        return sum((attempt.reason or "").startswith(LOST) for attempt in self.attempts)

    @property
    def val_loss(self) -> float | None:
        """The validation loss of its last epoch."""
        return self.history[-1].val_loss if self.history else None

    @property
    def test_sum(self) -> float | None:
        """The study's loss: squared error summed over the pixels of an image (section 3.1)."""
        shape = ImageShape.parse(self.config["image"])
        return None if self.test_loss is None else self.test_loss * shape.height * shape.width * shape.channels

    def to_bytes(self) -> bytes:
        """The content of ``record.json``."""
        return dump_json(asdict(self) | {"config": written(self.config)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The record that `to_bytes` wrote.

        Raises:
            Damaged: they are not a record.
            UserError: it has another schema.
        """
        document: dict[str, Any] = load_json(data, schema=SCHEMA)
        try:
            document["config"] = {**LATER_SETTINGS, **document["config"]}
            document["status"] = Status(document["status"])
            document["failure"] = document.get("failure") and Failure(document["failure"])
            document["history"] = tuple(Epoch(**epoch) for epoch in document["history"])
            document["attempts"] = tuple(Attempt(**attempt) for attempt in document["attempts"])
            names = {field.name for field in fields(cls)}
            return cls(**{name: value for name, value in document.items() if name in names})
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"it is not a record: {error}") from error


def read_record(store: Store, cell: Cell) -> Record:
    """The record of ``cell``.

    Raises:
        FileNotFoundError: it has none.
        Damaged: it is not what was written, or that of another cell.
        UserError: it has another schema.
    """
    return record_of(cell, store.read(CellFiles(cell.key).record))


def record_of(cell: Cell, content: bytes) -> Record:
    """The record of ``cell`` from the content of its file.

    Raises:
        Damaged: it is not what was written, or that of another cell.
        UserError: it has another schema.
    """
    record = Record.from_bytes(content)
    if record.key != cell.key or record.cell != cell:
        raise Damaged(f"it is the record of {record.key}")
    if [epoch.epoch for epoch in record.history] != list(range(1, len(record.history) + 1)):
        raise Damaged("its epochs are not 1, 2, 3, ...")
    return record


def read_verified(store: Store, name: str, digests: Mapping[str, str]) -> bytes:
    """The bytes of a file whose digest a record or the manifest holds.

    Args:
        store: the sweep's.
        name: the file's path below the sweep folder.
        digests: SHA-256 by file name, without folder.

    Raises:
        Damaged: it is not there, or not what was written.
    """
    return verified(name, store.read_all([name]), digests)


def verified(name: str, contents: Mapping[str, bytes], digests: Mapping[str, str]) -> bytes:
    """As `read_verified`, of a file that was read before.

    Raises:
        Damaged: it is not there, or not what was written.
    """
    data = contents.get(name)
    _check_digest(name, None if data is None else digest(data), digests)
    return data or b""


def _check_digest(name: str, actual: str | None, digests: Mapping[str, str]) -> None:
    if actual is None:
        raise Damaged(f"{name} is not there")
    if digests.get(name.rsplit("/", 1)[-1]) != actual:
        raise Damaged(f"{name} does not match its digest")


def check_files(store: Store, record: Record) -> None:
    """Check the files beside a record: weights and outputs of a completed cell, checkpoint of an unfinished one.

    Raises:
        Damaged: one is missing or not what was written.
    """
    if (reason := damage(store, [record]).get(record.key)) is not None:
        raise Damaged(reason)


def damage(store: Store, records: Sequence[Record]) -> dict[str, str]:
    """As `check_files`, of many cells: by key the reason, of those whose files cannot be used."""
    return _damage_of_completed(store, [record for record in records if record.status is Status.COMPLETED]) | (
        _damage_of_unfinished(store, [record for record in records if not record.status.is_final])
    )


def _damage_of_completed(store: Store, records: Sequence[Record]) -> dict[str, str]:
    digests = store.digests(name for record in records for name in _files_of_completed(record))
    reasons = {}
    for record in records:
        try:
            for name in _files_of_completed(record):
                _check_digest(name, digests.get(name), record.digests)
        except Damaged as error:
            reasons[record.key] = str(error)
    return reasons


def _damage_of_unfinished(store: Store, records: Sequence[Record]) -> dict[str, str]:
    reasons = {}
    for start in range(0, len(records), CELLS_AT_A_TIME):
        batch = records[start : start + CELLS_AT_A_TIME]
        contents = store.read_all(CellFiles(record.key).checkpoint for record in batch)
        for record in batch:
            try:
                _check_sealed(CellFiles(record.key).checkpoint, contents)
            except Damaged as error:
                reasons[record.key] = str(error)
    return reasons


def _files_of_completed(record: Record) -> tuple[str, ...]:
    files = CellFiles(record.key)
    # The trials of a search are not tested.
    return (files.weights,) if record.test_loss is None else (files.test, files.weights)


def check_checkpoint(store: Store, cell: Cell) -> None:
    """Check the checkpoint of a cell, if it has one.

    Raises:
        Damaged: it is not what was written.
    """
    name = CellFiles(cell.key).checkpoint
    _check_sealed(name, store.read_all([name]))


def _check_sealed(name: str, contents: Mapping[str, bytes]) -> None:
    try:
        if name in contents:
            unseal(contents[name])
    except Damaged as error:
        raise Damaged(f"{name}: {error}") from error


def ended_early(record: Record, status: Status, reason: str) -> Record:
    """The record of a running cell that others ended; its attempt is over, so that a late writer is refused."""
    attempts = record.attempts
    if attempts:
        attempts = (*attempts[:-1], replace(attempts[-1], ended_at=now(), reason=reason))
    return replace(record, status=status, attempts=attempts, finished_at=now())


def now() -> str:
    """The time as records give it: UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def duration(seconds: float) -> str:
    """Such as ``8 s``, ``2:05 min`` or ``1:02:03 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02} h"
