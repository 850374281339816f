"""Commands for sweeps on a Ray cluster: `submit` and `jobs`."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dae.errors import UserError
from dae.images.location import is_path
from sweep.cli.errors import Commands, debug_option
from sweep.cli.options import options
from sweep.cli.parsing import check_limits, command_of, grid_of, resolving_of, search_name, search_of, sweep_name
from sweep.cli.run import run
from sweep.cli.search import search
from sweep.cli.settings import settings_of
from sweep.driver.signals import Interrupted, Signals
from sweep.storage.opening import open_store

if TYPE_CHECKING:
    from sweep.cli.client import Cluster, SweepJob

ADDRESS = "RAY_API_SERVER_ADDRESS"
"""Ray's own environment variable for the address of a job server."""

LARGEST = "65536x65536"
"""Images of which a latent may have any size; what those on the cluster allow is seen there."""

which_cluster = options(
    click.option("--address", metavar="URL", help=f"The head's dashboard, http://HEAD:8265.  [default: ${ADDRESS}]"),
    click.option("--cluster", metavar="FILE", help="Instead: what `ray up` was given; its head is reached over SSH."),
)


@click.command()
@which_cluster
@click.option("--follow", is_flag=True, help="Show what the sweep prints until it ends; Ctrl-C leaves it running.")
@click.option("--shared", is_flag=True, help="The --storage folder is the same one on every machine of the cluster.")
@click.option("--any-versions", is_flag=True, help="Do not insist on the versions of packages installed here.")
@debug_option
@click.argument("run_options", metavar="[-- RUN OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def submit(
    ctx: click.Context, /, run_options: tuple[str, ...], follow: bool, shared: bool, any_versions: bool, **place: Any
) -> None:
    """Run a sweep on a Ray cluster, as a job.

    What follows -- are the options of `dae-sweep run`, or the word search and those of `dae-sweep search`; they are
    checked here before anything is sent. The packages
    `dae` and `sweep` go along as they are installed here. A W&B key never does: see cluster/README.md.
    """
    signals = Signals().install()
    name = check_run_options(run_options, shared=shared)
    with _connected(ctx) as (cluster, way):
        theirs, ours = cluster.ray_version, _ray_version()
        if theirs not in (None, ours) and not any_versions:
            raise UserError(
                f"the cluster runs Ray {theirs}, here is {ours}. Install the same one at one of the two, "
                "or submit with --any-versions."
            )
        job_id = cluster.submit(name, run_options, any_versions=any_versions)
        click.echo(f"{job_id} is submitted. It runs without this machine:\n{_ways(job_id, way)}", err=follow)
        if follow:
            _follow(ctx, signals, cluster, job_id, way)


@click.group(cls=Commands, invoke_without_command=True)
@which_cluster
@debug_option
@click.pass_context
def jobs(ctx: click.Context, /, **place: Any) -> None:
    """List the sweeps that were submitted to a Ray cluster; show, follow or stop one."""
    if ctx.invoked_subcommand is not None:
        return
    with _connected(ctx) as (cluster, _way):
        submitted = cluster.jobs()
    if not submitted:
        click.echo(f"no sweep was submitted to {cluster.address}")
        return
    width = max(len(job.id) for job in submitted)
    for job in submitted:
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.started_at)) if job.started_at else ""
        click.echo(f"{job.id:<{width}}  {job.state:<9}  {began:<16}  {_lasted(job):>8}  {job.options}".rstrip())


@jobs.command()
@which_cluster
@debug_option
@click.argument("job_id", metavar="ID")
@click.pass_context
def logs(ctx: click.Context, /, job_id: str, **place: Any) -> None:
    """Print what a submitted sweep has printed so far."""
    with _connected(ctx) as (cluster, _way):
        click.echo(cluster.logs(job_id), nl=False)


@jobs.command()
@which_cluster
@debug_option
@click.argument("job_id", metavar="ID")
@click.pass_context
def follow(ctx: click.Context, /, job_id: str, **place: Any) -> None:
    """Show what a submitted sweep prints until it ends; Ctrl-C leaves it running. Exits as the sweep does."""
    signals = Signals().install()
    with _connected(ctx) as (cluster, way):
        _follow(ctx, signals, cluster, job_id, way)


