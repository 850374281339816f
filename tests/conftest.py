"""What several test files share: settings of hypothesis, tiny data, and a real sweep made without Ray."""

import io
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads spin while they wait, and others need the cores
import hypothesis
import numpy as np
import pytest
from synthetic import drawn_digits

from dae.data import Dataset
from sweep.driver.signals import HANDLED
from sweep.records.grid import Grid, Settings
from sweep.records.record import Status
from sweep.storage.store import Store
from sweep.trials import user_folders

if TYPE_CHECKING:
    from tracked import Server

    from sweep.driver.progress import Progress
    from sweep.driver.request import Request
    from sweep.records.sweep import Sweep

pytest_plugins = ["leftovers", "selection"]

# The same examples in every run: a failure in CI is a failure at home.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=100)
hypothesis.settings.load_profile("repeatable")

os.environ["DAE_SWEEP_NO_EVALUATION"] = "1"  # it takes longer than the sweeps of these tests; test_evaluation has it

SMALL_GRID = Grid.product((1, 3), (5, 8), (0,))
SMALL = Settings.usual("mnist-5k", train_fraction=0.1, epochs=3, batch_size=32)
"""A sweep of real digits that takes a second or two: 320 training images, 10 steps an epoch."""


@pytest.hookimpl(trylast=True)  # once `leftovers` has said where temporary files go
def pytest_configure() -> None:
    folder = Path(tempfile.gettempdir()) / "cache"
    os.environ |= {variable: str(folder / name) for variable, name in user_folders.CACHES.items()}


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No trace of W&B, GPUs or a home folder in the environment; returns the empty home."""
    for name in [name for name in os.environ if name.startswith(("WANDB", "NETRC", "XDG_"))]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return home


@pytest.fixture
def own_signals() -> Iterator[None]:
    """A command that runs in this process takes the signals over; afterwards they are pytest's again."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> "Iterator[Callable[..., Server]]":
    """Starts servers of W&B's protocol and points wandb to the last one."""
    from tracked import KEY, Server

    servers: list[Server] = []

    def start(**options: Any) -> Server:
        servers.append(Server(**options))
        monkeypatch.setenv("WANDB_BASE_URL", servers[-1].url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def tiny() -> Dataset:
    """Ten digits in a blocky font, shifted and in different greys: 64 training, 32 validation and 40 test images."""
    generator = np.random.default_rng(3)

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = (np.arange(count) % 10).astype(np.uint8)
        shifts = generator.integers(-3, 4, (count, 2))
        greys = generator.uniform(150, 255, count)
        drawn = [
            np.roll(drawn_digits()[label], tuple(shift), (0, 1)) * grey
            for label, shift, grey in zip(labels, shifts, greys, strict=True)
        ]
        return np.stack(drawn).astype(np.uint8), labels

    (train, train_labels), (validation, validation_labels), (test, test_labels) = map(images, (64, 32, 40))
    return Dataset(
        name="mnist-5k",
        fingerprint="f" * 64,
        train=train,
        train_labels=train_labels,
        validation=validation,
        validation_labels=validation_labels,
        test=test,
        test_labels=test_labels,
        low=0,
        high=255,
    )


@contextmanager
def as_trials_do() -> Iterator[None]:
    """Torch as trials use it; bits depend on it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """`as_trials_do`, for a test."""
    with as_trials_do():
        yield


def request_for(store: Store, grid: Grid, settings: Settings, **changes: Any) -> "Request":
    """What `dae-sweep run` would be asked for, on one core and untracked."""
    from sweep.driver.request import Request

    return Request(
        store=store,
        grid=grid,
        settings=settings,
        **{"data_dir": Path("nowhere"), "cpus": 1, "gpus": 0, "trials_per_gpu": 1}
        | {"wandb_mode": "disabled", "project": "dae"}
        | changes,
    )


def make_undisturbed(store: Store, grid: Grid, settings: Settings) -> None:
    """Fill the folder with a finished sweep, cell after cell in this process: what Ray must not change a bit of."""
    from dae import data
    from dae.training import Images
    from sweep.driver.declaration import declare
    from sweep.trials.job import Job
    from sweep.trials.trial import Trial

    dataset = data.load(settings.dataset, Path("nowhere"), settings.train_fraction)
    declare(request_for(store, grid, settings), dataset, warn=pytest.fail)
    job = Job(store=store, settings=settings, device="cpu", memory_share=1.0, git_commit=None)
    with as_trials_do():
        images = Images(dataset, settings.alpha, "cpu")
        for cell in grid.cells:
            Trial(job, cell, images).advance(float("inf"))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """`SMALL_GRID` under `SMALL`, completed without Ray. Not to be changed: see `sweep_copy`."""
    store = Store(tmp_path_factory.mktemp("undisturbed") / "mnist-5k")
    make_undisturbed(store, SMALL_GRID, SMALL)
    return store


@pytest.fixture
def sweep_copy(undisturbed: Store, tmp_path: Path) -> Store:
    """A copy of the undisturbed sweep, to do anything with; its storage is ``tmp_path / "sweeps"``."""
    shutil.copytree(undisturbed.root, tmp_path / "sweeps" / undisturbed.root.name)
    return Store(tmp_path / "sweeps" / undisturbed.root.name)


@pytest.fixture
def sweep_of_pairs(sweep_copy: Store) -> Store:
    """The copy, its manifest saying that the images came with their noise."""
    from sweep.records.sweep import MANIFEST, gather

    manifest = gather(sweep_copy).manifest
    manifest = replace(manifest, dataset={**manifest.dataset, "pairs": True})
    sweep_copy.write(MANIFEST, manifest.to_bytes())
    return sweep_copy


@dataclass
class Silent:
    """A `Display` that shows nothing; a warning nobody expects fails the test."""

    warn: Callable[[str], None] = pytest.fail
    tell: Callable[[str], None] = lambda _message: None

    def progress(self, sweep: "Sweep", slots: int) -> "Progress":
        """A real one, into nowhere."""
        from rich.console import Console

        from sweep.driver.progress import Progress

        manifest = sweep.manifest
        return Progress(Console(file=io.StringIO()), manifest.grid.cells, sweep.records, manifest.settings, slots)


@dataclass
class InProcess:
    """Stands in for Ray Tune: real trials, one after the other in this process.

    Attributes:
        rounds: keys of the cells of every call, in their order; of a search they are not known before.
        before: called with a cell's key before each of its epochs.
    """

    rounds: list[list[str]] = field(default_factory=list)
    before: Callable[[str], None] = lambda _key: None

    def run_trials(
        self,
        cells: Any,
        job: Any,
        dataset: Dataset,
        resources: Any,
        listener: Any,
        should_stop: Callable[[], bool],
        max_retries: int,
        hosts: Any,
    ) -> None:
        from dae.training import Images
        from sweep.trials.trial import Trial

        listed = isinstance(cells, Sequence)
        self.rounds.append([cell.key for cell in cells] if listed else [])
        images = Images(dataset, job.settings.alpha, job.device)
        for cell in cells if listed else iter(cells.next_cell, None):
            self.rounds[-1] += [] if listed else [cell.key]
            trial = Trial(job, cell, images)
            listener.started(cell.key)
            status = Status.RUNNING
            while status is Status.RUNNING:
                if should_stop():
                    return
                self.before(cell.key)
                record = listener.decided(trial.advance(0))
                listener.progressed(record, trial.images_per_s)
                status = record.status


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, own_signals: None, one_thread: None) -> InProcess:
    """Runs of this test use no Ray."""
    from sweep.driver import training
    from sweep.trials import session, tuning

    fake = InProcess()
    monkeypatch.setattr(training, "watching", nullcontext)  # nothing is started that could be left
    monkeypatch.setattr(session, "local_cluster", lambda *_: nullcontext())
    monkeypatch.setattr(tuning, "run_trials", fake.run_trials)
    return fake
