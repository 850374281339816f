"""Which trials are ended early."""

import pytest

from sweep.search.rungs import pruning_of, rungs


def test_rungs_are_powers_of_three() -> None:
    assert rungs(15) == [1, 3, 9]
    assert rungs(3) == [1]
    assert rungs(1) == []


@pytest.mark.parametrize(
    ("losses", "others", "ends"),
    [
        ([0.5], [], False),  # the first one has no rival
        ([0.5], [[0.4]], True),
        ([0.3], [[0.4]], False),
        ([0.4], [[0.4]], False),  # equal is not worse
        ([0.2, 0.9], [[0.1, 0.1]], False),  # epoch 2 is no rung
        ([0.2, 0.2, 0.9], [[0.1, 0.1, 0.1]], True),
        ([0.2, 0.2, 0.9], [[0.1, 0.1]], False),  # who has not come so far says nothing
        ([0.25], [[0.1], [0.2], [0.3], [0.4]], True),  # the best third ends at 0.2
        ([0.19], [[0.1], [0.2], [0.3], [0.4]], False),
    ],
)
def test_asha(losses: list[float], others: list[list[float]], ends: bool) -> None:
    assert (pruning_of("asha", 9, losses, others) is not None) == ends


def test_the_last_epoch_ends_nothing() -> None:
    assert pruning_of("asha", 3, [0.9, 0.9, 0.9], [[0.1, 0.1, 0.1]]) is None


def test_the_median_rule_takes_running_averages() -> None:
    others = [[0.4, 0.2], [0.6, 0.2], [0.8, 0.2]]  # averages at epoch 2: .3, .4, .5
    assert pruning_of("median", 9, [0.9, 0.45], others) is not None
    assert pruning_of("median", 9, [0.9, 0.35], others) is None
    assert pruning_of("median", 9, [0.35, 0.9], others) is None  # the best so far counts
    assert pruning_of("median", 9, [0.9, 0.45], others[:2]) is None  # two say nothing


def test_a_verdict_says_why() -> None:
    pruning = pruning_of("asha", 9, [0.5], [[0.1], [0.4]])
    assert str(pruning) == "pruned at epoch 1: 0.50000 is above 0.20000, of 2 others"
    assert pruning_of("none", 9, [0.5], [[0.1]]) is None
