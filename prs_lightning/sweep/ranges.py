"""Integer ranges in the overrides of a sweep: ``seed=0..4`` is ``seed=0,1,2,3,4``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from hydra.core.override_parser.types import Override

from prs_lightning.errors import ConfigError

RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


def expand(value: str, key: str = "value") -> list[str]:
    """The integers of an inclusive range ``first..last``; any other text, a quoted one too, as it is.

    >>> expand("0..4")
    ['0', '1', '2', '3', '4']
    >>> expand("v1..2"), expand("'0..4'")
    (['v1..2'], ["'0..4'"])

    Raises:
        ConfigError: a range that counts down.
    """
    if (match := RANGE.fullmatch(value)) is None:
        return [value]
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise ConfigError(f"{key}={value} counts down, expected first..last: write {key}={last}..{first}")
    return [str(number) for number in range(first, last + 1)]


def choices(override: Override) -> list[str]:
    """What one override becomes in the jobs of a sweep: the texts ``key=value``, one for each value.

    Raises:
        ConfigError: a sweep without an end, such as ``interval(0,1)``, or a range that counts down.
    """
    if override.is_delete():
        return [str(override.input_line)]
    key = override.get_key_element()
    if not override.is_sweep_override():
        values = [override.get_value_element_as_str()]
    elif override.is_discrete_sweep():
        values = list(override.sweep_string_iterator())
    else:
        raise ConfigError(f"{override.input_line} has no end: expected a list, a range or a choice")
    return [f"{key}={number}" for value in values for number in expand(value, key)]


def jobs(overrides: Iterable[Override]) -> list[tuple[str, ...]]:
    """Every combination of the choices, the last override varying fastest; a key given twice counts as given last."""
    lists: dict[str, Sequence[str]] = {override.get_key_element(): choices(override) for override in overrides}
    return list(itertools.product(*lists.values()))
