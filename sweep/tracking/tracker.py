"""Weights & Biases: one run for each cell and one for the report. No torch, no Ray.

The records are the truth, W&B is a copy of them: whatever happens here costs at most the copy. Each epoch is in it
exactly once. An offline run that was cut off is removed and written again from the history; one that was synced is
left alone, and the next one with its id holds the later epochs.

Runs are written with ``resume="allow"``: whatever W&B has of a run already is the same numbers at the same steps.
Seen with wandb 0.31: the files, and what is sent to a server that answers, refuses, falls silent or is lost half-way.
Not seen, because only W&B shows it: what it makes of a run that was uploaded in part and is then synced as a whole.
"""

import hashlib
import json
import logging
import os
import queue
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sweep.records.grid import written
from sweep.records.record import Epoch, Record, Status
from sweep.records.sweep import Manifest
from sweep.tracking import files, service
from sweep.tracking.configuration import DEFAULT_PROJECT, resolve_mode

INTERRUPTED_EXIT_CODE = 255
"""W&B shows a run that ended with it as killed, not as failed."""

Job = Callable[[], None]


class Tracker:
    """Writes a sweep to W&B without ever making it wait, or fail.

    Every call returns at once; one daemon thread does the work. When it fails online, the rest of the sweep is tracked
    offline and ``warn`` is called once; when it fails offline too, tracking ends and ``warn`` is called once more.
    """

    def __init__(
        self, manifest: Manifest, folder: Path, *, mode: str, project: str | None, warn: Callable[[str], None]
    ) -> None:
        """Track the sweep that lives in ``folder``.

        Args:
            manifest: what the sweep declares; its name is the group of the runs.
            folder: the sweep's folder; everything wandb writes goes to ``wandb`` in it.
            mode: one of `configuration.MODES`; ``auto`` is what `resolve_mode` makes of it.
            project: W&B project; None for the one that wandb was told of, else `DEFAULT_PROJECT`.
            warn: told, in a sentence, what was lost; called from another thread.

        Raises:
            ValueError: ``mode`` is none of these.
        """
        tempfile.gettempdir()  # decided now: a thread that does so while wandb is imported would undo its own
        before = service.set_environment(service.own_environment(folder))
        try:
            mode = resolve_mode(mode)
        except ValueError:
            service.set_environment(before)
            raise
        self._writer = _Writer(manifest, folder, project, mode, warn)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._environment_before: dict[str, str | None] | None = None
        self._thread = threading.Thread(target=self._writer.work, args=(self._jobs,), name="wandb", daemon=True)
        if mode == "disabled":
            service.set_environment(before)
        else:
            # Of an online run that fails `_Writer` makes an offline one; no variable and no file has a say any more.
            self._environment_before = {**service.set_environment({"WANDB_MODE": mode}), **before}
            self._thread.start()

    @property
    def mode(self) -> str:
        """How the sweep is tracked now: ``online``, ``offline`` or ``disabled``."""
        return self._writer.mode

    @property
    def location(self) -> str | None:
        """Where to look: the project's URL, or the folder to give to ``wandb sync``; None when nothing is tracked."""
        return self._writer.location

    def started(self, record: Record) -> None:
        """A trial of this cell begins; the history of ``record`` is what it has from earlier trials."""
        self._do(partial(self._writer.started, record))

    def progressed(self, key: str, history: Sequence[Epoch]) -> None:
        """A cell that was started has this whole history by now."""
        self._do(partial(self._writer.progressed, key, tuple(history)))

    def ended(self, record: Record, sample: np.ndarray | None) -> None:
        """This is the final record of a cell; ``sample`` shows what it denoised: uint8, (H, W) or (H, W, 3)."""
        self._do(partial(self._writer.ended, record, None if sample is None else sample.copy()))

    def report(self, rows: Sequence[Mapping[str, Any]], figures: Sequence[Path]) -> None:
        """The comparison table, a row for each mapping, and the figures; takes the place of one not synced yet."""
        self._do(partial(self._writer.report, [dict(row) for row in rows], tuple(figures)))

    def lacks(self, record: Record) -> bool:
        """Whether W&B was never told how this cell ended."""
        return self.mode != "disabled" and not self._writer.finished_marker(record).exists()

    def close(self, timeout_s: float = 60) -> None:
        """Write what is still to be written, but wait no longer than ``timeout_s``. A second call does nothing."""
        if self._environment_before is None:
            return
        self._jobs.put(None)
        self._thread.join(max(timeout_s - 1, 0))
        if self._thread.is_alive():
            self._writer.abandon(timeout_s)
            self._thread.join(1)
        service.set_environment(self._environment_before)
        self._environment_before = None

    def _do(self, job: Job) -> None:
        if self._environment_before is not None:
            self._jobs.put(job)


@dataclass(slots=True)
class _Cell:
    """A cell whose W&B run is not finished: what it should hold, and how far it does."""

    record: Record
    run: Any = None
    logged: int = 0


