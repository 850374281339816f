"""One sweep folder, one self-contained page: ``report/index.html``, its figures and two tables. No torch."""

import base64
import csv
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from dae.config import IMAGE_SIZE
from sweep import figures, prose
from sweep.analysis import Arrays, Effect, Result, load_arrays, psnr, results, usable_records
from sweep.claims import Claim, Comparer, Contrast, Factor, Split
from sweep.grid import AXES, Cell
from sweep.records import Status, Sweep, facets

log = logging.getLogger(__name__)

FOLDER = "report"


class NothingCompleted(Exception):
    """No cell has a result yet; the message says how far the sweep has come and what to do."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure of the page, its caption and the study's figure that it answers."""

    name: str
    title: str
    caption: str
    source: str


def build(sweep: Sweep) -> Path:
    """Write the report of a sweep folder from that folder alone; the same records give the same bytes.

    Beside ``report/index.html`` there are its figures as PNG and SVG, ``results.csv`` (a row a cell of the grid)
    and ``history.csv`` (a row a cell and epoch). The tables hold all cells, the page the first facet of the sweep in
    which a cell is completed. What cannot be read is named on the page and logged as a warning.

    Returns:
        Path of ``index.html``.

    Raises:
        NothingCompleted: there is nothing to report.
    """
    if not usable_records(sweep):
        raise NothingCompleted(_nothing(sweep))
    store = sweep.store
    store.write(f"{FOLDER}/results.csv", _csv(_results_rows(sweep)))
    store.write(f"{FOLDER}/history.csv", _csv(_history_rows(sweep), _HISTORY_COLUMNS))
    sweep = next(facet for _, facet in facets(sweep) if usable_records(facet))
    arrays = load_arrays(sweep)
    unreadable = [f"{name}: {reason}" for name, reason in _unreadable(sweep, arrays).items()]
    for line in unreadable:
        log.warning("%s; the report leaves out what needs it", line)
    page = _page(sweep, arrays, unreadable)
    store.write(f"{FOLDER}/index.html", page.encode())
    return store.path(f"{FOLDER}/index.html")


def _nothing(sweep: Sweep) -> str:
    statuses = [str(sweep.status(cell)) for cell in sweep.manifest.grid.cells]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    return (
        f"sweep {sweep.manifest.name} has no completed cell to report ({counts}): "
        "run it, or see why cells failed in cells/<key>/log.txt."
    )


def _unreadable(sweep: Sweep, arrays: Arrays) -> dict[str, str]:
    records = {f"cells/{key}": reason for key, reason in sweep.damaged.items()}
    return records | {name: reason.removeprefix(f"{name} ") for name, reason in arrays.damaged.items()}


# ---- the page


def _page(sweep: Sweep, arrays: Arrays, unreadable: Sequence[str]) -> str:
    found = results(sweep)
    comparer = Comparer(sweep, arrays)
    claims = [comparer.claim(factor) for factor in Factor]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("sweep").joinpath("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        name=sweep.manifest.name,
        summary=prose.summary(sweep, found, claims),
        one_seed=max(len(result.losses) for result in found) == 1,
        unreadable=unreadable,
        collapsed=prose.collapsed(sweep),
        several_seeds=len(sweep.manifest.grid.seeds) > 1,
        architectures=[_architecture_row(result) for result in found],
        baselines=[
            (name, prose.mse(loss), f"{psnr(loss):.2f}", f"{loss * IMAGE_SIZE**2:.2f}")
            for name, loss in sorted(sweep.manifest.baselines.items(), key=lambda item: -item[1])
        ],
        pictures=_pictures(sweep, found, arrays),
        claims=[_claim(claim, sweep) for claim in claims],
        confounds=prose.confounds(found),
        stem_note=prose.stem_note(sweep),
        convergence=prose.convergence(sweep),
        gap=prose.gap(sweep),
        interaction=prose.interaction(comparer.interaction(), claims[0]),
        average_image=prose.average_image(sweep, found, arrays),
        spreads=[(result.name, prose.spread_ratios(sweep, result, arrays)) for result in found],
        run=_run_facts(sweep),
        cells=[_cell_row(sweep, cell) for cell in sweep.manifest.grid.cells],
    )


def _architecture_row(result: Result) -> dict[str, Any]:
    """The study's Table 1 with results beside it: texts, and under ``sort`` what a column is ordered by."""
    config, mean, sd = result.config, result.mean, result.sd
    latent = f"({config.latent_channels}, {config.latent}, {config.latent})"
    columns: list[tuple[str, float | str | None]] = [
        (result.name, result.name),
        (latent, config.latent),
        (f"{100 * config.compression:.2f} %", config.compression),
        (result.layers, config.depth),
        (str(result.field), result.field),
        (f"{result.parameters:,}", result.parameters),
        (f"{result.macs:,}", result.macs),
        ("" if mean is None else prose.mse(mean), mean),
        ("" if sd is None else f"{sd:.6f}", sd),
        (f"{len(result.losses)} of {len(result.statuses)}", len(result.losses)),
        ("" if result.psnr is None else f"{result.psnr:.2f}", result.psnr),
        ("" if result.total is None else f"{result.total:.2f}", result.total),
        (", ".join(result.marks), ", ".join(result.marks)),
    ]
    return {"columns": columns, "is_hole": mean is None}


