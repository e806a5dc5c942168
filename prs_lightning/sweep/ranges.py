"""Integer ranges in the overrides of a sweep: ``seed=0..4`` is ``seed=0,1,2,3,4``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence

from hydra.core.override_parser.types import Glob, Override

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


def jobs(
    overrides: Iterable[Override], options: Callable[[str], Sequence[str]] = lambda group: ()
) -> list[tuple[str, ...]]:
    """Every combination of the choices, the last override varying fastest; a key given twice counts as given last.

    Args:
        options: the options of a group, among which ``glob(...)`` chooses.

    Raises:
        ConfigError: a sweep without an end, such as ``interval(0,1)``, one of nothing, or a range that counts down.
    """
    choices = {override.get_key_element(): chosen(override, options) for override in overrides}
    return list(itertools.product(*choices.values()))


def chosen(override: Override, options: Callable[[str], Sequence[str]]) -> list[str]:
    """The overrides of single jobs for which one override of a sweep stands."""
    key, line = override.get_key_element(), str(override.input_line)
    if override.is_delete():
        return [line]
    value = override.value()
    if isinstance(value, Glob):
        there = options(override.key_or_group)
        if not (values := value.filter([*there])):
            raise ConfigError(f"{line} matches nothing; there are: {', '.join(there)}")
    elif not override.is_sweep_override():
        values = [override.get_value_element_as_str()]
    elif override.is_discrete_sweep():
        values = list(override.sweep_string_iterator())
    else:
        raise ConfigError(f"{line} has no end: expected a list, a range or a choice")
    return [f"{key}={number}" for value in values for number in expand(value, key)]
