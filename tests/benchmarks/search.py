"""Samplers and schedulers on the embedded digits, beside Ray Tune's own Optuna search with ASHA.

Every way tries so many configurations of one space, with the same training steps; the best is trained anew with fresh
seeds and tested. Ray Tune's way is the one of its documentation: a function as trainable, `OptunaSearch`,
`ASHAScheduler`, default settings. Prints a row a way and seed: the best validation loss, the test loss of what won
(mean over the fresh seeds), seconds, seconds of training in all trials, epochs trained.

    python -m tests.benchmarks.search --trials 24 --seeds 0,1,2 --epochs 12 --train-fraction 0.5
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from dae.config import ModelConfig, TrainConfig, default_training
from sweep.records.record import Status
from sweep.records.sweep import gather
from sweep.storage.store import Store

ROOT = Path(__file__).parent.parent.parent
SPACE = ("lr=log:5e-4..2e-2", "width=4..24", "latent=4..14", "depth=1..5")
GRID = ("lr=2e-3,8e-3", "width=8,20", "latent=4,8,13", "depth=1,3")  # 24 points
FRESH = (1000, 1001)
WAYS = {
    "random": ("--sampler", "random"),
    "tpe": ("--sampler", "tpe"),
    "tpe + asha": ("--sampler", "tpe", "--scheduler", "asha"),
    "grid": ("--sampler", "grid"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--asha-trials", type=int, default=48, help="where hopeless ones end early")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--train-fraction", type=float, default=0.5)
    parser.add_argument("--tune-child", type=int, metavar="SEED", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.tune_child is not None:
        ray_tune(given.tune_child, given)
        return
    print(f"{'way':<22} seed  best val  test     wall s  trial s  trials  pruned  epochs", flush=True)
    for seed in map(int, given.seeds.split(",")):
        for name, options in WAYS.items():
            row(name, seed, *ours(name, options, seed, given))
        words = [sys.executable, "-m", "tests.benchmarks.search", "--tune-child", str(seed)]
        words += ["--asha-trials", str(given.asha_trials), "--epochs", str(given.epochs)]
        words += ["--train-fraction", str(given.train_fraction)]
        subprocess.run(words, cwd=ROOT, check=True)


def row(name: str, seed: int, val: float, test: float, *numbers: float) -> None:
    wall, trial, trials, pruned, epochs = numbers
    print(
        f"{name:<22} {seed:4}  {val:.5f}   {test:.5f}  {wall:6.1f}  {trial:7.1f}  {trials:6.0f}  {pruned:6.0f}  "
        f"{epochs:6.0f}",
        flush=True,
    )


def ours(name: str, options: tuple[str, ...], seed: int, given: argparse.Namespace) -> tuple[float, ...]:
    """One search of `dae-sweep`."""
    space = GRID if name == "grid" else SPACE
    trials = given.asha_trials if "asha" in name else given.trials
    with tempfile.TemporaryDirectory() as folder:
        words = ["search", "--dataset", "mnist-5k", "--storage", folder, "--name", "s", "--trials", str(trials)]
        words += [*options, *(word for values in space for word in ("--space", values)), "--seed", str(seed)]
        words += ["--epochs", str(given.epochs), "--train-fraction", str(given.train_fraction)]
        words += ["--finalists", "1", "--seeds", str(len(FRESH)), "--wandb", "disabled", "--gpus", "0"]
        words += ["--no-report", "--no-evaluation", "--quiet"]
        start = time.monotonic()
        subprocess.run([sys.executable, "-m", "sweep", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        wall = time.monotonic() - start
        sweep = gather(Store(Path(folder) / "s"))
        tried = [record for record in sweep.records.values() if record.key in sweep.proposals]
        fresh = [record for record in sweep.records.values() if record.key not in sweep.proposals]
    return (
        min(record.history[-1].val_loss for record in tried if record.status is Status.COMPLETED),
        fmean(record.test_loss for record in fresh if record.test_loss is not None),
        wall,
        sum(epoch.seconds for record in tried for epoch in record.history),
        len(tried),
        sum(record.status is Status.PRUNED for record in tried),
        sum(len(record.history) for record in tried),
    )


def training_of(config: dict[str, Any], seed: int, epochs: int, fraction: float) -> Any:
    from dae.data import load
    from dae.training import Images, Training

    digits = load("mnist-5k", Path("unused"), train_fraction=fraction)
    model = ModelConfig(**{name: config[name] for name in ("depth", "latent", "width")})
    settings = default_training("mnist-5k", epochs) | {"lr": config["lr"]}
    train = TrainConfig(**settings, seed=seed)
    return Training(model, train, Images(digits, train.alpha, "cpu"))


def trainable(config: dict[str, Any], seed: int, epochs: int, fraction: float) -> None:
    from ray import tune

    training = training_of(config, seed, epochs, fraction)
    for _ in range(epochs):
        result = training.run_epoch()
        tune.report({"val_loss": result.val_loss, "seconds": result.seconds})


def ray_tune(seed: int, given: argparse.Namespace) -> None:
    """The same with Ray Tune alone."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    ray.init(include_dashboard=False, log_to_driver=False, num_cpus=2, num_gpus=0)
    space = {"lr": tune.loguniform(5e-4, 2e-2), "width": tune.randint(4, 25), "latent": tune.randint(4, 15)}
    space |= {"depth": tune.randint(1, 6)}
    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            tune.with_parameters(trainable, seed=seed, epochs=given.epochs, fraction=given.train_fraction),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="val_loss",
                mode="min",
                num_samples=given.asha_trials,
                search_alg=ConcurrencyLimiter(OptunaSearch(seed=seed), max_concurrent=2),
                scheduler=ASHAScheduler(max_t=given.epochs),
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        frames = {result.path: result.metrics_dataframe for result in results}
        full = [result for result in results if result.metrics["training_iteration"] == given.epochs]
    best = min(full, key=lambda result: result.metrics["val_loss"])
    losses = []
    for fresh in FRESH:
        training = training_of(best.config, fresh, given.epochs, given.train_fraction)
        for _ in range(given.epochs):
            training.run_epoch()
        losses.append(training.test().mean_loss)
    epochs = [len(frame) for frame in frames.values()]
    row(
        "Ray Tune: Optuna, ASHA", seed, best.metrics["val_loss"], fmean(losses), time.monotonic() - start,
        sum(frame["seconds"].sum() for frame in frames.values()), len(epochs),
        sum(count < given.epochs for count in epochs), sum(epochs),
    )  # fmt: skip


if __name__ == "__main__":
    main()
