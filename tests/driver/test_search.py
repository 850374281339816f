"""Searches without Ray: real trials in this process, and ends at any write of a file."""

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import InProcess, Silent, request_for

from dae import data
from dae.errors import UserError
from sweep.analysis.search import best_table
from sweep.driver import control, runner
from sweep.driver.removal import remove, restore
from sweep.driver.searching import Searching
from sweep.driver.signals import Signals
from sweep.evaluation.verify import verify
from sweep.records.grid import Cell, Grid, Settings
from sweep.records.record import CellFiles, Status
from sweep.records.search import Proposal, Search
from sweep.records.space import Space
from sweep.records.sweep import MANIFEST, Sweep, gather
from sweep.search.history import History
from sweep.search.ranking import finalists, ranked, wanted
from sweep.storage.store import Store
from sweep.trials import trial

pytest.importorskip("optuna")

SETTINGS = Settings.usual("mnist-5k", train_fraction=0.1, epochs=4)
SPACE = Space.parse(["depth=1", "latent=4..9", "lr=log:1e-4..1e-2", "averaging=0,0.9"])
SEARCH = Search(space=SPACE, trials=12, scheduler="asha", finalists=2, finalist_seeds=2)


class Killed(BaseException):
    """Ends the driver where it stands."""


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, writes: int) -> Iterator[None]:
    """The process dies before it has written so many files."""
    left, write = [writes], Store.write

    def mortal(store: Store, name: str, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        write(store, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", mortal)
        yield


def go(store: Store, search: Search = SEARCH, settings: Settings = SETTINGS, **options: Any) -> Sweep:
    request = request_for(store, Grid.of(()), settings, search=search, **options)
    return runner.run(request, Signals(), Silent()).sweep


def shape(sweep: Sweep) -> list[tuple[Any, ...]]:
    """What a search came to: everything but times."""
    return [
        (
            proposal.number,
            key,
            proposal.point,
            proposal.arrivals,
            proposal.pruning,
            sweep.records[key].status,
            [(epoch.train_loss, epoch.val_loss) for epoch in sweep.records[key].history],
        )
        for key, proposal in sweep.proposals.items()
    ] + [(record.key, record.test_loss) for record in sweep.records.values() if record.key not in sweep.proposals]


@pytest.fixture(scope="module")
def _shared() -> dict[str, Any]:
    return {}


@pytest.fixture
def peace(_shared: dict[str, Any], in_process: InProcess, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    if not _shared:
        _shared["sweep"] = go(Store(tmp_path_factory.mktemp("peace") / "peace"))
    return _shared["sweep"]


@pytest.mark.parametrize("places", [(0,), (5,), (-1,), (3, 4, 7)], ids=str)
def test_proposals_that_cannot_be_read_cost_no_trial(
    peace: Sweep, in_process: InProcess, tmp_path: Path, places: tuple[int, ...]
) -> None:
    store = Store(tmp_path / "copy" / peace.store.name)
    shutil.copytree(peace.store.root, store.root)
    lost = [list(peace.proposals)[place] for place in places]
    for key in lost:
        store.write(CellFiles(key).proposal, b"no proposal")
    store.delete(CellFiles(lost[0]).proposal)
    seen = gather(store)
    assert set(seen.rebuilt) == set(lost)
    assert list(seen.proposals) == list(peace.proposals)
    in_process.rounds.clear()
    warned: list[str] = []
    display = Silent()
    display.warn = warned.append  # type: ignore[method-assign]
    runner.run(request_for(store, Grid.of(()), SETTINGS, search=SEARCH), Signals(), display)
    assert {warning.split("/")[1] for warning in warned if "proposal.json is missing or damaged" in warning} == set(
        lost
    )
    after = gather(store)
    assert after.rebuilt == ()
    assert (after.records, after.manifest.grid) == (peace.records, peace.manifest.grid)
    for key, proposal in after.proposals.items():  # why it was pruned stands in its record
        assert replace(proposal, pruning=None) == replace(peace.proposals[key], pruning=None)
    assert in_process.rounds == [], "nothing is trained"


def test_a_space_of_one_point_has_a_page(in_process: InProcess, tmp_path: Path) -> None:
    search = replace(SEARCH, space=Space.parse(["depth=1", "latent=5"]), trials=1, finalists=1, scheduler="none")
    store = Store(tmp_path / "point")
    go(store, search, report=True)
    page = store.read("report/index.html").decode()
    assert "No parameter varies." in page
    assert "Finalists that are unconverged" in page
    assert "DAE_1_5 (2 of 2 seeds): more epochs may help." in page


def test_a_search_prunes_and_tests_only_its_finalists(peace: Sweep) -> None:
    statuses = [peace.records[key].status for key in peace.proposals]
    assert len(statuses) == 12
    assert statuses.count(Status.PRUNED) >= 3
    assert Status.COMPLETED in statuses
    assert {record.key for record in peace.records.values() if record.test_loss is not None} == {
        cell.key for cell in finalists(peace)
    }
    for key, proposal in peace.proposals.items():
        record = peace.records[key]
        assert (record.status is Status.PRUNED) == (proposal.pruning is not None)
        assert len(record.history) == (4 if proposal.pruning is None else proposal.pruning.epoch)
        assert len(proposal.arrivals) == len(record.history)
    places = [place for proposal in peace.proposals.values() for place in proposal.arrivals]
    assert places == list(range(len(places)))
    assert [record.val_loss for record in ranked(peace)] == sorted(record.val_loss for record in ranked(peace))


def test_a_search_killed_at_any_write_is_the_same_search(
    peace: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice, store, kills = random.Random(7), Store(tmp_path / "peace"), 0
    while True:
        try:
            with killed_at(monkeypatch, dice.randrange(1, 45)):
                sweep = go(store)
            break
        except Killed:
            kills += 1
            assert kills < 60
    assert kills >= 5
    assert shape(sweep) == shape(peace)


def test_more_trials_and_another_space_go_on(peace: Sweep, in_process: InProcess, tmp_path: Path) -> None:
    store = Store(tmp_path / "peace")
    shutil.copytree(peace.store.root, store.root)
    wider = Space.parse(["depth=1..2", "latent=4..9", "lr=log:1e-4..2e-2", "averaging=0,0.9", "width=4..8"])
    sweep = go(store, replace(SEARCH, trials=14, space=wider))
    assert len(sweep.proposals) == 14
    assert shape(sweep)[:12] == shape(peace)[:12]
    assert json.loads(store.read("sweep.json"))["search"]["space"]["width"] == "4..8"


def test_a_revived_trial_goes_on_and_is_not_pruned_again(peace: Sweep, tmp_path: Path) -> None:
    store = Store(tmp_path / "peace")
    shutil.copytree(peace.store.root, store.root)
    pruned = [key for key in peace.proposals if peace.records[key].status is Status.PRUNED]
    again = go(store)
    assert [key for key in again.proposals if again.records[key].status is Status.PRUNED] == pruned
    sweep = go(store, revive=True)
    assert {sweep.records[key].status for key in pruned} == {Status.COMPLETED}
    assert all(sweep.records[key].history[0] == peace.records[key].history[0] for key in pruned)


def test_a_trial_with_damaged_weights_is_trained_again(peace: Sweep, in_process: InProcess, tmp_path: Path) -> None:
    store = Store(tmp_path / "peace")
    shutil.copytree(peace.store.root, store.root)
    key = ranked(peace)[-1].key
    with store.path(CellFiles(key).weights).open("ab") as weights:
        weights.write(b"x")
    told: list[str] = []
    request = request_for(store, Grid.of(()), SETTINGS, search=SEARCH)
    again = runner.run(request, Signals(), Silent(warn=told.append)).sweep
    assert len(told) == 1
    assert f"{key} is trained again" in told[0]
    assert in_process.rounds[0] == [key]
    assert shape(again) == shape(peace)
    go(store)  # and nobody is told of it a second time


def test_what_is_fixed_is_known_without_the_manifest(peace: Sweep, in_process: InProcess, tmp_path: Path) -> None:
    store = Store(tmp_path / "peace")
    shutil.copytree(peace.store.root, store.root)
    store.path(MANIFEST).unlink()
    for other in ({"sampler": "gp"}, {"seed": 3}, {"scheduler": "none"}):
        with pytest.raises(UserError, match="was begun with --"):
            go(store, replace(SEARCH, **other))
    key = next(iter(peace.proposals))
    old = replace(peace.proposals[key], origin={})  # of a version that did not note it
    assert b"origin" not in old.to_bytes()
    assert Proposal.from_bytes(old.to_bytes()) == old
    assert shape(go(store)) == shape(peace)


def test_former_finalists_are_asked_for_no_more(peace: Sweep, in_process: InProcess, tmp_path: Path) -> None:
    store = Store(tmp_path / "peace")
    shutil.copytree(peace.store.root, store.root)
    second = ranked(peace)[1].key.rpartition("-")[0]
    declared = Grid.of([*finalists(peace), *map(Cell.from_key, (f"{second}-s8", f"{second}-s9"))])
    store.write(MANIFEST, replace(peace.manifest, grid=declared).to_bytes())
    begun = replace(peace.records[f"{second}-s1"], key=f"{second}-s8", seed=8, status=Status.RUNNING, test_loss=None)
    begun = replace(begun, config={**begun.config, "seed": 8}, digests={})
    store.write(CellFiles(begun.key).record, begun.to_bytes())
    sweep = go(store)
    assert all(sweep.status(cell).is_final for cell in wanted(sweep))
    assert {cell.key for cell in sweep.manifest.grid.cells} - {cell.key for cell in wanted(sweep)} == {begun.key}
    dataset = data.load("mnist-5k", Path("nowhere"), SETTINGS.train_fraction)
    assert list(verify(sweep, dataset)) == []


def test_a_removed_finalist_is_not_asked_for(peace: Sweep, in_process: InProcess, tmp_path: Path) -> None:
    store = Store(tmp_path / "peace")
    shutil.copytree(peace.store.root, store.root)
    gone = finalists(peace)[0].key
    remove(store, [gone])
    sweep = go(store)
    assert gone not in {cell.key for cell in wanted(sweep)}
    assert len(finalists(sweep)) == 3


def test_the_number_of_a_removed_trial_is_not_given_again(peace: Sweep, in_process: InProcess, tmp_path: Path) -> None:
    store = Store(tmp_path / "peace")
    shutil.copytree(peace.store.root, store.root)
    gone = list(peace.proposals)[-1]
    remove(store, [gone])
    sweep = go(store, replace(SEARCH, finalists=0))
    assert [proposal.number for proposal in sweep.proposals.values()] == [*range(11), 12]
    restore(store, [gone])
    sweep = go(store, replace(SEARCH, finalists=0))
    assert [proposal.number for proposal in sweep.proposals.values()] == [*range(11), 11, 12]
    assert len(History.of(sweep).tried) == 13


def test_a_narrower_space_binds_the_finalists(peace: Sweep, in_process: InProcess, tmp_path: Path) -> None:
    store = Store(tmp_path / "peace")
    shutil.copytree(peace.store.root, store.root)
    best = peace.proposals[ranked(peace)[0].key].point["latent"]
    others = ",".join(str(latent) for latent in range(4, 10) if latent != best)
    texts = [f"{name}={text}" for name, text in (SPACE.texts | {"latent": others}).items()]
    sweep = go(store, replace(SEARCH, space=Space.parse(texts)))
    assert ranked(sweep)
    assert best not in {cell.latent for cell in finalists(sweep)}
    assert f"DAE_1_{best}" not in {row[1].split("-")[0] for row in best_table(sweep)}


def test_a_cell_is_stopped_from_outside(in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "stops")
    monkeypatch.setattr(control, "LOOK_EVERY_S", 0.0)
    asked = []

    def before(key: str) -> None:
        if not asked:
            asked.append(key)
            control.stop(gather(store), [key])

    in_process.before = before
    sweep = go(store, replace(SEARCH, trials=3, finalists=0, scheduler="none"))
    assert [sweep.records[key].status for key in sweep.proposals] == [Status.STOPPED, *2 * [Status.COMPLETED]]
    assert len(sweep.records[asked[0]].history) == 1


def test_a_search_is_paused_from_outside(
    in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "pause")
    monkeypatch.setattr(control, "LOOK_EVERY_S", 0.0)
    search, seen = replace(SEARCH, trials=3, finalists=0, scheduler="none"), []

    def before(key: str) -> None:
        seen.append(key)
        if len(seen) == 5:
            control.pause(gather(store))

    in_process.before = before
    request = request_for(store, Grid.of(()), SETTINGS, search=search)
    outcome = runner.run(request, Signals(), Silent())
    assert outcome.stopped_because == control.PAUSED
    assert len(outcome.sweep.proposals) == 2
    assert {record.status for record in go(store, search).records.values()} == {Status.COMPLETED}


def test_a_pause_in_the_first_moments_counts(
    in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, search = Store(tmp_path / "early"), replace(SEARCH, trials=2, finalists=0, scheduler="none")
    monkeypatch.setattr(control, "LOOK_EVERY_S", 0.0)
    declare = runner.declare

    def declare_and_pause(*arguments: Any) -> Sweep:
        sweep = declare(*arguments)
        control.pause(sweep)
        return sweep

    with monkeypatch.context() as patch:
        patch.setattr(runner, "declare", declare_and_pause)
        outcome = runner.run(request_for(store, Grid.of(()), SETTINGS, search=search), Signals(), Silent())
    assert outcome.stopped_because == control.PAUSED
    assert not outcome.sweep.completed
    assert len(go(store, search).completed) == 2


@pytest.mark.parametrize("sampler", ["random", "gp", "cmaes", "nsga2", "grid"])
def test_every_sampler_is_replayed(
    sampler: str, in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = Space.parse(["depth=1", "latent=2..28", "batch_size=16,32,64"])
    settings = replace(SETTINGS, epochs=1, warmup=1)
    search = Search(space=space, trials=14, sampler=sampler, finalists=0)
    undisturbed = go(Store(tmp_path / "peace"), search, settings)
    store = Store(tmp_path / "war")
    with pytest.raises(Killed), killed_at(monkeypatch, 55):
        go(store, search, settings)
    assert shape(go(store, search, settings)) == shape(undisturbed)


def test_two_objectives_rank_the_front(in_process: InProcess, tmp_path: Path) -> None:
    space = Space.parse(["depth=1..3", "latent=2..13"])
    search = Search(space=space, trials=12, objectives=("val_loss", "macs"), finalists=0)
    sweep = go(Store(tmp_path / "front"), search, replace(SETTINGS, epochs=1, warmup=1))
    best = ranked(sweep)
    assert [record.macs for record in best] == sorted((record.macs for record in best), reverse=True)


def test_a_space_comes_to_its_end(in_process: InProcess, tmp_path: Path) -> None:
    search = Search(space=Space.parse(["depth=1", "latent=4,5", "width=4,8"]), trials=9, finalists=0)
    settings = replace(SETTINGS, epochs=1, warmup=1)
    sweep = go(Store(tmp_path / "small"), search, settings)
    assert sorted(sweep.proposals) == ["DAE_1_4-s0", "DAE_1_5-s0"]  # at depth 1 width has no effect
    in_process.rounds.clear()
    go(sweep.store, search, settings)
    assert in_process.rounds == []  # no machine is started for nothing


def test_a_model_that_no_step_fits_fails_at_once(
    in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "memory_bytes", lambda: 2**23)
    search = Search(space=Space.parse(["depth=1,50000", "latent=4"]), trials=2, sampler="grid", finalists=0)
    sweep = go(Store(tmp_path / "deep"), search, replace(SETTINGS, epochs=1, warmup=1))
    statuses = {record.depth: record.status for record in sweep.records.values()}
    assert statuses == {1: Status.COMPLETED, 50_000: Status.FAILED}
    assert "out of memory (MemoryError: a step takes about" in str(sweep.records["DAE_50000_4-s0"].error)


def test_a_time_budget_that_ends_is_said(in_process: InProcess, tmp_path: Path) -> None:
    told: list[str] = []
    search, store = replace(SEARCH, trials=3, finalists=1, finalist_seeds=1, scheduler="none"), Store(tmp_path / "late")
    request = request_for(store, Grid.of(()), SETTINGS, search=search, deadline=0.0)
    assert "--time-budget is over" in str(runner.run(request, Signals(), Silent(tell=told.append)).stopped_because)
    assert told[-1] == "late: 0 of 3 tried"

    def before(key: str) -> None:
        deadline[0] = 0.0

    deadline = [float("inf")]
    in_process.before = before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Searching, "_has_no_time", lambda _self: deadline[0] == 0.0)
        outcome = runner.run(replace(request, deadline=None), Signals(), Silent(tell=told.append))
    assert "--time-budget is over" in str(outcome.stopped_because)
    assert [len(outcome.sweep.proposals), len(outcome.sweep.completed)] == [1, 2]  # and its finalist
    request = replace(request, deadline=None)
    assert runner.run(request, Signals(), Silent()).stopped_because is None
