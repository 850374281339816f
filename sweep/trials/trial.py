"""One trial's work on one cell: begin or continue it, leave every finished epoch on disk, finish it.

Knows no Ray: what schedules a trial calls `advance` until the record is no longer running.
"""

import io
import platform
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import safetensors.torch
import torch

from dae.architecture import step_bytes
from dae.data import Dataset
from dae.engine import settle_process
from dae.testset import psnr_db
from dae.training import Diverged, Images, Training, is_collapsed, is_unconverged
from sweep.records.grid import Cell
from sweep.records.record import (
    LATER_SETTINGS,
    SCHEMA,
    Attempt,
    CellFiles,
    Epoch,
    Failure,
    Record,
    Status,
    check_files,
    now,
    read_record,
)
from sweep.storage.sealing import Damaged, digest, seal, unseal
from sweep.trials.job import Job
from sweep.trials.machine import memory_bytes
from sweep.trials.printing import printing_into


def prepare(job: Job, dataset: Dataset) -> Images:
    """Set this process up for trials of a job; what they train on, on its device."""
    if job.device == "cuda":
        torch.cuda.set_per_process_memory_fraction(job.memory_share)
    settle_process()
    return Images(dataset, job.settings.alpha, job.device, job.settings.noise)


class Superseded(Exception):
    """A newer attempt works on this cell; this one must write no more."""


