"""The command that names the best model of a sweep: `best`."""

import json
from typing import TYPE_CHECKING, Any

import click

from sweep.cli.chosen import sweep_at, warn_of
from sweep.cli.errors import debug_option
from sweep.cli.options import Limit, storage_option
from sweep.records.record import CellFiles, damage
from sweep.records.sweep import Sweep

if TYPE_CHECKING:
    from sweep.analysis.ranking import Ranking

OWN_NOISE = "pairs"
"""In JSON, the noise of a dataset that brings it: it has no strength."""
SHOWN = 10
"""Architectures that are listed."""


@click.command()
@storage_option
@click.option(
    "--under",
    "limits",
    type=Limit(),
    multiple=True,
    help="Only models with at most this: macs=3e6, parameters=20000 or latent=8; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@debug_option
@click.argument("name", metavar="NAME")
def best(storage: str, name: str, limits: tuple[tuple[str, float], ...], as_json: bool) -> None:
    """Name the best model of sweep NAME, a name or the path of its folder, and say how sure that is.

    The architecture with the lowest test loss, mean over its seeds, and of it the seed with the lowest. Models under
    different noise are not compared: each noise has its own best one.
    """
    sweep = sweep_at(name, storage)
    for key, reason in sweep.damaged.items():
        click.echo(f"Warning: {key} is left out, damaged: {reason}; dae-sweep run trains it again.", err=True)
    from sweep.analysis.ranking import rankings

    found = rankings(sweep, dict(limits))
    for reason in damage(sweep.snapshot, [ranking.first.best for ranking in found]).values():
        click.echo(f"Warning: {reason}; dae-sweep run trains the cell again.", err=True)
    if as_json:
        answer = {
            "sweep": sweep.store.name,
            "under": dict(limits),
            "rankings": [_as_json(sweep, ranking) for ranking in found],
        }
        click.echo(json.dumps(answer, indent=1))
        return
    for number, ranking in enumerate(found):
        if len(found) > 1:
            click.echo("\n" * bool(number) + f"Under {sweep.manifest.noise_of(ranking.first.best.cell)}:")
        _show(ranking)
        warn_of(sweep, ranking.first.best)


def _show(ranking: "Ranking") -> None:
    record = ranking.first.best
    click.echo(
        f"{record.key}  test loss {record.test_loss:.5f} (PSNR {record.test_psnr_db:.2f} dB), "
        f"{record.parameters:,} parameters, {record.macs:,} MACs/image"
    )
    click.echo(ranking.certainty)
    width = max(len(candidate.name) for candidate in ranking.candidates[:SHOWN])
    for candidate in ranking.candidates[:SHOWN]:
        seeds = len(candidate.losses)
        spread = "" if candidate.sd is None else f"  sd {candidate.sd:.5f} ({seeds} seeds)"
        if seeds == 1 and not ranking.is_even:
            spread = f"  {'':10} (1 seed)"
        marks = "".join(f"  {mark}" for mark in candidate.marks)
        click.echo(f"  {candidate.name:<{width}}  {candidate.mean:.5f}{spread}{marks}")
    if len(ranking.candidates) > SHOWN:
        click.echo(f"  and {len(ranking.candidates) - SHOWN} more")


def _as_json(sweep: Sweep, ranking: "Ranking") -> dict[str, Any]:
    from sweep.analysis.without_model import alternatives, warning

    record = ranking.first.best
    names = ("key", "architecture", "depth", "latent", "seed", "test_loss", "test_psnr_db", "parameters", "macs")
    return {
        "noise": OWN_NOISE if sweep.manifest.has_own_noise else ranking.noise,
        "alpha": None if sweep.manifest.has_own_noise else ranking.alpha,
        "best": {name: getattr(record, name) for name in (*names, "compression", "collapsed", "unconverged")}
        | {"weights": sweep.store.uri(CellFiles(record.key).weights)},
        "warning": warning(record, alternatives(sweep, record)),
        "certainty": ranking.certainty,
        "shown_worse": ranking.shown_worse,
        "order": [
            {
                "name": candidate.name,
                "mean_test_loss": candidate.mean,
                "sd": candidate.sd,
                "seeds": len(candidate.losses),
            }
            for candidate in ranking.candidates
        ],
    }
