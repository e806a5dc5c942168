"""Reads every run directory under a folder into one tidy table: a row per run and epoch.

A file that is damaged costs what cannot be read of it and leaves a message; nothing is dropped silently.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from prs_lightning.errors import RunError
from prs_lightning.runs import RunDirectory, write_atomically
from prs_lightning.runs.naming import flatten

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where libyaml is there

IDENTITY = ("run", "data", "model", "batch_size", "seed", "epochs", "status", "git_commit", "torch")
"""The first columns of both tables; the other config columns are ``config.<key>``."""

OWN_CONFIG_KEYS = ("data.name", "model._target_", "batch_size", "seed", "epochs")


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
    messages: list[str] = field(default_factory=list)

    @property
    def measures(self) -> list[str]:
        """The measures that at least one run has taken."""
        return [name for name in self.rows.columns if "/" in name and not name.startswith("config.")]


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
    messages: list[str] = []
    entries, tables = [], []
    for path in sorted(paths):
        name = path.relative_to(folder).as_posix() if path != folder else "."
        told: list[str] = []
        entry, config = _read_entry(RunDirectory(path), name, told)
        measured = _read_metrics(path / "metrics.csv", told)
        entry |= {"rows": len(measured), "last_epoch": int(measured["epoch"].max()) if len(measured) else 0}
        if told and not entry["reason"]:
            entry["reason"] = "; ".join(told)
        messages += [f"{name}: {message}" for message in told]
        entries.append(entry)
        tables.append((entry, config, measured))
    return RunTable(_join(tables), _runs_frame(entries), messages + _schema_messages(tables))


def _read_entry(run: RunDirectory, name: str, told: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    config = flatten(_parsed(run.config_file, lambda text: yaml.load(text, Loader), told))
    record = _parsed(run.record_file, json.loads, told)
    status = record.get("status", "unreadable")
    if status == "running" and not run.locked:
        status = "interrupted"
    versions = record.get("versions") or {}
    entry = {
        "run": name,
        "data": str(config.get("data.name", "unknown")),
        "model": str(config.get("model._target_", "unknown")).rsplit(".", 1)[-1].lower(),
        "batch_size": config.get("batch_size"),
        "seed": config.get("seed", record.get("seed")),
        "epochs": config.get("epochs"),
        "status": status,
        "git_commit": record.get("git_commit"),
        "torch": versions.get("torch"),
        "reason": record.get("reason"),
        "started": record.get("started"),
        "ended": record.get("ended"),
        "versions": ", ".join(f"{package} {version}" for package, version in versions.items()),
    }
    return entry, {key: value for key, value in config.items() if key not in OWN_CONFIG_KEYS}


def _parsed(file: Path, parse: Any, told: list[str]) -> dict[str, Any]:
    try:
        parsed = parse(file.read_text())
    except FileNotFoundError:
        told.append(f"{file.name} is missing")
    except (OSError, ValueError, yaml.YAMLError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        told.append(f"{file.name} cannot be read ({str(error).splitlines()[0]})")
    else:
        if isinstance(parsed, dict):
            return parsed
        told.append(f"{file.name} holds no mapping")
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
    columns = (
        {name: list(column) for name, column in zip(header, zip(*whole, strict=True), strict=True)} if whole else {}
    )
    table = pd.DataFrame({name: _numbers(name, columns.get(name, []), told) for name in header})
    return _one_row_per_epoch(table, told)


def _numbers(name: str, cells: list[str], told: list[str]) -> np.ndarray:
    try:
        values = np.array([cell or "nan" for cell in cells], dtype=float)
    except ValueError:
        values, bad = np.full(len(cells), np.nan), []
        for position, cell in enumerate(cells):
            try:
                values[position] = float(cell or "nan")
            except ValueError:
                bad.append(cell)
        told.append(f"metrics.csv: {len(bad)} value(s) of {name} are no numbers, such as {bad[0][:20]!r}")
    infinite = np.isinf(values)
    if infinite.any():
        told.append(f"metrics.csv: {infinite.sum()} value(s) of {name} are infinite and left out")
        values[infinite] = np.nan
    return values


def _one_row_per_epoch(table: pd.DataFrame, told: list[str]) -> pd.DataFrame:
    if not table["epoch"].isna().any() and table["epoch"].is_monotonic_increasing and table["epoch"].is_unique:
        return table.astype({"epoch": np.int64})
    known = table[table["epoch"].notna()].astype({"epoch": np.int64})
    kept = known.drop_duplicates("epoch", keep="last").sort_values("epoch", ignore_index=True)
    if len(kept) < len(table):
        told.append(f"metrics.csv: {len(table) - len(kept)} line(s) without an epoch, or of one that comes again later")
    return kept


def _join(tables: list[tuple[dict[str, Any], dict[str, Any], pd.DataFrame]]) -> pd.DataFrame:
    lengths = [len(measured) for *_, measured in tables]
    identity = pd.DataFrame([{key: entry[key] for key in IDENTITY} for entry, _, _ in tables], columns=list(IDENTITY))
    keys = dict.fromkeys(key for _, config, _ in tables for key in config)
    settings = pd.DataFrame(
        {f"config.{key}": [_cell(config.get(key)) for _, config, _ in tables] for key in keys}, dtype=object
    )
    order = np.repeat(np.arange(len(tables)), lengths)
    # A category per distinct value: 54,000 rows of config would otherwise be most of the memory.
    repeated = pd.concat([_typed(identity), settings.astype("category")], axis=1).iloc[order].reset_index(drop=True)
    filled = [measured for *_, measured in tables if len(measured)]
    measured = pd.concat(filled, ignore_index=True) if filled else tables[0][2]
    front, back = list(IDENTITY), [name for name in repeated if name not in IDENTITY]
    return pd.concat([repeated[front], measured, repeated[back]], axis=1)


def _cell(value: Any) -> str | None:
    return None if value is None else str(value)


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    numbers = {name: pd.to_numeric(frame[name], errors="coerce") for name in ("batch_size", "seed", "epochs")}
    return frame.assign(**numbers)


def _runs_frame(entries: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(entries)
    return _typed(frame[[*IDENTITY, "reason", *(name for name in frame if name not in (*IDENTITY, "reason"))]])


def _schema_messages(tables: list[tuple[dict[str, Any], dict[str, Any], pd.DataFrame]]) -> list[str]:
    """Runs that lack measures which others have: their panels then hold fewer models."""
    filled = [(entry["run"], set(measured.columns)) for entry, _, measured in tables if len(measured)]
    every = set().union(*(columns for _, columns in filled)) if filled else set()
    lacking: dict[tuple[str, ...], list[str]] = {}
    for run, columns in filled:
        if missing := tuple(sorted(every - columns)):
            lacking.setdefault(missing, []).append(run)
    return [
        f"{len(runs)} of {len(filled)} runs have no column {', '.join(missing)}: {_some(runs)}"
        for missing, runs in lacking.items()
    ]


def _some(names: Iterable[str], limit: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as mappings."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def save(table: RunTable, folder: Path) -> None:
    """Write ``table.parquet``, ``table.csv`` and ``runs.csv`` into ``folder``."""
    write_atomically(folder / "table.parquet", lambda file: table.rows.to_parquet(file, index=False))
    write_atomically(folder / "table.csv", lambda file: table.rows.to_csv(file, index=False))
    write_atomically(folder / "runs.csv", lambda file: table.runs.to_csv(file, index=False))
