"""The `dae-sweep` commands in a Markdown file, and what click makes of them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from sweep.cli import main


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


def commands_of(words: tuple[str, ...]) -> tuple[click.Command, list[str]]:
    """The command among ``words``, and the words after it."""
    name, command, rest = main.resolve_command(click.Context(main), list(words))
    assert name is not None
    assert command is not None
    return command, rest
