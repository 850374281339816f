"""The orchestrator of dae-sweep: grids of cells, their trials, records and reports.

`load` reads a sweep in Python, `denoise` applies its best model.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

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


def denoise(
    pictures: "np.ndarray | Sequence[np.ndarray]", sweep: str, cell: str | None = None, storage: str | None = None
) -> "np.ndarray | list[np.ndarray]":
    """Pictures of any size without their noise, by the model of a cell of a sweep.

    Args:
        pictures: one, (height, width) or (height, width, 3), or several with their number first; or a list of such
            arrays, of several sizes. uint8, uint16, or float with values in [0, 1], where 1 is 255 of uint8; of a
            sweep that was trained on floating-point numbers of another range floats are of that range.
        sweep: as of `load`.
        cell: its key, such as ``DAE_5_13-s0``; by default the best one.
        storage: as of `load`.

    Returns:
        An array of the same shape and type; of a list a list of them.

    Raises:
        UserError: there is no such sweep or cell, its weights are damaged, or it is no array of pictures.
    """
    return load(sweep, storage).denoise(pictures, cell)
