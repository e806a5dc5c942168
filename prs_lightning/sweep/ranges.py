"""Integer ranges in the overrides of a sweep: ``seed=0..4`` is ``seed=0,1,2,3,4``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from hydra.core.override_parser.types import Override

from prs_lightning.errors import ConfigError

RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


def expand(value: str, key: str = "value") -> list[str]:
    """The integers of an inclusive range ``first..last``; any other text, a quoted one too, as it is.

    Raises:
        ConfigError: a range that counts down.
    """
    if (match := RANGE.fullmatch(value)) is None:
        return [value]
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise ConfigError(f"{key}={value} counts down, expected first..last: write {key}={last}..{first}")
    return [str(number) for number in range(first, last + 1)]


def jobs(overrides: Iterable[Override]) -> list[tuple[str, ...]]:
    """Every combination of the choices, the last override varying fastest; a key given twice counts as given last.

    Raises:
        ConfigError: a sweep without an end, such as ``interval(0,1)``, or a range that counts down.
    """
    choices: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_delete():
            choices[key] = [str(override.input_line)]
            continue
        if not override.is_sweep_override():
            values = [override.get_value_element_as_str()]
        elif override.is_discrete_sweep():
            values = list(override.sweep_string_iterator())
        else:
            raise ConfigError(f"{override.input_line} has no end: expected a list, a range or a choice")
        choices[key] = [f"{key}={number}" for value in values for number in expand(value, key)]
    return list(itertools.product(*choices.values()))
