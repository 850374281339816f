"""Importing a module of ours leaves the process as it is: nobody who imports `sweep` is to notice."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

SCRIPT = """
import importlib, json, logging, os, pkgutil, signal, sys, threading, warnings

def modules():
    import dae, sweep
    for package in (dae, sweep):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                yield module.name

def state():
    loggers = {name: logging.getLogger(name).level for name in logging.Logger.manager.loggerDict}
    return {
        "environment": dict(os.environ),
        "signals": {number: repr(signal.getsignal(number)) for number in signal.valid_signals()},
        "sys.path": sys.path[:],
        "warnings": [repr(entry) for entry in warnings.filters],
        "logging": {"root": logging.root.level} | {name: level for name, level in loggers.items() if level},
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "working folder": os.getcwd(),
        "start of processes": __import__("multiprocessing").get_start_method(allow_none=True),
    }

if sys.argv[1:] == ["list"]:  # what our modules import of others, in that order
    for name in modules():
        importlib.import_module(name)
    print(json.dumps([name for name in sys.modules if name.split(".")[0] not in ("dae", "sweep", "__main__")]))
else:
    for name in json.load(sys.stdin):  # what these do to the process is theirs
        try:
            importlib.import_module(name)
        except Exception:
            pass
    known = set(sys.modules)
    before = state()
    names = [name for name in modules()]
    changed = {}
    for name in names:
        importlib.import_module(name)
        after = state()
        for what, value in before.items():
            if after[what] != value:
                changed.setdefault(f"{name}: {what}", (repr(value)[:300], repr(after[what])[:300]))
        before = after
    print(json.dumps({"changed": changed, "count": len(names)}))
"""


def run(folder: Path, *words: str, given: str = "", script: str = SCRIPT) -> str:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "VIRTUAL_ENV")}
    environment = kept | {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=ROOT, env=environment, input=given, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


def test_importing_all_modules_changes_nothing_in_the_process(tmp_path: Path) -> None:
    answer = json.loads(run(tmp_path, given=run(tmp_path, "list")))
    assert answer["count"] > 60
    assert answer["changed"] == {}


def test_the_check_itself_can_fail(tmp_path: Path) -> None:
    script = SCRIPT.replace("for name in names:", "for name in names:\n        os.environ['NOTICED'] = name", 1)
    assert "dae.adam: environment" in json.loads(run(tmp_path, given="[]", script=script))["changed"]
