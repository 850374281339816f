"""What README.md says about `dae-sweep` is true: its commands exist, and those that train nothing are run."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from synthetic import make_sweep

from sweep.cli import main
from sweep.cli_axes import grid_of
from sweep.cli_shared import settings_of
from sweep.grid import Grid

README = Path(__file__).parent.parent / "README.md"
FAULTS = README.parent / "docs" / "faults.md"


@dataclass(frozen=True)
class Example:
    """A `dae-sweep` command in a block of README.md, and what the block shows of its output."""

    line: int
    words: tuple[str, ...]
    shown: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"line {self.line}: dae-sweep {' '.join(self.words)}"


def blocks(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Number of the first line, language and lines of every fenced block."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        fence = re.fullmatch(r"\s*```(\S*).*", lines[number])
        number += 1
        if fence is None:
            continue
        start = number
        while number < len(lines) and not re.fullmatch(r"\s*```\s*", lines[number]):
            number += 1
        yield start + 1, fence[1], lines[start:number]
        number += 1


def logical_lines(first: int, lines: list[str]) -> Iterator[tuple[int, str]]:
    """The lines with their numbers; one that ends in a backslash is joined with the next."""
    joined, start = "", first
    for number, line in enumerate(lines, first):
        start = start if joined else number
        joined += line.strip() if joined else line
        if joined.endswith("\\"):
            joined = joined[:-1]
            continue
        yield start, joined
        joined = ""
    assert not joined, f"line {start}: nothing follows the backslash"


def dae_sweep_words(command: str) -> list[tuple[str, ...]]:
    """The arguments of every `dae-sweep` in a line of shell; comments and other commands are left out."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    found: list[list[str]] = [[]]
    for token in lexer:
        if set(token) <= set("();<>|&"):
            found.append([])
        else:
            found[-1].append(token)
    calls = []
    for words in found:
        names = [Path(word).name for word in words]
        if "dae-sweep" in names:
            calls.append(tuple(words[names.index("dae-sweep") + 1 :]))
        elif "-m" in words and "sweep" in words[words.index("-m") + 1 :][:1]:
            calls.append(tuple(words[words.index("-m") + 2 :]))
    return calls


def examples(text: str) -> list[Example]:
    found = []
    for first, language, lines in blocks(text):
        if language not in {"sh", "bash", "shell", "console"}:
            continue
        if language != "console":
            found += [
                Example(number, words)
                for number, line in logical_lines(first, lines)
                for words in dae_sweep_words(line)
            ]
            continue
        for number, line in logical_lines(first, lines):
            if line.startswith("$ "):
                calls = dae_sweep_words(line[2:])
                found += [Example(number, words) for words in calls]
                shows = bool(calls)
            elif found and shows:
                found[-1] = Example(found[-1].line, found[-1].words, (*found[-1].shown, line))
    return found


TEXT = README.read_text(encoding="utf-8")
EXAMPLES = examples(TEXT)
MENTIONED = sorted(set(re.findall(r"`dae-sweep ([a-z][a-z-]*)", TEXT)))
OPTIONS = sorted(set(re.findall(r"`(--[a-z][a-z-]*)", TEXT)))
WITHOUT_TRAINING = {"plan", "status", "report"}
FOREIGN_OPTIONS: set[str] = set()
"""Options in README's text that are another program's."""


def commands_of(words: tuple[str, ...]) -> tuple[click.Command, list[str]]:
    """The command among ``words``, and the words after it."""
    name, command, rest = main.resolve_command(click.Context(main), list(words))
    assert name is not None
    assert command is not None
    return command, rest


def is_question(example: Example) -> bool:
    """Whether it only asks for help or the version."""
    return bool({"--help", "-h", "--version"} & set(example.words))


# ---- the reader of README itself

SAMPLE = """
Use `dae-sweep frobnicate`.
```sh
make setup
dae-sweep run --depths 1,3 \\
    --latents 5   # a comment with dae-sweep plan in it
cd x && .venv/bin/dae-sweep status | head; python -m sweep report --name "a b"
```
```console
$ dae-sweep plan
name  latent
$ ls
name
```
```python
dae-sweep nothing
```
"""


def test_the_reader_finds_every_command_of_a_sample() -> None:
    assert [(example.words, example.shown) for example in examples(SAMPLE)] == [
        (("run", "--depths", "1,3", "--latents", "5"), ()),
        (("status",), ()),
        (("report", "--name", "a b"), ()),
        (("plan",), ("name  latent",)),
    ]


# ---- README


def test_readme_has_commands() -> None:
    assert any(example.words[:1] == ("run",) for example in EXAMPLES)
    assert WITHOUT_TRAINING & {example.words[0] for example in EXAMPLES if example.words}


@pytest.mark.parametrize("name", MENTIONED)
def test_commands_in_the_text_exist(name: str) -> None:
    assert name in main.commands


@pytest.mark.parametrize("option", OPTIONS)
def test_options_in_the_text_exist(option: str) -> None:
    known = {name for command in main.commands.values() for each in command.params for name in each.opts}
    assert option in known | {"--help", "--version"} | FOREIGN_OPTIONS


@pytest.mark.parametrize("example", [each for each in EXAMPLES if not is_question(each)], ids=str)
def test_commands_can_be_parsed_and_their_values_are_allowed(example: Example) -> None:
    command, rest = commands_of(example.words)
    context = command.make_context(command.name, rest)
    if "depths" in context.params:
        values = dict(context.params)
        with context:
            grid_of(values, settings_of(values))


@pytest.mark.parametrize(
    "example",
    [each for each in EXAMPLES if is_question(each) or WITHOUT_TRAINING & set(each.words[:1])],
    ids=str,
)
def test_commands_that_train_nothing_do_what_they_say(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_signals: None
) -> None:
    monkeypatch.chdir(tmp_path)
    if not is_question(example) and example.words[0] in {"status", "report"}:
        command, rest = commands_of(example.words)
        given = command.make_context(command.name, list(rest)).params
        name = given.get("name") or given.get("dataset") or "mnist-5k"
        storage = tmp_path / given["storage"]
        assert storage.is_relative_to(tmp_path), "this test writes nowhere else"
        make_sweep(storage / name, Grid.product((1, 3), (13, 5), (0,)), name=name)
    result = CliRunner().invoke(main, list(example.words), prog_name="dae-sweep")
    assert result.exit_code == 0, result.output
    if example.words[0] in {"status", "report"}:
        return  # what README shows of them is another sweep
    said = {" ".join(line.split()) for line in result.output.splitlines()}
    for line in example.shown:
        if line.strip() and "..." not in line and "…" not in line:
            assert " ".join(line.split()) in said


# ---- docs/faults.md


def test_the_table_of_faults_names_tests_that_are_there() -> None:
    named = re.findall(r"`(test_\w+?)(\.py|_?\.\.\.|)`", FAULTS.read_text())
    assert len(named) > 20
    folder = Path(__file__).parent
    there = re.findall(r"^def (test_\w+)", "".join(path.read_text() for path in folder.glob("test_*.py")), re.M)
    for name, ending in named:
        if ending == ".py":
            assert (folder / f"{name}.py").is_file()
        else:
            assert any(each.startswith(name) if ending else each == name for each in there), name
