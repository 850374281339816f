"""One trial's work on one cell: begin or continue it, leave every finished epoch on disk, finish it.

Knows no Ray: what schedules a trial calls `begin`, then `advance` until the record is final.
"""

import io
import platform
import subprocess
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from dae.architecture import mac_count, parameter_count
from dae.training import Diverged, Images, Training, is_collapsed, is_unconverged, psnr_db
from sweep.grid import Cell, Settings
from sweep.records import Attempt, CellFiles, Epoch, Record, Status, now, read_record
from sweep.store import Damaged, Store, digest, seal, unseal


class Superseded(Exception):
    """A newer attempt works on this cell; this one must write no more."""


@dataclass(frozen=True, slots=True)
class Job:
    """What all trials of a run share; small enough to travel to every worker.

    Attributes:
        run_token: identity of the run that started the trial.
        git_commit: of the program, as the driver found it.
    """

    store: Store
    settings: Settings
    device: str
    run_token: str
    git_commit: str | None


class Trial:
    """A cell in the hands of one process.

    Args:
        job: what all trials share.
        cell: the cell.
        images: its dataset on the job's device.
    """

    def __init__(self, job: Job, cell: Cell, images: Images) -> None:
        self.job = job
        self.cell = cell
        self.images = images
        self.files = CellFiles(cell.key)
        self.token = uuid.uuid4().hex
        self.record: Record
        self._training: Training

    def begin(self) -> Record:
        """Take the cell over: its training stands after the last epoch that is on disk.

        Raises:
            UserError: the training cannot be set up.
        """
        with self._logging():
            previous = self._previous()
            self._training = self._new_training()
            state = self._checkpoint()
            is_continued = state is not None
            if state is not None:
                self._training.restore(state["training"])
                generation = int(state["generation"])
            else:
                generation = previous.generation + 1 if previous is not None and previous.history else 0
            attempt = Attempt(token=self.token, started_at=now())
            settings, cell = self.job.settings, self.cell
            self.record = Record(
                key=cell.key,
                architecture=cell.architecture,
                depth=cell.depth,
                latent=cell.latent,
                seed=cell.seed,
                status=Status.RUNNING,
                config=settings.config(cell),
                parameters=parameter_count(settings.model(cell)),
                macs=mac_count(settings.model(cell)),
                compression=settings.model(cell).compression,
                dataset={"name": self.images.dataset.name, "fingerprint": self.images.dataset.fingerprint},
                history=self._history(),
                generation=generation,
                attempts=(*(_closed(previous.attempts) if previous is not None else ()), attempt),
                environment=_environment(self.job.device, self.job.git_commit),
                started_at=previous.started_at if is_continued and previous is not None else attempt.started_at,
            )
            self.job.store.write(self.files.record, self.record.to_bytes())
            print(f"{now()} {cell.key} begins after epoch {len(self.record.history)} on {self.job.device}")
        return self.record

    def advance(self, at_least_s: float) -> Record:
        """Train on for ``at_least_s`` seconds, rounded up to whole epochs, or to the end.

        An error does not escape: it ends the cell as diverged or failed, and stands in its record and log.

        Raises:
            Superseded: a newer attempt has begun.
        """
        start = time.perf_counter()
        with self._logging():
            try:
                while not self._training.is_finished:
                    epoch = self._training.run_epoch()
                    print(
                        f"{now()} {self.cell.key} epoch {epoch.epoch}: training loss {epoch.train_loss:.6f}, "
                        f"validation loss {epoch.val_loss:.6f}, {epoch.seconds:.2f} s"
                    )
                    if self._training.is_finished:
                        break
                    self._save_epoch()
                    if time.perf_counter() - start >= at_least_s:
                        return self.record
                self._complete()
            except Superseded:
                raise
            except Diverged as error:
                self._end(Status.DIVERGED, str(error))
            except Exception as error:  # whatever it is, it belongs into this cell's record
                traceback.print_exc()
                self._end(Status.FAILED, f"{type(error).__name__}: {error}")
        return self.record

    @property
    def images_per_s(self) -> float:
        """Training images a second over the last epoch."""
        last = self._training.history[-1].seconds if self._training.history else 0
        return len(self.images.train) / last if last else 0.0

    def _new_training(self) -> Training:
        settings = self.job.settings
        return Training(settings.model(self.cell), settings.training(self.cell), self.images)

    def _previous(self) -> Record | None:
        try:
            return read_record(self.job.store, self.cell)
        except FileNotFoundError:
            return None
        except Damaged as error:
            print(f"{now()} the record is damaged ({error})")
            return None

    def _checkpoint(self) -> dict[str, Any] | None:
        """The state to continue from, if there is one that can be trusted and belongs to this very cell."""
        try:
            sealed = self.job.store.read(self.files.checkpoint)
            state: dict[str, Any] = torch.load(io.BytesIO(unseal(sealed)), weights_only=True)
        except FileNotFoundError:
            return None
        except Damaged as error:
            print(f"{now()} the checkpoint is damaged ({error}): the cell is trained from the start")
            return None
        if state["identity"] != self._identity():
            print(f"{now()} the checkpoint belongs to another configuration: the cell is trained from the start")
            return None
        return state

    def _identity(self) -> dict[str, Any]:
        return self.job.settings.config(self.cell) | {"fingerprint": self.images.dataset.fingerprint}

    def _history(self) -> tuple[Epoch, ...]:
        return tuple(Epoch(**asdict(epoch)) for epoch in self._training.history)

    def _save_epoch(self) -> None:
        state = {
            "identity": self._identity(),
            "generation": self.record.generation,
            "training": self._training.state(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._check_token()
        self.job.store.write(self.files.checkpoint, seal(buffer.getvalue()))
        self._write(replace(self.record, history=self._history()))

    def _complete(self) -> None:
        result, mean_image_loss = self._training.test(), self.images.mean_image_loss
        arrays = io.BytesIO()
        np.savez(arrays, **asdict(result))
        contents = {
            self.files.test: arrays.getvalue(),
            self.files.weights: safetensors.torch.save(self._training.weights()),
        }
        self._check_token()
        for name, content in contents.items():
            self.job.store.write(name, content)
        history = self._training.history
        loss = result.mean_loss
        self._end(
            Status.COMPLETED,
            None,
            collapsed=is_collapsed(history, mean_image_loss),
            unconverged=is_unconverged(history),
            test_loss=loss,
            test_psnr_db=psnr_db(loss),
            digests={name.rsplit("/", 1)[-1]: digest(content) for name, content in contents.items()},
        )
        self.job.store.delete(self.files.checkpoint)

    def _end(self, status: Status, error: str | None, **results: Any) -> None:
        attempt = replace(self.record.attempts[-1], ended_at=now(), reason=error or status.value)
        self._write(
            replace(
                self.record,
                status=status,
                error=error,
                history=self._history(),
                attempts=(*self.record.attempts[:-1], attempt),
                finished_at=now(),
                **results,
            )
        )

    def _write(self, record: Record) -> None:
        self._check_token()
        self.job.store.write(self.files.record, record.to_bytes())
        self.record = record

    def _check_token(self) -> None:
        # A writer may outlive its driver by seconds, while the next run is already at the cell.
        try:
            current = read_record(self.job.store, self.cell).attempts[-1].token
        except (FileNotFoundError, Damaged):
            return
        if current != self.token:
            raise Superseded(f"{self.cell.key}: attempt {current} has taken over from {self.token}")

    @contextmanager
    def _logging(self) -> Iterator[None]:
        path = self.job.store.path(self.files.log)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
            yield


def _closed(attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """The attempts, the last one ended: who begins anew knows that nobody else is at it any more."""
    if attempts and attempts[-1].ended_at is None:
        return (*attempts[:-1], replace(attempts[-1], ended_at=now(), reason="interrupted"))
    return attempts


@cache
def _environment(device: str, git_commit: str | None) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": version("ray"),
        "dae_sweep": version("dae-sweep"),
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "git_commit": git_commit,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def git_commit() -> str | None:
    """The commit of the program's own checkout, with ``+`` if files differ from it; None outside a checkout."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", "--", Path(__file__).name):
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", "..") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
