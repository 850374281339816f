"""Where the news of all trials come in: on to the display and to W&B; some of them end the sweep."""

import io
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.driver.control import Control
from sweep.driver.progress import Progress
from sweep.records.axes import Axes
from sweep.records.grid import Cell
from sweep.records.record import (
    DRAINED,
    LOST,
    Attempt,
    CellFiles,
    Failure,
    Record,
    Status,
    ended_early,
    now,
    read_record,
    read_verified,
)
from sweep.records.sweep import Sweep, samples_file
from sweep.storage.sealing import Damaged
from sweep.storage.store import Unwritable
from sweep.tracking.tracker import Tracker
from sweep.trials.host import HOST_ENDED

SAME_ERROR_LIMIT = 2
"""So many cells that fail with one and the same error mean that the program or the data is at fault, not the cell."""

Method = Callable[..., None]


def _without_raising(method: Method) -> Method:
    """An exception in one of Tune's callbacks would end the sweep: what a display or a disk refuses is only told of."""

    @wraps(method)
    def guarded(events: "TrialEvents", *arguments: Any, **named: Any) -> None:
        try:
            method(events, *arguments, **named)
        except Exception as error:
            events.tell(error)

    return guarded


class TrialEvents:
    """Listens to the trials of a run.

    Args:
        sweep: the folder as the run found it.
        progress: the display.
        tracker: the copy in W&B.
        warn: told what went on although it should not have been.
        at_first_news: called once, when a first trial has got somewhere.
        control: what users ask of the run from outside.
        prune: what the scheduler of a search says of a cell: its record, ended where a running cell is to end.

    Attributes:
        again_alone: cells that ran out of memory beside others, or whose host ended again and again.
        stop_because: why no more trials should run, if so.
    """

    def __init__(
        self,
        sweep: Sweep,
        progress: Progress,
        tracker: Tracker,
        warn: Callable[[str], None],
        *,
        at_first_news: Callable[[], None] = lambda: None,
        control: Control | None = None,
        prune: Callable[[Record], Record] = lambda record: record,
    ) -> None:
        self._control, self._prune = control, prune
        self._at_first_news: Callable[[], None] | None = at_first_news
        self._sweep, self._progress, self._tracker, self._warn = sweep, progress, tracker, warn
        self._tracked: set[str] = set()
        self._errors: dict[str, set[str]] = {}
        self._told: set[str] = set()
        self.again_alone: list[Cell] = []
        self.stop_because: str | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether no more trials should run."""
        return self.stop_because is not None

    def tell(self, error: Exception) -> None:
        """Warn of an error of the driver's own; of each kind once."""
        if (kind := type(error).__name__) not in self._told:
            self._told.add(kind)
            with suppress(OSError):  # the terminal may be what is gone
                self._warn(f"the trials go on, but the driver met {kind}: {error}")

    @_without_raising
    def started(self, key: str) -> None:
        """A process has been given the cell."""
        self._progress.started(key)

    def decided(self, record: Record) -> Record:
        """Epochs were finished; the record as it stands, no longer running where its trial is to end."""
        try:
            record = self._prune(record)
            if record.status is Status.RUNNING and self._control is not None and self._control.stops(record.key):
                record = ended_early(record, Status.STOPPED, f"stopped after epoch {len(record.history)}")
                self._sweep.store.write(CellFiles(record.key).record, record.to_bytes())
        except Unwritable as error:
            self.stop_because = str(error)
        except Exception as error:
            self.tell(error)
        return record

    @_without_raising
    def progressed(self, record: Record, images_per_s: float) -> None:
        """Epochs were finished; the record holds them all, and the end if it is one."""
        self._decide(record)
        if record.failure is not Failure.STORAGE:
            self._track(record)
        self._progress.progressed(record, images_per_s)
        if self._at_first_news is not None:
            at_first_news, self._at_first_news = self._at_first_news, None
            at_first_news()

    @_without_raising
    def lost(self, key: str, reason: str, *, is_final: bool) -> None:
        """The cell's process died; it is tried again unless ``is_final``."""
        try:
            record = self._note_loss(Cell.from_key(key), reason, is_final=is_final)
            if record.status is not Status.RUNNING:
                self._decide(record)
                self._prune(record)
                self._tracker.ended(record, self._sample(record))
        finally:
            self._progress.lost(key, reason, is_final=is_final)

    def _decide(self, record: Record) -> None:
        """Whether the sweep goes on after this, and whether the cell gets another round."""
        # It may be a neighbour that ends the host.
        is_of_host = record.failure is Failure.LOST and HOST_ENDED in (record.error or "")
        if record.failure is Failure.MEMORY or is_of_host:
            self.again_alone.append(record.cell)
        if record.failure is Failure.STORAGE:
            self.stop_because = (
                f"{record.error}. Free or repair the storage; what was finished is kept, the same command continues"
            )
        if record.failure is Failure.PROGRAM and record.error is not None:
            # Shapes and positions differ from cell to cell.
            cells = self._errors.setdefault(re.sub(r"\d+", "0", record.error), set())
            cells.add(record.key)
            if len(cells) >= SAME_ERROR_LIMIT:
                self.stop_because = f"{' and '.join(sorted(cells))} failed with the same error: {record.error}"

    def _track(self, record: Record) -> None:
        if record.key not in self._tracked:
            self._tracked.add(record.key)
            self._tracker.started(record)
        if record.status is Status.RUNNING:
            self._tracker.progressed(record.key, record.history)
        else:
            self._tracker.ended(record, self._sample(record))

    def _note_loss(self, cell: Cell, reason: str, *, is_final: bool) -> Record:
        """The cell's record, which now holds the loss; one that had ended before its process died stays as it is."""
        manifest = self._sweep.manifest
        try:
            record = read_record(self._sweep.store, cell)
        except (FileNotFoundError, Damaged):
            dataset = {name: str(manifest.dataset[name]) for name in ("name", "fingerprint")}
            record = Record.new(cell, manifest.settings, dataset)
        if record.status is not Status.RUNNING and record.attempts and record.attempts[-1].ended_at is not None:
            return record
        begun, last = record.attempts, Attempt(token="", started_at=now())  # lost before it could write its name
        if begun and begun[-1].ended_at is None:
            begun, last = begun[:-1], begun[-1]
        record = replace(record, attempts=(*begun, replace(last, ended_at=now(), reason=_lost(reason))))
        if is_final:
            is_memory = "out of memory" in reason.lower()
            advice = "; lower --batch-size or --width" if is_memory else ""
            record = replace(
                record,
                status=Status.FAILED,
                failure=Failure.MEMORY if is_memory else Failure.LOST,
                error=f"its process was lost: {reason}{advice}",
                finished_at=now(),
            )
        self._sweep.store.write(CellFiles(cell.key).record, record.to_bytes())
        return record

    def _sample(self, record: Record) -> npt.NDArray[np.uint8] | None:
        if self._tracker.mode == "disabled" or record.status is not Status.COMPLETED or record.test_loss is None:
            return None
        return sample_of(self._sweep, record)


