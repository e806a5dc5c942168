"""The causal section of an analysis: the control, the study, its tables as files, and its lines on the console."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from prs_lightning.analysis.arms import left_alone
from prs_lightning.analysis.causal import causal_study
from prs_lightning.analysis.causal_tables import FILES, MARKS, STAR, console_tables, interfered
from prs_lightning.analysis.causes import Causes
from prs_lightning.analysis.scaled import scaled_rows
from prs_lightning.analysis.selection import on_grid
from prs_lightning.analysis.written import write_csv
from prs_lightning.errors import printable


def study(
    rows: pd.DataFrame, runs: Path, folder: Path, config: Mapping[str, Any], *, progress: Callable[[str], object]
) -> tuple[Causes | None, pd.DataFrame | None]:
    """What the interventions say, written into ``folder``; None where there are none and no factorial.

    Args:
        rows: ``RunTable.rows``.
        runs: folder of the runs, whose checkpoints the negative control is made from.
        config: of the analysis.

    Returns:
        The study, and the rows at grid epochs that it is of, those of the negative control among them; None for none.
    """
    scaled, grid, told = None, None, list[str]()
    if len(left_alone(rows)) < len(rows):
        options = {"grid_epochs": config["grid_epochs"], "data_root": config["data_root"], "force": config["force"]}
        scaled, told = scaled_rows(rows, runs, folder, **options, progress=progress)
        grid = pd.concat([rows[on_grid(rows, config["grid_epochs"])], scaled], ignore_index=True)
    tolerances = config["pair"]["accuracy_tolerance"], config["pair"]["gap_tolerance"]
    causes = causal_study(
        rows, grid_epochs=config["grid_epochs"], scaled=scaled, margins=config["margins"], tolerances=tolerances,
        level=config["bootstrap"]["level"], seed=config["bootstrap"]["seed"],
    )  # fmt: skip
    for file, name in FILES.items():
        table = pd.DataFrame() if causes is None else getattr(causes, name)
        if table.empty:  # what is there is of other runs
            (folder / file).unlink(missing_ok=True)
        else:
            write_csv(folder / file, table)
    return causes and replace(causes, messages=(*causes.messages, *told)), grid


def show(console: Console, causes: Causes, level: float) -> None:
    """The verdict, the manipulation check and the table of arms and measures."""
    if not interfered(causes):
        return
    mark = MARKS[causes.verdict]
    console.print(Text(f"Causes: {mark.sign} {causes.verdict}", mark.colour))
    console.print(Text(printable(f"{causes.reason}.")), end="\n\n")
    for table in console_tables(causes, level, console.width) if causes.arms else ():
        console.print(table)
    console.print(
        Text(f"{STAR} moves: p below {1 - level:.2g} after Holm's correction over the arms of one aim"), end="\n\n"
    )
