"""A thousand tiny cells on four nodes: seconds a cell, the driver's memory, requests of the storage.

Every node is a raylet of its own on this machine, the storage a real S3 server on loopback (moto's, in Python: it takes
a core's time of its own). Cells train for one epoch on 320 images, so that what is measured is the orchestration.

    python -m tests.benchmarks.scale --cells 1000 --nodes 4 [--folder]
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from ray_cluster import ray_cluster
from s3 import BUCKET, serve

ROOT = Path(__file__).parent.parent.parent
LATENTS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--folder", action="store_true", help="a local folder in place of the S3 server")
    given = parser.parse_args()
    print(json.dumps(measure(given.cells, given.nodes, in_folder=given.folder), indent=1))


def measure(cells: int, nodes: int, *, in_folder: bool) -> dict[str, object]:
    """Run the sweep on a cluster made for it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        s3 = stack.enter_context(serve(folder))
        storage = str(folder / "sweeps") if in_folder else f"s3://{BUCKET}/scale"
        cluster = stack.enter_context(ray_cluster(**s3.environment(), CUDA_VISIBLE_DEVICES=""))
        for _ in range(nodes):
            cluster.add(cpus=1)
        words = ["--dataset", "mnist-5k", "--train-fraction", "0.1", "--epochs", "1", "--depths", "1", "--no-report"]
        words += ["--latents", f"5..{4 + LATENTS}", "--seeds", f"0..{cells // LATENTS - 1}", "--wandb", "disabled"]
        words += ["--storage", storage, "--address", cluster.address]
        start = time.monotonic()
        driver = subprocess.Popen(
            [sys.executable, "-m", "sweep", "run", *words], cwd=ROOT, env=cluster.environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert driver.stdout is not None
        ended: list[float] = []
        lines: list[str] = []
        peak_kib = 0
        for line in driver.stdout:
            lines.append(line)
            if " completed, test loss" in line:
                ended.append(time.monotonic() - start)
            peak_kib = max(peak_kib, peak_memory_kib(driver.pid))
        wall_s = time.monotonic() - start
        if driver.wait():
            sys.exit("".join(lines))
        tenth = max(len(ended) // 10, 1)
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "cells": cells,
        "nodes": nodes,
        "storage": "folder" if in_folder else "S3 (moto)",
        "wall_s": round(wall_s, 1),
        "until_first_cell_s": round(ended[0], 1),
        "seconds_per_cell": round((ended[-1] - ended[0]) / max(len(ended) - 1, 1), 3),
        "seconds_per_cell_first_tenth": round((ended[tenth] - ended[0]) / tenth, 3),
        "seconds_per_cell_last_tenth": round((ended[-1] - ended[-1 - tenth]) / tenth, 3),
        "driver_peak_memory_mib": peak_kib // 1024,
        "storage_requests_per_cell": round(len(s3.line.requests) / cells, 1),
        "storage_requests_by_kind": kinds(s3.line.requests),
    }


def peak_memory_kib(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def kinds(requests: list[str]) -> dict[str, int]:
    """How many of each method and file name."""
    found: dict[str, int] = {}
    for request in requests:
        method, _, path = request.partition(" ")
        name = (
            "list" if "list-type" in path else ".lease" if ".lease" in path else path.split("?")[0].rsplit("/", 1)[-1]
        )
        found[f"{method} {name[:20]}"] = found.get(f"{method} {name[:20]}", 0) + 1
    return dict(sorted(found.items(), key=lambda each: -each[1])[:12])


if __name__ == "__main__":
    main()
