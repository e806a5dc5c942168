"""Reading what a run directory holds, whatever was done to its files: a value, or a RunError of one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from prs_lightning.errors import RunError, in_one_line

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where libyaml is there
LARGEST = 16 * 2**20
"""Bytes. A record or config has a few thousand; more is another file under its name."""


def mapping_of(file: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """The mapping in a file; empty if there is no such file.

    Raises:
        RunError: it cannot be read, is no text, or holds something else.
    """
    mend = "put back a whole copy of it, or move the run away"
    try:
        if (size := file.stat().st_size) > LARGEST and file.is_file():
            raise RunError(f"{file} has {size / 2**20:.0f} MiB, expected a few kB: {mend}")
        found = parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RunError(f"{file} cannot be read ({error.strerror}): {mend}") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:  # what is no UTF-8 and no JSON is a ValueError
        why = in_one_line(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise RunError(f"{file} cannot be read ({why}): {mend}") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        kind = "nothing" if found is None else f"a {type(found).__name__}"
        kind = "keys that are no words" if isinstance(found, dict) else kind
        raise RunError(f"{file} holds {kind}, expected a mapping: {mend}")
    return found


def record_of(file: Path) -> dict[str, Any]:
    """``mapping_of`` a ``run.json``."""
    return mapping_of(file, json.loads)


def config_of(file: Path) -> dict[str, Any]:
    """``mapping_of`` a ``config.yaml``."""
    return mapping_of(file, lambda text: yaml.load(text, Loader))
