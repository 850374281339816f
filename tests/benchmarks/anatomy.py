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
from sweep.driver import runner, training
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
    runner._report = marked(runner._report, "report begins", "report ends")
    Tracker.close = marked(Tracker.close, None, "tracking ends")  # type: ignore[method-assign]
    training.Training._train = marked(training.Training._train, "Ray begins", None)  # type: ignore[method-assign]
    training.TrialEvents = marked(training.TrialEvents, "trials begin", None)  # type: ignore[assignment,misc]
    atexit.register(lambda: out.write_text(json.dumps(marks)))
    cli.main()


if __name__ == "__main__":
    main()
