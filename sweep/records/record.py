"""A cell's record, and the names and checks of the files beside it. No torch, no Ray."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from dae.architecture import mac_count, parameter_count
from dae.config import GAUSSIAN
from sweep.records.grid import Cell, Settings, Value
from sweep.storage.sealing import Damaged, digest, dump_json, load_json, unseal
from sweep.storage.store import Store

SCHEMA = 1
LATER_SETTINGS: dict[str, Any] = {"latent_bias": 0.0, "noise": GAUSSIAN}
"""Settings that came after the first records, and the values that those were made with."""
LOST = "lost: "
"""How the reason of an attempt begins whose process or node died."""
DRAINED = "drained: "
"""How it begins where the node was taken away in order, as spot nodes are: no failure, and not counted as a loss."""


class Status(StrEnum):
    """How far a cell has come."""

    COMPLETED = "completed"
    DIVERGED = "diverged"
    FAILED = "failed"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """Said of a running cell that no live run holds; never written."""
    MISSING = "missing"
    """Said of a cell without a record; never written."""

    @property
    def is_final(self) -> bool:
        """Whether another run leaves the cell alone."""
        return self in {Status.COMPLETED, Status.DIVERGED}


class Failure(StrEnum):
    """What kind of thing made a cell fail."""

    MEMORY = "memory"
    """The device or the host ran out of it; another round with all of it to itself may do."""
    PROGRAM = "program"
    """An error in the code or the data; other cells will meet it too."""
    LOST = "lost"
    """Its process or node died, more often than is retried."""
    STORAGE = "storage"
    """The sweep folder could not be read or written. Said by a trial; never written, for the cell is not at fault."""


class CellFiles:
    """Names of a cell's files below the sweep folder."""

    def __init__(self, key: str) -> None:
        folder = f"cells/{key}"
        self.record = f"{folder}/record.json"
        self.weights = f"{folder}/model.safetensors"
        self.test = f"{folder}/test.npz"
        self.quality = f"{folder}/quality.npz"
        self.checkpoint = f"{folder}/checkpoint.pt"
        self.log = f"{folder}/log.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """One finished epoch. Losses are mean squared errors per pixel."""

    epoch: int
    train_loss: float
    val_loss: float
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One trial's work on a cell; ``reason`` says how it ended, None while it runs."""

    token: str
    started_at: str
    ended_at: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Everything known of one cell; ``record.json`` is this, field by field.

    Losses are mean squared errors per pixel; ``test_psnr_db`` is 10 log10(1 / test_loss).
    """

    key: str
    architecture: str
    depth: int
    latent: int
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
    """Latent channels that are 0 whatever the image: the model works with a smaller latent than it was given."""
    generation: int = 0
    """How often the cell was begun anew; a W&B run belongs to one generation."""
    attempts: tuple[Attempt, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    started_at: str | None = None
    finished_at: str | None = None
    error: str | None = None
    failure: Failure | None = None

    @classmethod
    def new(cls, cell: Cell, settings: Settings, dataset: Mapping[str, str]) -> Self:
        """The record of a cell that has just begun."""
        model = settings.model(cell)
        return cls(
            key=cell.key,
            architecture=cell.architecture,
            depth=cell.depth,
            latent=cell.latent,
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
        """The cell this is the record of."""
        return Cell(depth=self.depth, latent=self.latent, seed=self.seed, axes=tuple(self.axes.items()))

    @property
    def losses(self) -> int:
        """How many of its attempts ended because their process or node died."""
        return sum((attempt.reason or "").startswith(LOST) for attempt in self.attempts)

    @property
    def test_sum(self) -> float | None:
        """The study's loss: squared error summed over the pixels of an image (section 3.1)."""
        return None if self.test_loss is None else self.test_loss * 28 * 28

    def to_bytes(self) -> bytes:
        """The content of ``record.json``."""
        return dump_json(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The record that `to_bytes` wrote.

        Raises:
            Damaged: it is not such a record.
            UserError: it has another schema.
        """
        document: dict[str, Any] = load_json(data, schema=SCHEMA)
        try:
            document["config"] = {**LATER_SETTINGS, **document["config"]}
            document["status"] = Status(document["status"])
            document["failure"] = document.get("failure") and Failure(document["failure"])
            document["history"] = tuple(Epoch(**epoch) for epoch in document["history"])
            document["attempts"] = tuple(Attempt(**attempt) for attempt in document["attempts"])
            known = {each.name for each in fields(cls)}
            return cls(**{name: value for name, value in document.items() if name in known})
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"it is not a record: {error}") from error


def read_record(store: Store, cell: Cell) -> Record:
    """The record of ``cell``.

    Raises:
        FileNotFoundError: it has none.
        Damaged: it is not what was written, or belongs to another cell.
    """
    return record_of(cell, store.read(CellFiles(cell.key).record))


def record_of(cell: Cell, content: bytes) -> Record:
    """The record of ``cell`` that these bytes hold.

    Raises:
        Damaged: they are not what was written, or belong to another cell.
    """
    record = Record.from_bytes(content)
    if record.key != cell.key or record.cell != cell:
        raise Damaged(f"it is the record of {record.key}")
    if [epoch.epoch for epoch in record.history] != list(range(1, len(record.history) + 1)):
        raise Damaged("its epochs are not 1, 2, 3, ...")
    return record


def read_verified(store: Store, name: str, digests: Mapping[str, str]) -> bytes:
    """A file that a record or the manifest vouches for, by its path below the sweep folder.

    Raises:
        Damaged: it is not there, or not what was written.
    """
    try:
        data = store.read(name)
    except FileNotFoundError:
        raise Damaged(f"{name} is not there") from None
    if digests.get(name.rsplit("/", 1)[-1]) != digest(data):
        raise Damaged(f"{name} does not match its digest")
    return data


def check_files(store: Store, record: Record) -> None:
    """Whether the files beside a record can be trusted: outputs of a completed cell, checkpoint of an unfinished one.

    Raises:
        Damaged: one is not what was written.
    """
    files = CellFiles(record.key)
    if record.status is Status.COMPLETED:
        for name in (files.test, files.weights):
            read_verified(store, name, record.digests)
    elif not record.status.is_final:
        check_checkpoint(store, record.cell)


def check_checkpoint(store: Store, cell: Cell) -> None:
    """Whether a cell can go on from its checkpoint, if it has one.

    Raises:
        Damaged: it is not what was written.
    """
    name = CellFiles(cell.key).checkpoint
    try:
        unseal(store.read(name))
    except FileNotFoundError:
        return
    except Damaged as error:
        raise Damaged(f"{name}: {error}") from error


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
