"""The command line: parse, build dataclasses, call, print."""

import sys
import warnings

import click

from sweep import __version__
from sweep.cli import best, control, denoise, export, jobs, plan, read, remove, run, search
from sweep.cli.errors import Commands
from sweep.trials import user_folders
from sweep.trials.environment import environment, isolated, set_aside

HELP = {"help_option_names": ["-h", "--help"]}


@click.group(cls=Commands, context_settings=HELP)
@click.version_option(__version__)
@click.pass_context
def main(ctx: click.Context, /) -> None:
    """Sweeps of denoising autoencoders: what do depth and latent size change?"""
    ctx.with_resource(environment({**set_aside(), **isolated(), **user_folders.variables()}))
    if sys.warnoptions:  # with errors of it, libraries' temporary folders end in tracebacks at exit
        warnings.simplefilter("ignore", ResourceWarning)


for command in (
    run.run,
    search.search,
    plan.plan,
    read.status,
    read.report,
    read.verify,
    read.sync,
    read.drill,
    best.best,
    denoise.denoise,
    export.export,
    remove.remove,
    control.stop,
    control.pause,
    jobs.submit,
    jobs.jobs,
):
    command.context_settings.update(HELP)  # submit parses run's options without the group, and click keeps its option
    main.add_command(command)
