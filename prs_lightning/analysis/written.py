"""CSV files for people and their spreadsheets: quick for 600,000 rows, and no cell is a formula."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from prs_lightning.errors import RunError
from prs_lightning.runs import write_atomically

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""How a cell begins that a spreadsheet may take for a formula (OWASP, "CSV injection")."""
AT_ONCE = 20_000
"""Rows that are text in memory at a time."""


def inert(text: str) -> str:
    """A cell that a spreadsheet shows as it is; a number stays one.

    >>> inert("=1+1"), inert("-0.5"), inert("mnist")
    ("'=1+1", '-0.5', 'mnist')
    """
    if not text.startswith(FORMULA):
        return text
    with suppress(ValueError):
        float(text)
        return text
    return f"'{text}"


def check_folder(folder: Path) -> None:
    """Refuse, before anything is computed, a folder that files cannot be written into; it is made if it is not there.

    Raises:
        RunError: names the folder.
    """
    made = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        for each in made:
            with suppress(OSError):
                each.rmdir()
        raise RunError(f"cannot write into {folder} ({error.strerror}): choose another, output=FOLDER") from error


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write ``frame`` as ``to_csv(index=False)`` does, to the byte, but for text that would be a formula.

    Raises:
        RunError: the file cannot be written.
    """

    def write(file: BinaryIO) -> None:
        file.write(",".join(_quoted(str(name)) for name in frame.columns).encode() + b"\n")
        for start in range(0, len(frame), AT_ONCE):
            part = frame.iloc[start : start + AT_ONCE]
            cells = [_cells(part.iloc[:, place]) for place in range(part.shape[1])]
            lines = pc.binary_join_element_wise(pc.binary_join_element_wise(*cells, ","), "", "\n")
            file.write(b"".join(lines.cast(pa.binary()).to_pylist()))

    write_atomically(path, write)


def _cells(column: pd.Series) -> pa.Array:
    """A column as text, nothing for what is not there."""
    values = column.array
    if isinstance(values, pd.Categorical):
        texts = pa.array([_quoted(str(category)) for category in values.categories] + [""], pa.string())
        return texts.take(pa.array(np.where(values.codes < 0, len(texts) - 1, values.codes)))
    if column.dtype == np.float64:
        return _numbers(column.to_numpy())
    if column.dtype == np.int64:
        return pc.cast(pa.array(column.to_numpy()), pa.string())
    if isinstance(column.dtype, pd.StringDtype):
        return _cells(column.astype("category"))
    return pa.array(["" if pd.isna(value) is True else _quoted(str(value)) for value in column.tolist()], pa.string())


def _numbers(values: np.ndarray) -> pa.Array:
    """Numbers as Python writes them: Arrow does in this range, but for the ``.0`` of whole ones."""
    size = np.abs(values)
    whole = (size < 1e9) & (values % 1 == 0) & ~((values == 0) & np.signbit(values))
    texts = pc.cast(pa.array(values), pa.string())
    texts = pc.if_else(pa.array(whole), pc.binary_join_element_wise(texts, ".0", ""), texts)
    (others,) = np.nonzero(~whole & ~((size >= 1e-4) & (size < 1e9)))
    if len(others):
        written = ["" if value != value else repr(value) for value in values[others].tolist()]
        mask = np.zeros(len(values), bool)
        mask[others] = True
        texts = pc.replace_with_mask(texts, pa.array(mask), pa.array(written, pa.string()))
    return texts


def _quoted(text: str) -> str:
    text = inert(text)
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if any(mark in text for mark in ',"\r\n') else text
