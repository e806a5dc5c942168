"""The rows of one ``metrics.csv`` as numbers; what cannot be read of it is left out, and told."""

from __future__ import annotations

import csv
import io
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as arrow_csv

from prs_lightning.runs import RunDirectory

IDENTITY = (
    "run", "data", "model", "batch_size", "seed", "epochs", "status", "git_commit", "torch", "arm", "strength",
)  # fmt: skip
"""Columns of the tables that say which run a row is of; no measure is called so."""
NO_ROWS = pa.table({"epoch": pa.array([], pa.int64())})
UNUSUAL = (b'"', b"\r", b"\0", b"\xef\xbb\xbf")
"""What our own files never hold: quotes, other line ends, zeroed blocks, the mark that some editors put in front."""
EPOCHS = 2**31
"""No run has so many."""


def read_metrics(run: RunDirectory, told: list[str]) -> pa.Table:
    """The rows of a run, all columns float64 but ``epoch``, which is int64, 1 or more and strictly rising."""
    content, why = None, "is missing"
    try:
        content = run.metrics_file.read_bytes()
    except FileNotFoundError:
        pass
    except OSError as error:
        why = f"cannot be read ({error.strerror})"
    kept = run.copy_of_rows()
    if kept is not None and kept.encode() != content:
        if not (run.locked and content):  # written just now, the copy first
            why = why if content is None else "is not as it was written"
            told.append(f"metrics.csv {why}: its rows are those of {run.rows_file.relative_to(run.path)}")
        content = kept.encode()
    if content is None:
        told.append(f"metrics.csv {why}" + (": no epoch was finished" if why == "is missing" else ""))
        return NO_ROWS
    usual = _usual(content)
    return _careful(content, told) if usual is None else usual


def _usual(content: bytes) -> pa.Table | None:
    """The rows of a file that is as we write them; None if anything in it is not."""
    if not content.endswith(b"\n") or any(mark in content for mark in UNUSUAL):
        return None
    try:
        names = content[: content.index(b"\n")].decode().split(",")
        if len({*names}) < len(names) or "epoch" not in names or not _allowed(names):
            return None
        table = arrow_csv.read_csv(
            pa.py_buffer(content), arrow_csv.ReadOptions(use_threads=False, block_size=len(content) + 1),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.float64()), null_values=[""], check_utf8=False
            ),
        )  # fmt: skip
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    columns = {name: table[name].to_numpy() for name in names}
    epochs = columns["epoch"]
    whole = (epochs >= 1) & (epochs < EPOCHS) & (epochs == np.floor(epochs))  # NaN is none of these
    if not whole.all() or (np.diff(epochs) <= 0).any() or any(np.isinf(column).any() for column in columns.values()):
        return None
    return table.set_column(names.index("epoch"), "epoch", pa.array(epochs.astype(np.int64)))


def _allowed(names: list[str]) -> list[str]:
    """Those names of columns that mean a measure, if they are all of them."""
    good = [name for name in names if name and name not in IDENTITY and not name.startswith("config.")]
    return good if len(good) == len(names) else []


def _careful(content: bytes, told: list[str]) -> pa.Table:
    """The rows of any file."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        told.append(f"metrics.csv cannot be read ({error})")
        return NO_ROWS
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text and not text.endswith("\n"):
        # The last number may have lost digits, so the whole line goes even if it has all its commas.
        told.append(f"metrics.csv is cut in line {text.count(chr(10)) + 1}: that line is left out")
        text = text[: text.rfind("\n") + 1]
    if "\0" in text:
        whole = [line for line in text.split("\n") if "\0" not in line]
        told.append(f"metrics.csv: {text.count(chr(10)) + 1 - len(whole)} line(s) with zeroed bytes are left out")
        text = "\n".join(whole)
    try:
        lines = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:  # a cell of 128 kB
        told.append(f"metrics.csv cannot be read ({error})")
        return NO_ROWS
    if not lines or "epoch" not in lines[0]:
        told.append("metrics.csv has no column 'epoch'" if lines else "metrics.csv is empty")
        return NO_ROWS
    header, body = lines[0], [line for line in lines[1:] if line]
    entire = [line for line in body if len(line) == len(header)]
    if len(entire) < len(body):
        told.append(f"metrics.csv: {len(body) - len(entire)} line(s) without {len(header)} values are left out")
    times = Counter(header)
    if twice := [name for name, number in times.items() if number > 1]:
        told.append(f"metrics.csv: column(s) that stand there twice are left out: {', '.join(twice)}")
    if no_measures := [name for name in times if not _allowed([name])]:
        told.append(f"metrics.csv: column(s) that are no measures are left out: {', '.join(map(repr, no_measures))}")
    if times["epoch"] > 1:
        return NO_ROWS
    cells = {
        name: [line[place] for line in entire]
        for place, name in enumerate(header)
        if times[name] == 1 and name not in no_measures
    }
    table = pd.DataFrame({name: _numbers(name, column, told) for name, column in cells.items()})
    epochs = table["epoch"]
    known = table[(epochs >= 1) & (epochs < EPOCHS) & (epochs % 1 == 0)].astype({"epoch": np.int64})
    kept = known.drop_duplicates("epoch", keep="last").sort_values("epoch", ignore_index=True)
    if len(kept) < len(table):
        told.append(f"metrics.csv: {len(table) - len(kept)} line(s) without an epoch, or of one that comes again later")
    return pa.Table.from_pandas(kept, preserve_index=False).replace_schema_metadata()


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