class _Writer:
    """What the thread does. A job may be done again after a failure: it says what W&B should hold, not what to add."""

    def __init__(
        self, manifest: Manifest, folder: Path, project: str | None, mode: str, warn: Callable[[str], None]
    ) -> None:
        self.mode = mode
        self.location = None if mode == "disabled" else str(folder / "wandb")
        self._manifest = manifest
        self._folder = folder
        self._project = project
        self._warn = warn
        self._cells: dict[str, _Cell] = {}
        self._last_logged: tuple[Path, int] | None = None
        self._report_id: str | None = None
        self._may_restart = True
        self._abandoned = False

    def work(self, jobs: "queue.SimpleQueue[Job | None]") -> None:
        """Do the jobs until None comes, then end the runs that are open."""
        while (job := jobs.get()) is not None:
            self._try(job)
        self._try(self._interrupt_open_cells)
        self._stop_service(kill=self._abandoned)
        if self.mode != "disabled" and not self._abandoned:
            self._check_last_file()
        shutil.rmtree(self._folder / service.CACHE, ignore_errors=True)
        files.remove_dangling_links(self._folder)

    def _check_last_file(self) -> None:
        """Warn of a disk that filled up: wandb writes that to its own log and goes on."""
        with suppress(Exception):
            file, epoch = self._last_logged or (Path(), 0)
            if file.is_file() and (last := files.last_epoch(file)) is not None and last < epoch:
                self._warn(f"{file} is incomplete: is the disk full? The records hold what it lacks.")

    def abandon(self, timeout_s: float) -> None:
        """Give up on whatever the thread is doing; called by another thread."""
        self._abandoned = True
        self._warn(f"W&B did not finish within {timeout_s:g} s: what it had not written yet is in the records only.")
        service.kill()

    def _try(self, job: Job) -> None:
        while self.mode != "disabled" and not self._abandoned:
            try:
                return job()
            except Exception as error:
                # A service in an unknown state is not asked to stop, which may take as long as what failed.
                self._stop_service(kill=True)
                if not self._abandoned:
                    self._degrade(error)
        return None

    def _degrade(self, error: Exception) -> None:
        reason = f"{type(error).__name__} {error}".strip().splitlines()[0]
        if self.mode == "online":
            self.mode, self.location = "offline", str(self._folder / "wandb")
            self._warn(
                f"W&B failed online ({reason}). The sweep goes on and is tracked offline: "
                f"upload it later with `dae-sweep sync`."
            )
        elif self._may_restart:
            self._may_restart = False
        else:
            self.mode, self.location = "disabled", None
            self._warn(f"W&B tracking has ended ({reason}). The sweep goes on, its records are complete.")

    def started(self, record: Record) -> None:
        cell = self._cells.get(record.key)
        if cell is not None and cell.record.generation != record.generation:
            self._finish(cell, INTERRUPTED_EXIT_CODE)
            cell = None
        if cell is None:
            cell = self._cells[record.key] = _Cell(record)
        cell.record = record
        self._catch_up(cell)

    def progressed(self, key: str, history: tuple[Epoch, ...]) -> None:
        if (cell := self._cells.get(key)) is not None:
            cell.record = replace(cell.record, history=history)
            self._catch_up(cell)

    def ended(self, record: Record, sample: np.ndarray | None) -> None:
        self.started(record)
        cell = self._cells[record.key]
        if sample is not None:
            image = service.wandb().Image(sample, caption=record.key)
            # A step of its own: what is logged to a committed step is dropped.
            cell.run.log({"test/sample": image}, step=len(record.history) + 1)
        self._finish(cell, 0 if record.status in (Status.COMPLETED, Status.PRUNED, Status.STOPPED) else 1)

    def report(self, rows: list[dict[str, Any]], figures: tuple[Path, ...]) -> None:
        # Chosen once: after a failure the report is written again under the same id.
        self._report_id = self._report_id or self._free_report_id()
        run = self._open(self._report_id, f"{self._manifest.name} report", "report", asdict(self._manifest.settings))
        wandb = service.wandb()
        # `wandb sync` uploads a table from where it was staged, so that place has to live as long as the run.
        os.environ["WANDB_DATA_DIR"] = str(Path(run.dir).parent / "staging")
        media: dict[str, Any] = {f"figures/{path.stem}": wandb.Image(str(path)) for path in figures if path.is_file()}
        if rows:
            columns = list(dict.fromkeys(column for row in rows for column in row))
            data = [[_plain(row.get(column)) for column in columns] for row in rows]
            media["comparison"] = wandb.Table(columns=columns, data=data, allow_mixed_types=True)
        run.log(media, step=0)
        run.finish(exit_code=0)
        self._report_id = None

    def _free_report_id(self) -> str:
        """The first id under which no report can have been uploaded."""
        number = 0
        while any(map(files.may_be_uploaded, self._files(run_id := self._run_id("report", number)))):
            number += 1
        return run_id

    def _interrupt_open_cells(self) -> None:
        for cell in list(self._cells.values()):
            self._catch_up(cell)
            self._finish(cell, INTERRUPTED_EXIT_CODE)

    def _catch_up(self, cell: _Cell) -> None:
        """Log the epochs that the run does not have yet."""
        if cell.run is None:
            self._open_cell(cell)
        for epoch in cell.record.history:
            if epoch.epoch > cell.logged:
                row = {"epoch": epoch.epoch, "train/loss": epoch.train_loss, "val/loss": epoch.val_loss}
                # Without a commit it would reach the file only together with the next epoch.
                cell.run.log(row | {"epoch_seconds": epoch.seconds}, step=epoch.epoch, commit=True)
                cell.logged = epoch.epoch
                self._last_logged = Path(cell.run.dir).parent / f"run-{cell.run.id}.wandb", epoch.epoch

    def finished_marker(self, record: Record) -> Path:
        """Is there once the run of the cell has ended as the cell did."""
        return files.finished_marker(self._folder, self._run_id(record.key, record.generation))

    def _open_cell(self, cell: _Cell) -> None:
        run_id = self._run_id(cell.record.key, cell.record.generation)
        with suppress(NotADirectoryError):  # `_open` says it better
            self.finished_marker(cell.record).unlink(missing_ok=True)
        for generation in range(cell.record.generation):  # superseded: nobody needs to see them any more
            files.remove_unsynced(self._folder, self._run_id(cell.record.key, generation))
        # Online the server itself says what it has, and wandb drops the steps before.
        synced = filter(files.is_synced, self._files(run_id)) if self.mode == "offline" else ()
        # One that cannot be read is written again as a whole: the same numbers at the same steps.
        cell.logged = max((files.last_epoch(file) or 0 for file in synced), default=0)
        cell.run = self._open(run_id, cell.record.key, "cell", _cell_config(cell.record))
        for name in ("train/loss", "val/loss", "epoch_seconds"):
            cell.run.define_metric(name, step_metric="epoch")

    def _finish(self, cell: _Cell, exit_code: int) -> None:
        if cell.run is not None:
            cell.run.summary.update(_summary(cell.record))
            cell.run.finish(exit_code=exit_code)
            if exit_code != INTERRUPTED_EXIT_CODE:
                self.finished_marker(cell.record).parent.mkdir(exist_ok=True)
                self.finished_marker(cell.record).touch()
        del self._cells[cell.record.key]

    def _open(self, run_id: str, name: str, job_type: str, config: dict[str, Any]) -> Any:
        """A new run, in place of what was written of it and not synced."""
        files.remove_unsynced(self._folder, run_id)
        # wandb would silently write to the system's temporary folder instead.
        (self._folder / "wandb").mkdir(parents=True, exist_ok=True)
        wandb, user = service.wandb(), service.start()
        # Its debug.log would put a traceback on the terminal for every line that a full disk refuses.
        logging.getLogger("wandb").setLevel(logging.CRITICAL + 1)
        run = wandb.init(
            reinit="create_new",
            mode=self.mode,
            dir=str(self._folder),
            project=self._project or user.project or DEFAULT_PROJECT,
            group=self._manifest.name,
            job_type=user.run_job_type or job_type if job_type == "cell" else job_type,
            name=name,
            id=run_id,
            resume="allow",
            config=config,
            settings=service.settings(),
        )
        if self.mode == "online" and run.project_url:
            self.location = str(run.project_url)
        return run

    def _stop_service(self, *, kill: bool) -> None:
        """End wandb's process and forget its runs; the next `_open` starts another."""
        if "wandb" not in sys.modules:
            return
        if kill:
            service.kill()
        for cell in self._cells.values():
            cell.run, cell.logged = None, 0
        # It complains about a connection that is lost, after it has let go of everything.
        with suppress(Exception):
            service.wandb().teardown()

    def _run_id(self, name: str, number: int) -> str:
        return hashlib.sha256(json.dumps([self._manifest.id, name, number]).encode()).hexdigest()[:16]

    def _files(self, run_id: str) -> list[Path]:
        return files.of_run(self._folder, run_id)


def _cell_config(record: Record) -> dict[str, Any]:
    return {
        **written(record.config),
        "architecture": record.architecture,
        "parameters": record.parameters,
        "macs": record.macs,
        "compression": record.compression,
        "dataset_fingerprint": record.dataset.get("fingerprint"),
        "generation": record.generation,
    }


def _summary(record: Record) -> dict[str, Any]:
    results = {
        "status": str(record.status),
        "collapsed": record.collapsed,
        "unconverged": record.unconverged,
        "test/loss": record.test_loss,
        "test/sum": record.test_sum,
        "test/psnr_db": record.test_psnr_db,
        "error": record.error,
    }
    return {name: value for name, value in results.items() if value is not None}


def _plain(value: object) -> object:
    """What a W&B table can hold."""
    if isinstance(value, np.generic):
        value = value.item()
    return value if value is None or type(value) in (bool, int, float, str) else str(value)
