"""``python -m sweep`` is ``dae-sweep``; a job of `dae-sweep submit` begins here too."""

from sweep.trials.shipped import check_versions

check_versions()  # before anything is imported that another version would break

from sweep.cli import main  # noqa: E402  (see above)

main(prog_name="dae-sweep")
