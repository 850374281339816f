"""Requests to a bucket: repeated until they are answered or refused, and never cut in two by a signal."""

import random
import re
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

PATIENCE_S = 60.0
"""How long a store may not answer while a sweep runs."""
FIRST_PATIENCE_S = 3.0
"""The same while a command makes its first requests."""
REQUEST_TIMEOUT_S = 10.0
"""Of one request that receives no byte. Pyarrow itself tries once, since requests are repeated here."""
LONGEST_PAUSE_S = 5.0

REFUSALS = {
    "ACCESS_DENIED": "these credentials do not permit it",
    "PERMISSION_DENIED": "these credentials do not permit it",
    "INVALID_ACCESS_KEY_ID": "it does not know this access key",
    "INVALID_CLIENT_TOKEN_ID": "it does not know this access key",
    "SIGNATURE_DOES_NOT_MATCH": "the secret key does not belong to the access key",
    "EXPIRED_TOKEN": "the credentials have expired",
    "UNAUTHENTICATED": "it wants credentials",
    "REQUEST_TIME_TOO_SKEWED": "the clock of this machine differs from its own by too much",
    "NO_SUCH_BUCKET": "there is no such bucket",
}
"""Answers that another request would not change, by their names in pyarrow's messages."""

Answer = TypeVar("Answer")


def answer(request: Callable[[], Answer], uri: str, error_class: type[OSError], patience_s: float) -> Answer:
    """Repeat a request about the file at ``uri`` until it is answered or refused.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: of ``error_class``, the store refuses or does not answer for ``patience_s``.
    """
    give_up, pause = time.monotonic() + patience_s, 0.1
    while True:
        try:
            return uninterruptible(request)
        except FileNotFoundError:
            raise
        except OSError as error:
            why, is_final = reason(error)
            if is_final or time.monotonic() + pause > give_up:
                raise error_class(error.errno or 0, why, uri) from error
        time.sleep(pause * random.uniform(0.5, 1))  # so that many nodes do not ask at the same moment
        pause = min(2 * pause, LONGEST_PAUSE_S)


def uninterruptible(request: Callable[[], Answer]) -> Answer:
    """Make the request in another thread: when a signal interrupts a put, pyarrow would put the part it has so far."""
    outcome: dict[str, Any] = {}

    def ask() -> None:
        try:
            outcome["answer"] = request()
        except BaseException as error:  # raised again in the thread that waits
            outcome["error"] = error

    thread = threading.Thread(target=ask, name="storage")
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    given: Answer = outcome["answer"]
    return given


def reason(error: OSError) -> tuple[str, bool]:
    """The reason in a few words, and whether it is a refusal, which another request would not change."""
    text = str(error)
    code = re.search(r"AWS Error ([A-Z_]+)|google::cloud::Status\(([A-Z_]+)", text)
    name = next(filter(None, code.groups()), "") if code else ""
    if name in REFUSALS or isinstance(error, PermissionError):
        return REFUSALS.get(name, REFUSALS["ACCESS_DENIED"]), True
    curl = re.search(r"curlCode: \d+, ([^;]+)", text)
    if curl is not None:
        return f"it does not answer ({curl[1].strip()})", False
    return (f"it failed ({name})" if name else text.splitlines()[0][:200]), False
