"""The errors that a user can mend, and the end of a run that goes on: each is shown as one line, no traceback."""

from __future__ import annotations

from collections.abc import Iterable


class ConfigError(ValueError):
    """A value that cannot work: the message names the value, what was expected and what to do."""


class RunError(RuntimeError):
    """A run that cannot start, go on or be written: the message names the file or the step and what to do."""


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


def in_one_line(error: object) -> str:
    """What an error says, without its line breaks.

    >>> in_one_line(ValueError("first\\n  second"))
    'first second'
    """
    return " ".join(str(error).split())


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