@jobs.command()
@which_cluster
@debug_option
@click.argument("job_id", metavar="ID")
@click.pass_context
def stop(ctx: click.Context, /, job_id: str, **place: Any) -> None:
    """End a submitted sweep as SIGTERM ends `run`: every finished epoch is kept, submitting it again continues."""
    with _connected(ctx) as (cluster, _way):
        job = cluster.stop(job_id)
        said = [line for line in cluster.logs(job_id).splitlines() if line.strip()]
    if not job.is_over:
        raise UserError(f"{job.id} is asked to stop but still {job.state}; dae-sweep jobs shows when it has.")
    click.echo(f"{job.id} {job.state}" + (f" after {_lasted(job)}" if job.started_at else ""))
    if said:
        click.echo(f"its last words: {said[-1].strip()}")


def check_run_options(words: Sequence[str], *, shared: bool) -> str:
    """Refuse here what `run` would refuse there; the name of the sweep.

    Raises:
        UserError: the options contradict each other or the cluster.
        click.UsageError: `run` does not know them.
    """
    program, options = command_of(words)
    context = (search if program == "search" else run).make_context(program, options)
    given = context.params
    if given.get("address"):
        raise UserError("--address goes before --, to submit: it says where the cluster is.")
    has_own_images = is_path(given["dataset"])
    if has_own_images and not Path(given["dataset"]).is_absolute():
        raise UserError(f"--dataset {given['dataset']} is not an absolute path: the job begins in a folder of Ray's.")
    storage, name = given["storage"], sweep_name(given["name"], given["dataset"])
    with context.scope():
        settings = settings_of(given)
        if has_own_images:  # how large the images are only the cluster has to see
            settings = replace(settings, image=LARGEST)
        if program == "search":
            search_of(given, settings, None)
            name = search_name(given["name"], given["dataset"])
        else:
            resolving_of(given, grid_of(given, settings), start=0.0)
    check_limits(given)
    folder = storage.removeprefix("file://")
    if "://" in folder:
        open_store("/", name)
        from sweep.storage import bucket

        bucket.parse(storage, name)  # what it holds only the cluster has to see
    else:
        if not shared:
            raise UserError(
                f"--storage {storage} is a folder, and each machine of a cluster has its own. Give a URI such as "
                "s3://bucket/sweeps after --, or say --shared before it where the folder is the same one everywhere."
            )
        if not Path(folder).is_absolute():
            raise UserError(f"--storage {storage} is not an absolute path: the job begins in a folder of Ray's.")
        open_store(folder, name)
    return str(name)


def _ray_version() -> str:
    from importlib.metadata import version

    return version("ray")


@contextmanager
def _connected(ctx: click.Context) -> "Iterator[tuple[Cluster, str]]":
    """The cluster that the command, or the group above it, names; and the options that name it again.

    Raises:
        UserError: none is named, or it does not answer.
    """
    given: dict[str, str | None] = {"address": None, "cluster": None}
    for level in (ctx.parent, ctx):
        asked = {name: level.params[name] for name in given if level is not None and level.params.get(name)}
        given = {"address": None, "cluster": None, **asked} if asked else given
    if given["address"] and given["cluster"]:
        raise UserError("give --address or --cluster, not both.")
    address = given["address"] or (None if given["cluster"] else os.environ.get(ADDRESS))
    from sweep.cli import client

    if address:
        yield client.Cluster(address), f"--address {address}"
    elif given["cluster"]:
        with client.forwarded(Path(given["cluster"])) as local:
            yield client.Cluster(local), f"--cluster {given['cluster']}"
    else:
        raise UserError(f"which cluster? Give --address http://HEAD:8265 or --cluster FILE, or set {ADDRESS}.")


def _ways(job_id: str, way: str) -> str:
    return "\n".join(f"  dae-sweep jobs {verb} {job_id} {way}" for verb in ("follow", "stop"))


def _follow(ctx: click.Context, signals: Signals, cluster: "Cluster", job_id: str, way: str) -> None:
    """Show the job until it ends, and exit as it did."""
    from sweep.cli.client import Disconnected

    def show(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        job = cluster.follow(job_id, show)
    except Interrupted as interrupt:
        click.echo(f"\n{job_id} goes on without you:\n{_ways(job_id, way)}", err=True)
        ctx.exit(interrupt.exit_code)
    except Disconnected as lost:
        click.echo(f"Error: {lost}. {job_id} may go on:\n{_ways(job_id, way)}", err=True)
        ctx.exit(1)
    click.echo(f"{job_id} {job.state} after {_lasted(job)}", err=True)
    if job.state == "failed" and job.exit_code is None:
        click.echo(f"Ray says: {job.message}", err=True)
    ctx.exit({"succeeded": 0, "stopped": 143}.get(job.state, job.exit_code or 1))


def _lasted(job: "SweepJob") -> str:
    from sweep.records.record import duration

    return duration((job.ended_at or time.time()) - job.started_at) if job.started_at else ""
