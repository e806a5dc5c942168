"""Files that are there whole or as they were before, also after a power cut; a link in their place leads nowhere."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from prs_lightning.errors import DiskError, RunError, from_the_disk, in_one_line

ANEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


def refused(path: Path, error: BaseException) -> RunError:
    """What to tell of a write that failed: a ``DiskError`` if it was for the disk."""
    if (cause := from_the_disk(error)) is not None:
        return DiskError(path, cause)
    why = error.strerror if isinstance(error, OSError) and error.strerror else in_one_line(error)
    return RunError(f"cannot write {path}: {why}")


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write to a temporary name, flush to the disk, and rename: the file is there whole or as it was before.

    The temporary name cannot be guessed and must be new, so that no link in a shared folder is followed.

    Raises:
        DiskError: the disk is full or refuses; nothing is left of the attempt.
        RunError: the place cannot be written at all.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, ANEW, 0o666), "wb") as file:  # less the umask
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise refused(path, error) from error
    except RuntimeError as error:  # torch.save reports a full disk so
        if from_the_disk(error) is None:
            raise
        raise refused(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # also when a signal came


def write_text(path: Path, text: str) -> None:
    """``write_atomically`` for text."""
    write_atomically(path, lambda file: file.write(text.encode()))


def set_aside(path: Path) -> Path | None:
    """Rename what stands at ``path``, whatever it is, so that it is kept and no longer in the way; its new name."""
    if not os.path.lexists(path):
        return None
    aside = path.with_name(f"{path.name}.aside")
    if os.path.lexists(aside):
        aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.aside")
    try:
        path.rename(aside)
    except OSError as error:
        raise refused(path, error) from error
    return aside


def sweep_parts(folder: Path, names: str) -> None:
    """Delete what killed writes left in ``folder`` of the files whose names match ``names``, an expression.

    Only for who holds the lock under which they are written.
    """
    ours = re.compile(rf"\.(?:{names})\.[0-9a-f]+\.part")  # of before: the number of its process
    with suppress(OSError):  # there is no such folder, or it cannot be written: then who writes says so
        for entry in os.scandir(folder):
            if ours.fullmatch(entry.name) and not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)


def _sync(folder: Path) -> None:
    """Let the rename survive a power cut; file systems that cannot do this for a folder are left in peace."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if from_the_disk(error) is not None:
            raise
    finally:
        os.close(descriptor)
