"""The head of a Ray that runs already: where it is, whose it is, and whether it lets us in."""

import logging
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from dae.errors import UserError
from sweep.trials import ray_private, user_folders
from sweep.trials.processes import everyone

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 8.0
"""Together below the 15 s within which a user is to know; Ray itself would take 40 s."""


def has_token() -> bool:
    """Whether the user has a token for Ray clusters, at one of the places where Ray looks."""
    return bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")) or (
        (home := user_folders.home()) is not None and (home / ".ray" / "auth_token").is_file()
    )


def reach(address: str) -> str:
    """The address of a cluster's head as ``ip:port``, once it has answered.

    Args:
        address: ``auto`` for the Ray of which this machine is a node, or ``ip:port``.

    Raises:
        UserError: there is none, it is another user's, it does not answer, or it does not let us in.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        head = ray_private.resolve(address)
    except ConnectionError:
        raise UserError(
            "--address auto: no Ray runs on this machine. Start one (ray start), or give the head's ip:port."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"--address {address} is no address ({error}): give auto or the head's ip:port.") from None
    if head is None:
        raise UserError(f"--address {address} names no cluster that runs: give auto or the head's ip:port.")
    if address == "auto" and not os.environ.get("RAY_ADDRESS"):
        _check_owner(head)
    host, _, port = head.rpartition(":")
    if not port.isdigit():  # known to `ray.init` alone
        return head
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise UserError(
            f"--address {address}: nothing answers at {head} ({error.strerror or error}). Is the head running, and is "
            "this its address? ray status on it says so."
        ) from None
    ray_private.use_token()
    _check_admits(head)
    return head


def _check_admits(address: str) -> None:
    import ray

    try:
        problem = ray_private.problem_at(address, ANSWER_TIMEOUT_S)
    except TimeoutError:
        raise UserError(
            f"what listens at {address} does not answer as the head of a Ray cluster: is it another port?"
        ) from None
    if isinstance(problem, ray.exceptions.AuthenticationError):
        answer = (
            "does not accept the token that was given"
            if os.environ.get("RAY_AUTH_MODE") == "token"
            else "wants a token"
        )
        raise UserError(
            f"the Ray cluster at {address} {answer}. Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH "
            "to the cluster's token; on its head it is in ~/.ray/auth_token."
        )
    if problem is not None:
        raise UserError(f"the Ray cluster at {address} does not answer: {problem}")


def _check_owner(head: str) -> None:
    """Refuse a Ray that ``auto`` found and that another user runs: it would be sent this user's token.

    Ray looks for the nodes of this machine, whoever runs them, and into a file that any user may write.
    """
    owners = {process.owner for process in everyone() if ray_private.is_node_of(process.command, head)}
    if not owners:
        with suppress(OSError):
            owners = {(Path(tempfile.gettempdir()) / "ray" / "ray_current_cluster").stat().st_uid}
    if owners and not owners & {0, os.geteuid()}:
        raise UserError(
            f"--address auto: the Ray at {head} is run by another user (uid {min(map(str, owners))}). Give "
            f"--address {head} if you trust it."
        )
