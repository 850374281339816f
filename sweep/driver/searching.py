"""The training of a search: its trials, then the finalists with fresh seeds."""

import time
from dataclasses import replace

from sweep.driver.declaration import cells_to_train, declare
from sweep.driver.events import copy_to_tracker
from sweep.driver.proposals import Proposals
from sweep.driver.training import Training, place
from sweep.records.grid import Cell, Grid
from sweep.records.record import CellFiles, Status
from sweep.records.sweep import Sweep, gather
from sweep.records.words import counted
from sweep.search.ranking import finalists


class Searching(Training):
    """Trials of proposed cells, each proposal after what was learned from those before; then the finalists."""

    def run(self, sweep: Sweep) -> tuple[Sweep, str | None]:
        """Search on, and train the finalists; the sweep as it is then, and why that ended early, or None.

        Raises:
            UserError: Ray does not start, or the cluster cannot run this sweep.
            Interrupted: a signal came; every finished epoch is on disk.
        """
        stopped_because = self._search(sweep)
        return gather(sweep.store, at_rest=True), stopped_because

    def _search(self, sweep: Sweep) -> str | None:
        """Search on, and train the finalists; why that ended early, or None."""
        name = sweep.manifest.name
        sweep = self._without_damage(self._with_proposals(sweep))
        proposals = Proposals(sweep, self._has_no_time)
        going_on = [entry.cell for entry in proposals.history.in_order if not entry.is_over]
        copy_to_tracker(sweep, self.tracker, going_on)
        tried, trials = len(proposals.history.tried), proposals.history.search.trials
        self.display.tell(f"{name}: {tried} of {trials} configurations tried, on {place(self.request)}")
        if tried > trials:
            self.display.tell(
                f"{name}: {tried} were tried before, which is more than --trials {trials}; all of them count"
            )
        try:
            proposals.look_ahead()
            if proposals.is_over:
                stopped_because = self._end(proposals, name)
                sweep, todo = self._finalists(sweep)
                return (self._train(sweep, todo) if todo else None) or stopped_because
            examples = list(proposals.history.search.space.cells_at_ends(sweep.manifest.settings, seed=0))
            with self._machines(sweep, examples, max(proposals.left, self._most_finalists)) as (resources, hosts):
                stopped_because = self._round(sweep, [], resources, hosts, proposals)
                if stopped_because is not None:
                    return stopped_because
                stopped_because = self._end(proposals, name)
                sweep, todo = self._finalists(gather(self.request.store))
                return (self._round(sweep, todo, resources, hosts) if todo else None) or stopped_because
        except Exception:
            self.signals.raise_if_asked()  # a signal to the whole group ends Ray's processes too
            raise

    @property
    def _most_finalists(self) -> int:
        search = self.request.search
        return 0 if search is None else search.finalists * search.finalist_seeds

    def _has_no_time(self) -> bool:
        return self.request.deadline is not None and time.monotonic() > self.request.deadline

    def _with_proposals(self, sweep: Sweep) -> Sweep:
        """The search, with the proposals written anew that cannot be read."""
        for key in sweep.rebuilt:
            file = CellFiles(key).proposal
            self.display.warn(f"{file} is missing or damaged: it is written anew, as the record of its trial tells")
            sweep.store.write(file, sweep.proposals[key].to_bytes())
        return sweep

    def _without_damage(self, sweep: Sweep) -> Sweep:
        """The search without records that cannot be used: their trials begin anew."""
        declared = sweep.manifest.grid
        trials = Grid.of((cell for cell in declared.cells if sweep.manifest.is_trial(cell)), declared.image)
        for cell in cells_to_train(sweep, trials, self.display.warn):
            if sweep.status(cell).is_final:
                # No longer completed, but with its losses: the proposals of others follow from them meanwhile.
                record = replace(sweep.records[cell.key], status=Status.RUNNING, digests={}, finished_at=None)
                self.request.store.write(CellFiles(cell.key).record, record.to_bytes())
        return gather(self.request.store)

    def _finalists(self, sweep: Sweep) -> tuple[Sweep, list[Cell]]:
        """Declare the finalists; those that are left to train."""
        cells = finalists(sweep)
        if not cells:
            return sweep, []
        grid = Grid.of(cells, sweep.manifest.grid.image)
        sweep = declare(replace(self.request, grid=grid), self.dataset, self.display.warn)
        todo = cells_to_train(sweep, grid, self.display.warn)
        if todo:
            names = ", ".join(dict.fromkeys(cell.key.rpartition("-")[0] for cell in cells))
            self.display.tell(
                f"{sweep.manifest.name}: {counted(len(todo), 'cell')} with fresh seeds to train, of {names}"
            )
        return sweep, todo

    def _end(self, proposals: Proposals, name: str) -> str | None:
        """Say what the trials came to; why they ended early, or None."""
        tried = list(proposals.history.in_order)
        counts = [
            f"{count} {status}"
            for status in (Status.COMPLETED, Status.PRUNED, Status.STOPPED, Status.DIVERGED, Status.FAILED)
            if (count := sum(entry.status is status for entry in tried))
        ]
        reason = "; the space has no other cell" if proposals.is_exhausted else ""
        self.display.tell(
            f"{name}: {', '.join([f'{len(tried)} of {proposals.history.search.trials} tried', *counts])}{reason}"
        )
        is_late = proposals.is_incomplete and self._has_no_time()
        return "--time-budget is over; the same command goes on" if is_late else None
