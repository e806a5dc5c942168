"""Standard output and error that may go away: a closed terminal or pipe must not end a training of hours."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO)
"""The reader is gone: a pipe such as ``| head``, or a terminal that was closed."""


class Output(io.FileIO):
    """A file descriptor that swallows what it cannot write, and remembers why.

    Raises: nothing from ``write``.
    """

    problem: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BlockingIOError:
            raise
        except OSError as error:
            self.problem = error
            if error.errno in GONE:  # for those who write past Python, too
                empty = os.open(os.devnull, os.O_WRONLY)
                os.dup2(empty, self.fileno())
                os.close(empty)
            return memoryview(data).nbytes


def keep_writing() -> None:
    """Let ``print`` and all others go on when nobody reads them any more; what was closed from the start is nothing."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # or the next file that is opened would be taken for it
            os.open(os.devnull, os.O_RDWR)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.fileno() == descriptor:
            stream.flush()
            raw = Output(descriptor, "wb", closefd=False)
            buffered: Any = raw if stream.write_through else io.BufferedWriter(raw)
            new = io.TextIOWrapper(
                buffered, encoding=stream.encoding, errors=stream.errors, line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )  # fmt: skip
            new.mode = "w"  # type: ignore[misc]
            setattr(sys, name, new)
        elif stream is None:
            setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115


def refused() -> OSError | None:
    """Why standard output could not be written, although somebody wants to read it; None if it could."""
    raw = getattr(sys.stdout, "buffer", None)
    problem = getattr(getattr(raw, "raw", raw), "problem", None)
    return problem if problem is not None and problem.errno not in GONE else None
