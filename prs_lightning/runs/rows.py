"""The rows of a run as text, kept twice: metrics.csv for whoever reads, and a copy that knows whether it is whole.

Rows cost hours and are small: ``checkpoints/rows.json`` holds the text of metrics.csv with its SHA-256 and is written
before it; the resume checkpoint holds the text too. No torch here.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prs_lightning.measures import COLUMNS

FILE = "metrics.csv"


def as_text(rows: Sequence[Mapping[str, object]]) -> str:
    """CSV in the order of the registry; a cell is empty where a row lacks the measure.

    >>> as_text([{"prs/ratio": 0.5, "epoch": 1}, {"epoch": 2}])
    'epoch,prs/ratio\\n1,0.5\\n2,\\n'
    """
    names = dict.fromkeys(name for row in rows for name in row)
    ordered = [name for name in COLUMNS if name in names] + sorted(set(names) - set(COLUMNS))
    text = io.StringIO()
    writer = csv.DictWriter(text, ordered, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def parsed(text: str) -> list[dict[str, str]]:
    """The rows of such a text."""
    return list(csv.DictReader(text.splitlines()))


def copy_of(text: str, run: str | None = None) -> str:
    """The content of rows.json for a text of metrics.csv of the ``run`` of that identity."""
    return json.dumps({"run": run, "sha256": hashlib.sha256(text.encode()).hexdigest(), FILE: text}) + "\n"


def kept_rows(path: Path, run: str | None = None) -> str | None:
    """The text of metrics.csv in the copy at ``path``; None if there is none or its SHA-256 does not fit.

    Args:
        run: identity of the run that it must be of, where both are known.
    """
    try:
        copy = json.loads(path.read_text(encoding="utf-8"))
        text, of_another = copy[FILE], run is not None and copy.get("run") not in (None, run)
        return None if of_another or copy["sha256"] != hashlib.sha256(text.encode()).hexdigest() else text
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def metrics_text(path: Path) -> str | None:
    """What stands in the file metrics.csv at ``path``; None if it is absent or no text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def epochs_in(rows: str) -> int:
    """How many epochs the text of a ``metrics.csv`` holds, counted without parsing.

    >>> epochs_in("epoch,prs/ratio\\n1,0.5\\n2,0.4\\n"), epochs_in("")
    (2, 0)
    """
    return max(0, rows.count("\n") - 1)


def is_whole(text: str | None, epochs: int | None = None) -> bool:
    """Whether a text holds nothing but whole rows, of epochs that follow each other.

    What was cut at the end of a line is whole by itself: ``epochs`` tells how many rows there must be at least, the
    first of epoch 1.

    >>> is_whole("epoch,a\\n1,\\n2,5\\n"), is_whole("epoch,a\\n1,\\n2,5"), is_whole("epoch,a\\n1,\\n", epochs=2)
    (True, False, False)
    """
    if not text or not text.endswith("\n"):
        return False
    header, *lines = csv.reader(text.splitlines())
    if "epoch" not in header or not lines or any(len(line) != len(header) for line in lines):
        return False
    try:
        found = [int(line[header.index("epoch")]) for line in lines]
    except ValueError:
        return False
    in_order = found == [*range(found[0], found[0] + len(found))]
    return in_order and (epochs is None or (found[0] == 1 and len(found) >= epochs))


def rows_of_epochs(texts: Iterable[str | None], epochs: int) -> list[dict[str, str]] | None:
    """Rows 1 to ``epochs`` of the first text that holds them all; None if none does."""
    return next((parsed(text)[:epochs] for text in texts if text is not None and is_whole(text, epochs)), None)
