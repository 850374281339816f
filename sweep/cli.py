"""The command line: parse, build dataclasses, call, print."""

import click

from sweep import __version__, caches, cli_cluster, cli_read, cli_run
from sweep.cli_shared import Commands

HELP = {"help_option_names": ["-h", "--help"]}


@click.group(cls=Commands, context_settings=HELP)
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
    command.context_settings.update(HELP)  # submit parses run's options without the group, and click keeps its option
    main.add_command(command)
