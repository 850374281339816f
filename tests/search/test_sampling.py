"""What a search proposes: a function of its seed, the number of the proposal and what was tried."""

from dataclasses import replace

import pytest

from sweep.records.grid import Cell, Settings
from sweep.records.record import Status
from sweep.records.search import SAMPLERS, Proposal, Search
from sweep.records.space import Space
from sweep.search.history import History, Tried
from sweep.search.sampling import propose

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
