"""The orchestrator of dae-sweep: grids of cells, their trials, records and reports. `load` reads a sweep in Python."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweep.report.notebook import LoadedSearch, LoadedSweep

__version__ = "0.1.0"


def load(sweep: str, storage: str | None = None) -> "LoadedSweep | LoadedSearch":
    """Read a sweep for analysis in Python or a notebook; needs neither torch nor the dataset.

    Args:
        sweep: its folder, such as ``sweeps/mnist-5k``; or its name.
        storage: where it is, if a name is given: ``sweeps`` by default.

    Returns:
        Its findings: ``.cells`` and ``.epochs`` are data frames, ``.figure("test_loss")`` is a figure of the report;
        of a search also ``.study``, an Optuna study.

    Raises:
        UserError: there is no sweep, or none of its cells is completed.
    """
    from sweep.report import notebook

    return notebook.load(sweep, storage)
