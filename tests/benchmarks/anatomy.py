"""The real command with a clock at its joints: ``python -m tests.benchmarks.anatomy MARKS.json run ...``."""

import atexit
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dae import data
from sweep import cli
from sweep.cli import run
from sweep.driver import runner
from sweep.tracking.tracker import Tracker

marks: dict[str, float] = {}


def mark(name: str) -> None:
    marks[name] = time.time()


def marked(function: Callable[..., Any], begins: str | None, ends: str | None) -> Callable[..., Any]:
    """The function, which leaves marks when it is called and when it is done."""

    def call(*arguments: Any, **named: Any) -> Any:
        if begins:
            mark(begins)
        try:
            return function(*arguments, **named)
        finally:
            if ends:
                mark(ends)

    return call


def main() -> None:
    out = Path(sys.argv.pop(1))
    data.load = marked(data.load, "data begins", "data ends")
    run._report = marked(run._report, "report begins", "report ends")
    Tracker.close = marked(Tracker.close, None, "tracking ends")  # type: ignore[method-assign]
    runner._Training.run = marked(runner._Training.run, "Ray begins", None)  # type: ignore[method-assign]
    runner.TrialEvents = marked(runner.TrialEvents, "trials begin", None)  # type: ignore[assignment,misc]
    atexit.register(lambda: out.write_text(json.dumps(marks)))
    cli.main()


if __name__ == "__main__":
    main()
