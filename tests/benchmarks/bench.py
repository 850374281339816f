"""dae-sweep beside what one would write or pick instead, in one run on one machine.

    python -m tests.benchmarks.bench --data-dir data
    python -m tests.benchmarks.bench --only overhead --overhead 10,100,1000

Prints tables and writes them as JSON. Needs MNIST in torchvision's layout.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from dae.architecture import mac_count
from dae.config import ModelConfig, TrainConfig
from sweep.records.sweep import gather
from sweep.storage.store import Store

CELLS = [(depth, latent) for depth in (5, 3, 1) for latent in (13, 8, 5)]
NAMES = [f"DAE_{depth}_{latent}" for depth, latent in CELLS]
TRAINING, VALIDATION = 48_000, 12_000
"""Images of MNIST's split, before ``--fraction`` takes its share of the first."""
LIKE_THE_OTHERS = "dae-sweep run --no-evaluation"
"""Begins the name of the way that does what the other two do: they end with their test losses."""
UNKNOWN_SPREAD = 0.15
"""How far mean test losses may differ where one repeat says nothing of the noise between seeds."""

Results = dict[str, Any]
Way = Callable[[Path, int], dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data", help="folder that holds MNIST/raw")
    parser.add_argument("--fraction", type=float, default=0.1, help="share of the 48,000 training images")
    parser.add_argument("--epochs", type=int, default=4, help="after one or two, losses of seeds differ by half")
    parser.add_argument("--repeats", type=int, default=2, help="each with a seed of its own")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--trials-per-gpu", default="3", help="a list, such as 1,3,9: dae-sweep is timed with each")
    parser.add_argument("--only", choices=["sweep", "overhead"])
    parser.add_argument("--overhead", default="10,100", help="numbers of cells with next to nothing to train")
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    given = parser.parse_args()
    results: Results = {"settings": {name: str(value) for name, value in vars(given).items()}}
    results["machine"] = machine(given.gpus)
    parts = {"sweep": bench_sweep, "anatomy": bench_anatomy, "cells": bench_cells, "overhead": bench_overhead}
    for name, part in parts.items():
        if given.only is None or (given.only == "overhead") == (name == "overhead"):
            results[name] = part(given, results)
            given.json.write_text(json.dumps(results, indent=1))
    print(f"\nwritten to {given.json}")


# ---- the machine


def machine(gpus: int) -> Results:
    """Cores, and the rate of a large float32 matrix product on one of them, while all of them work, or on the GPU."""
    cores = len(os.sched_getaffinity(0))
    busy = 1 if gpus else cores
    with ProcessPoolExecutor(busy, mp_context=get_context("spawn")) as pool:
        rates = list(pool.map(peak_gflops, [gpus] * busy))
    found = {"cores": cores, "peak_gflops": statistics.mean(rates), "peak_of": "GPU" if gpus else "one core"}
    print(f"{cores} cores; large float32 matrix product on {found['peak_of']}: {found['peak_gflops']:.0f} GFLOP/s")
    return found


def peak_gflops(gpus: int) -> float:
    import torch

    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    size = 8192 if gpus else 2048
    a = torch.randn(size, size, device="cuda" if gpus else "cpu")

    def product() -> float:
        start = time.perf_counter()
        float((a @ a)[0, 0])
        return time.perf_counter() - start

    return 2 * size**3 / min(product() for _ in range(12)) / 1e9


# ---- the nine cells, three ways, from process start to the last result


def bench_sweep(given: argparse.Namespace, _: Results) -> Results:
    def script(module: str) -> Way:
        def way(folder: Path, seed: int) -> dict[str, float]:
            command = [
                sys.executable, "-m", f"tests.benchmarks.{module}", "--cells", json.dumps(CELLS), "--data-dir",
                given.data_dir, "--fraction", str(given.fraction), "--epochs", str(given.epochs), "--seed", str(seed),
                "--device", "cuda" if given.gpus else "cpu", "--out", str(folder / "losses.json"),
            ]  # fmt: skip
            run(command)
            losses: dict[str, float] = json.loads((folder / "losses.json").read_text())
            return losses

        return way

    def own(trials_per_gpu: str, *options: str) -> Way:
        def way(folder: Path, seed: int) -> dict[str, float]:
            run(["dae-sweep", *own_options(given, folder, seed, trials_per_gpu), *options])
            return {
                record.architecture: record.test_loss or 0.0 for record in gather(Store(folder / "mnist")).completed
            }

        return way

    ways = {"notebook": script("notebook"), "plain Ray Tune": script("plain_tune")}
    for k in given.trials_per_gpu.split(",") if given.gpus else ["1"]:
        where = f", {k} a GPU" if given.gpus else ""
        ways[f"{LIKE_THE_OTHERS}{where}"] = own(k, "--no-evaluation")
        ways[f"dae-sweep run{where}"] = own(k)
    found: Results = {name: {"seconds": [], "losses": []} for name in ways}
    for seed in range(given.repeats):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                start = time.perf_counter()
                found[name]["losses"].append(way(Path(folder), seed))
                found[name]["seconds"].append(time.perf_counter() - start)
            print(f"  seed {seed}, {name}: {found[name]['seconds'][-1]:.1f} s", flush=True)
    judge(found)
    print_ways(found)
    return found


def own_options(given: argparse.Namespace, folder: Path, seed: int, trials_per_gpu: str) -> list[str]:
    depths, latents = (",".join(dict.fromkeys(map(str, values))) for values in zip(*CELLS, strict=True))
    return [
        "run", "--data-dir", given.data_dir, "--storage", str(folder), "--depths", depths, "--latents", latents,
        "--initialisation", "he", "--seeds", str(seed), "--epochs", str(given.epochs),
        "--train-fraction", str(given.fraction),
        "--wandb", "offline", "--quiet", "--gpus", str(given.gpus),
        *(["--trials-per-gpu", trials_per_gpu] if given.gpus else []),
    ]  # fmt: skip


def run(command: list[str], **environment: str) -> None:
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def judge(found: Results) -> None:
    """A way whose losses differ from the notebook's by more than three times the noise between seeds is void."""
    spread, repeats = UNKNOWN_SPREAD, len(found["notebook"]["losses"])
    if repeats > 1:
        of_one_cell = [[losses[cell] for losses in each["losses"]] for each in found.values() for cell in NAMES]
        noise = math.sqrt(statistics.mean(statistics.variance(v) / statistics.mean(v) ** 2 for v in of_one_cell))
        spread = 3 * noise * math.sqrt(2 / repeats)
    for each in found.values():
        each["mean_losses"] = {cell: statistics.mean(losses[cell] for losses in each["losses"]) for cell in NAMES}
        ratios = [each["mean_losses"][cell] / found["notebook"]["mean_losses"][cell] for cell in NAMES]
        each["off_by"], each["may_be_off_by"] = statistics.mean(ratios) - 1, spread
        each["void"] = abs(each["off_by"]) > spread


def print_ways(found: Results) -> None:
    own = next(name for name in found if name.startswith(LIKE_THE_OTHERS))
    base = statistics.median(found[own]["seconds"])
    allowed = found[own]["may_be_off_by"]
    print(
        f"\n{'nine cells':<32}{'median s':>10}{'min':>8}{'max':>8}{'times':>8}{'loss off by':>14}"
        f" (void over {allowed:.1%})"
    )
    for name, each in found.items():
        seconds = each["seconds"]
        print(
            f"{name:<32}{statistics.median(seconds):>10.1f}{min(seconds):>8.1f}{max(seconds):>8.1f}"
            f"{statistics.median(seconds) / base:>8.2f}{each['off_by']:>14.1%}{'  VOID' if each['void'] else ''}"
        )
    print(f"\n{'mean test loss':<16}" + "".join(f"{name:>32}" for name in found))
    for cell in NAMES:
        print(f"{cell:<16}" + "".join(f"{each['mean_losses'][cell]:>32.5f}" for each in found.values()))


# ---- where the time of dae-sweep goes


def bench_anatomy(given: argparse.Namespace, _: Results) -> Results:
    """Once more, with a clock at the joints of the program."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        options = own_options(given, folder, 0, given.trials_per_gpu.split(",")[0])
        start = time.time()
        run([sys.executable, "-m", "tests.benchmarks.anatomy", str(folder / "marks.json"), *options])
        end = time.time()
        marks: dict[str, float] = json.loads((folder / "marks.json").read_text())
        records = gather(Store(folder / "mnist")).completed
    begun = [datetime.fromisoformat(record.attempts[-1].started_at).timestamp() for record in records]
    ended = [datetime.fromisoformat(record.finished_at or "").timestamp() for record in records]
    joints = [
        ("interpreter, imports, options", marks["data begins"]),
        ("data", marks["data ends"]),
        ("declare the sweep, find what is to do", marks["Ray begins"]),
        ("start Ray, import Tune", marks["trials begin"]),
        ("start the trials' processes, import torch", min(begun)),
        ("trials", max(ended)),
        ("end Ray, compute what the report needs", marks["report begins"]),
        ("report", marks["report ends"]),
        ("finish W&B's runs", marks["tracking ends"]),
        ("exit", end),
    ]
    seconds, before = {}, start
    for name, at in joints:
        seconds[name], before = at - before, at
    found = {
        "seconds": seconds,
        "first_trial_s": min(begun) - start,
        "whole_s": end - start,
        "epoch_s": {record.architecture: [epoch.seconds for epoch in record.history] for record in records},
        "cell_s": {
            record.architecture: last - first for record, first, last in zip(records, begun, ended, strict=True)
        },
    }
    print(f"\n{'where the time goes':<44}{'s':>8}")
    for name, each in seconds.items():
        print(f"{name:<44}{each:>8.2f}")
    print(f"{'whole':<44}{end - start:>8.2f}\nprocess start to first trial: {found['first_trial_s']:.1f} s")
    return found


# ---- the training step


def bench_cells(given: argparse.Namespace, results: Results) -> Results:
    """Each cell's training and validation alone, as a share of the machine's peak, and its seconds in the sweep."""
    device, peak = "cuda" if given.gpus else "cpu", results["machine"]["peak_gflops"]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        rates = list(pool.map(cell_rates, CELLS, [device] * len(CELLS)))
    found = {}
    trained = int(TRAINING * given.fraction) * given.epochs
    print(f"\n{'cell':<12}{'images/s':>10}{'of peak':>9}{'validation':>12}{'of peak':>9}", end="")
    print(f"{'in the sweep: training s':>26}{'validation s':>14}{'test, files s':>15}")
    for (depth, latent), name, (training, validation) in zip(CELLS, NAMES, rates, strict=True):
        # A MAC is two operations, and the backward pass costs twice the forward one.
        gflop = 2 * mac_count(ModelConfig(depth=depth, latent=latent)) / 1e9
        epochs, whole = sum(results["anatomy"]["epoch_s"][name]), results["anatomy"]["cell_s"][name]
        # The sweep's clock does not part an epoch's training from its validation; the measured rates do.
        share = trained / training / (trained / training + VALIDATION * given.epochs / validation)
        found[name] = {
            "images_per_s": training,
            "share_of_peak": 3 * gflop * training / peak,
            "validation_images_per_s": validation,
            "validation_share_of_peak": gflop * validation / peak,
            "sweep_training_s": share * epochs,
            "sweep_validation_s": (1 - share) * epochs,
            "sweep_rest_s": whole - epochs,
        }
        print(
            "{:<12}{:>10,.0f}{:>9.0%}{:>12,.0f}{:>9.0%}{:>26.1f}{:>14.1f}{:>15.1f}".format(name, *found[name].values())
        )
    return found


def cell_rates(architecture: tuple[int, int], device: str, batches: int = 20) -> tuple[float, float]:
    """Images a second in training and in validation, medians of some batches."""
    import torch

    from dae import engine
    from dae.initialisation import draw
    from dae.model import DenoisingAutoencoder

    engine.settle_process()
    config, model = TrainConfig(), DenoisingAutoencoder(ModelConfig(depth=architecture[0], latent=architecture[1]))
    draw(model, torch.Generator().manual_seed(0), 0.13, latent_bias=0.0)
    # A GPU is given enough to do at a time that asking for its answer costs nothing.
    count = config.batch_size * (100 if device == "cuda" else 1)
    images = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    built = engine.build(model, config, images.to(device), 0, 255)
    order, noise = torch.arange(count, device=device), torch.Generator(device)
    validation = images[:1].expand(1000, 28, 28).contiguous().to(device)

    def rate(images: int, call: Callable[[], float]) -> float:
        seconds = []
        for _ in range(batches + 2):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        return images / statistics.median(seconds[2:])

    training = rate(count, lambda: built.train_epoch(order, noise))
    return training, rate(len(validation), lambda: built.validate(validation, noise))


# ---- the cost of a cell beside its training


def bench_overhead(given: argparse.Namespace, _: Results) -> Results:
    """Cells of 64 images and one epoch, beside empty trials of bare Ray Tune on reused actors."""
    counts = [int(count) for count in given.overhead.split(",")]
    found: Results = {}
    print(
        f"\n{'cells':>6}{'s a cell':>12}{'bare Ray Tune':>16}{'whole run s':>14}{'driver MB':>12}{'kB a cell more':>16}"
    )
    before: tuple[int, float] | None = None
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            out = Path(folder) / "empty.json"
            run([sys.executable, "-m", "tests.benchmarks.plain_tune", "--empty", str(count), "--out", str(out)])
            bare = json.loads(out.read_text())["cell_s"]
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            start = time.perf_counter()
            memory_mb = own_overhead(count, folder)
            whole = time.perf_counter() - start
            records = gather(Store(Path(folder) / "mnist-5k")).completed
        begun = sorted(datetime.fromisoformat(record.attempts[-1].started_at) for record in records)
        each = (begun[-1] - begun[0]).total_seconds() / (count - 1)
        more = (memory_mb - before[1]) / (count - before[0]) * 1000 if before else math.nan
        before = count, memory_mb
        found[str(count)] = {
            "cell_s": each, "bare_cell_s": bare, "whole_s": whole, "driver_mb": memory_mb, "kb_a_cell_more": more,
        }  # fmt: skip
        print(f"{count:>6}{each:>12.3f}{bare:>16.3f}{whole:>14.1f}{memory_mb:>12.0f}{more:>16.0f}", flush=True)
    return found


def own_overhead(count: int, folder: str) -> float:
    """Peak memory of the driver in MB."""
    command = [
        str(Path(sys.executable).with_name("dae-sweep")), "run", "--dataset", "mnist-5k", "--storage", folder,
        "--depths", "1", "--latents", "5", "--seeds", f"0..{count - 1}", "--epochs", "1", "--batch-size", "64",
        "--train-fraction", "0.02", "--wandb", "offline", "--quiet", "--no-report", "--gpus", "0",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak_kb = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak_kb = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), peak_kb)
        time.sleep(0.2)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return peak_kb / 1024


if __name__ == "__main__":
    main()
