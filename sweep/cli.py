"""The command line: parse, build dataclasses, call, print."""

import click

from sweep import __version__, caches, cli_cluster, cli_read, cli_run
from sweep.cli_shared import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Sweeps of denoising autoencoders: what do depth and latent size change?"""
    caches.keep_beside_ray()


for command in (
    cli_run.run,
    cli_run.plan,
    cli_read.status,
    cli_read.report,
    cli_read.verify,
    cli_read.sync,
    cli_read.drill,
    cli_cluster.submit,
    cli_cluster.jobs,
):
    main.add_command(command)
