"""Tables of a report as rows of entries, each with what its column is sorted by. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sweep.analysis.results import Result
from sweep.analysis.verdicts import Effect, Verdict
from sweep.report.words import bounds, difference, interval, mse


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One field of a table.

    Attributes:
        order: what the column is sorted by; None sorts last.
        note: a second, smaller line.
        badge, kind: a word in a frame and its colour: ``yes``, ``no``, ``open`` or ``hole``.
    """

    text: str = ""
    order: float | str | None = None
    note: str = ""
    badge: str = ""
    kind: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        kind: ``gap`` for what is not there, ``base`` for what is done without a network.
        link: the cell or architecture that its numbers lead to.
    """

    entries: Sequence[Entry]
    kind: str = ""
    link: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Headings, ``>`` in front of those of numbers, and rows of as many entries."""

    headings: Sequence[str]
    rows: Sequence[Row] = field(default=())


def text(value: object, order: float | str | None = None, note: str = "") -> Entry:
    """A word, sorted by itself unless there is an order."""
    return Entry(text=str(value), order=str(value) if order is None else order, note=note)


def number(value: float | None, text: str = "", note: str = "") -> Entry:
    """A number as ``text``; empty where it is None."""
    return Entry(text=text if value is not None else "", order=value, note=note)


def loss(result: Result) -> Entry:
    """The test loss of an architecture with its interval."""
    return number(result.mean, mse(result.mean or 0.0), note=bounds(*result.interval) if result.interval else "")


def effect_entry(effect: Effect | None, words: str | None = None) -> Entry:
    """A difference with its interval and verdict; after ``words`` it stands without its sign."""
    if effect is None:
        return Entry()
    text = difference(effect.difference) if words is None else f"{words}{abs(effect.difference):.5f}"
    entry = Entry(text=text, order=effect.difference, note=interval(effect))
    return entry if effect.p is None else replace(entry, badge=str(effect.verdict), kind=verdict_kind(effect.verdict))


def verdict_kind(verdict: Verdict | None) -> str:
    """The colour of a verdict's badge; see `Entry`."""
    return {Verdict.SUPPORTED: "yes", Verdict.CONTRADICTED: "no"}.get(verdict or Verdict.ONE_SEED, "open")
