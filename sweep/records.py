"""What is known of a sweep and of each of its cells, and the names of the files that keep it. No torch, no Ray."""

import uuid
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from dae.architecture import mac_count, parameter_count
from dae.config import GAUSSIAN
from dae.errors import UserError
from sweep.grid import AXES, Axes, Cell, Grid, Settings, Value, suffix, value_text
from sweep.store import Damaged, Store, digest, dump_json, load_json, unseal

SCHEMA = 1
MANIFEST = "sweep.json"
SAMPLES = "samples.npz"
IDENTITY = ".id"
"""The sweep's id once more: W&B runs are named after it, so it has to outlive a damaged manifest."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a sweep declares: ``sweep.json``.

    Attributes:
        dataset: name, fingerprint and number of training, validation and test images.
        baselines: test MSE of ``identity`` (doing nothing) and ``mean_image``.
        conditions: the same under the other noises of the axes, by the file that holds their sample digits.
        digests: SHA-256 of the sweep's own files, by name.
        looks: keys of the cells that each look of `dae-sweep run --resolve` added to those of the looks before.
    """

    name: str
    id: str
    created_at: str
    grid: Grid
    settings: Settings
    dataset: Mapping[str, Any]
    baselines: Mapping[str, float] = field(default_factory=dict)
    conditions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    looks: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def new(cls, **values: Any) -> Self:
        """A manifest with an identity of its own."""
        return cls(**{"id": uuid.uuid4().hex, "created_at": now()} | values)

    @property
    def samples(self) -> str:
        """The file of the sample digits under the noise of the grid's first cell; a facet has but one noise."""
        return samples_file(self.grid.cells[0].axes if self.grid.cells else ())

    def to_bytes(self) -> bytes:
        """The content of ``sweep.json``."""
        return dump_json({"schema": SCHEMA} | asdict(self) | {"grid": [cell.key for cell in self.grid.cells]})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The manifest that `to_bytes` wrote.

        Raises:
            Damaged: it is not such a manifest.
            UserError: it has another schema.
        """
        document: dict[str, Any] = load_json(data, schema=SCHEMA)
        try:
            document["grid"] = Grid.of(map(Cell.from_key, document["grid"]))
            document["looks"] = tuple(map(tuple, document.get("looks", ())))
            document["settings"] = Settings(**{**LATER_SETTINGS, **document["settings"]})
            known = {each.name for each in fields(cls)}
            return cls(**{name: value for name, value in document.items() if name in known})
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"it is not a manifest: {error}") from error


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep folder as it was found: its manifest, a record for every cell that has one, and what could not be read.

    Attributes:
        damaged: for each cell whose files cannot be trusted, the reason.
    """

    store: Store
    manifest: Manifest
    records: Mapping[str, Record]
    damaged: Mapping[str, str]

    def status(self, cell: Cell) -> Status:
        """How far ``cell`` has come; a damaged one counts as missing."""
        record = self.records.get(cell.key)
        return Status.MISSING if record is None else record.status

    @property
    def tally(self) -> str:
        """Such as ``7 of 9 completed, 1 diverged, 1 failed``."""
        cells = self.manifest.grid.cells
        states = ["damaged" if cell.key in self.damaged else str(self.status(cell)) for cell in cells]
        others = [
            f"{states.count(each)} {each}"
            for each in (*Status, "damaged")
            if each != Status.COMPLETED and each in states
        ]
        return ", ".join([f"{states.count(Status.COMPLETED)} of {len(states)} completed", *others])

    @property
    def completed(self) -> list[Record]:
        """Records with a test loss, in the grid's order."""
        found = (self.records.get(cell.key) for cell in self.manifest.grid.cells)
        return [record for record in found if record is not None and record.status is Status.COMPLETED]


def samples_file(axes: Axes) -> str:
    """The file that holds the sample digits as cells with these axes see them."""
    noise = tuple((name, value) for name, value in axes if name in ("alpha", "noise"))
    return SAMPLES.replace(".npz", f"{suffix(noise)}.npz")


def gather(store: Store, *, thorough: bool = False) -> Sweep:
    """Read a sweep folder. Cells that cannot be read are named in ``damaged``, never guessed.

    Args:
        store: the folder.
        thorough: a cell whose record is sound, but whose weights, outputs or checkpoint are not, is ``damaged`` too.

    Raises:
        FileNotFoundError: there is no sweep in this folder.
        Damaged: the manifest is not what was written.
        UserError: it was written by another version of the program.
    """
    manifest = Manifest.from_bytes(store.read(MANIFEST))
    is_live = store.locked()
    records, damaged = {}, {}
    # In a bucket, to look for a thousand records that are not there takes a thousand requests, a list takes one.
    begun = set(store.folders("cells"))
    contents = store.read_all(CellFiles(cell.key).record for cell in manifest.grid.cells if cell.key in begun)
    for cell in manifest.grid.cells:
        if (content := contents.get(CellFiles(cell.key).record)) is None:
            continue
        try:
            record = _record_of(cell, content)
        except Damaged as error:
            damaged[cell.key] = f"record.json: {error}"
            continue
        try:
            if thorough:
                check_files(store, record)
        except Damaged as error:
            damaged[cell.key] = str(error)
            continue
        if record.status is Status.RUNNING and not is_live:
            record = replace(record, status=Status.INTERRUPTED)
        records[cell.key] = record
    return Sweep(store, manifest, records, damaged)


def check_settings(record: Record, settings: Settings) -> None:
    """A sweep compares like with like.

    Raises:
        UserError: the record was made with other settings.
    """
    _refuse(f"{record.key} was made", record.config, settings.config(record.cell))


def check_sweep(records: Collection[Record], settings: Settings, manifest: Manifest | None) -> None:
    """`check_settings` of all records of a sweep, and of the sweep itself, which may have cells off its settings alone.

    Args:
        records: what the sweep has.
        settings: what a command asks for.
        manifest: of the sweep, None where it is lost.

    Raises:
        UserError: a record, or the sweep, was made with other settings.
    """
    for record in records:
        check_settings(record, settings)
    if records and manifest is not None:
        _refuse(f"sweep {manifest.name} was begun", asdict(manifest.settings), asdict(settings))
    for record in records:
        for name, value in record.axes.items():
            if value == getattr(settings, name):
                raise UserError(
                    f"{record.key} was made in a sweep whose {name} was not the {value} that this command asks for. "
                    f"Give the --{_option(name)} of that sweep to go on with it, or another --name to begin a new one."
                )


def _refuse(subject: str, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    differing = [name for name in asked if found.get(name) != asked[name]]
    if not differing:
        return
    options = " ".join(f"--{_option(name)} {found.get(name)}" for name in differing)
    axes = [name for name in differing if name in AXES]
    beside = " ".join(f"--axis {_option(name)}={value_text(asked[name])}" for name in axes)
    raise UserError(
        f"{subject} with {', '.join(f'{name} {found.get(name)}' for name in differing)}, this command asks for "
        f"{', '.join(str(asked[name]) for name in differing)}. Give another --name to begin a new sweep, or "
        f"{options} to go on with this one" + (f", and {beside} for new cells beside the old ones." if axes else ".")
    )


def _option(name: str) -> str:
    return name.replace("_", "-")


def read_record(store: Store, cell: Cell) -> Record:
    """The record of ``cell``.

    Raises:
        FileNotFoundError: it has none.
        Damaged: it is not what was written, or belongs to another cell.
    """
    return _record_of(cell, store.read(CellFiles(cell.key).record))


def _record_of(cell: Cell, content: bytes) -> Record:
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
