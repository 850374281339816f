"""A sweep: its manifest and the records in its folder. No torch, no Ray."""

import shlex
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from itertools import count, islice
from pathlib import Path
from typing import Any, Self

from dae.config import DIGITS
from sweep.records.axes import Axes, suffix
from sweep.records.grid import Cell, Grid, Settings, written
from sweep.records.record import LATER_SETTINGS, SCHEMA, CellFiles, Record, Status, damage, now, record_of
from sweep.records.search import Proposal, Search
from sweep.records.words import there_are
from sweep.storage.sealing import Damaged, dump_json, load_json
from sweep.storage.store import Store

STORAGE = "sweeps"
"""The folder that holds the sweeps, where a command is told of no other."""
MANIFEST = "sweep.json"
SAMPLES = "samples.npz"
REMOVED = "removed"
"""Holds the folders of the cells that `dae-sweep remove` took out."""
CONTROL = "control"
"""Holds what users ask of a run from outside."""
IDENTITY = ".id"
"""Holds a copy of the sweep's id, which names W&B runs and is needed even when the manifest is damaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a sweep declares: the fields of ``sweep.json``.

    Attributes:
        dataset: name, fingerprint and number of training, validation and test images; of own images also what
            differs from 28x28 grey images of ten labelled classes, see `sweep.driver.declaration`.
        baselines: test MSE of ``identity`` (doing nothing) and ``mean_image``.
        conditions: baselines under the other noises of the axes, by the file with the sample images under that noise.
        digests: SHA-256 of the files that belong to the sweep and not to a cell, by name.
        removed: the keys of the cells that `dae-sweep remove` took out of the grid.
        looks: for every look of `dae-sweep run --resolve` the keys of the cells that it added.
        search: how cells are proposed; None of a sweep that lists them. The file does not name those proposed: each
            has a folder of its own.
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
    removed: tuple[str, ...] = ()
    search: Search | None = None

    @classmethod
    def new(cls, **values: Any) -> Self:
        """A manifest with these fields and a new id."""
        return cls(**{"id": uuid.uuid4().hex, "created_at": now()} | values)

    @property
    def samples(self) -> str:
        """The file of the sample images under the noise of the grid's first cell; a facet has one noise."""
        return samples_file(self.grid.cells[0].axes if self.grid.cells else ())

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the images; empty where they have no labels."""
        classes = self.dataset.get("classes", tuple("0123456789"))
        return tuple(classes) if self.dataset.get("labelled", True) else ()

    @property
    def shows_digits(self) -> bool:
        """Whether the images are digits, and can be called so."""
        return self.dataset.get("name") in DIGITS

    @property
    def has_own_noise(self) -> bool:
        """Whether the dataset brings its noisy images."""
        return bool(self.dataset.get("pairs"))

    def noise_of(self, cell: Cell) -> str:
        """What a cell is trained to remove, as a sentence names it."""
        if self.has_own_noise:
            return "the noise of the dataset's own pairs"
        at_cell = self.settings.at(cell)
        return f"{at_cell.noise} noise of strength {at_cell.alpha:g}"

    @property
    def noun(self) -> str:
        """What the page calls an image."""
        return "digit" if self.shows_digits else "image"

    def to_bytes(self) -> bytes:
        """The content of ``sweep.json``."""
        grid = [cell.key for cell in self.grid.cells if not self.is_trial(cell)]
        document = {"schema": SCHEMA} | asdict(replace(self, search=None)) | {"grid": grid}
        document["settings"] = written(document["settings"])
        if not self.removed:
            del document["removed"]  # as in sweeps of versions that did not have it
        if self.search is None:
            del document["search"]
        else:
            document["search"] = self.search.to_document()
        return dump_json(document)

    def way_on(self, status: Status | None = None) -> str:
        """The command that goes on with the sweep, or with cells of this status."""
        return way_on(self.name if self.search is not None else None, status)

    def is_trial(self, cell: Cell) -> bool:
        """Whether the cell is a trial of the search: not tested, where its finalists, of other seeds, are."""
        return self.search is not None and cell.seed == self.search.seed

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The manifest that `to_bytes` wrote.

        Raises:
            Damaged: they are not a manifest.
            UserError: it has another schema.
        """
        document: dict[str, Any] = load_json(data, schema=SCHEMA)
        try:
            document["removed"] = tuple(document.get("removed", ()))
            document["looks"] = tuple(map(tuple, document.get("looks", ())))
            document["settings"] = Settings(**{**LATER_SETTINGS, **document["settings"]})
            document["grid"] = Grid.of(map(Cell.from_key, document["grid"]), document["settings"].shape)
            document["search"] = Search.from_document(document["search"]) if document.get("search") else None
            names = {field.name for field in fields(cls)}
            return cls(**{name: value for name, value in document.items() if name in names})
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"it is not a manifest: {error}") from error


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep folder as `gather` read it.

    Attributes:
        store: where it is.
        snapshot: the same as it was when the sweep was read; many files are read from there.
        records: by key, of every cell that has a sound one.
        damaged: by key, the reason why the files of a cell cannot be used.
        proposals: by key, of the trials of a search, in the order of their numbers.
        rebuilt: keys of the trials whose ``proposal.json`` cannot be used, and whose proposal is told by the record.
    """

    store: Store
    snapshot: Store = field(compare=False)
    manifest: Manifest
    records: Mapping[str, Record]
    damaged: Mapping[str, str]
    proposals: Mapping[str, Proposal] = field(default_factory=dict)
    rebuilt: Collection[str] = ()

    def status(self, cell: Cell) -> Status:
        """The status of ``cell``; missing if its files are damaged."""
        record = self.records.get(cell.key)
        return Status.MISSING if record is None else record.status

    @property
    def tally(self) -> str:
        """How many cells have which status, such as ``7 of 9 completed, 1 diverged, 1 failed``."""
        cells = self.manifest.grid.cells
        counts = Counter("damaged" if cell.key in self.damaged else str(self.status(cell)) for cell in cells)
        completed = f"{counts.pop(Status.COMPLETED, 0)} of {len(cells)} completed"
        others = [f"{counts[status]} {status}" for status in (*Status, "damaged") if status in counts]
        if self.manifest.removed:
            others.append(f"{len(self.manifest.removed)} removed")
        return ", ".join([completed, *others])

    @property
    def completed(self) -> list[Record]:
        """Records of completed cells, in the grid's order."""
        keys = [cell.key for cell in self.manifest.grid.cells if self.status(cell) is Status.COMPLETED]
        return [self.records[key] for key in keys]


