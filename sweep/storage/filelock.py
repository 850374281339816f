"""The lock of a file, which the kernel releases when the process that holds it ends in any way.

It is a lock of the open file (``F_OFD_SETLK``): unlike ``flock`` it can be asked for without being taken, so that a
reader never refuses a writer, and unlike other ``fcntl`` locks it stays when the process closes the file elsewhere.
"""

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import IO

NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""What file systems answer that have no locks: some NFS, Lustre, 9p and FUSE mounts."""


class NoLocks(OSError):
    """The file system of this file has no locks."""


def take(file: IO[str]) -> bool:
    """Lock a file that is open for writing, until it is closed; False where another open file holds the lock.

    Raises:
        NoLocks: its file system has none.
    """
    try:
        _ask(file, fcntl.F_OFD_SETLK, fcntl.F_WRLCK)
    except BlockingIOError:
        return False
    return True


def is_taken(path: Path) -> bool:
    """Whether a process holds the lock of this file, without taking it; False where there is no such file or lock."""
    try:
        with path.open() as file:
            return _ask(file, fcntl.F_OFD_GETLK, fcntl.F_RDLCK) != fcntl.F_UNLCK
    except (FileNotFoundError, NoLocks):
        return False


def _ask(file: IO[str], command: int, kind: int) -> int:
    """Call ``fcntl`` with a ``struct flock`` for the whole file; the kind of lock in the answer."""
    try:
        answer = fcntl.fcntl(file, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise NoLocks(error.errno, error.strerror, file.name) from error
        if error.errno == errno.EACCES:  # another word for EAGAIN
            raise BlockingIOError(error.errno, error.strerror) from error
        raise
    return int(struct.unpack_from("h", answer)[0])
