"""The files of a report: what it is made from, and how its tables and images are written. No torch."""

import base64
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files


class NothingCompleted(Exception):
    """No cell has a result yet; the message says how far the sweep has come and what to do."""


def asset(name: str) -> str:
    """A file beside this one."""
    return files("sweep.report").joinpath(name).read_text(encoding="utf-8").rstrip("\n")


def data_uri(data: bytes, kind: str) -> str:
    """An image as the page holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def csv_of(rows: Iterable[Mapping[str, object]], columns: Sequence[str] = ()) -> bytes:
    """The rows as CSV; without ``columns`` those of the first rows that have them."""
    rows = list(rows)
    names = list(columns) or list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
