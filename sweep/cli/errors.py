"""For whatever goes wrong in a command: a sentence and an exit code."""

import io
import os
import sys
from pathlib import Path
from typing import Any

import click

from dae.errors import UserError
from sweep.cli.options import Decorator
from sweep.driver.signals import Interrupted
from sweep.storage.requests import REFUSALS
from sweep.storage.store import Unreadable, Unwritable


class Commands(click.Group):
    """Turns what can go wrong into a sentence and an exit code."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Print whatever the terminal can show: of a letter that it lacks a question mark, and not an error."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:  # closed by who started the command
                setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  (for the rest of the process)
            elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="replace")
        return super().main(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command: 2 is a request that cannot be carried out, 128 + n is signal n, 1 is all else."""
        try:
            return super().invoke(ctx)
        except Interrupted as interrupt:
            click.echo(f"\n{interrupt}: every finished epoch is kept; the same command continues.", err=True)
            ctx.exit(interrupt.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.meta.get("debug"):
                raise
            if isinstance(error, UserError):
                click.echo(f"Error: {error}", err=True)
                ctx.exit(2)
            if isinstance(error, Unwritable | Unreadable):
                if error.strerror in REFUSALS.values():
                    click.echo(
                        f"Error: {error}. What was finished is kept; check the credentials and the bucket.", err=True
                    )
                    ctx.exit(2)
                click.echo(
                    f"Error: {error}. What was finished is kept; free or repair the storage and run it again.", err=True
                )
                ctx.exit(1)
            click.echo(f"Error: {type(error).__name__}: {error}\nRun it with --debug to see where.", err=True)
            ctx.exit(1)


def _remember(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    ctx.meta["debug"] = value


debug_option: Decorator = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_remember, help="Show Python's traceback of an error."
)
