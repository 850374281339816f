"""dae-sweep beside what one would write or pick instead, in one run on one machine.

    python -m tests.benchmarks.bench --data-dir data --fraction 0.1 --epochs 3
    python -m tests.benchmarks.bench --only overhead

Prints tables and writes them as JSON. Needs MNIST in torchvision's layout.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from dae.architecture import mac_count
from dae.data import Dataset, load
from sweep.records import Sweep, gather
from sweep.store import Store

CELLS = [(depth, latent) for depth in (1, 3, 5) for latent in (13, 8, 5)]
AGREE = 0.15
"""Mean test losses that differ by more mean that not the same work was done."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data", help="folder that holds MNIST/raw")
    parser.add_argument("--fraction", type=float, default=0.1, help="share of the 48,000 training images")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--trials-per-gpu", default="3", help="a list, such as 1,3,9: dae-sweep is timed with each")
    parser.add_argument("--only", choices=["sweep", "overhead"])
    parser.add_argument("--counts", type=json.loads, default=[10, 100, 1000], help="cells of the overhead runs")
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    given = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(given.gpus), "settings": {k: str(v) for k, v in vars(given).items()}}
    if given.only != "overhead":
        results["sweep"] = bench_sweep(given)
    if given.only != "sweep":
        results["overhead"] = bench_overhead(given)
    given.json.write_text(json.dumps(results, indent=1))
    print(f"\nwritten to {given.json}")


def machine(gpus: int) -> dict[str, Any]:
    """Cores and the rate of a large matrix product: on one CPU thread, or on the GPU."""
    import torch

    torch.set_num_threads(1)
    device, size = ("cuda", 8192) if gpus else ("cpu", 1024)
    torch.backends.cuda.matmul.allow_tf32 = False
    a = torch.randn(size, size, device=device)
    rates = []
    for _ in range(12):
        start = time.perf_counter()
        b = a @ a
        float(b[0, 0])
        rates.append(2 * size**3 / (time.perf_counter() - start))
    name = torch.cuda.get_device_name() if gpus else "CPU, one thread"
    found = {"peak of": name, "peak_gflops": max(rates) / 1e9, "cores": len(os.sched_getaffinity(0))}
    print(f"{found['cores']} cores; large float32 matrix product on {name}: {found['peak_gflops']:.0f} GFLOP/s")
    return found


def bench_sweep(given: argparse.Namespace) -> dict[str, Any]:
    """The nine cells, three ways, from process start to the last result."""
    device = "cuda" if given.gpus else "cpu"
    common = [
        "--cells", json.dumps(CELLS), "--data-dir", given.data_dir, "--fraction", str(given.fraction),
        "--epochs", str(given.epochs), "--device", device,
    ]  # fmt: skip
    ways = {
        "notebook": lambda folder: script("tests.benchmarks.notebook", common, folder),
        "plain Ray Tune": lambda folder: script("tests.benchmarks.plain_tune", common, folder),
    }
    for k in given.trials_per_gpu.split(",") if given.gpus else ["1"]:
        name = f"dae-sweep, {k} a GPU" if given.gpus else "dae-sweep"
        ways[name] = lambda folder, k=k: own_sweep(given, k, folder)
    found: dict[str, dict[str, Any]] = {name: {"seconds": []} for name in ways}
    for repeat in range(given.repeats):
        for name, way in ways.items():
            if given.gpus and repeat and not name.startswith("dae-sweep"):
                continue  # minutes each; once is enough beside seconds
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                start = time.perf_counter()
                found[name]["losses"] = way(Path(folder))
                found[name]["seconds"].append(time.perf_counter() - start)
                if name.startswith("dae-sweep"):
                    found[name] |= anatomy(Path(folder) / "mnist", given)
            print(f"  {name}: {found[name]['seconds'][-1]:.1f} s", flush=True)
    print_ways(found)
    return found


def script(module: str, options: list[str], folder: Path) -> dict[str, float]:
    out = folder / "losses.json"
    run([sys.executable, "-m", module, *options, "--out", str(out)])
    return json.loads(out.read_text())


def own_sweep(given: argparse.Namespace, trials_per_gpu: str, folder: Path) -> dict[str, float]:
    run([
        "dae-sweep", "run", "--data-dir", given.data_dir, "--storage", str(folder), "--epochs", str(given.epochs),
        "--train-fraction", str(given.fraction), "--wandb", "offline", "--quiet", "--gpus", str(given.gpus),
        "--trials-per-gpu", trials_per_gpu,
    ])  # fmt: skip
    return {record.architecture: record.test_loss or 0.0 for record in gather(Store(folder / "mnist")).completed}


