"""Reads every run directory under a folder into one tidy table: a row per run and epoch.

A file that is damaged costs what cannot be read of it and leaves a message; nothing is dropped silently.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from prs_lightning.errors import RunError
from prs_lightning.runs import RunDirectory, write_atomically
from prs_lightning.runs.naming import architecture, flatten

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where libyaml is there

IDENTITY = ("run", "data", "model", "batch_size", "seed", "epochs", "status", "git_commit", "torch")
"""The first columns of both tables; the other config columns are ``config.<key>``."""


@dataclass(frozen=True)
class RunTable:
    """What was read.

    Attributes:
        rows: a row per run and epoch: ``IDENTITY``, ``epoch``, the measures under their names in metrics.csv
            (float64, NaN where not taken), then ``config.<key>``.
        runs: a row per run directory, failed and unfinished ones included: ``IDENTITY``, ``reason``, ``rows`` (number
            of epochs read), ``last_epoch``, ``started``, ``ended``, ``versions``.
        messages: what could not be read, a line each.
    """

    rows: pd.DataFrame
    runs: pd.DataFrame
    messages: list[str]


def read_runs(folder: str | Path) -> RunTable:
    """Read all runs under ``folder``, finished or not.

    Raises:
        RunError: the folder is absent or holds no run directory.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"runs={folder} is no folder: expected one that holds run directories")
    paths = {file.parent for name in ("run.json", "metrics.csv") for file in folder.rglob(name)}
    if not paths:
        raise RunError(f"runs={folder} holds no run directories: train some with python train.py runs={folder}")
    messages, read = [], []
    for path in sorted(paths):
        name = path.relative_to(folder).as_posix()
        told: list[str] = []
        entry, config = _read_entry(RunDirectory(path), name, told)
        measured = _read_metrics(path / "metrics.csv", told)
        entry |= {"rows": len(measured), "last_epoch": max(measured["epoch"], default=0)}
        entry["reason"] = entry["reason"] or "; ".join(told) or None
        messages += [f"{name}: {message}" for message in told]
        read.append((entry, config, measured))
    entries, settings, metrics = map(list, zip(*read, strict=True))
    runs, numbers = pd.DataFrame(entries), ["batch_size", "seed", "epochs"]
    runs[numbers] = runs[numbers].apply(pd.to_numeric, errors="coerce")
    # A category per distinct value: 54,000 rows of config would otherwise be most of the memory.
    by_run = (runs[list(IDENTITY)], pd.DataFrame(settings, dtype=object).astype("category"))
    identity, rest = (frame.loc[frame.index.repeat(runs["rows"])].reset_index(drop=True) for frame in by_run)
    filled = {name: measured for name, measured in zip(runs["run"], metrics, strict=True) if len(measured)}
    measures = pd.concat(filled.values() or metrics[:1], ignore_index=True)
    return RunTable(pd.concat([identity, measures, rest], axis=1), runs, messages + _schema_messages(filled))


def _read_entry(run: RunDirectory, name: str, told: list[str]) -> tuple[dict[str, Any], dict[str, str | None]]:
    """The run's row among the runs, and the rest of its config as text."""
    config = flatten(_parsed(run.config_file, lambda text: yaml.load(text, Loader), told))
    record = _parsed(run.record_file, json.loads, told)
    status = record.get("status", "unreadable")
    if status == "running" and not run.locked:
        status = "interrupted"
    versions = record.get("versions") or {}
    entry = {
        "run": name,
        "data": str(config.pop("data.name", "unknown")),
        "model": model_name(str(config.pop("model._target_", "unknown"))),
        "batch_size": config.pop("batch_size", None),
        "seed": config.pop("seed", record.get("seed")),
        "epochs": config.pop("epochs", None),
        "status": status,
        "git_commit": record.get("git_commit"),
        "torch": versions.get("torch"),
        **{key: record.get(key) for key in ("reason", "started", "ended")},
        "versions": ", ".join(f"{package} {version}" for package, version in versions.items()),
    }
    return entry, {f"config.{key}": None if value is None else str(value) for key, value in config.items()}


