"""What `dae-sweep submit` tells a job of the place that it comes from: the versions it needs, the commit it is of."""

import json
import os
import sys
from importlib import metadata

VERSIONS = "DAE_SWEEP_VERSIONS"
"""Environment variable with the packages that the job was submitted with."""

COMMIT = "DAE_SWEEP_COMMIT"
"""Environment variable with the commit of the checkout that the job was submitted from."""


def public(version: str) -> str:
    """A version without the name of its build: ``2.14.1+cu130`` and ``2.14.1+cpu`` are the same program."""
    return version.partition("+")[0]


def differences(asked: dict[str, str]) -> list[str]:
    """Packages that are not here in the version asked for, in words."""
    differing = []
    for name, version in asked.items():
        try:
            here = public(metadata.version(name))
        except metadata.PackageNotFoundError:
            here = "not installed"
        if here != version:
            differing.append(f"{name} {version} (here: {here})")
    return differing


def check_versions() -> None:
    """End a job with exit code 2 where the head of the cluster has other packages than it was submitted with.

    Elsewhere, and with ``--any-versions``, `VERSIONS` is not set and there is nothing to check.
    """
    if differing := differences(json.loads(os.environ.get(VERSIONS, "{}"))):
        print(
            f"Error: the sweep was submitted with other packages than the head of this cluster has: "
            f"{', '.join(differing)}. Install them there (pip install -c constraints.txt, see cluster/README.md), "
            "or submit with --any-versions.",
            file=sys.stderr,
        )
        sys.exit(2)
