"""Locks that end with their holder, also where the file system has none; who only looks writes nothing."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prs_lightning.runs.writing import refused

NO_FLOCK = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})
"""What flock says on Lustre without it, and on some NFS."""
GLANCE_SECONDS = 0.3
"""How long another may hold a lock who only looks at it."""
LEASE_SECONDS = 30.0
"""Without flock: after so long without a sign of life a holder on another machine counts as dead."""


@contextmanager
def held(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock file ``path``; gives False, at once, if another holds it and we are not to ``wait`` for it.

    The system frees it when its holder dies. Where the file system has no such locks, a lease beside it takes their
    place: its holder renews it while it lives, on whatever machine, and who lost it is interrupted.

    Raises:
        DiskError, RunError: the lock file cannot be written, or is a link or a folder.
    """
    from filelock import FileLock, SoftFileLease, Timeout  # 50 ms, which --help need not pay

    lock: Any = FileLock(path, fallback_to_soft=False)  # a mere file would outlive a killed run
    try:
        with suppress(Timeout):
            try:
                lock.acquire(timeout=-1 if wait else GLANCE_SECONDS)
            except OSError as error:
                if error.errno not in NO_FLOCK:
                    raise
                lease = _lease(path)
                lock = SoftFileLease(lease, lease_duration=LEASE_SECONDS, on_compromise=_lost)
                patience = GLANCE_SECONDS if _fresh(lease) else 2 * LEASE_SECONDS
                lock.acquire(timeout=-1 if wait else patience)
    except OSError as error:
        raise refused(path, error) from error
    try:
        yield lock.is_locked
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether a live process holds the lock file ``path``; asks without making or writing it."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # there is none, or nothing that could be a lock
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # a shared one needs no right to write
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in NO_FLOCK or not _fresh(_lease(path)):
            return False
        with held(path) as free:  # which a dead process of this machine does not keep
            return not free
    finally:
        os.close(descriptor)
    return False


def _lease(path: Path) -> Path:
    return path.with_name(f"{path.name}.lease")


def _fresh(lease: Path) -> bool:
    """Whether its holder has lately renewed it."""
    try:
        return time.time() - lease.stat(follow_symlinks=False).st_mtime < 2 * LEASE_SECONDS
    except OSError:
        return False


def _lost(loss: Any) -> None:
    print(f"warning: {loss.lock_file} was lost ({loss.reason}): another process may write here", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)
