"""What a search proposes: a function of its seed, the number of the proposal and what was tried."""

import pickle
import random
from dataclasses import replace
from itertools import islice

import pytest

from sweep.records.grid import Cell, Settings
from sweep.records.record import Status
from sweep.records.search import SAMPLERS, Proposal, Search
from sweep.records.space import Space
from sweep.search.history import History, Tried
from sweep.search.sampling import neighbours, propose

pytest.importorskip("optuna")

SETTINGS = Settings.usual("mnist-5k")
SPACE = Space.parse(["depth=1..3", "latent=4..13", "width=8,16"])
LOSSES = [0.05, 0.03, 0.08, 0.02, 0.06, 0.04, 0.07, 0.09, 0.01, 0.05, 0.03, 0.02]


def history(search: Search, count: int = len(LOSSES)) -> History:
    made = History(search)
    for number, loss in enumerate(LOSSES[:count]):
        point = {"depth": 2 + number % 2, "latent": 4 + number % 10, "width": 8 + 8 * (number // 10)}
        cell = search.space.cell(point, SETTINGS, search.seed)
        proposal = Proposal(number=number, point=point, arrivals=(2 * number, 2 * number + 1))
        made.note(Tried(proposal, cell, Status.COMPLETED, (0.1, loss), macs=1000 * (number + 1)))
    return made


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_history_gives_the_same_proposal(sampler: str) -> None:
    pytest.importorskip("cmaes")
    search = Search(space=SPACE, sampler=sampler)
    first, second = (propose(history(search), SETTINGS) for _ in range(2))
    assert first is not None
    assert first == second
    assert first[0].number == len(LOSSES)
    assert first[1] not in {entry.cell for entry in history(search).tried.values()}


def test_another_seed_or_number_gives_another_proposal() -> None:
    search = Search(space=replace(SPACE), sampler="random")
    found = {
        str(propose(history(replace(search, seed=seed), count), SETTINGS)[0].point)  # type: ignore[index]
        for seed in range(3)
        for count in range(3)
    }
    assert len(found) > 5


def test_what_was_removed_is_not_proposed_again() -> None:
    space = Space.parse(["depth=1", "latent=4,5"])
    made = History(Search(space=space), removed=("DAE_1_4-s0",))
    assert propose(made, SETTINGS)[1].key == "DAE_1_5-s0"  # type: ignore[index]
    made = History(Search(space=space), removed=("DAE_1_4-s0", "DAE_1_5-s0"))
    assert propose(made, SETTINGS) is None


def test_what_was_tried_gives_way_to_what_is_next_to_it() -> None:
    space = Space.parse(["depth=1..3", "latent=4..13", "lr=1e-4,1e-3,1e-2", "width=8..64"])
    start = {"width": 20, "latent": 7, "depth": 2, "lr": 1e-3}
    near = list(islice(neighbours(space, start, random.Random(1)), 2000))
    assert near[0] == start
    assert {tuple(point.values()) for point in near[1:3]} == {(1e-3, 19, 7, 2), (1e-3, 21, 7, 2)}
    assert len({tuple(point.values()) for point in near}) == len(near)
    assert near == list(islice(neighbours(space, start, random.Random(1)), 2000))
    everything = Space.parse(["depth=1..3", "latent=4..6", "width=8,16"])
    reached = list(neighbours(everything, everything.point_at(0), random.Random(1)))
    cells = {everything.cell(everything.point_at(index), SETTINGS, 0) for index in range(18)}
    assert {everything.cell(point, SETTINGS, 0) for point in reached} == cells
    real = list(islice(neighbours(Space.parse(["depth=1", "latent=4", "lr=log:1e-4..1e-2"]),
                                  {"lr": 1e-3, "latent": 4, "depth": 1}, random.Random(1)), 3))  # fmt: skip
    assert {point["lr"] for point in real[1:]} == {0.0009954, 0.001005}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_small_space_is_gone_through_to_its_end(sampler: str) -> None:
    pytest.importorskip("cmaes")
    space = Space.parse(["depth=1..2", "latent=4..8", "width=8,16"])  # at depth 1 width has no effect: 15 cells
    made = History(Search(space=space, sampler=sampler))
    while (found := propose(made, SETTINGS)) is not None:
        made.note(Tried(found[0], found[1], Status.COMPLETED, (0.01 * found[1].latent,), macs=1))
    assert len(made.tried) == 15


def test_the_grid_of_a_large_space_is_drawn_from_all_of_it() -> None:
    space = Space.parse(["width=8..64", "latent=4..14", "depth=1..7", "batch_size=32,64,128", "alpha=0.25,0.5,0.75"])
    bigger = Space.parse([*(f"{name}={text}" for name, text in space.texts.items()), "latent_channels=1..1000"])
    for large in (space, bigger):
        made = History(Search(space=large, sampler="grid"))
        for _ in range(40):
            made.note(Tried(*propose(made, SETTINGS), Status.COMPLETED, (0.1,)))  # type: ignore[misc]
        widths = [entry.proposal.point["width"] for entry in made.in_order]
        assert min(widths) < 20
        assert max(widths) > 52


def test_cmaes_begins_anew_in_another_space() -> None:
    pytest.importorskip("cmaes")
    texts = ["lr=log:1e-4..1e-2", "latent=4..14", "depth=1..7"]
    made = History(Search(space=Space.parse(texts), sampler="cmaes"))

    def go_on(count: int) -> list[Tried]:
        for _ in range(count):
            proposal, cell = propose(made, SETTINGS)  # type: ignore[misc]
            loss = 0.05 + abs(float(proposal.point["lr"]) - 0.003) + 0.001 * abs(int(proposal.point["latent"]) - 13)
            made.note(Tried(proposal, cell, Status.COMPLETED, (loss,), 1))
        return list(made.in_order)[-count:]

    go_on(20)
    for wider in ("width=8..64", "width=8..32"):
        made.search = replace(made.search, space=Space.parse([*texts, wider]))
        assert all("cma:generation" in entry.proposal.attributes for entry in go_on(12))
        assert made.search.space.parameters.keys() == list(made.in_order)[-1].proposal.point.keys()
    assert any("cma:optimizer:0" in entry.proposal.attributes for entry in list(made.in_order)[32:])


def test_the_study_of_a_search_can_be_kept_and_sent() -> None:
    from sweep.search import study

    made = study.study_of(history(Search(space=SPACE)), SETTINGS)
    again = pickle.loads(pickle.dumps(made))
    assert [trial.values for trial in again.trials] == [[loss] for loss in LOSSES]
    assert {type(trial).__name__ for trial in made.get_trials(deepcopy=False)} == {"FrozenTrial"}


def test_optuna_is_told_of_every_end() -> None:
    from optuna.trial import TrialState

    from sweep.search import study

    made = history(Search(space=SPACE))
    tried = list(made.in_order)
    for number, status in ((0, Status.DIVERGED), (1, Status.PRUNED), (2, Status.FAILED), (3, Status.RUNNING)):
        made.note(replace(tried[number], status=status))
    outside = Proposal(number=99, point={"depth": 9, "latent": 4, "width": 8})
    made.note(replace(tried[4], proposal=outside, cell=Cell(depth=9, latent=4, seed=0)))
    told = study.trials(made, SETTINGS)
    complete, states = TrialState.COMPLETE, [trial.state for trial in told]
    assert states == [complete, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, *8 * [complete]]
    assert told[0].value == max(LOSSES)  # as bad as the worst
    assert told[1].intermediate_values == {1: 0.1, 2: 0.03}
    made.search = replace(made.search, sampler="gp")  # which makes no use of pruned ones as such
    assert [trial.state for trial in study.trials(made, SETTINGS)][1] is complete
    made.search = replace(made.search, objectives=("val_loss", "macs"))
    assert study.trials(made, SETTINGS)[4].values == [0.06, 5000.0]
