"""Reads every run directory under a folder into one tidy table: a row per run and epoch.

A file that is damaged costs what cannot be read of it and leaves a message; nothing is dropped silently.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from rich.console import Console
from rich.progress import track

from prs_lightning.analysis.measured import IDENTITY, NO_ROWS, read_metrics
from prs_lightning.analysis.written import write_csv
from prs_lightning.errors import RunError, in_one_line, printable
from prs_lightning.runs import RunDirectory, Status, write_atomically
from prs_lightning.runs.finding import Found, survey
from prs_lightning.runs.naming import architecture, arm, flatten, strength, strengths_text

NUMBERS = ("batch_size", "seed", "epochs")
SAY_SECONDS = 5.0
"""How long reading is silent where there is no terminal."""


@dataclass(frozen=True)
class RunTable:
    """What was read.

    Attributes:
        rows: a row per run and epoch: ``IDENTITY`` first, ``epoch``, the measures under their names in metrics.csv
            (float64, NaN where not taken), then ``config.<key>``.
        runs: a row per run directory, failed and unfinished ones included: ``IDENTITY``, ``reason``, ``rows`` (number
            of epochs read), ``last_epoch``, ``started``, ``ended``, ``versions``.
        messages: what could not be read or does not count, a line each.
    """

    rows: pd.DataFrame
    runs: pd.DataFrame
    messages: list[str]


def find(folder: str | Path) -> Found:
    """The runs under ``folder``, each once.

    Raises:
        RunError: the folder is absent or holds no run directory.
    """
    if not os.path.isdir(folder):
        raise RunError(f"runs={folder} is no folder: expected one that holds run directories")
    found = survey(folder)
    if not found.runs and found.messages:
        raise RunError(f"runs={folder}: {'; '.join(found.messages)}")
    if not found.runs:
        raise RunError(f"runs={folder} holds no run directories: train some with python train.py runs={folder}")
    return found


def read_runs(
    folder: str | Path, found: Found | None = None, *, progress: Callable[[str], object] = lambda line: None
) -> RunTable:
    """Read all runs under ``folder``, finished or not, copies of a run once.

    Args:
        found: of ``find``, where that was asked already.
        progress: is given a line now and then where there is no terminal for a bar.

    Raises:
        RunError: the folder is absent or holds no run directory.
    """
    folder = Path(folder)
    found = found or find(folder)
    messages, entries, settings, metrics = [*found.messages], [], [], []
    for run in _shown(found.runs, progress):
        told: list[str] = []
        name = _in_utf8(run.path.relative_to(folder).as_posix(), told)
        entry, config = _read_entry(run, name, told)
        measured = read_metrics(run, told)
        last = measured["epoch"][-1].as_py() if len(measured) else 0
        entry |= {"rows": len(measured), "last_epoch": last}
        entry["reason"] = entry["reason"] or "; ".join(told) or None
        messages += [f"{name}: {message}" for message in told]
        entries.append(entry)
        settings.append(config)
        metrics.append(measured)
    runs = pd.DataFrame(entries)
    runs[list(NUMBERS)] = runs[list(NUMBERS)].apply(pd.to_numeric)
    # A category per distinct value: 54,000 rows of config would otherwise be most of the memory.
    by_run = (runs[list(IDENTITY)], pd.DataFrame(settings, dtype=object).astype("category"))
    identity, rest = (frame.loc[frame.index.repeat(runs["rows"])].reset_index(drop=True) for frame in by_run)
    filled = {name: measured for name, measured in zip(runs["run"], metrics, strict=True) if len(measured)}
    measures = pa.concat_tables(filled.values() or [NO_ROWS], promote_options="default").to_pandas()
    rows = pd.concat([identity, measures, rest], axis=1)
    columns = {name: measured.column_names for name, measured in filled.items()}
    return RunTable(rows, runs, messages + _schema_messages(columns))


def _shown(runs: Sequence[RunDirectory], progress: Callable[[str], object]) -> Iterator[RunDirectory]:
    """The runs, with a bar on a terminal, else with a line now and then."""
    console = Console()
    if console.is_terminal:
        yield from track(runs, "reading runs", console=console, transient=True)
        return
    told = time.monotonic()
    for number, run in enumerate(runs):
        if time.monotonic() - told > SAY_SECONDS:
            progress(f"{number} of {len(runs)} runs read")
            told = time.monotonic()
        yield run


def _in_utf8(name: str, told: list[str]) -> str:
    """The name of a run; one that no file can hold is spelled out."""
    if any("\ud800" <= character <= "\udfff" for character in name):
        told.append("its name is no UTF-8: what lies in it is read, but no figure is made of its networks")
        return printable(name)
    return name


def _read_entry(run: RunDirectory, name: str, told: list[str]) -> tuple[dict[str, Any], dict[str, str | None]]:
    """The run's row among the runs, and the rest of its config as text."""
    whole = _told_instead(run.config, run.config_file, told)
    config = flatten(whole)
    record = _told_instead(run.record, run.record_file, told)
    versions = record.get("versions") or {}
    if not isinstance(versions, Mapping):
        told.append(f"run.json: versions={in_one_line(versions)[:40]} is no mapping")
        versions = {}
    versions = {package: in_one_line(version) for package, version in versions.items()}
    given = {key: config.pop(key, record.get(key) if key == "seed" else None) for key in NUMBERS}
    texts = {key: record.get(key) for key in ("git_commit", "reason", "started", "ended")}
    texts = {key: None if value is None else in_one_line(value) for key, value in texts.items()}
    entry = {
        "run": name,
        "data": in_one_line(config.pop("data.name", "unknown")),
        "model": model_name(in_one_line(config.pop("model._target_", "unknown"))),
        **{key: _number(key, value, told) for key, value in given.items()},
        "status": str(_status(run, record)),
        "git_commit": texts.pop("git_commit"),
        "torch": versions.get("torch"),
        "arm": in_one_line(arm(whole)),
        "strength": _strength(whole, told),
        **texts,
        "versions": ", ".join(f"{package} {version}" for package, version in versions.items()),
    }
    return entry, {f"config.{key}": None if value is None else str(value) for key, value in config.items()}


