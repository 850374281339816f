"""The results of an evaluation: references of a sweep, quality of its cells. No torch.

References are baselines and the reader, a classifier of digits; quality is SSIM, digits read and robustness of a cell.
`sweep.evaluation` writes their files, the report reads them. All are optional: older sweeps have none.
"""

import io
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from dae.errors import UserError
from sweep.records.record import CellFiles, verified
from sweep.records.sweep import Sweep
from sweep.storage.sealing import Damaged, digest, dump_json, load_json, seal, unseal

SCHEMA = 1
"""Of the files of an evaluation. Those with another schema are computed again."""

REFERENCES = "references.json"
REFERENCE_ARRAYS = "references.npz"
READER = "judge.safetensors"
"""The weights of the reader. Files and their keys have its first name, ``judge``."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Baseline:
    """The results of a denoiser without a network on the noisy test images of one condition.

    Attributes:
        name: such as ``median filter`` or ``PCA 100``.
        family: ``none``, ``filter`` or ``linear``.
        latent: the number of latent elements it is to be compared with, None if it has none.
        parameters: as chosen on validation images.
        test_loss: mean squared error per pixel.
        test_psnr_db: its PSNR, None where the loss is 0.
        ssim: mean over the test images, as in `Quality`.
        accuracy: share of its denoised images that the reader reads correctly; None without labels.
        loss: squared error per pixel of each test image, (n,) float32; NaN where only a part of them was denoised.
    """

    name: str
    family: str
    latent: int | None
    parameters: Mapping[str, Any]
    test_loss: float
    test_psnr_db: float | None
    ssim: float
    accuracy: float | None
    loss: Array

    @property
    def table_order(self) -> tuple[bool, bool, int]:
        """Sorts filters in the order of their computation, then PCA and regression by falling rank."""
        return self.family == "linear", self.name.startswith("reduced"), -(self.latent or 0)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Linear maps through so many latent elements that were not fitted, and why, in words."""

    latent: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Condition:
    """One kind and strength of noise, with the results of the baselines under it.

    Attributes:
        accuracy_noisy: share of the noisy test images that the reader reads correctly; None without labels.
        read_noisy: the classes it reads in them, (n,) unsigned; (0,) without labels.
        left_out: the linear maps that are not among the baselines.
    """

    noise: str
    alpha: float
    accuracy_noisy: float | None
    baselines: tuple[Baseline, ...]
    read_noisy: Array
    left_out: tuple[LeftOut, ...] = ()

    @property
    def latents(self) -> Set[int]:
        """Numbers of elements of which the linear maps are known, or why there are none."""
        computed = {baseline.latent for baseline in self.baselines if baseline.latent is not None}
        return computed | {one.latent for one in self.left_out}

    def baseline(self, name: str) -> Baseline | None:
        """The baseline of this name, None if there is none."""
        return next((baseline for baseline in self.baselines if baseline.name == name), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReaderSummary:
    """Training and accuracy of the reader.

    Attributes:
        accuracy_clean, accuracy_validation: share of the clean test and validation images that it reads correctly.
        epochs: passes over the training images.
        parameters: number of its weights and biases.
        sha256: digest of the file of its weights.
    """

    accuracy_clean: float
    accuracy_validation: float
    epochs: int
    parameters: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class References:
    """What the cells are compared with: ``references.json`` and ``references.npz``.

    Attributes:
        dataset: fingerprint of the dataset.
        train: number of training images that reader and linear denoisers were fitted to.
        settings: of the evaluation: how SSIM is computed, how many images parameters were tuned on.
        reader: None where the images have no labels.
        labels: of the test images, (n,) unsigned; (0,) where they have none.
        read_clean: the classes that the reader reads in the clean test images, of the same shape.
    """

    dataset: str
    train: int
    settings: Mapping[str, Any]
    reader: ReaderSummary | None
    conditions: tuple[Condition, ...]
    labels: Array
    read_clean: Array

    def condition(self, noise: str, alpha: float) -> Condition | None:
        """The condition of this noise, None if it was not evaluated."""
        return next((one for one in self.conditions if (one.noise, one.alpha) == (noise, alpha)), None)

    def to_files(self) -> dict[str, bytes]:
        """The files by name, in the order to write them: the last one holds the digest of the other."""
        arrays = {"labels": self.labels, "read_clean": self.read_clean}
        conditions = []
        for i, condition in enumerate(self.conditions):
            arrays[f"read_noisy_{i}"] = condition.read_noisy
            arrays[f"baseline_loss_{i}"] = np.stack([baseline.loss for baseline in condition.baselines])
            conditions.append(
                _plain(condition, without={"baselines", "read_noisy", "left_out"})
                | {"baselines": [_plain(baseline, without={"loss"}) for baseline in condition.baselines]}
                | ({"left_out": [_plain(one) for one in condition.left_out]} if condition.left_out else {})
            )
        packed = pack(**arrays)
        document = _plain(self, without={"labels", "read_clean", "reader", "conditions"}) | {
            "judge": self.reader and _plain(self.reader),
            "conditions": conditions,
            "digests": {REFERENCE_ARRAYS: digest(packed)} | ({READER: self.reader.sha256} if self.reader else {}),
        }
        document["schema"] = SCHEMA
        return {REFERENCE_ARRAYS: packed, REFERENCES: dump_json(document)}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "References":
        """The references that `to_files` wrote.

        Raises:
            Damaged: they are not that; the message names the file and the reason.
        """
        try:
            document: dict[str, Any] = load_json(files[REFERENCES], schema=SCHEMA)
        except (Damaged, UserError) as error:
            raise Damaged(f"{REFERENCES} cannot be used: {error}") from error
        arrays = unpack(verified(REFERENCE_ARRAYS, files, document["digests"]))
        try:
            return cls(
                dataset=document["dataset"],
                train=document["train"],
                settings=document["settings"],
                reader=document["judge"] and ReaderSummary(**document["judge"]),
                conditions=tuple(_conditions(document["conditions"], arrays)),
                labels=arrays["labels"],
                read_clean=arrays["read_clean"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"{REFERENCES} cannot be used: {error!r}") from error


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Quality:
    """The result of the evaluation of a completed cell: ``quality.npz``.

    Attributes:
        weights, reader: SHA-256 of the files that it was computed from; ``reader`` is empty without one.
        ssim: structural similarity of each denoised test image with the clean one, (n,) float32: Wang et al. (2004)
            as scikit-image computes it, Gaussian window of sigma 1.5 (11x11), where the window lies within the image.
        read: the classes that the reader reads in the denoised test images, (n,) unsigned; (0,) without labels.
        shown_index: indices of the test images with the lowest, the median and the highest loss, (3,).
        shown: these images (first axis), clean, noisy and denoised (second axis), (3, 3, H, W) or (3, 3, H, W, 3)
            float32.
        robust_noise, robust_alpha: kind and strength of the noises that robustness was tested with, (k,) both.
        robust_loss: test losses under these, mean squared error per pixel, (k,); of other strengths than that of its
            training on a part of the test images.
    """

    weights: str
    reader: str
    ssim: Array
    read: Array
    shown_index: Array
    shown: Array
    robust_noise: Array
    robust_alpha: Array
    robust_loss: Array

    def accuracy(self, labels: Array) -> float | None:
        """Share of the denoised test images that the reader reads correctly; None without a reader."""
        return float((self.read == labels).mean()) if self.reader else None

    def to_bytes(self) -> bytes:
        """The content of ``quality.npz``."""
        arrays = _plain(self, without={"reader"}) | {"judge": self.reader}
        return seal(pack(schema=np.array(SCHEMA), **arrays))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Quality":
        """The quality that `to_bytes` wrote.

        Raises:
            Damaged: they are not that, or have another schema.
        """
        arrays: dict[str, Any] = unpack(unseal(data))
        if (schema := arrays.pop("schema", None)) is None or int(schema) != SCHEMA:
            raise Damaged(f"it has schema {schema}, this version reads {SCHEMA}")
        try:
            arrays["reader"] = arrays.pop("judge")
            return cls(**arrays | {name: str(arrays[name]) for name in ("weights", "reader")})
        except (KeyError, TypeError) as error:
            raise Damaged(f"it is not the quality of a cell: {error}") from error


@dataclass(frozen=True, slots=True)
class Qualities:
    """The quality of the completed cells, by key.

    Attributes:
        by_key: what can be used.
        damaged: of files that are there and cannot be used, the reason.
    """

    by_key: Mapping[str, Quality] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)


def load_references(sweep: Sweep) -> References | None:
    """The references of a sweep; None where they were not computed.

    Raises:
        Damaged: they cannot be used; the message names the file and the reason.
    """
    files = sweep.store.read_all((REFERENCES, REFERENCE_ARRAYS))
    if REFERENCES not in files:
        return None
    references = References.from_files(files)
    declared = sweep.manifest.dataset
    if (references.dataset, references.train) != (declared.get("fingerprint"), declared.get("train")):
        raise Damaged(f"{REFERENCES} is of other data than the sweep")
    return references


def load_quality(sweep: Sweep) -> Qualities:
    """The quality of every completed cell that was evaluated. That of other weights than the cell's is damaged."""
    by_key, damaged = {}, {}
    contents = sweep.snapshot.read_all(CellFiles(record.key).quality for record in sweep.completed)
    for record in sweep.completed:
        name = CellFiles(record.key).quality
        if name not in contents:
            continue
        try:
            quality = Quality.from_bytes(contents[name])
            if quality.weights != record.digests.get("model.safetensors", ""):
                raise Damaged("it is of other weights than the cell's")
        except Damaged as error:
            damaged[record.key] = f"{name}: {error}"
        else:
            by_key[record.key] = quality
    return Qualities(by_key, damaged)


def _conditions(documents: list[dict[str, Any]], arrays: Mapping[str, Array]) -> Iterator[Condition]:
    for i, document in enumerate(documents):
        losses = arrays[f"baseline_loss_{i}"]
        pairs = zip(document["baselines"], losses, strict=True)
        baselines = tuple(Baseline(**baseline, loss=loss) for baseline, loss in pairs)
        left_out = tuple(LeftOut(**one) for one in document.get("left_out", ()))
        known = document | {"baselines": baselines, "left_out": left_out}
        yield Condition(**known, read_noisy=arrays[f"read_noisy_{i}"])


def _plain(instance: Any, without: Set[str] = frozenset()) -> dict[str, Any]:
    names = [field.name for field in fields(instance) if field.name not in without]
    return {name: getattr(instance, name) for name in names}


def pack(**arrays: Array | str) -> bytes:
    """The content of an npz file of these arrays."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # text becomes an array
    return file.getvalue()


def unpack(data: bytes) -> dict[str, Array]:
    """The arrays of an npz file, by name.

    Raises:
        Damaged: it is not one.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return dict(archive)
    except Exception as error:  # zip, npy and type errors of many kinds: it is not what was written
        raise Damaged(f"it does not hold arrays: {error}") from error
