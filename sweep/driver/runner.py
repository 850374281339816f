"""From a request to a finished sweep: prepare it, train what is missing, evaluate, report."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from dae import data
from dae.data import Dataset
from dae.errors import UserError
from sweep.driver.ahead import Ahead
from sweep.driver.control import Control, revive
from sweep.driver.declaration import declare
from sweep.driver.holding import holding
from sweep.driver.progress import Display
from sweep.driver.request import Request
from sweep.driver.searching import Searching
from sweep.driver.signals import Signals
from sweep.driver.training import Training
from sweep.records.axes import AXES
from sweep.records.sweep import Sweep, gather, pack
from sweep.tracking.tracker import Tracker
from sweep.trials.machine import cpu_count, memory_bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        sweep: the folder as the run left it.
        tracked_at: where the W&B runs are, None without tracking.
        stopped_because: why the run ended before all cells had been tried, if it did.
    """

    sweep: Sweep
    tracked_at: str | None
    stopped_because: str | None


def run(request: Request, signals: Signals, display: Display) -> Outcome:
    """Train the cells of the request that are not completed yet, evaluate and report.

    Args:
        request: what was asked for.
        signals: asked between and during trials whether to stop.
        display: is told what begins, how the trials are doing, and of everything that went on although it should
            not have been.

    Raises:
        UserError: the request cannot be carried out; nothing was lost.
        Interrupted: a signal came; every finished epoch is on disk.
    """
    dataset = _load(request, display.tell)
    store = request.store
    with holding(store) as is_held, store.spool("wandb") as folder:
        control = Control(store)  # before anything that takes long: who asks from now on asks this run
        store.sweep_up()
        sweep = declare(request, dataset, display.warn)
        if request.revive:
            revive(sweep, request.grid.cells if request.search is None else sweep.manifest.grid.cells)
            sweep = gather(store)
        tracker = Tracker(sweep.manifest, folder, mode=request.wandb_mode, project=request.project, warn=display.warn)
        try:
            kind = Training if request.search is None else Searching
            with Ahead.of(request, sweep, dataset, display.warn, display.tell) as ahead:
                training = kind(request, dataset, signals, display, tracker, is_held, control, ahead.begin)
                sweep, stopped_because = training.run(sweep)
                signals.raise_if_asked()
                if sweep.completed:
                    sweep = _evaluated(request, sweep, dataset, display, ahead)
            if sweep.completed:
                _report(request, sweep, tracker)
            _pack(sweep, display)
        finally:
            tracker.close()
            control.clear()
    return Outcome(sweep, store.uri("wandb") if tracker.mode == "offline" else tracker.location, stopped_because)


def _load(request: Request, tell: Callable[[str], None]) -> Dataset:
    """The dataset of the request.

    Raises:
        UserError: it is not there, or is smaller than a batch.
    """
    settings = request.settings
    dataset = data.load(
        request.source or settings.dataset,
        request.data_dir,
        settings.train_fraction,
        patch=settings.patch,
        skip_unreadable=request.skip_unreadable,
        memory=memory_bytes(),
        tell=tell,
    )
    dataset = replace(dataset, name=settings.dataset)  # images that were moved keep the name of their first path
    sizes = [settings.at(cell).batch_size for cell in request.grid.cells]
    if request.search is not None:
        values = request.search.space.parameters.get("batch_size")
        sizes = [settings.batch_size] if values is None else [int(size) for size in values.ends]
    largest = max(sizes)
    if largest > len(dataset.train):
        option = "--batch-size" if request.search is None else "that of --space"
        raise UserError(
            f"batch size {largest} is larger than the {len(dataset.train)} training images: "
            f"lower {option} or raise --train-fraction."
        )
    return dataset


def _evaluated(request: Request, sweep: Sweep, dataset: Dataset, display: Display, ahead: Ahead) -> Sweep:
    """The sweep with baselines, reader and quality, computed on this machine whatever the cluster has."""
    if not request.evaluation:
        return sweep
    from sweep.evaluation.evaluation import evaluate

    workers = min(request.cpus or cpu_count(), cpu_count())
    device = "cuda" if request.gpus and request.address is None else "cpu"
    is_computed = evaluate(
        sweep,
        dataset,
        workers=workers,
        warn=display.warn,
        tell=display.tell,
        device=device,
        executor=ahead.finish(),
    )
    return replace(sweep, snapshot=sweep.store.snapshot()) if is_computed else sweep


def _report(request: Request, sweep: Sweep, tracker: Tracker) -> None:
    """Write the report, and give its table and figures to W&B."""
    if not request.report:
        return
    from sweep.report import page

    page.build(sweep)
    figures = [name for name in sweep.store.names("report") if name.endswith(".png")]
    tracker.report(_comparison(sweep), [sweep.store.download(name) for name in figures])


def _pack(sweep: Sweep, display: Display) -> None:
    """Make a bucket of many cells fast to read; that it could not be written is no reason to fail now."""
    try:
        pack(sweep)
    except OSError as error:
        display.warn(f"commands will read {sweep.manifest.name} file by file, which takes longer: {error}")


def _comparison(sweep: Sweep) -> list[dict[str, object]]:
    """A row for each completed cell. A column of W&B's tables has one type: all latents are text where one is."""
    is_text = any(isinstance(record.latent, str) for record in sweep.completed)
    return [
        {
            "cell": record.key,
            "depth": record.depth,
            "latent": str(record.latent) if is_text else record.latent,
            "seed": record.seed,
            **{name: record.config[name] for name in AXES},
            "test_loss": record.test_loss,
            "test_psnr_db": record.test_psnr_db,
            "parameters": record.parameters,
            "macs": record.macs,
        }
        for record in sweep.completed
    ]
