"""The other end of `dae-sweep submit`: where a shipped sweep begins, on the head of a cluster."""

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
    found = []
    for name, version in asked.items():
        try:
            here = public(metadata.version(name))
        except metadata.PackageNotFoundError:
            here = "not installed"
        if here != version:
            found.append(f"{name} {version} (here: {here})")
    return found


def main() -> None:
    """Check the versions, then run `dae-sweep` with the arguments given."""
    if wrong := differences(json.loads(os.environ.get(VERSIONS, "{}"))):
        print(
            f"Error: the sweep was submitted with other packages than the head of this cluster has: "
            f"{', '.join(wrong)}. Install them there (pip install -c constraints.txt, see cluster/README.md), "
            "or submit with --any-versions.",
            file=sys.stderr,
        )
        sys.exit(2)
    from sweep.cli import main as command

    command(prog_name="dae-sweep")


if __name__ == "__main__":
    main()
