"""The rows of a run as text, from the copy beside the checkpoints where ``metrics.csv`` was harmed."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prs_lightning.runs.directory import RunDirectory


def kept_rows(path: Path) -> str | None:
    """The text of the copy ``checkpoints/rows.json``; None if it is absent or damaged."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(path.read_text())
        if hashlib.sha256(kept["metrics.csv"].encode()).hexdigest() == kept["sha256"]:
            return str(kept["metrics.csv"])
    return None


def rows_text(run: RunDirectory) -> str:
    """The rows that count: the copy, which is written first, else what ``metrics.csv`` holds; empty if neither does."""
    if (kept := kept_rows(run.checkpoints / "rows.json")) is not None:
        return kept
    with suppress(OSError, UnicodeDecodeError):
        return run.metrics_file.read_text()
    return ""
