"""What a sweep found, for the report and for notebooks: everything is computed when it is first asked for. No torch."""

from collections.abc import Mapping
from functools import cached_property
from typing import Self

from sweep.analysis.arrays import Arrays, load_arrays, usable_records
from sweep.analysis.claims import Claim
from sweep.analysis.effects import Effects, effects
from sweep.analysis.profiles import Profile, profiles
from sweep.analysis.results import Result, results
from sweep.records.axes import Axes
from sweep.records.facets import facets
from sweep.records.quality import Condition, Qualities, References, load_quality, load_references
from sweep.records.sweep import Sweep
from sweep.storage.sealing import Damaged


class Findings:
    """The records of a sweep and what follows from them; on a sweep with axes, those of one point on the axes.

    Attributes:
        whole: the sweep with all its cells.
        sweep: the part of it that results, claims and figures are of.
        axes: where this part differs from the sweep's settings.
    """

    def __init__(self, whole: Sweep, sweep: Sweep, axes: Axes = ()) -> None:
        self.whole = whole
        self.sweep = sweep
        self.axes = axes

    @classmethod
    def of(cls, sweep: Sweep) -> Self:
        """The findings at the first point on the axes where a cell is completed: the sweep's own settings, if one is.

        Raises:
            LookupError: no cell is completed.
        """
        for axes, facet in facets(sweep):
            if usable_records(facet):
                return cls(sweep, facet, axes)
        raise LookupError(f"sweep {sweep.manifest.name} has no completed cell")

    @cached_property
    def facets(self) -> tuple[Self, ...]:
        """The findings at every point on the axes; one where the sweep has none."""
        return tuple(
            self if axes == self.axes else type(self)(self.whole, facet, axes) for axes, facet in facets(self.whole)
        )

    @cached_property
    def arrays(self) -> Arrays:
        """Samples and what each cell made of the test set."""
        return load_arrays(self.sweep)

    @cached_property
    def results(self) -> list[Result]:
        """One result an architecture, in the grid's order."""
        return results(self.sweep, self.arrays)

    @cached_property
    def effects(self) -> Effects:
        """The study's claims, and main effects and interaction of depth and latent size."""
        return effects(self.sweep, self.arrays)

    @property
    def claims(self) -> tuple[Claim, Claim]:
        """(*) on latent size and (**) on depth."""
        return self.effects.latent, self.effects.depth

    @cached_property
    def profiles(self) -> tuple[Profile, ...]:
        """What happens with depth, latent size by latent size."""
        return profiles(self.sweep, self.arrays)

    @cached_property
    def _references(self) -> References | str | None:
        try:
            return load_references(self.sweep)
        except Damaged as error:
            return str(error)

    @property
    def references(self) -> References | None:
        """Baselines and reader; None where they were not computed or cannot be used."""
        return None if isinstance(self._references, str) else self._references

    @property
    def condition(self) -> Condition | None:
        """The baselines on the noise of this part of the sweep."""
        settings = self.sweep.manifest.settings
        return None if self.references is None else self.references.condition(settings.noise, settings.alpha)

    @cached_property
    def qualities(self) -> Qualities:
        """What is known of each cell beyond its test loss."""
        return load_quality(self.sweep)

    @cached_property
    def unreadable(self) -> Mapping[str, str]:
        """Files that cannot be used, and why."""
        records = {f"cells/{key}": reason for key, reason in self.sweep.damaged.items()}
        files = [*self.arrays.damaged.items(), *self.qualities.damaged.items()]
        arrays = {name: reason.removeprefix(f"{name} ") for name, reason in files}
        return records | arrays | ({"references": self._references} if isinstance(self._references, str) else {})

    def __repr__(self) -> str:
        manifest = self.whole.manifest
        return f"<sweep {manifest.name}: {len(self.whole.completed)} of {len(manifest.grid.cells)} cells completed>"