def _claim(claim: Claim, sweep: Sweep) -> dict[str, Any]:
    name, statement = prose.CLAIMS[claim.factor]
    # Over a single level an average is the pair itself.
    averages = claim.averages if any(len(average.at) > 1 for average in claim.averages) else ()
    return {
        "name": name,
        "statement": statement,
        "other": str(claim.factor.other),
        "splits": [(str(split), prose.on_split(claim, split)) for split in Split] if claim.pairs else [],
        "averages": _near_and_far(averages, claim.factor, sweep),
        "pairs": _near_and_far(claim.pairs, claim.factor, sweep),
    }


def _near_and_far(contrasts: Sequence[Contrast], factor: Factor, sweep: Sweep) -> tuple[list[Any], list[Any]]:
    """Rows of the contrasts of adjacent levels, and of the others."""
    near = [_contrast_row(each, factor, sweep) for each in contrasts if each.adjacent]
    return near, [_contrast_row(each, factor, sweep) for each in contrasts if not each.adjacent]


def _contrast_row(contrast: Contrast, factor: Factor, sweep: Sweep) -> dict[str, Any]:
    first, second = contrast.cells[:2]
    settings = sweep.manifest.settings
    one, other = (Result(config=settings.model(cell), statuses={}, records=()) for cell in (first, second))
    is_pair = len(contrast.at) == 1 and len(contrast.cells) == 2
    return {
        "pair": f"{contrast.higher} over {contrast.lower.removeprefix(f'{factor} ')}",
        "at": f"{factor.other} {', '.join(map(str, contrast.at))}",
        "effects": [_effect_cell(contrast, contrast.effects.get(split)) for split in Split],
        "share": "" if contrast.share is None else f"{100 * contrast.share:.0f} %",
        "field": f"{one.field} / {other.field}" if is_pair else "",
        "parameters": f"{one.parameters:,} / {other.parameters:,}" if is_pair else "",
        "caveats": prose.listed(contrast.caveats),
    }


def _effect_cell(contrast: Contrast, effect: Effect | None) -> dict[str, str]:
    """Text, interval, word and CSS class of one difference; the word is the verdict, with one seed the sign's."""
    if effect is None:
        return {"text": "", "interval": "", "word": "missing", "kind": "hole"}
    cell = {"text": prose.effect_size(effect), "interval": prose.interval(effect)}
    if not contrast.counted:
        return cell | {"word": "not comparable", "kind": "hole"}
    if effect.p is None:
        return cell | {"word": "holds" if effect.holds else "fails", "kind": "yes" if effect.holds else "no"}
    kind = {"supported": "yes", "contradicted": "no"}.get(effect.verdict, "open")
    return cell | {"word": str(effect.verdict), "kind": kind}


# ---- figures


def _pictures(sweep: Sweep, found: Sequence[Result], arrays: Arrays) -> dict[str, Picture]:
    """Draw, write and describe every figure; one whose arrays cannot be read is left out and its old files go."""
    samples, outputs = arrays.samples, arrays.outputs
    best = figures.best_result(found, outputs)
    drawn: dict[str, tuple[str, figures.Draw, str]] = {
        "curves": ("Training and validation loss", lambda: figures.curves(sweep), prose.curves_caption(sweep)),
        "test_loss": ("Test loss", lambda: figures.loss_bars(sweep, found), prose.bars_caption(sweep, found)),
    }
    if samples is not None:
        drawn["corruption"] = (
            "Clean and corrupted test images",
            lambda: figures.corruption(samples),
            prose.corruption_caption(sweep),
        )
    if best is not None:
        record = next(record for record in best.records if record.key in outputs)
        shown = outputs[record.key]
        drawn["denoised"] = (
            "Denoised test images",
            lambda: figures.denoised(found, outputs, samples),
            prose.denoised_caption(found, figures.shown_seeds(found, outputs)),
        )
        if samples is not None:
            index = figures.typical(samples, shown)
            drawn["example"] = (
                "One test image",
                lambda: figures.example(samples, shown, index, best.name),
                prose.example_caption(record, int(samples.labels[index])),
            )
    pictures: dict[str, Picture] = {}
    for name in ("corruption", "example", "curves", "test_loss", "denoised"):
        png, svg = f"{FOLDER}/{name}.png", f"{FOLDER}/{name}.svg"
        if name not in drawn:
            sweep.store.delete(png)
            sweep.store.delete(svg)
            continue
        title, draw, caption = drawn[name]
        drawing = figures.render(draw)
        sweep.store.write(png, drawing.png)
        sweep.store.write(svg, drawing.svg)
        # Lines stay sharp at any size as SVG; images of pixels are smaller as PNG.
        is_lines = name in {"curves", "test_loss"}
        pictures[name] = Picture(
            name, title, caption, _data_uri(drawing.svg, "svg+xml") if is_lines else _data_uri(drawing.png, "png")
        )
    return pictures


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


