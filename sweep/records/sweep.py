"""A sweep's manifest, and the folder as it was read. No torch, no Ray."""

import uuid
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from dae.errors import UserError
from sweep.records.grid import AXES, Axes, Cell, Grid, Settings, suffix, value_text
from sweep.records.record import LATER_SETTINGS, SCHEMA, CellFiles, Record, Status, check_files, now, record_of
from sweep.storage.sealing import Damaged, dump_json, load_json
from sweep.storage.store import Store

MANIFEST = "sweep.json"
SAMPLES = "samples.npz"
IDENTITY = ".id"
"""The sweep's id once more: W&B runs are named after it, so it has to outlive a damaged manifest."""


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
            record = record_of(cell, content)
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
