"""Kinds of values, each with the words in which it is expected: what pydantic checks, and what the user reads."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from unicodedata import category

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import CoreSchema, core_schema

from prs_lightning.errors import in_yaml

LARGEST = 2**31 - 1
"""Of whole numbers: what every library below takes."""


class Part(BaseModel):
    """A part of the config. No key that it does not have, no text or yes-or-no for a number, no nan and no infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


@dataclass(frozen=True)
class Expected:
    """How a kind of value is called in errors and in docs/config.md."""

    words: str


@dataclass(frozen=True)
class Rule:
    """A kind of value by a function, for ``Annotated[Any, Rule(...)]``.

    Args:
        accepts: whether a value is one.
        words: what is expected.
        why: why nothing else will do, and what to do.
    """

    accepts: Callable[[Any], bool]
    words: str
    why: str = ""

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._checked)

    def _checked(self, value: Any) -> Any:
        if not self.accepts(value):
            raise ValueError(self.words)
        return value


def only(*allowed: object, why: str = "", words: str = "") -> Rule:
    """One of these values, of the same type: 1 batch is not the share 1.0, and neither is true.

    >>> only(None, 1.0).accepts(1.0), only(None, 1.0).accepts(1), only(True, False).words
    (True, False, 'true or false')
    """
    said = words or alternatives([in_yaml(each) for each in allowed])
    return Rule(lambda value: any(type(value) is type(each) and value == each for each in allowed), said, why)


def alternatives(words: list[str]) -> str:
    """``a, b or c``"""
    return " or ".join([*filter(None, [", ".join(words[:-1])]), words[-1]])


def is_plain(text: str) -> bool:
    """Whether a text has something in it, no control characters, and nothing that no file system can keep."""
    return bool(text.strip()) and not any(category(each) in ("Cc", "Cs", "Zl", "Zp") for each in text)


def is_path(text: str) -> bool:
    """Whether a text can be a path."""
    return is_plain(text) and len(text) < 4096 and all(len(part.encode()) <= 255 for part in text.split("/"))


def is_inside(text: str) -> bool:
    """Whether a text is a path that stays in the folder that it starts from."""
    return is_path(text) and not text.startswith("/") and not {"..", ""} & {*text.rstrip("/").split("/")}


def is_name(text: str) -> bool:
    """Whether a text is the name of a folder, or several, one in the other."""
    return is_inside(text) and not text.endswith("/") and "." not in text.split("/")


def _holds(test: Callable[[str], bool]) -> AfterValidator:
    def checked(text: str) -> str:
        if not test(text):
            raise ValueError
        return text

    return AfterValidator(checked)


def _different(values: list[Any]) -> list[Any]:
    if len({*values}) < len(values):
        raise ValueError
    return values


def seconds(duration: Any) -> float:
    """Of a duration as Lightning takes it.

    >>> seconds("00:01:00:05"), seconds({"minutes": 2})
    (3605.0, 120.0)

    Raises:
        ValueError, TypeError, OverflowError: it is none.
    """
    from datetime import timedelta

    if isinstance(duration, dict):
        return timedelta(**duration).total_seconds()
    if not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", duration):
        raise ValueError(duration)
    days, hours, minutes, rest = map(int, duration.split(":"))
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=rest).total_seconds()


def is_duration(value: Any) -> bool:
    """Whether it is null or more than no time."""
    try:
        return value is None or math.inf > seconds(value) > 0
    except (TypeError, ValueError, OverflowError):
        return False


Count = Annotated[int, Field(ge=1, le=LARGEST), Expected("an integer of 1 or more")]
Natural = Annotated[int, Field(ge=0, le=LARGEST), Expected("an integer of 0 or more")]
Seed = Annotated[int, Field(ge=0, lt=2**32), Expected("an integer from 0 to 4294967295")]
Workers = Annotated[int, Field(ge=0, le=1024), Expected("an integer from 0 to 1024")]
Pixels = Annotated[int, Field(ge=1, le=2**14), Expected("an integer from 1 to 16384")]
Multiplier = Annotated[float, Field(gt=0, le=16), Expected("a number above 0, 16 at most")]
Positive = Annotated[float, Field(gt=0), Expected("a number above 0")]
Fraction = Annotated[float, Field(gt=0, lt=1), Expected("a number between 0 and 1, neither of them")]
NotNegative = Annotated[float, Field(ge=0), Expected("a number of 0 or more")]
Number = Annotated[float, Expected("a number")]
Share = Annotated[float, Field(ge=0, le=1), Expected("a number from 0 to 1")]
Radius = Annotated[float, Field(gt=0, le=1), Expected("a number above 0, at most 1: pixels lie in [0, 1]")]
Flag = Annotated[bool, Expected("true or false")]
Text = Annotated[str, _holds(is_plain), Expected("a text without control characters")]
FreeText = Annotated[str, _holds(lambda text: not text or is_plain(text)), Expected("a text, or '' for none")]
Place = Annotated[str, _holds(is_path), Expected("a path")]
Inside = Annotated[str, _holds(is_inside), Expected("a folder in the run directory: a relative path without ..")]
Within = Annotated[
    str, _holds(lambda text: not text or is_inside(text)), Expected("a relative path without .., or '' for none")
]
Name = Annotated[str, _holds(is_name), Expected("a name for a folder: no .. in it, and no / before it")]
DataName = Annotated[
    str, Field(pattern=r"^\w[\w.-]*$", max_length=100), Expected("letters, digits, and _ . - between them")
]
Dotted = Annotated[
    str, Field(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)+$"), Expected("a dotted name such as my_package.MyClass")
]
Epochs = Annotated[
    list[Count], AfterValidator(_different), Expected("a list of different epochs, counted from 1, as [1,2]")
]
Several = Annotated[
    list[Annotated[int, Field(ge=2, le=1000), Expected("an integer from 2 to 1000")]],
    Field(min_length=1), AfterValidator(_different), Expected("a list of different integers from 2 to 1000, as [3,5]"),
]  # fmt: skip
PerChannel = Annotated[list[Number], Field(min_length=1), Expected("a list of a number per channel")]
Deviations = Annotated[list[Positive], Field(min_length=1), Expected("a list of a number above 0 per channel")]
Size = Annotated[
    Pixels | Annotated[list[Pixels], Field(min_length=2, max_length=2)] | Annotated[Any, only(None, "original")],
    Expected("a number of pixels from 1 to 16384, [height,width], or null"),
]
Keys = Annotated[dict[str, Any], Expected("a mapping such as {key: value}")]
Node = Annotated[dict[str, Any], Expected("an entry with _target_")]


def key(meaning: str, default: Any = ...) -> Any:
    """A key of the config, needed unless it has a default."""
    return Field(default, description=meaning)