# ---- what was run


def _run_facts(sweep: Sweep) -> list[tuple[str, str]]:
    manifest, records = sweep.manifest, sweep.records.values()
    grid, settings = manifest.grid, manifest.settings
    seconds = sum(epoch.seconds for record in records for epoch in record.history)
    attempts = sum(len(record.attempts) for record in records)
    facts: list[tuple[str, object]] = [
        ("sweep id", manifest.id),
        ("declared", manifest.created_at),
        ("depths", ", ".join(map(str, grid.depths))),
        ("latent sizes", ", ".join(map(str, grid.latents))),
        ("seeds", ", ".join(map(str, grid.seeds))),
        *((name.replace("_", " "), getattr(settings, name)) for name in settings.__slots__ if name != "dataset"),
        *((f"dataset: {name}", value) for name, value in manifest.dataset.items()),
        *((name.replace("_", " "), value) for name, value in _environments(sweep).items()),
        ("first cell started", min((each.started_at for each in records if each.started_at), default="")),
        ("last cell finished", max((each.finished_at for each in records if each.finished_at), default="")),
        ("training time", f"{prose.duration(seconds)}, summed over the epochs of all cells"),
        ("attempts", f"{attempts} for {prose.counted(len(sweep.records), 'cell')} begun"),
    ]
    return [(name, str(value)) for name, value in facts]


def _environments(sweep: Sweep) -> dict[str, str]:
    """Every value that occurs among the cells, by name."""
    values: dict[str, dict[str, None]] = {}
    for record in sweep.records.values():
        for name, value in record.environment.items():
            values.setdefault(name, {})[str(value)] = None
    return {name: ", ".join(each) for name, each in sorted(values.items())}


def _cell_row(sweep: Sweep, cell: Cell) -> dict[str, str]:
    record = sweep.records.get(cell.key)
    if record is None:
        status = "damaged" if cell.key in sweep.damaged else str(Status.MISSING)
        return {"key": cell.key, "status": status, "error": sweep.damaged.get(cell.key, "")} | dict.fromkeys(
            ("epochs", "time", "attempts", "started", "finished"), ""
        )
    reasons = prose.listed(attempt.reason or "unfinished" for attempt in record.attempts)
    return {
        "key": cell.key,
        "status": str(record.status),
        "epochs": str(len(record.history)),
        "time": prose.duration(sum(epoch.seconds for epoch in record.history)),
        "attempts": f"{len(record.attempts)} ({reasons})" if reasons else "0",
        "started": record.started_at or "",
        "finished": record.finished_at or "",
        "error": record.error or "",
    }


# ---- tables for other programs

_RESULT_COLUMNS = (
    "key", "architecture", "depth", "latent", "seed", *AXES, "status", "collapsed", "unconverged", "test_loss",
    "test_psnr_db", "test_sum", "parameters", "macs", "compression", "generation", "started_at", "finished_at", "error",
)  # fmt: skip
_HISTORY_COLUMNS = (
    "key", "architecture", "depth", "latent", "seed", *AXES, "status", "epoch", "train_loss", "val_loss", "seconds",
)  # fmt: skip


def _results_rows(sweep: Sweep) -> list[dict[str, object]]:
    """A row a cell of the grid; the fields of ``config``, ``dataset`` and ``environment`` under dotted names."""
    rows = []
    for cell in sweep.manifest.grid.cells:
        record = sweep.records.get(cell.key)
        row: dict[str, object] = dict.fromkeys(_RESULT_COLUMNS)
        row |= {name: getattr(cell, name) for name in ("key", "architecture", "depth", "latent", "seed")}
        row |= _on_axes(sweep, cell) | {"status": str(sweep.status(cell)), "error": sweep.damaged.get(cell.key)}
        if record is not None:
            row |= {name: getattr(record, name) for name in _RESULT_COLUMNS if name not in AXES}
            if record.status is not Status.COMPLETED:
                row |= dict.fromkeys(("test_loss", "test_psnr_db", "test_sum"))
            for name in ("config", "dataset", "environment"):
                row |= {f"{name}.{key}": value for key, value in getattr(record, name).items()}
        rows.append(row)
    return rows


def _on_axes(sweep: Sweep, cell: Cell) -> dict[str, object]:
    """The value of ``cell`` on every axis there could be."""
    own = sweep.manifest.settings.at(cell)
    return {name: getattr(own, name) for name in AXES}


def _history_rows(sweep: Sweep) -> list[dict[str, object]]:
    found = (sweep.records.get(cell.key) for cell in sweep.manifest.grid.cells)
    return [
        {name: getattr(record, name) for name in ("key", "architecture", "depth", "latent", "seed", "status")}
        | _on_axes(sweep, record.cell)
        | {name: getattr(epoch, name) for name in ("epoch", "train_loss", "val_loss", "seconds")}
        for record in found
        if record is not None
        for epoch in record.history
    ]


def _csv(rows: Iterable[Mapping[str, object]], columns: Sequence[str] = ()) -> bytes:
    rows = list(rows)
    names = list(columns) or list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
