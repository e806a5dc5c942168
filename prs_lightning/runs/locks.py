"""Locks between processes, which the system frees when their holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock file ``path``; gives False, at once, if another holds it and we are not to ``wait`` for it."""
    from filelock import FileLock, Timeout  # 50 ms, which --help need not pay

    # Where the file system cannot lock, refuse: a file that stands for a lock would outlive a run that was killed.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
