"""The structure of the program, drawn from its imports: ``python -m tests.house`` prints it.

Folders and who imports whom, circles, the longest file and function. ``--write`` puts the drawing into
docs/architecture.md; ``tests/test_boundaries.py`` holds the same graph against `ORDER`.
"""

import argparse
import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- drawn by python -m tests.house --write -->", "<!-- end of the drawing -->"

ORDER = (
    "cli",
    "driver",
    "evaluation",
    "report",
    "models",
    "trials",
    "tracking",
    "analysis",
    "search",
    "records",
    "storage",
    "dae",
)
"""A folder may import from those that stand after it."""

SIBLINGS = {
    ("evaluation", "report"),
    ("models", "trials"),
    ("models", "tracking"),
    ("trials", "tracking"),
    ("trials", "analysis"),
    ("trials", "search"),
    ("tracking", "analysis"),
    ("tracking", "search"),
}
"""Pairs of one floor: they do not import each other at all."""

KNOWN_TO = {
    "ray": {"trials", "cli.client"},
    "wandb": {"tracking"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "torch": {"dae", "evaluation", "models", "trials"},
    "click": {"cli"},
    "optuna": {"search", "report.notebook"},
    "rich": {"cli", "driver"},
}
"""The folders, or modules of ``sweep``, that may import a library."""

Graph = Mapping[str, set[str]]


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of ``dae`` and ``sweep`` by its dotted name."""
    paths = sorted(path for package in ("dae", "sweep") for path in (root / package).rglob("*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported(path: Path, names: Iterable[str]) -> Iterator[str]:
    """The modules among ``names``, and the libraries, that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            if any(name not in names for name in submodules):
                yield node.module
            yield from (name for name in submodules if name in names)


def graph(root: Path = ROOT) -> dict[str, set[str]]:
    """For every module what it imports of ``dae``, ``sweep`` and libraries, type checking included."""
    paths = modules(root)
    return {name: set(imported(path, paths)) - {name} for name, path in paths.items()}


def folder(module: str) -> str:
    """The folder of a module: ``trials`` of ``sweep.trials.host``; ``dae`` is one, ``sweep`` itself is ``""``."""
    first, *rest = module.split(".")
    return "dae" if first == "dae" else rest[0] if rest and rest[0] in ORDER else ""


def arrows(modules_graph: Graph) -> dict[tuple[str, str], int]:
    """Imports between folders, and how many modules they concern."""
    count: dict[tuple[str, str], int] = defaultdict(int)
    for importer, targets in modules_graph.items():
        for target in targets & modules_graph.keys():
            ends = folder(importer), folder(target)
            if all(ends) and ends[0] != ends[1]:
                count[ends] += 1
    return dict(count)


def violations(modules_graph: Graph) -> list[str]:
    """Imports that go back up, between siblings, or of a library that the folder may not know."""
    wrong = []
    for importer, targets in sorted(modules_graph.items()):
        start = folder(importer)
        for target in sorted(targets):
            end = folder(target)
            if target in modules_graph and start and end and start != end:
                if ORDER.index(end) < ORDER.index(start):
                    wrong.append(f"{importer} imports {target}: {end} stands before {start}")
                if (start, end) in SIBLINGS:
                    wrong.append(f"{importer} imports {target}: {start} and {end} stand side by side")
            library = target.split(".")[0]
            allowed = KNOWN_TO.get(library)
            if allowed is not None and start not in allowed and importer.removeprefix("sweep.") not in allowed:
                wrong.append(f"{importer} imports {library}, which only {', '.join(sorted(allowed))} may know")
    return wrong


def circle(modules_graph: Graph) -> list[str]:
    """Modules that import each other in a circle, in their order; empty where there is none."""
    known = {name: targets & modules_graph.keys() for name, targets in modules_graph.items()}
    # A submodule is imported after its package, whose __init__ may import it.
    packages = {name for name in known if any(other.startswith(f"{name}.") for other in known)}
    try:
        TopologicalSorter({name: targets - packages for name, targets in known.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """Number of lines and name of every function of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1, node.name


def drawing(modules_graph: Graph) -> str:
    """The folders from the top down, each with its files and the folders that it imports."""
    counts, lines = arrows(modules_graph), []
    width = max(map(len, ORDER))
    for name in ORDER:
        inside = (module for module in modules_graph if folder(module) == name)
        files = sorted(module.rsplit(".", 1)[-1] for module in inside if module not in (name, f"sweep.{name}"))
        targets = [other for other in ORDER if (name, other) in counts]
        lines.append(f"{name:<{width}}  -> {', '.join(targets) or '(nothing)'}")
        text = ", ".join(files)
        while text:
            head = text if len(text) <= 95 else text[: text.rindex(" ", 0, 95)]
            lines.append(f"{'':<{width}}     {head}")
            text = text[len(head) :].strip()
    return "\n".join(lines)


def with_drawing(page: str, drawn: str) -> str:
    """The page with the drawing in its place."""
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n```text\n{drawn}\n```\n{END}", page, flags=re.S)


def main() -> None:
    """Print the structure; exit with 1 where a rule is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help=f"put the drawing into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout")
    options = parser.parse_args()
    modules_graph, paths = graph(options.root), modules(options.root)
    drawn = drawing(modules_graph)
    if options.write:
        PAGE.write_text(with_drawing(PAGE.read_text(encoding="utf-8"), drawn), encoding="utf-8")
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in paths.items()}
    longest = max(lengths, key=lambda name: lengths[name])
    size, function, module = max(
        (size, name, module) for module, path in paths.items() for size, name in functions(path)
    )
    inner = sum(len(targets & modules_graph.keys()) for targets in modules_graph.values())
    wrong, ring = violations(modules_graph), circle(modules_graph)
    print(drawn)
    print(f"\n{len(paths)} modules, {sum(lengths.values()):,} lines, {inner} imports among them")
    print(f"arrows between folders: {len(arrows(modules_graph))}")
    print(f"longest file: {longest}, {lengths[longest]} lines; longest function: {module}.{function}, {size} lines")
    print(f"circles: {' -> '.join(ring) if ring else 'none'}")
    print("\n".join(wrong) or "no import goes back up")
    sys.exit(bool(wrong or ring))


if __name__ == "__main__":
    main()
