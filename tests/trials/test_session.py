"""What a Ray session leaves behind in this process."""

import gc
import weakref

import pytest

from sweep.trials import session


class Actor:
    """What must be gone before Ray ends."""


def fail(actors: "weakref.WeakSet[Actor]") -> None:
    actor = Actor()
    actors.add(actor)
    raise ConnectionError


def fail_after(actors: "weakref.WeakSet[Actor]", *, is_cause: bool) -> None:
    actor = Actor()
    actors.add(actor)
    try:
        fail(actors)
    except ConnectionError as error:
        if is_cause:
            raise RuntimeError from error
        raise RuntimeError  # noqa: B904  (as a library may do)


@pytest.mark.parametrize("is_cause", [True, False], ids=["cause", "context"])
def test_the_frames_of_all_errors_in_a_chain_are_freed(is_cause: bool) -> None:
    actors: weakref.WeakSet[Actor] = weakref.WeakSet()
    try:
        fail_after(actors, is_cause=is_cause)
    except RuntimeError as error:
        assert len(actors) == 2
        session._clear_frames(error)
        gc.collect()
        assert not actors
        error.__context__ = error  # a circle is no endless loop
        session._clear_frames(error)
