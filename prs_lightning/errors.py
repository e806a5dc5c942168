"""The errors that a user can mend, and the end of a run that goes on: each is shown as one line, no traceback."""

from __future__ import annotations

import errno
from collections.abc import Iterable

DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE})
"""Errors of a disk that is full, refuses or is gone for a while: what it stopped goes on later."""

TORCH_WRITERS = ("inline_container", "PytorchStreamWriter")
"""What writes an archive for torch.save, as it calls itself in its errors."""


class ConfigError(ValueError):
    """A value that cannot work: the message names the value, what was expected and what to do."""


class RunError(RuntimeError):
    """A run that cannot start, go on or be written: the message names the file or the step and what to do."""


class DiskError(RunError):
    """A disk that is full or refuses, wherever: what it stopped is interrupted, not failed, and goes on later.

    >>> print(DiskError("run.json", OSError(errno.ENOSPC, "No space left on device")))
    cannot write run.json: No space left on device; make room, then the same command goes on
    >>> print(DiskError("run.json", OSError(errno.EIO, "Input/output error")))
    the disk fails at run.json: Input/output error; once it works the same command goes on
    """

    def __init__(self, what: object, error: BaseException) -> None:
        number, why = (error.errno, error.strerror) if isinstance(error, OSError) else (None, None)
        why = why or in_one_line(error)
        if number in (errno.EIO, errno.ESTALE):  # also of files that are read
            super().__init__(f"the disk fails at {what}: {why}; once it works the same command goes on")
        else:
            super().__init__(f"cannot write {what}: {why}; make room, then the same command goes on")


class Interrupted(SystemExit):
    """A run ends before it was trained as configured, and goes on when called again: the message says why.

    Args:
        reason: in one line.
        code: exit code of the program: 128 + its number if a signal ended it.
    """

    code: int

    def __init__(self, reason: str, code: int = 1) -> None:
        super().__init__(f"interrupted: {reason}; the same command goes on")
        self.reason, self.code = reason, code


def from_the_disk(error: BaseException) -> BaseException | None:
    """What the disk said, if that is why ``error`` came; torch says so in a RuntimeError of its own.

    >>> from_the_disk(OSError(errno.ENOSPC, "No space left on device"))
    OSError(28, 'No space left on device')
    >>> from_the_disk(ValueError("no such layer"))
    """
    for each in causes_of(error):
        if isinstance(each, OSError) and each.errno in DISK:
            return each
    torchs = isinstance(error, RuntimeError) and any(writer in str(error) for writer in TORCH_WRITERS)
    return error if torchs else None


def causes_of(error: BaseException) -> list[BaseException]:
    """An error, what it came from, what that came from, and so on."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return chain


def in_one_line(error: object) -> str:
    """What an error says, without its line breaks, and ``printable``.

    >>> in_one_line(ValueError("first\\n  second"))
    'first second'
    """
    return printable(" ".join(str(error).split()))


def printable(text: object) -> str:
    """A text of others for a terminal or a page: what moves the cursor, colours, turns or hides is spelled out.

    >>> print(printable("red " + chr(27) + "[31m, turned " + chr(0x202E) + ", undecodable " + chr(0xDCFF)))
    red \\x1b[31m, turned \\u202e, undecodable \\udcff
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def in_yaml(value: object, most: int = 80) -> str:
    """A value as one types it, without control characters, cut where it is long.

    >>> in_yaml([None, True, float("nan"), "a"]), in_yaml({"a": ""}), in_yaml("")
    ('[null,true,nan,a]', "{a: ''}", "''")
    """
    text = printable(_yaml(value))
    return text if len(text) <= most else text[: most - 1] + "…"


def _yaml(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    return {"None": "null", "True": "true", "False": "false", "": "''"}.get(str(value), str(value))


def nearest(name: str, known: Iterable[str]) -> str:
    """``: did you mean ...?`` with the names that are most like ``name``; nothing if none is.

    >>> nearest("epoch", ["epochs", "seed"])
    ': did you mean epochs?'
    """
    import difflib  # a program's first moments need none of it

    near = difflib.get_close_matches(name, [*known], n=3, cutoff=0.5)
    return f": did you mean {' or '.join(near)}?" if near else ""


def at_least(name: str, value: object, minimum: int) -> None:
    """Refuse a value that is not an integer of ``minimum`` or more.

    >>> at_least("epochs", 3, 1)

    Raises:
        ConfigError: names the key, the value and the minimum.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ConfigError(f"{name}={value} must be an integer of {minimum} or more")