def _status(run: RunDirectory, record: Mapping[str, Any]) -> Status:
    if not record:
        return Status.UNREADABLE
    alive = record["status"] != Status.RUNNING or run.locked
    return Status(record["status"]) if alive else Status.INTERRUPTED


def _told_instead(read: Callable[[], dict[str, Any]], file: Path, told: list[str]) -> dict[str, Any]:
    """What is read; nothing, and a message, where that cannot be."""
    try:
        if not (found := read()):
            told.append(f"{file.name} is missing or empty")
        return found
    except RunError as error:
        told.append(in_one_line(str(error).replace(f"{file.parent}/", "")))
    return {}


def _number(key: str, value: object, told: list[str]) -> float | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53):
        return value
    told.append(f"config.yaml: {key}={in_one_line(value)[:40]} is no number")
    return None


def _strength(config: Mapping[str, Any], told: list[str]) -> str:
    """Those of the run's interventions, as in the name of its arm; 0 without any."""
    try:
        given = strength(config)
    except (TypeError, ValueError):
        told.append(
            f"config.yaml: intervention={in_one_line(config['intervention'])[:40]} has strengths that are no numbers"
        )
        return "unknown"
    return given if isinstance(given, str) else strengths_text([given])


def model_name(target: str) -> str:
    """What tables call a network: the class in lower case of one of the study, any other's dotted name.

    >>> model_name("prs_lightning.models.CNN6"), model_name("my_package.MyNet")
    ('cnn6', 'my_package.MyNet')
    """
    name = architecture({"_target_": target})
    return name if "." in name else name.lower()


def _schema_messages(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Runs that lack measures which others have: their panels then hold fewer models."""
    every = {name for names in columns.values() for name in names}
    lacking: dict[str, list[str]] = {}
    for run, names in columns.items():
        if missing := sorted(every.difference(names)):
            lacking.setdefault(", ".join(missing), []).append(run)
    return [
        f"{len(runs)} of {len(columns)} runs have no column {missing}: {', '.join(runs[:4])}"
        + (f" and {len(runs) - 4} more" if len(runs) > 4 else "")
        for missing, runs in lacking.items()
    ]


def save(table: RunTable, folder: Path) -> None:
    """Write ``table.parquet``, ``table.csv`` and ``runs.csv`` into ``folder``."""
    write_atomically(folder / "table.parquet", lambda file: table.rows.to_parquet(file, index=False))
    write_csv(folder / "table.csv", table.rows)
    write_csv(folder / "runs.csv", table.runs)
