"""The page of a search: ``report/index.html``, its figures and two tables. No torch."""

from collections.abc import Iterator
from math import inf
from pathlib import Path
from statistics import fmean

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from sweep.analysis import search as analysis
from sweep.analysis.results import flags_of
from sweep.analysis.search import SearchFindings
from sweep.analysis.without_model import alternatives, warning
from sweep.records.axes import value_text
from sweep.records.record import Status, duration
from sweep.records.sweep import Sweep
from sweep.records.words import counted
from sweep.report import drawing
from sweep.report.entries import Entry, Row, Table, number, text
from sweep.report.files import NothingCompleted, asset, csv_of, data_uri
from sweep.report.search_gallery import SearchExhibit, exhibits
from sweep.report.words import utc
from sweep.storage.store import Store


def build(sweep: Sweep, output: Store) -> Path:
    """Write the report of a search from its folder alone; the same records give the same bytes.

    Returns:
        Path of ``index.html``.

    Raises:
        NothingCompleted: no trial has a loss yet.
    """
    findings = SearchFindings(sweep)
    if not findings.tried:
        raise NothingCompleted(f"search {sweep.manifest.name} has no trial with a result to report yet.")
    output.write("results.csv", csv_of(analysis.cell_rows(findings)))
    output.write("history.csv", csv_of(analysis.epoch_rows(findings)))
    output.write("index.html", _page(findings, output).encode())
    return output.path("index.html")


def _page(findings: SearchFindings, output: Store) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["linked"] = str  # no cell has a section of its own here
    template = asset("table.html.j2") + "\n" + asset("search.html.j2")
    luck = analysis.luck_of(findings.sweep)
    return environment.from_string(template).render(
        name=findings.sweep.manifest.name,
        style=Markup(asset("page.css")),
        script=Markup(asset("page.js")),
        summary=_summary(findings),
        luck="" if luck is None else str(luck),
        caveats=list(_caveats(findings)),
        best=_best(findings),
        is_front=len(findings.search.objectives) > 1,
        pictures=_pictures(findings, output),
        trials=_trials(findings),
        run=_facts(findings),
    )


# ---- sentences


def _summary(findings: SearchFindings) -> list[tuple[str, str]]:
    sweep, search, best = findings.sweep, findings.search, findings.ranked
    counts = ", ".join(
        f"{count} {status}"
        for status in Status
        if (count := sum(entry.status is status for entry in findings.history.in_order))
    )
    lines = [("Tried", f"{counted(len(findings.history.tried), 'configuration')} of {search.trials}: {counts}.")]
    if best:
        lines.append(
            (
                "Best by validation loss",
                f"{analysis.name(best[0])}, {best[0].val_loss:.5f} with the seed of the search, {best[0].macs:,} MACs.",
            )
        )
    tested = [finalist for finalist in analysis.finalists_of(sweep) if finalist.test_losses]
    if tested:
        first = tested[0]
        lines.append(
            (
                "Test loss of the winner",
                f"{analysis.with_interval(first.test_losses)}, of {counted(len(first.test_losses), 'fresh seed')}. "
                "No trial of the search itself was tested.",
            )
        )
    savings = analysis.savings_of(sweep)
    spent = f"{duration(savings.spent)} of training, {savings.epochs:,} of {savings.all_epochs:,} epochs"
    saved = f"; ending hopeless trials saved about {duration(savings.saved)}" if savings.saved else ""
    lines.append(("Time", f"{spent}{saved}; the finalists took {duration(savings.finalists)}."))
    if (full := analysis.full_grid_of(sweep)) is not None:
        lines.append(("Against the full grid", str(full)))
    return lines


def _caveats(findings: SearchFindings) -> Iterator[tuple[str, str]]:
    if {"alpha", "noise"} & set(findings.varied):
        yield (
            "Strengths of noise were searched",
            "A validation loss under weaker noise is lower by itself: the ranking is no comparison of models.",
        )
    outside = len(findings.history.tried) - sum(
        findings.space.point_of(entry.proposal.point, findings.sweep.manifest.settings) is not None
        for entry in findings.history.in_order
    )
    if outside:
        yield ("The space was changed", f"{counted(outside, 'trial')} lie outside of it and are not shown in figures.")

    yield from _marks(findings)