def model_name(target: str) -> str:
    """What tables call a network: the class in lower case of one of the study, any other's dotted name.

    >>> model_name("prs_lightning.models.CNN6"), model_name("my_package.MyNet")
    ('cnn6', 'my_package.MyNet')
    """
    name = architecture({"_target_": target})
    return name if "." in name else name.lower()


def _parsed(file: Path, parse: Any, told: list[str]) -> dict[str, Any]:
    try:
        parsed = parse(file.read_text())
        if isinstance(parsed, dict):
            return parsed
        told.append(f"{file.name} holds no mapping")
    except FileNotFoundError:
        told.append(f"{file.name} is missing")
    except (OSError, ValueError, yaml.YAMLError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        told.append(f"{file.name} cannot be read ({str(error).splitlines()[0]})")
    return {}


def _read_metrics(file: Path, told: list[str]) -> pd.DataFrame:
    """The rows of one metrics.csv, all columns float64 but ``epoch``, which is int64 and strictly rising."""
    nothing = pd.DataFrame({"epoch": np.array([], dtype=np.int64)})
    try:
        text = file.read_text()
    except FileNotFoundError:
        told.append("metrics.csv is missing: no epoch was finished")
        return nothing
    except (OSError, UnicodeDecodeError) as error:
        told.append(f"metrics.csv cannot be read ({error})")
        return nothing
    if text and not text.endswith("\n"):
        # The last number may have lost digits, so the whole line goes even if it has all its commas.
        told.append(f"metrics.csv is cut in line {text.count(chr(10)) + 1}: that line is left out")
        text = text[: text.rfind("\n") + 1]
    lines = list(csv.reader(io.StringIO(text.replace("\0", ""))))
    if not lines or "epoch" not in lines[0]:
        told.append("metrics.csv has no column 'epoch'" if lines else "metrics.csv is empty")
        return nothing
    header, body = lines[0], [line for line in lines[1:] if line]
    whole = [line for line in body if len(line) == len(header)]
    if len(whole) < len(body):
        told.append(f"metrics.csv: {len(body) - len(whole)} line(s) without {len(header)} values are left out")
    cells = {name: [line[place] for line in whole] for place, name in enumerate(header)}
    table = pd.DataFrame({name: _numbers(name, column, told) for name, column in cells.items()})
    known = table.dropna(subset="epoch").astype({"epoch": np.int64})
    kept = known.drop_duplicates("epoch", keep="last").sort_values("epoch", ignore_index=True)
    if len(kept) < len(table):
        told.append(f"metrics.csv: {len(table) - len(kept)} line(s) without an epoch, or of one that comes again later")
    return kept


def _numbers(name: str, cells: list[str], told: list[str]) -> np.ndarray:
    values, bad = np.full(len(cells), np.nan), []
    for position, cell in enumerate(cells):
        try:
            values[position] = float(cell or "nan")
        except ValueError:
            bad.append(cell)
    if bad:
        told.append(f"metrics.csv: {len(bad)} value(s) of {name} are no numbers, such as {bad[0][:20]!r}")
    infinite = np.isinf(values)
    if infinite.any():
        told.append(f"metrics.csv: {infinite.sum()} value(s) of {name} are infinite and left out")
        values[infinite] = np.nan
    return values


def _schema_messages(filled: Mapping[str, pd.DataFrame]) -> list[str]:
    """Runs that lack measures which others have: their panels then hold fewer models."""
    every = {name for measured in filled.values() for name in measured.columns}
    lacking: dict[str, list[str]] = {}
    for run, measured in filled.items():
        if missing := sorted(every - {*measured.columns}):
            lacking.setdefault(", ".join(missing), []).append(run)
    return [
        f"{len(runs)} of {len(filled)} runs have no column {missing}: {', '.join(runs[:4])}"
        + (f" and {len(runs) - 4} more" if len(runs) > 4 else "")
        for missing, runs in lacking.items()
    ]


def save(table: RunTable, folder: Path) -> None:
    """Write ``table.parquet``, ``table.csv`` and ``runs.csv`` into ``folder``."""
    write_atomically(folder / "table.parquet", lambda file: table.rows.to_parquet(file, index=False))
    write_atomically(folder / "table.csv", lambda file: table.rows.to_csv(file, index=False))
    write_atomically(folder / "runs.csv", lambda file: table.runs.to_csv(file, index=False))
