"""One sweep folder, one self-contained page: ``report/index.html``, its figures and two tables. No torch."""

import logging
import re
from collections.abc import Callable, Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from sweep.analysis import tidy
from sweep.analysis.arrays import usable_records
from sweep.analysis.claims import Claim, Split
from sweep.analysis.findings import Findings
from sweep.records.grid import written
from sweep.records.record import duration
from sweep.records.sweep import Sweep
from sweep.records.words import counted
from sweep.report import claim_tables, drawing, prose, remarks, summary, tables
from sweep.report.files import NothingCompleted as NothingCompleted
from sweep.report.files import asset, csv_of, data_uri
from sweep.report.gallery import Exhibit, exhibits
from sweep.report.receipts import receipts
from sweep.report.words import command, listed, utc
from sweep.storage.store import Store

log = logging.getLogger(__name__)

FOLDER = "report"


def build(sweep: Sweep, output: Store | None = None) -> Path:
    """Write the report of a sweep folder from that folder alone; the same records give the same bytes.

    Beside ``index.html`` there are its figures as PNG and SVG, ``results.csv`` (a row a cell of the grid)
    and ``history.csv`` (a row a cell and epoch). The tables hold all cells; figures and claims are of the first point
    on the sweep's axes where a cell is completed, the others have a section each. What cannot be read is named on the
    page and logged as a warning.

    Args:
        sweep: as `sweep.records.sweep.gather` read it.
        output: where to write; the folder ``report`` of the sweep if left out. Nothing else is written.

    Returns:
        Path of ``index.html``.

    Raises:
        NothingCompleted: there is nothing to report.
    """
    if sweep.manifest.search is not None:
        from sweep.report import search_page

        return search_page.build(sweep, output or sweep.store.below(FOLDER))
    if not usable_records(sweep):
        raise NothingCompleted(_nothing(sweep))
    findings, output = Findings.of(sweep), output or sweep.store.below(FOLDER)
    for name, reason in findings.unreadable.items():
        log.warning("%s: %s; the report leaves out what needs it", name, reason)
    output.write("results.csv", csv_of(tidy.cell_rows(findings)))
    output.write("history.csv", csv_of(tidy.epoch_rows(findings), tuple(tidy.EPOCH_COLUMNS)))
    output.write("index.html", _page(findings, output).encode())
    return output.path("index.html")


def _nothing(sweep: Sweep) -> str:
    statuses = [str(sweep.status(cell)) for cell in sweep.manifest.grid.cells]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    return (
        f"sweep {sweep.manifest.name} has no completed cell to report ({counts}): "
        "run it, or see why cells failed in cells/<key>/log.txt."
    )


# ---- the page


def _page(findings: Findings, output: Store) -> str:
    sweep, results = findings.sweep, findings.results
    cells = receipts(findings)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["linked"] = _linker({*cells, *(receipt.key for group in cells.values() for receipt in group)})
    return environment.from_string(asset("table.html.j2") + "\n" + asset("page.html.j2")).render(
        name=findings.whole.manifest.name,
        style=Markup(asset("page.css")),
        script=Markup(asset("page.js")),
        noun=sweep.manifest.noun,
        numbers=sweep.manifest.settings.shape.numbers,
        lead=summary.lead(findings),
        summary=summary.summary(findings),
        extremes=summary.extremes(findings),
        caveats=summary.caveats(findings),
        more=summary.more(findings),
        several_seeds=len(sweep.manifest.grid.seeds) > 1,
        unreadable=[f"{name}: {reason}" for name, reason in findings.unreadable.items()],
        removed=prose.removed(findings.whole),
        pictures=_pictures(findings, output),
        verdicts=claim_tables.verdicts(findings),
        claims=[_claim(claim, findings) for claim in findings.claims],
        results=tables.results(findings),
        left_out=tables.left_out(findings),
        confound=prose.CONFOUND,
        confounds=[*prose.confounds(results), *filter(None, [prose.stem_note(sweep)])],
        arm=_arm(findings),
        depths=tables.depths(findings, prose.MIN_DEPTHS),
        robustness=tables.robustness(findings),
        convergence=remarks.convergence(sweep),
        gap=remarks.gap(sweep),
        is_study=sweep.manifest.dataset.get("source") is None,
        stem=prose.stem_note(sweep),
        interaction=remarks.interaction(findings.effects.interaction, findings.claims[0]),
        average_image=remarks.average_image(sweep, results, findings.arrays),
        spreads=tables.spreads(findings),
        facets=[
            {"name": prose.facet_name(facet), "text": prose.facet_sentence(facet), "table": tables.facet(facet)}
            for facet in findings.facets
            if facet is not findings and not prose.is_matched(facet)
        ],
        run=_run_facts(findings),
        cells=tables.cells(findings),
        receipts=cells,
    )


def _linker(anchors: Collection[str]) -> Callable[[str], Markup]:
    """A filter that makes every name of a cell or architecture in a text lead to it."""
    name = re.compile(r"DAE_\d+_\d+(?:x\d+)?(?:-[A-Za-z0-9_.\-]*s\d+)?")

    def link(match: re.Match[str]) -> str:
        return f'<a href="#{match[0]}">{match[0]}</a>' if match[0] in anchors else match[0]

    return lambda text: Markup(name.sub(link, str(escape(text))))


