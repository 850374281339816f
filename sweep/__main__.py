"""``python -m sweep`` is ``dae-sweep``."""

from sweep.cli import main

main(prog_name="dae-sweep")