def way_on(search: str | None, status: Status | None = None) -> str:
    """The command that goes on with a sweep, or with a search of that name; and with cells of this status."""
    command = "dae-sweep run" if search is None else f"dae-sweep search --name {search}"
    return command + " --revive" * (status in {Status.PRUNED, Status.STOPPED})


def way_to_repair(store: Store) -> str:
    """The command that writes a damaged manifest anew: only a search has proposals."""
    names = {CellFiles(folder).proposal for folder in store.folders("cells")}
    return way_on(store.name if any(map(store.exists, sorted(names))) else None)


def where(store: Store) -> str:
    """The option that tells another command of the storage; empty of the default one."""
    uri = store.beside("").uri().rstrip("/")
    return "" if uri == str(Path(STORAGE).absolute()) else f" --storage {shlex.quote(uri)}"


def folders_of(storage: Store) -> dict[str, bool]:
    """The folders of a storage, and whether each has the manifest of a sweep."""
    return {name: storage.exists(f"{name}/{MANIFEST}") for name in storage.folders()}


def no_sweep_in(store: Store) -> str:
    """That there is none, and which ones are beside it."""
    names: list[str] = []
    with suppress(OSError):  # a storage that is none, or that may not be read
        if store.folders("cells"):
            return f"{store.uri(MANIFEST)} is not there, though cells are: {way_to_repair(store)} writes it anew."
        names = [name for name, is_sweep in folders_of(store.beside("")).items() if is_sweep]
    if not names:
        hint = "dae-sweep status --storage DIR lists those of DIR"
        return f"there is no sweep in {store.uri()}, and none beside it; {hint}."
    if near := get_close_matches(store.name, names):
        return f"there is no sweep in {store.uri()}; is {' or '.join(near)} meant?"
    return f"there is no sweep in {store.uri()}; {there_are(names)}."


def samples_file(axes: Axes) -> str:
    """The file of the sample images under the noise of cells with these axes."""
    noise = tuple((name, value) for name, value in axes if name in ("alpha", "noise"))
    return SAMPLES.replace(".npz", f"{suffix(noise)}.npz")


def gather(store: Store, *, thorough: bool = False, at_rest: bool = False, snapshot: Store | None = None) -> Sweep:
    """Read a sweep folder. Cells whose record cannot be used are named in ``damaged``.

    Args:
        store: the sweep's.
        at_rest: whether no cell is trained, though this process holds the sweep.
        thorough: check also weights, outputs and checkpoints; a cell where they are not sound is ``damaged``.
        snapshot: of the store, where one is at hand that was taken since its cells last changed.

    Raises:
        FileNotFoundError: there is no sweep in this folder.
        Damaged: the manifest is not what was written.
        UserError: the manifest or a record has another schema.
    """
    manifest = Manifest.from_bytes(store.read(MANIFEST))
    is_live = not at_rest and store.locked()
    records, damaged, proposals = {}, {}, {}
    snapshot = snapshot or store.snapshot()
    folders = set(snapshot.folders("cells"))
    if manifest.search is not None:
        proposals = read_proposals(snapshot, folders)
        manifest = _with_trials(manifest, folders, proposals)
    contents = snapshot.read_all(CellFiles(cell.key).record for cell in manifest.grid.cells if cell.key in folders)
    for cell in manifest.grid.cells:
        if (content := contents.get(CellFiles(cell.key).record)) is None:
            continue
        try:
            record = record_of(cell, content)
        except Damaged as error:
            damaged[cell.key] = f"record.json: {error}"
            continue
        if record.status is Status.RUNNING and not is_live:
            record = replace(record, status=Status.INTERRUPTED)
        records[cell.key] = record
    rebuilt = _rebuilt(manifest, proposals, records)
    if thorough:
        damaged |= damage(snapshot, list(records.values()))
        records = {key: record for key, record in records.items() if key not in damaged}
    proposals = dict(sorted((proposals | rebuilt).items(), key=lambda entry: entry[1].number))
    manifest = _without_lost(manifest, proposals, damaged)
    return Sweep(store, snapshot, manifest, records, damaged, proposals, tuple(rebuilt))


