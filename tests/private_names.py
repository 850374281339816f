"""The private names of dependencies that the program looks up, as its files have them."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAMES = sorted(
    {
        path
        for package in ("dae", "sweep")
        for file in (ROOT / package).rglob("*.py")
        for path in re.findall(r'"((?:ray|torch|wandb|mlxtend)[\w.]*:[\w.]+)"', file.read_text())
    }
)
