"""A sweep's folder held by this process, for commands that change it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from dae.errors import UserError
from sweep.storage.lease import Held
from sweep.storage.store import Store


@contextmanager
def holding(store: Store, otherwise: str = "Wait for it, or give another --name.") -> Iterator[Callable[[], bool]]:
    """The sweep's folder, made if need be, for this process alone; what is yielded tells whether it still is.

    Args:
        store: the sweep's.
        otherwise: what can be done where another process holds it.

    Raises:
        UserError: it cannot be written, or another run holds it.
    """
    with ExitStack() as lock:
        try:
            store.create()
            is_held = lock.enter_context(store.lock())
        except Held as holder:
            raise UserError(f"{holder} is already at the sweep in {store.uri()}. {otherwise}") from None
        except OSError as error:
            raise UserError(
                f"cannot write to {store.uri()} ({error.strerror}). Give a --storage that can be written."
            ) from error
        yield is_held
