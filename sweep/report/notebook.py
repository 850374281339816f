"""`sweep.load`: a sweep in Python and notebooks, as data frames and figures; torch is loaded with its models alone."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

from dae.errors import UserError
from sweep.analysis import tidy
from sweep.analysis.findings import Findings
from sweep.analysis.search import SearchFindings
from sweep.records.sweep import MANIFEST, STORAGE, Sweep, gather, no_sweep_in, way_to_repair
from sweep.storage.opening import open_store
from sweep.storage.sealing import Damaged

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from optuna import Study

    from dae.model import DenoisingAutoencoder
    from sweep.report.drawing import Figure


class Models(ABC):
    """The trained models of a sweep or of a search's finalists."""

    @property
    @abstractmethod
    def _trained(self) -> Sweep:
        """Whose cells they are."""

    def model(self, cell: str | None = None) -> "DenoisingAutoencoder":
        """The trained model of a cell, such as ``DAE_5_13-s0``, by default of the best one; in evaluation mode.

        It maps a tensor (n, channels, height, width) of noisy images in [0, 1] to denoised ones.

        Raises:
            UserError: there is no such cell, it is not completed, or its weights are damaged.
        """
        from sweep.models.trained import choose, load_model  # and with it torch

        return load_model(self._trained, choose(self._trained, cell)).module

    def denoise(
        self, pictures: "np.ndarray | Sequence[np.ndarray]", cell: str | None = None
    ) -> "np.ndarray | list[np.ndarray]":
        """Pictures of any size without their noise, by the model of a cell, by default the best one.

        Args:
            pictures: one, (height, width) or (height, width, 3), or several with their number first; or a list of
                such arrays, of several sizes. uint8, uint16, or float with values in [0, 1], where 1 is 255 of uint8;
                of a sweep that was trained on floating-point numbers of another range floats are of that range.
            cell: its key.

        Returns:
            An array of the same shape and type; of a list a list of them.

        Raises:
            UserError: as of `model`; or it is no array of pictures.
        """
        from sweep.models.denoising import denoise_all
        from sweep.models.trained import choose, load_model

        return denoise_all(load_model(self._trained, choose(self._trained, cell)), pictures)


class LoadedSweep(Models, Findings):
    """The findings of a sweep, its cells and epochs as data frames, and the figures of its report."""

    @property
    def _trained(self) -> Sweep:
        return self.whole

    @cached_property
    def cells(self) -> "pd.DataFrame":
        """One row a cell of the sweep, on all axes; see `sweep.tidy.CELL_COLUMNS` for the columns."""
        import pandas as pd

        return pd.DataFrame(tidy.cell_rows(self))

    @cached_property
    def epochs(self) -> "pd.DataFrame":
        """One row a cell and epoch; see `sweep.tidy.EPOCH_COLUMNS` for the columns."""
        import pandas as pd

        return pd.DataFrame(tidy.epoch_rows(self), columns=list(tidy.EPOCH_COLUMNS))

    def figure(self, name: str) -> "Figure":
        """A figure of the report, such as ``test_loss``; a notebook shows it.

        Raises:
            UserError: there is no such figure, or its data are not there.
        """
        from sweep.report.gallery import exhibits  # and with it matplotlib

        by_name = {exhibit.name: exhibit for exhibit in exhibits(self)}
        if name not in by_name:
            raise UserError(f"there is no figure {name!r}. Figures: {', '.join(by_name)}.")
        exhibit = by_name[name]
        if exhibit.draw is None:
            raise UserError(f"{name} cannot be drawn: {exhibit.missing}")
        return exhibit.draw(self)


class LoadedSearch(Models, SearchFindings):
    """The findings of a search, its cells and epochs as data frames, its study, and the figures of its report."""

    @property
    def _trained(self) -> Sweep:
        return self.sweep

    @cached_property
    def cells(self) -> "pd.DataFrame":
        """One row a trial or finalist."""
        import pandas as pd

        from sweep.analysis.search import cell_rows

        return pd.DataFrame(cell_rows(self))

    @cached_property
    def epochs(self) -> "pd.DataFrame":
        """One row a cell and epoch."""
        import pandas as pd

        from sweep.analysis.search import epoch_rows

        return pd.DataFrame(epoch_rows(self))

    @property
    def study(self) -> "Study":
        """Everything tried, as an Optuna study for Optuna's own tools.

        Raises:
            UserError: Optuna is not installed.
        """
        from sweep.search.sampling import check_installed

        check_installed()
        from sweep.search.study import study_of

        return study_of(self.history, self.sweep.manifest.settings)

    def figure(self, name: str) -> "Figure":
        """A figure of the report, such as ``search_trials``; a notebook shows it.

        Raises:
            UserError: there is no such figure, or its data are not there.
        """
        from sweep.report.search_gallery import exhibits

        by_name = {exhibit.name: exhibit for exhibit in exhibits(self)}
        if name not in by_name:
            raise UserError(f"there is no figure {name!r}. Figures: {', '.join(by_name)}.")
        if missing := by_name[name].missing:
            raise UserError(f"{name} cannot be drawn: {missing}")
        return by_name[name].draw(self)


def load(sweep: str, storage: str | None = None) -> LoadedSweep | LoadedSearch:
    """Read a sweep or a search for analysis in Python; nothing is changed.

    Args:
        sweep: its folder, such as ``sweeps/mnist-5k``; or its name.
        storage: where it is, if a name is given: ``sweeps`` by default.

    Raises:
        UserError: there is no sweep, or none of its cells is completed.
    """
    if storage is None:
        folder, _, name = sweep.rstrip("/").rpartition("/")
        storage = folder or ("/" if sweep.startswith("/") else STORAGE)
        sweep = name
    store = open_store(storage, sweep)
    try:
        gathered = gather(store)
        return LoadedSweep.of(gathered) if gathered.manifest.search is None else LoadedSearch(gathered)
    except FileNotFoundError:
        raise UserError(no_sweep_in(store)) from None
    except Damaged as error:
        raise UserError(f"{store.uri(MANIFEST)} is damaged: {error}. {way_to_repair(store)} writes it anew.") from None
    except LookupError as error:
        raise UserError(f"{error}: dae-sweep run trains its cells.") from None