def run(command: list[str]) -> None:
    bin_folder = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def anatomy(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """From the records: where the time went, and how much of the machine's peak each cell reached."""
    sweep = gather(Store(folder))
    data = load("mnist", Path(given.data_dir), given.fraction)
    starts = [datetime.fromisoformat(record.attempts[-1].started_at) for record in sweep.completed]
    ends = [datetime.fromisoformat(record.finished_at or "") for record in sweep.completed]
    return {
        "cells": {record.architecture: cell_figures(record.key, sweep, data) for record in sweep.completed},
        "training_wall_s": (max(ends) - min(starts)).total_seconds(),
        "training_cell_s": sum(epoch.seconds for record in sweep.completed for epoch in record.history),
    }


def cell_figures(key: str, sweep: Sweep, data: Dataset) -> dict[str, float]:
    record = sweep.records[key]
    epoch_s = statistics.median(epoch.seconds for epoch in record.history)
    trained = len(data.train) // sweep.manifest.settings.batch_size * sweep.manifest.settings.batch_size
    macs = mac_count(sweep.manifest.settings.model(record.cell))
    # A MAC is two operations; the backward pass costs twice the forward one; validation is forward only.
    flops = 2 * macs * (3 * trained + len(data.validation))
    return {"epoch_s": epoch_s, "images_per_s": trained / epoch_s, "gflops": flops / epoch_s / 1e9}


def print_ways(found: dict[str, dict[str, Any]]) -> None:
    own = next(name for name in found if name.startswith("dae-sweep"))
    base = statistics.median(found[own]["seconds"])
    reference = statistics.mean(found["notebook"]["losses"].values())
    print(f"\n{'':<22}{'median s':>10}{'min':>8}{'max':>8}{'times ' + own:>24}{'mean test loss':>16}")
    for name, each in found.items():
        seconds, loss = each["seconds"], statistics.mean(each["losses"].values())
        void = "" if abs(loss / reference - 1) < AGREE else "  void: other losses"
        print(
            f"{name:<22}{statistics.median(seconds):>10.1f}{min(seconds):>8.1f}{max(seconds):>8.1f}"
            f"{statistics.median(seconds) / base:>24.2f}{loss:>16.5f}{void}"
        )
    print(f"\n{'test loss':<10}" + "".join(f"{name:>20}" for name in found))
    for cell in found["notebook"]["losses"]:
        print(f"{cell:<10}" + "".join(f"{each['losses'][cell]:>20.5f}" for each in found.values()))
    print(f"\n{own}: trials {found[own]['training_wall_s']:.1f} s from first to last; by cell:")
    for cell, figures in found[own]["cells"].items():
        print(f"{cell:<10}{figures['images_per_s']:>12,.0f} images/s{figures['gflops']:>10.1f} GFLOP/s")


def bench_overhead(given: argparse.Namespace) -> dict[str, Any]:
    """Cells with almost no training, beside empty trials of bare Ray Tune."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        out = Path(folder) / "empty.json"
        run(
            [
                sys.executable,
                "-m",
                "tests.benchmarks.plain_tune",
                "--empty",
                json.dumps(given.counts),
                "--out",
                str(out),
            ]
        )
        bare = json.loads(out.read_text())
    print(f"\n{'cells':>6}{'s a cell':>12}{'bare Ray Tune':>16}{'whole run s':>14}{'driver MB':>12}")
    for count in given.counts:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            start = time.perf_counter()
            usage = own_overhead(count, folder)
            whole = time.perf_counter() - start
            records = gather(Store(Path(folder) / "mnist-5k")).completed
            starts = [datetime.fromisoformat(record.attempts[-1].started_at) for record in records]
            ends = [datetime.fromisoformat(record.finished_at or "") for record in records]
            each = (max(ends) - min(starts)).total_seconds() / count
        found[str(count)] = {"cell_s": each, "bare_s": bare[str(count)] / count, "whole_s": whole, "driver_mb": usage}
        print(f"{count:>6}{each:>12.3f}{bare[str(count)] / count:>16.3f}{whole:>14.1f}{usage:>12.0f}", flush=True)
    return found


def own_overhead(count: int, folder: str) -> float:
    """Peak memory of the driver in MB."""
    command = [
        str(Path(sys.executable).with_name("dae-sweep")), "run", "--dataset", "mnist-5k", "--storage", folder,
        "--depths", "1", "--latents", "5", "--seeds", f"0..{count - 1}", "--epochs", "1", "--batch-size", "64",
        "--train-fraction", "0.02", "--wandb", "offline", "--quiet", "--no-report", "--gpus", "0",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