def _marks(findings: SearchFindings) -> Iterator[tuple[str, str]]:
    """What is said of the finalists' cells with fresh seeds: marks, and what does better than the winner."""
    finalists = analysis.finalists_of(findings.sweep)
    for flag, advice in (("collapsed", "a lower learning rate may help"), ("unconverged", "more epochs may help")):
        marked = [
            f"{analysis.name(finalist.trial)} ({count} of {len(finalist.cells)} seeds)"
            for finalist in finalists
            if (count := sum(flag in flags_of(record) for record in finalist.cells))
        ]
        if marked:
            yield f"Finalists that are {flag}", f"{', '.join(marked)}: {advice}."
    if finalists and (best := min(finalists[0].cells, key=lambda record: record.test_loss or inf)).test_loss:
        worse = warning(best, alternatives(findings.sweep, best))
        if worse is not None:
            yield "The winner is beaten without a network", worse


def _facts(findings: SearchFindings) -> list[tuple[str, str]]:
    manifest, search = findings.sweep.manifest, findings.search
    facts: list[tuple[str, object]] = [
        ("search id", manifest.id),
        ("declared (UTC)", utc(manifest.created_at)),
        *((f"space: {name.replace('_', ' ')}", values) for name, values in search.space.texts.items()),
        ("sampler", f"{search.sampler}, seed {search.seed}"),
        ("scheduler", search.scheduler),
        ("objective", ", ".join(search.objectives)),
        ("finalists", f"{search.finalists}, {counted(search.finalist_seeds, 'fresh seed')} each"),
    ]
    settings = manifest.settings
    varied = set(search.space.parameters)
    facts += [(name.replace("_", " "), getattr(settings, name)) for name in settings.__slots__ if name not in varied]
    facts += [(f"dataset: {name}", value) for name, value in manifest.dataset.items()]
    return [(name, str(value)) for name, value in facts if value is not None]


# ---- tables


def _best(findings: SearchFindings) -> Table:
    finalists = {finalist.trial.key: finalist for finalist in analysis.finalists_of(findings.sweep)}
    headings = ["configuration", *(f">{name.replace('_', ' ')}" for name in findings.varied), ">validation MSE",
                ">MACs", ">validation MSE, fresh seeds", ">test MSE, fresh seeds"]  # fmt: skip
    rows = []
    for _, record in analysis.shown_best(findings.sweep):
        point = findings.sweep.proposals[record.key].point
        entries = [text(analysis.name(record))]
        entries += [_value(point.get(name)) for name in findings.varied]
        entries += [number(record.val_loss, f"{record.val_loss:.5f}"), number(record.macs, f"{record.macs:,}")]
        finalist = finalists.get(record.key)
        for losses in ([], []) if finalist is None else (finalist.val_losses, finalist.test_losses):
            entries.append(number(fmean(losses), analysis.with_interval(losses)) if losses else Entry())
        rows.append(Row(entries=entries))
    return Table(headings=headings, rows=rows)


def _trials(findings: SearchFindings) -> Table:
    headings = [">trial", "cell", "status", ">epochs", ">validation MSE", ">MACs", "why it ended"]
    rows = []
    for entry in findings.history.in_order:
        record = findings.sweep.records.get(entry.cell.key)
        why = "" if entry.proposal.pruning is None else str(entry.proposal.pruning)
        if record is not None and record.error:
            why = record.error
        loss = entry.losses[-1] if entry.losses else None
        rows.append(
            Row(
                entries=[
                    number(entry.proposal.number + 1, str(entry.proposal.number + 1)),
                    text(entry.cell.key),
                    text(entry.status),
                    number(len(entry.losses), str(len(entry.losses))),
                    number(loss, "" if loss is None else f"{loss:.5f}"),
                    number(entry.macs, f"{entry.macs:,}"),
                    text(why),
                ],
                kind="" if entry.status is Status.COMPLETED else "gap",
            )
        )
    return Table(headings=headings, rows=rows)


def _value(value: float | int | str | None) -> Entry:
    return Entry() if value is None else Entry(text=value_text(value), order=value)


# ---- figures


def _pictures(findings: SearchFindings, output: Store) -> list[tuple[SearchExhibit, str]]:
    """Draw and write every figure: what it is, and the image itself as a URI, empty where it cannot be drawn."""
    pictures, drawings = list[tuple[SearchExhibit, str]](), dict[str, bytes]()
    for exhibit in exhibits(findings):
        if exhibit.missing:
            output.delete(f"{exhibit.name}.png")
            output.delete(f"{exhibit.name}.svg")
            pictures.append((exhibit, ""))
            continue
        drawn = drawing.render(exhibit.draw(findings))
        drawings |= {f"{exhibit.name}.png": drawn.png, f"{exhibit.name}.svg": drawn.svg}
        pictures.append((exhibit, data_uri(drawn.svg, "svg+xml")))
    output.write_all(drawings)
    return pictures
