"""A finished sweep of many cells, read from a folder and from an S3 server: seconds of each command, and requests.

The sweep is trained in a folder, 64 images and one epoch a cell, and copied into the bucket, where a first command
packs it. The server is moto's, on
loopback and in Python: it takes a core's time of its own, which a real one does not.

    python -m tests.benchmarks.reading --cells 1000 --repeats 3
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pyarrow import fs

from tests.s3 import BUCKET, S3, serve

ROOT = Path(__file__).parent.parent.parent
LATENTS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serve(folder) as s3:
            print(json.dumps(measure(folder, s3, given.cells, given.repeats), indent=1))


def measure(folder: Path, s3: S3, cells: int, repeats: int) -> dict[str, object]:
    """Train the sweep, copy it, and time the commands by turns."""
    places = {"folder": str(folder / "sweeps"), "S3 (moto)": f"s3://{BUCKET}/sweeps"}
    run = ["run", "--dataset", "mnist-5k", "--train-fraction", "0.02", "--epochs", "1", "--depths", "1"]
    run += ["--latents", f"5..{4 + LATENTS}", "--seeds", f"0..{cells // LATENTS - 1}", "--wandb", "disabled"]
    run += ["--no-report", "--no-evaluation"]
    name = ["--name", "mnist-5k"]
    seconds_s = {"training": command([*run, "--storage", places["folder"]], s3)}
    copy_into_bucket(folder / "sweeps", s3)
    seconds_s["packing"] = command([*run, "--storage", places["S3 (moto)"]], s3)  # as the run that trains there does
    timings: dict[str, list[float]] = {}
    requests: dict[str, int] = {}
    for _ in range(repeats):
        for what, words in {"status": ["status"], "report": ["report", *name], "run": run}.items():
            for kind, place in places.items():
                before = len(s3.line.requests)
                timings.setdefault(f"{what}, {kind}", []).append(command([*words, "--storage", place], s3))
                requests[f"{what}, {kind}"] = len(s3.line.requests) - before
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "cells": cells,
        "seconds": seconds_s | {what: round(statistics.median(values), 2) for what, values in timings.items()},
        "requests": {what: count for what, count in requests.items() if "S3" in what},
    }


def command(words: list[str], s3: S3) -> float:
    """Seconds that the command takes."""
    start = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", "sweep", *words],
        cwd=ROOT,
        env=os.environ | s3.environment(CUDA_VISIBLE_DEVICES=""),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        sys.exit(result.stdout + result.stderr)
    return round(time.monotonic() - start, 2)


def copy_into_bucket(storage: Path, s3: S3) -> None:
    bucket = fs.S3FileSystem(
        access_key=s3.access_key,
        secret_key=s3.secret_key,
        endpoint_override=f"127.0.0.1:{s3.line.port}",
        scheme="http",
        region="us-east-1",
    )
    fs.copy_files(str(storage), f"{BUCKET}/sweeps", destination_filesystem=bucket)


if __name__ == "__main__":
    main()
