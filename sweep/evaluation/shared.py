"""References that all sweeps of a storage share: what depends on the dataset and the noise, not on the sweep.

Every sweep has its own copy, which the report reads; this one saves the next sweep the computation. One sealed file
holds the reader, one each condition; each is written in one move and read without a lock. Of two sweeps that compute
the same at the same time the last one stays. What is damaged, or of other settings, is computed again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dae.data import Dataset
from sweep.evaluation.tasks import SETTINGS, Noise
from sweep.records.quality import READER, Condition, ReaderSummary, References, pack, unpack
from sweep.storage.sealing import Damaged, digest, seal, unseal
from sweep.storage.store import Store

FOLDER = ".references"
"""In the storage, beside the sweeps, whose names never begin with a dot."""
VERSION, VERSION_OF_OWN = 1, 2
"""Count the changes of baselines or reader after which older results are not comparable with new ones: of datasets with
a name, and of a user's own images."""


@dataclass(frozen=True, slots=True)
class SharedReferences:
    """The references of one dataset in a storage. Nothing here raises: what cannot be read or written is said.

    Attributes:
        store: the folder of this dataset, training part and version.
        dataset: as the sweep has it.
        warn: called with what is damaged or could not be written.
    """

    store: Store
    dataset: Dataset
    warn: Callable[[str], None]

    @classmethod
    def beside(cls, sweep: Store, dataset: Dataset, warn: Callable[[str], None]) -> "SharedReferences":
        """Those of the storage that this sweep is in."""
        version = VERSION if dataset.source is None else VERSION_OF_OWN
        folder = f"{FOLDER}/{dataset.fingerprint[:16]}-{len(dataset.train)}-v{version}"
        return cls(sweep.beside(folder), dataset, warn)

    def reader(self) -> tuple[References, bytes] | None:
        """References without conditions, and the weights of their reader; None where there are none."""
        files = self._files("reader")
        references = None if files is None else self._references("reader", files)
        if files is None or references is None or references.reader is None:
            return None
        if digest(files.get(READER, b"")) != references.reader.sha256:
            self.warn(f"{self.store.uri('reader')}: its weights are not those of the reader, it is computed anew")
            return None
        return references, files[READER]

    def condition(self, noise: Noise, reader: ReaderSummary | None) -> Condition | None:
        """The condition of this noise with what this reader reads; None where there is none."""
        name = _name(noise)
        files = self._files(name)
        references = None if files is None else self._references(name, files)
        if references is None or references.reader != reader:
            return None
        return references.condition(*noise)

    def keep_reader(self, references: References, weights: bytes) -> None:
        """Keep a reader for other sweeps."""
        self._write("reader", replace(references, conditions=()).to_files() | {READER: weights})

    def keep_condition(self, references: References, condition: Condition) -> None:
        """Keep a condition for other sweeps, with the baselines for other latents that are kept already.

        A sweep of an earlier version has a reader of its own, whose answers are of no use to others.
        """
        kept = self.reader() if references.reader is not None else None
        if references.reader != (kept[0].reader if kept else None):
            return
        noise = Noise(condition.noise, condition.alpha)
        if (known := self.condition(noise, references.reader)) is not None:
            condition = merged(known, condition)
        self._write(_name(noise), replace(references, conditions=(condition,)).to_files())

    def _references(self, name: str, files: dict[str, bytes]) -> References | None:
        try:
            references = References.from_files(files)
        except Damaged as error:
            self.warn(f"{self.store.uri(name)}: {error}; it is computed anew")
            return None
        is_usable = dict(references.settings) == SETTINGS and references.dataset == self.dataset.fingerprint
        return references if is_usable and references.train == len(self.dataset.train) else None

    def _files(self, name: str) -> dict[str, bytes] | None:
        try:
            arrays = unpack(unseal(self.store.read(name)))
        except FileNotFoundError:
            return None
        except (Damaged, OSError) as error:
            self.warn(f"{self.store.uri(name)}: {error}; it is computed anew")
            return None
        return {file: content.tobytes() for file, content in arrays.items()}

    def _write(self, name: str, files: dict[str, bytes]) -> None:
        arrays = {file: np.frombuffer(content, np.uint8) for file, content in files.items()}
        try:
            self.store.write(name, seal(pack(**arrays)))
        except OSError as error:
            self.warn(f"{error}: other sweeps compute it again")


def merged(known: Condition, computed: Condition) -> Condition:
    """The condition with the baselines of both, in the order of tables."""
    names = {baseline.name for baseline in computed.baselines}
    others = (baseline for baseline in known.baselines if baseline.name not in names)
    return replace(
        computed,
        baselines=tuple(sorted((*others, *computed.baselines), key=lambda one: one.table_order)),
        left_out=(*(one for one in known.left_out if one.latent not in computed.latents), *computed.left_out),
    )


def _name(noise: Noise) -> str:
    return f"{noise.kind}-{noise.alpha}"