def _claim(claim: Claim, findings: Findings) -> dict[str, Any]:
    name, statement = prose.CLAIMS[claim.factor]
    # Over a single level an average is the pair itself.
    averages = claim.averages if any(len(average.other_levels) > 1 for average in claim.averages) else ()
    groups = ((f"On average over {claim.factor.other}s", averages), ("Pair by pair", claim.pairs))
    return {
        "name": name,
        "statement": statement,
        "splits": [(str(split), prose.on_split(claim, split)) for split in Split] if claim.pairs else [],
        "tables": [
            (
                title,
                claim_tables.differences([contrast for contrast in group if contrast.adjacent], claim.factor, findings),
                claim_tables.differences(
                    [contrast for contrast in group if not contrast.adjacent], claim.factor, findings
                ),
            )
            for title, group in groups
        ],
    }


def _arm(findings: Findings) -> dict[str, Any]:
    """The arm of equal parameters, or what to run for it."""
    arms = [facet for facet in findings.facets if prose.is_matched(facet) and facet.results]
    if arms:
        return {"text": " ".join(map(prose.matched, arms)), "tables": list(map(tables.facet, arms)), "missing": ""}
    if sum(depth > 1 for depth in findings.sweep.manifest.grid.depths) < 2:
        return {"text": "", "tables": [], "missing": ""}
    run = command(findings.whole.manifest, "--match-parameters")
    return {"text": "", "tables": [], "missing": f"An arm of equal parameters was not run: {run}"}


def _pictures(findings: Findings, output: Store) -> list[tuple[Exhibit, str]]:
    """Draw and write every figure: what it is, and the image itself as a URI, empty where it cannot be drawn.

    The files of one that could be drawn before go.
    """
    pictures, drawings = list[tuple[Exhibit, str]](), dict[str, bytes]()
    for exhibit in exhibits(findings):
        png, svg = f"{exhibit.name}.png", f"{exhibit.name}.svg"
        if exhibit.draw is None:
            output.delete(png)
            output.delete(svg)
            pictures.append((exhibit, ""))
            continue
        drawn = drawing.render(exhibit.draw(findings))
        drawings |= {png: drawn.png, svg: drawn.svg}
        source = data_uri(drawn.png, "png") if exhibit.is_photo else data_uri(drawn.svg, "svg+xml")
        pictures.append((exhibit, source))
    output.write_all(drawings)
    return pictures


# ---- what was run


OF_REFERENCES = {
    "ssim": "SSIM",
    "tuning_images": "images that filters are tuned on, at most",
    "slow_tuning_images": "the same of slow filters",
    "fitting_images": "noisy images that linear maps are fitted to, at least",
}
"""What the settings of references are called on the page."""


def _run_facts(findings: Findings) -> list[tuple[str, str]]:
    sweep = findings.whole
    manifest, records = sweep.manifest, sweep.records.values()
    grid, settings, references = manifest.grid, manifest.settings, findings.references
    seconds = sum(epoch.seconds for record in records for epoch in record.history)
    attempts = sum(len(record.attempts) for record in records)
    unsaid = {"dataset", *(("alpha", "noise") if manifest.has_own_noise else ())}
    facts: list[tuple[str, object]] = [
        ("sweep id", manifest.id),
        ("declared (UTC)", utc(manifest.created_at)),
        ("depths", ", ".join(map(str, grid.depths))),
        ("latent sizes", ", ".join(map(str, grid.latents))),
        ("seeds", ", ".join(map(str, grid.seeds))),
        *([("further axes", "; ".join(map(prose.facet_name, findings.facets)))] if len(findings.facets) > 1 else []),
        *((name.replace("_", " "), value) for name, value in written(asdict(settings)).items() if name not in unsaid),
        *((f"dataset: {name}", _described(value)) for name, value in manifest.dataset.items()),
        *((name.replace("_", " "), value) for name, value in _environments(sweep).items()),
        ("first cell started (UTC)", utc(min(filter(None, (record.started_at for record in records)), default=""))),
        ("last cell finished (UTC)", utc(max(filter(None, (record.finished_at for record in records)), default=""))),
        ("training time", f"{duration(seconds)}, summed over the epochs of all cells"),
        ("attempts", f"{attempts} for {counted(len(sweep.records), 'cell')} begun"),
    ]
    if references is not None:
        if (reader := references.reader) is not None:
            about = f"{reader.parameters:,} parameters, {counted(reader.epochs, 'epoch')}, SHA-256 {reader.sha256}"
            facts.append(("reader", about))
        facts += [(OF_REFERENCES.get(name, name), value) for name, value in references.settings.items()]
    return [(name, str(value)) for name, value in facts if value is not None]


def _described(value: object) -> object:
    return listed(map(str, value), limit=20) if isinstance(value, list | tuple) else value


def _environments(sweep: Sweep) -> dict[str, str]:
    """Every value that occurs among the cells, by name."""
    values: dict[str, dict[str, None]] = {}
    for record in sweep.records.values():
        for name, value in record.environment.items():
            values.setdefault(name, {})[str(value)] = None
    return {name: ", ".join(texts) for name, texts in sorted(values.items())}
