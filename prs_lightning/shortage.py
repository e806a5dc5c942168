"""What torch says when memory, a device or a reading process is gone, as one line that names the batch and the key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from prs_lightning.errors import ConfigError, RunError, in_one_line

OUT_OF_MEMORY = re.compile(r"out of memory|allocate memory|unable to allocate|ALLOC_FAILED|bad_alloc", re.IGNORECASE)
READER_DIED = re.compile(r"DataLoader worker|unable to (?:mmap|open shared memory)|received \d+ items of ancdata")


@contextmanager
def naming_the_batch(doing: str, key: str, size: int) -> Iterator[None]:
    """Word errors of memory, device or reading processes while ``size`` samples at a time are worked on.

    Args:
        doing: for example ``training``.
        key: of the config, or in words, what is to be lowered.
        size: its value.

    Raises:
        RunError: what is short, the batch, and the key to lower. All other errors pass through.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if isinstance(error, RunError | ConfigError):
            raise
        said = in_one_line((str(error) or type(error).__name__).splitlines()[0])
        if READER_DIED.search(str(error)):
            line = f"a process that reads images died while {doing} ({said}): lower data.workers; 0 reads without any"
        elif isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
            line = f"out of memory while {doing}, {size} samples at a time ({said}): lower {key}={size}"
        elif type(error).__name__ == "AcceleratorError":  # torch's, for whatever a device reports
            line = f"the device failed while {doing}, {size} samples at a time ({said})"
        else:
            raise
        raise RunError(line) from error