class Trial:
    """A cell in the hands of one process, or of one of its threads.

    Args:
        job: what all trials share.
        cell: the cell.
        images: its dataset on the job's device, under any noise.
    """

    def __init__(self, job: Job, cell: Cell, images: Images) -> None:
        self.job = job
        self.cell = cell
        settings = job.settings.at(cell)
        self.images = images.under(settings.alpha, settings.noise)
        self.files = CellFiles(cell.key)
        dataset = images.dataset
        self.record = Record.new(cell, job.settings, {"name": dataset.name, "fingerprint": dataset.fingerprint})
        self._training: Training | None = None
        self._is_retry = False
        self._saved_at = 0.0

    def advance(self, at_least_s: float) -> Record:
        """Train on for ``at_least_s`` seconds, rounded up to whole epochs, or to the end.

        The first call takes the cell over and continues after the last epoch that is on disk. An error does not
        escape: it ends the cell as diverged or failed, and stands in its record and log. Only where the storage
        itself refuses does the record that is returned say so, while the one on disk stays as it is.

        Raises:
            Superseded: a newer attempt has begun.
            torch.AcceleratorError: the GPU does no more work for this process; another one has to go on.
        """
        try:
            with self._logging():
                self._advance(at_least_s)
        except OSError as error:
            return replace(self.record, status=Status.FAILED, failure=Failure.STORAGE, error=str(error))
        return self.record

    def _advance(self, at_least_s: float) -> None:
        start = time.perf_counter()
        try:
            if self._training is None:
                if (finished := self._finished()) is not None:
                    self.record = finished
                    return
                self._training = self._begin()
                if self.job.is_search and self.record.history:
                    return  # the driver may not have seen this epoch yet
            while not self._training.is_finished:
                epoch = self._training.run_epoch()
                _say(
                    f"epoch {epoch.epoch}: training loss {epoch.train_loss:.6f}, "
                    f"validation loss {epoch.val_loss:.6f}, {epoch.seconds:.2f} s"
                )
                if self._training.is_finished:
                    break
                # Where a write is dear, short epochs share one; what is told to the driver is saved.
                since_save = time.perf_counter() - self._saved_at
                if self.job.is_search or since_save >= self.job.store.seconds_between_saves:
                    self._save_epoch(self._training)
                    if self.job.is_search or time.perf_counter() - start >= at_least_s:
                        return
            self._complete(self._training)
        except (Superseded, OSError):
            raise
        except Diverged as error:
            self._end(Status.DIVERGED, str(error))
        except Exception as error:  # whatever it is, it belongs into this cell's record
            traceback.print_exc()
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End the cell as failed, or leave it to the next `advance` to try once more from the last checkpoint."""
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, torch.AcceleratorError) and not _is_out_of_memory(error):
            raise error
        if _is_out_of_memory(error):
            advice = "lower --batch-size or --width" + (", or --trials-per-gpu" if self.job.device == "cuda" else "")
            self._end(Status.FAILED, f"out of memory ({text}); {advice}", failure=Failure.MEMORY)
        elif self._is_retry:
            self._end(Status.FAILED, text, failure=Failure.PROGRAM)
        else:
            _say("tried once more")
            self._is_retry, self._training = True, None
            self._write(replace(self.record, attempts=_closed(self.record.attempts, text)))

    def _finished(self) -> Record | None:
        """A finished record whose result never reached the driver, because the process that wrote it died."""
        record = self._previous()
        if record is None or not record.status.is_final or record.config != self.record.config:
            return None
        try:
            check_files(self.job.store, record)
        except Damaged:
            return None
        return record if record.dataset == self.record.dataset else None

    def _begin(self) -> Training:
        previous, state = self._previous(), self._checkpoint()
        history = () if state is None else tuple(Epoch(**epoch) for epoch in state["training"]["history"])
        if state is not None:
            generation = int(state["generation"])
        else:
            generation = 0 if previous is None else previous.generation + bool(previous.history)
        self.token = uuid.uuid4().hex
        attempt = Attempt(token=self.token, started_at=now())
        job = self.job
        self.record = replace(
            self.record,
            history=history,
            generation=generation,
            attempts=(*(_closed(previous.attempts, "interrupted") if previous is not None else ()), attempt),
            environment=environment(job.device, job.git_commit),
            started_at=previous.started_at if history and previous is not None else attempt.started_at,
        )
        job.store.write(self.files.record, self.record.to_bytes())
        _say(f"{self.cell.key} begins after epoch {len(history)} on {job.device}")
        self._check_memory()
        training = Training(job.settings.model(self.cell), job.settings.training(self.cell), self.images)
        if training.method:
            _say(training.method)
        if state is not None:
            training.restore(state["training"])
        return training

    def _check_memory(self) -> None:
        """Refuse a model that a search proposed and that no step could be done with; to build it might take hours.

        Raises:
            MemoryError: it is one.
        """
        if not self.job.is_search or self.job.device != "cpu":
            return
        settings = self.job.settings
        needed, there = step_bytes(settings.model(self.cell), settings.at(self.cell).batch_size), memory_bytes()
        if needed > there:
            raise MemoryError(f"a step takes about {needed / 2**30:,.1f} GiB, there are {there / 2**30:,.1f}")

    @property
    def images_per_s(self) -> float:
        """Training images a second over the last epoch."""
        last = self.record.history[-1].seconds if self.record.history else 0
        return len(self.images.train) / last if last else 0.0

    def _previous(self) -> Record | None:
        try:
            return read_record(self.job.store, self.cell)
        except FileNotFoundError:
            return None
        except Damaged as error:
            _say(f"the record is damaged: {error}")
            return None

    def _checkpoint(self) -> dict[str, Any] | None:
        """The state to continue from, if there is one that can be trusted and belongs to this very cell."""
        try:
            sealed = self.job.store.read(self.files.checkpoint)
            state: dict[str, Any] = torch.load(io.BytesIO(unseal(sealed)), weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:  # damaged, or written by another version: either way it is not to be used
            _say(f"the checkpoint cannot be used ({error}): the cell is trained from the start")
            return None
        if LATER_SETTINGS | state.get("identity", {}) != self._identity():
            _say("the checkpoint belongs to another configuration: the cell is trained from the start")
            return None
        return state

    def _identity(self) -> dict[str, Any]:
        fingerprint = self.images.dataset.fingerprint
        return self.job.settings.config(self.cell) | {"fingerprint": fingerprint, "schema": SCHEMA}

    def _save_epoch(self, training: Training) -> None:
        state = {
            "identity": self._identity(),
            "generation": self.record.generation,
            "training": training.state(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._write(replace(self.record, history=_history(training)), {self.files.checkpoint: seal(buffer.getvalue())})
        self._saved_at = time.perf_counter()

    def _complete(self, training: Training) -> None:
        contents = {self.files.weights: safetensors.torch.save(training.weights())}
        tested: dict[str, Any] = {}
        if not self.job.is_search:
            result, arrays = training.test(), io.BytesIO()
            np.savez(arrays, **asdict(result))
            contents = {self.files.test: arrays.getvalue()} | contents
            tested = {
                "test_loss": result.mean_loss,
                "dead_latent_channels": result.dead_latent_channels,
                "test_psnr_db": psnr_db(result.mean_loss),
            }
        history, mean_image_loss = training.history, self.images.test_set.mean_image_validation_loss
        self._end(
            Status.COMPLETED,
            None,
            contents,
            collapsed=is_collapsed(history, mean_image_loss),
            unconverged=is_unconverged(history),
            digests={name.rsplit("/", 1)[-1]: digest(content) for name, content in contents.items()},
            **tested,
        )

    def _end(
        self, status: Status, error: str | None, files: Mapping[str, bytes] = MappingProxyType({}), **results: Any
    ) -> None:
        self._write(
            replace(
                self.record,
                status=status,
                error=error,
                history=_history(self._training) if self._training is not None else self.record.history,
                attempts=_closed(self.record.attempts, error or status.value),
                finished_at=now(),
                **results,
            ),
            files,
        )
        if status.is_final:
            self.job.store.delete(self.files.checkpoint)

    def _write(self, record: Record, files: Mapping[str, bytes] = MappingProxyType({})) -> None:
        """Write the files, and then the record that speaks of them."""
        self._check_token()
        for name, content in files.items():
            self.job.store.write(name, content)
        self.job.store.write(self.files.record, record.to_bytes())
        self.record = record

    def _check_token(self) -> None:
        # A writer may outlive its driver by seconds, while the next run is already at the cell; a thread of a host its
        # trial, which the driver has noted as lost.
        try:
            last = read_record(self.job.store, self.cell).attempts[-1]
        except (FileNotFoundError, Damaged):
            return
        if last.token != self.token:
            raise Superseded(f"{self.cell.key}: attempt {last.token} has taken over from {self.token}")
        if last.ended_at is not None:
            raise Superseded(f"{self.cell.key}: attempt {self.token} was given up: {last.reason}")

    @contextmanager
    def _logging(self) -> Iterator[None]:
        with self.job.store.log(self.files.log) as log, printing_into(log):
            yield


def _say(message: str) -> None:
    print(f"{now()} {message}")


def _history(training: Training) -> tuple[Epoch, ...]:
    return tuple(Epoch(**asdict(epoch)) for epoch in training.history)


def _closed(attempts: tuple[Attempt, ...], reason: str) -> tuple[Attempt, ...]:
    """The attempts, the last one ended if it was not."""
    if attempts and attempts[-1].ended_at is None:
        return (*attempts[:-1], replace(attempts[-1], ended_at=now(), reason=reason))
    return attempts


def _is_out_of_memory(error: Exception) -> bool:
    # On the CPU, and where a library asks for memory, torch raises a plain RuntimeError. oneDNN says the least.
    words = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "could not create a primitive")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in words)


@cache
def environment(device: str, git_commit: str | None) -> dict[str, Any]:
    """What a record says of where it was made."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": version("ray"),
        "dae_sweep": version("dae-sweep"),
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        # Processors of one name may differ in what they can do, which decides how sums are rounded.
        **({} if device == "cuda" else {"instructions": torch.backends.cpu.get_cpu_capability()}),
        "git_commit": git_commit,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