def _with_trials(manifest: Manifest, folders: Collection[str], proposals: Collection[str]) -> Manifest:
    """With the trials of a search in its grid: those proposed, and those of which only the folder tells."""
    cells = [Cell.from_key(key) for key in proposals]
    for folder in set(folders) - set(proposals) - set(manifest.removed):
        with suppress(ValueError):
            cell = Cell.from_key(folder)
            cells += [cell] if manifest.is_trial(cell) else []
    return replace(manifest, grid=manifest.grid.union(Grid.of(cells)))


def _without_lost(manifest: Manifest, proposals: Collection[str], damaged: Collection[str]) -> Manifest:
    """Without the trials of a search of which neither proposal nor record can be read: they are proposed again."""
    known = [
        cell
        for cell in manifest.grid.cells
        if not manifest.is_trial(cell) or cell.key in proposals or cell.key in damaged
    ]
    return replace(manifest, grid=Grid.of(known, manifest.grid.image)) if manifest.search is not None else manifest


def _rebuilt(
    manifest: Manifest, proposals: Mapping[str, Proposal], records: Mapping[str, Record]
) -> dict[str, Proposal]:
    """What the records tell of the proposals that cannot be read, by key.

    They get the numbers, and their epochs the places, that are free, in the order in which the trials began. What a
    sampler had noted, the width that depth 1 has no use for, and why the trial was pruned is lost.
    """
    search = manifest.search
    if search is None:
        return {}
    lost = [record for key, record in records.items() if key not in proposals and manifest.is_trial(record.cell)]
    numbers = _free(proposal.number for proposal in proposals.values())
    places = _free(place for proposal in proposals.values() for place in proposal.arrivals)
    return {
        record.key: Proposal(
            number=next(numbers),
            point={name: _value(manifest.settings, record.cell, name) for name in search.space.parameters},
            arrivals=tuple(islice(places, len(record.history))),
            origin=search.origin,
        )
        for record in sorted(lost, key=lambda record: (record.started_at or "", record.key))
    }


def _free(taken: Iterable[int]) -> Iterator[int]:
    """The numbers from 0 on that are not taken."""
    used = set(taken)
    return (number for number in count() if number not in used)


def _value(settings: Settings, cell: Cell, name: str) -> Any:
    return getattr(cell if name in ("depth", "latent") else settings.at(cell), name)


def pack(sweep: Sweep) -> None:
    """Let later commands read the cells that have ended in few requests, where the storage is a bucket.

    Args:
        sweep: read since its cells last changed.
    """
    ended = [CellFiles(key) for key, record in sweep.records.items() if record.status.is_final]
    names = [name for files in ended for name in (files.record, files.test, files.quality, files.log)]
    if sweep.manifest.search is not None:
        names += [files.proposal for files in ended]
    sweep.snapshot.pack(names, seen=[files.weights for files in ended])


def read_proposals(store: Store, folders: Collection[str]) -> dict[str, Proposal]:
    """What can be read of the proposals of a search; a proposal that cannot be read is proposed again."""
    contents = store.read_all(CellFiles(folder).proposal for folder in folders)
    proposals = {}
    for folder in folders:
        with suppress(KeyError, Damaged, ValueError):
            Cell.from_key(folder)
            proposals[folder] = Proposal.from_bytes(contents[CellFiles(folder).proposal])
    return dict(sorted(proposals.items(), key=lambda item: item[1].number))


def removed_proposals(sweep: Sweep) -> dict[str, Proposal]:
    """Those of the trials that `dae-sweep remove` took out, as far as they can be read."""
    names = {key: f"{REMOVED}/{key}/proposal.json" for key in sweep.manifest.removed}
    contents = sweep.store.read_all(names.values())
    proposals = {}
    for key, name in names.items():
        with suppress(KeyError, Damaged, ValueError):
            proposals[key] = Proposal.from_bytes(contents[name])
    return proposals
