"""What a report writes of numbers and lists."""

import pytest

from sweep.analysis.statistics import Needed
from sweep.report.words import caveats_text, hardest, listed, needed


def test_a_kind_of_caveat_is_said_once() -> None:
    caveats = ["dead channels in A-s0", "collapsed B-s1", "dead channels in C-s2", "dead channels in A-s0"]
    assert caveats_text(caveats) == "dead channels in A-s0, C-s2; collapsed B-s1"


def test_a_long_list_ends_in_a_number() -> None:
    assert listed("abcd") == "a, b, c, d"
    assert listed("abcdef") == "a, b, c, d and 2 more"


def plan(more: int | None, seconds: float | None) -> Needed:
    return Needed(more=more, seconds=seconds)


@pytest.mark.parametrize("order", [1, -1])
def test_the_hardest_takes_most_seeds_and_of_these_most_time(order: int) -> None:
    plans = [plan(10, 4380.0), None, plan(10, 9000.0), plan(4, 99999.0), plan(None, None)]
    assert needed(hardest(plans[::order])) == "about 10 more seeds, 2.5\N{NO-BREAK SPACE}h"
    assert hardest([None, plan(None, None)]) is None
