"""The axes of a sweep: integer ranges, ``seed=0..4`` for ``seed=0,1,2,3,4``, and arms, several overrides at once."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from hydra.core.override_parser.types import Glob, Override

from prs_lightning.errors import ConfigError, in_yaml

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
    overrides: Iterable[Override],
    options: Callable[[str], Sequence[str]] = lambda group: (),
    arms: Sequence[Sequence[str]] = ((),),
) -> list[tuple[str, ...]]:
    """Every combination of the choices with each arm, which varies fastest, then the last override; a key given twice
    counts as given last.

    Args:
        arms: overrides of single jobs.
        options: the options of a group, among which ``glob(...)`` chooses.

    Raises:
        ConfigError: a sweep without an end, such as ``interval(0,1)``, one of nothing, or a range that counts down.
    """
    choices = {override.get_key_element(): chosen(override, options) for override in overrides}
    return [(*each, *arm) for each in itertools.product(*choices.values()) for arm in arms]


def arms(given: Sequence[Mapping[str, object]] | None, instead: Iterable[str]) -> list[tuple[str, ...]]:
    """The overrides of each arm of a sweep, without what the command line gives instead; equal arms are one.

    Args:
        given: ``hydra.sweeper.arms``: of each arm its overrides.
        instead: the keys of the command line. With the option of a group goes what an arm says of that option.

    >>> given = [{"intervention": "none"}, {"intervention": "low_prs", "intervention.low_prs.strength": 5}]
    >>> arms(given, [])
    [('intervention=none',), ('intervention=low_prs', 'intervention.low_prs.strength=5')]
    >>> arms(given, ["intervention"])
    [()]
    """
    taken = {*instead}
    return [*dict.fromkeys(tuple(_lines(arm, taken)) for arm in given or [{}])]


def _lines(arm: Mapping[str, object], taken: set[str]) -> list[str]:
    gone = [key for key in arm if key.lstrip("+") in taken]
    kept = {key: value for key, value in arm.items() if key not in gone}
    return [
        f"{key}={value if isinstance(value, str) else in_yaml(value, sys.maxsize)}"
        for key, value in kept.items()
        if not key.startswith(tuple(f"{each}." for each in gone))
    ]


def only(override: Override, options: Callable[[str], Sequence[str]]) -> str:
    """An override of an arm.

    Raises:
        ConfigError: it stands for several.
    """
    if len(lines := chosen(override, options)) != 1:
        said = f"hydra.sweeper.arms: {override.input_line} are {len(lines)} values"
        raise ConfigError(f"{said}: expected one, or an arm for each")
    return lines[0]


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