def _lost(reason: str) -> str:
    return reason if reason.startswith(DRAINED) else f"{LOST}{reason}"


def copy_to_tracker(sweep: Sweep, tracker: Tracker, todo: Sequence[Cell]) -> None:
    """Hand over the cells that ended while W&B was not told: their driver was killed, or tracking was off."""
    for record in sweep.records.values():
        if record.status.is_final and record.cell not in todo and tracker.lacks(record):
            try:
                is_tested = record.status is Status.COMPLETED and record.test_loss is not None
                sample = sample_of(sweep, record) if is_tested else None
            except Damaged:
                sample = None
            tracker.ended(record, sample)


def clean_and_noisy(sweep: Sweep, axes: Axes = ()) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The sweep's sample images, the noisy ones as cells with these axes see them.

    Raises:
        Damaged: they are not what was written.
    """
    samples = np.load(io.BytesIO(read_verified(sweep.store, samples_file(axes), sweep.manifest.digests)))
    return samples["clean"], samples["noisy"]


def sample_of(sweep: Sweep, record: Record) -> npt.NDArray[np.uint8]:
    """Clean, noisy and denoised images of a completed cell, one row each; uint8, (h, w), or (h, w, 3) in colour.

    Raises:
        Damaged: the sweep's sample images or the cell's outputs are not what was written.
    """
    test = np.load(io.BytesIO(read_verified(sweep.store, CellFiles(record.key).test, record.digests)))
    rows = np.stack([*clean_and_noisy(sweep, record.cell.axes), test["samples"]])
    _, count, height, width, *colours = rows.shape
    picture = rows.swapaxes(1, 2).reshape(3 * height, count * width, *colours)
    return (255 * picture.clip(0, 1)).round().astype(np.uint8)
