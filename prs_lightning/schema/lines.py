"""From what pydantic finds to lines that a user can mend, and the words in which a kind of value is expected."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from prs_lightning.errors import ConfigError, in_yaml, nearest
from prs_lightning.schema.values import LARGEST, Expected, Part, Rule, alternatives

MOST = 3
"""How many problems are told at once."""


def refuse(found: Iterable[str]) -> None:
    """Raise ConfigError with the first problems, in one line, if there are any."""
    lines = [*dict.fromkeys(found)]
    if lines:
        more = f"; and {len(lines) - MOST} more" if len(lines) > MOST else ""
        raise ConfigError("; ".join(lines[:MOST]) + more)


def problems(part: type[Part], value: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What is wrong with a part of the config, a line per key.

    Args:
        part: what it should be.
        value: plain values.
        prefix: of its keys, for example ``data.``.
    """
    try:
        part.model_validate(dict(value))
    except ValidationError as error:
        found: dict[str, str] = {}
        for each in error.errors(include_url=False):
            name, line = _line(part, value, each, prefix)
            found.setdefault(name, line)
        return [*found.values()]
    return []


def expected(name: str, value: object, words: str, why: str = "") -> str:
    """The line about a value."""
    return f"{name}={in_yaml(value)}: expected {words}" + (f"; {why}" if why else "")


def _line(part: type[Part], value: Any, error: Any, prefix: str) -> tuple[str, str]:
    names: list[str] = []
    fields, kind, field = part.model_fields, None, None
    for step in error["loc"]:
        if kind is not None and get_origin(kind) is dict:  # its values; their keys are the user's
            names, value, kind = [*names, str(step)], value.get(step), get_args(kind)[1]
            continue
        if not isinstance(value, Mapping) or (kind is not None and not _is_part(kind)):
            break
        names.append(str(step))
        if step not in fields:
            return prefix + ".".join(names), unread(prefix + ".".join(names), fields)
        value, field = value.get(step), fields[step]
        kind = field.annotation
        fields = kind.model_fields if _is_part(kind) else {}  # type: ignore[union-attr]
    name = prefix + ".".join(names)
    if error["type"] == "missing":
        return name, f"{name} is needed: set it rather than delete it"
    assert kind is not None
    words, why = words_of(field if field is not None and kind is field.annotation else kind)
    if error["type"] == "less_than_equal" and error["ctx"]["le"] == LARGEST:
        words = f"{LARGEST} at most"
    return name, expected(name, value, words, why)


def unread(name: str, known: Iterable[str]) -> str:
    """The line about a key that nothing reads, with the nearest of those that lie beside it."""
    beside, _, _ = name.rpartition(".")
    near = nearest(name, [f"{beside}.{each}" if beside else each for each in known])
    return f"nothing reads {name}{near or ': leave it out'}"


def _is_part(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def words_of(kind: Any) -> tuple[str, str]:
    """What is expected of a kind of value, and why.

    >>> words_of(int | None), words_of(Annotated[Any, Expected("a colour")])
    (('int, or null', ''), ('a colour', ''))
    """
    if isinstance(kind, FieldInfo):
        return _of_metadata(kind.metadata) or words_of(kind.annotation)
    if get_origin(kind) is Annotated:
        return _of_metadata(kind.__metadata__) or words_of(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        told = dict.fromkeys(words_of(each) for each in get_args(kind) if each is not type(None))
        null = ", or null" if type(None) in get_args(kind) else ""
        return alternatives([words for words, _ in told]) + null, "; ".join(filter(None, (why for _, why in told)))
    if get_origin(kind) is dict:
        return f"a mapping of {words_of(get_args(kind)[1])[0]}", ""
    if get_origin(kind) is list:
        return f"a list, each {words_of(get_args(kind)[0])[0]}", ""
    if _is_part(kind):
        return f"a mapping with the keys {', '.join(kind.model_fields)}", ""
    return ("null" if kind in (None, type(None)) else getattr(kind, "__name__", str(kind))), ""


def _of_metadata(metadata: Iterable[Any]) -> tuple[str, str] | None:
    for each in metadata:
        if isinstance(each, Rule):
            return each.words, each.why
        if isinstance(each, Expected):
            return each.words, ""
    return None
