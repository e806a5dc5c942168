"""Reading what a run directory holds, whatever was done to its files: a value, or a RunError of one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from prs_lightning.errors import RunError, in_one_line

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where libyaml is there
LARGEST = 16 * 2**20
"""Bytes. A record or config has a few thousand; more is another file under its name."""


def damaged(file: Path, why: object) -> RunError:
    """What to tell of a file of a run that cannot be used."""
    return RunError(f"{file} is damaged ({why}): restore it; the command that trained the run makes it anew if it can")


def mapping_of(file: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """The mapping in a file; empty if there is no such file.

    Raises:
        RunError: it cannot be read, is no text, or holds something else.
    """
    try:
        if (size := file.stat().st_size) > LARGEST:
            raise damaged(file, f"{size / 2**20:.0f} MiB")
        found = parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:  # no UTF-8, no JSON: ValueErrors
        raise damaged(file, error.strerror if isinstance(error, OSError) else in_one_line(error)) from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        kind = "keys that are no words" if isinstance(found, dict) else f"a {type(found).__name__}"
        raise damaged(file, "empty" if found is None else kind)
    return found


def config_of(file: Path) -> dict[str, Any]:
    """``mapping_of`` a ``config.yaml``. Runs that are alike share the values in it: they are not to be changed."""
    return mapping_of(file, _parsed_by_key)


def _parsed_by_key(text: str) -> Any:
    """What YAML makes of the text; a top-level key with its value, as most runs have it, is parsed once for all."""
    with suppress(yaml.YAMLError):
        parts = [_parsed(part) for part in re.split(r"\n(?=[^\s#-])", text)]
        if all(isinstance(part, dict) and len(part) == 1 for part in parts):
            return {key: value for part in parts for key, value in part.items()}
    return yaml.load(text, Loader)  # a part does not stand for itself


@lru_cache(1024)
def _parsed(part: str) -> Any:
    return yaml.load(part, Loader)
