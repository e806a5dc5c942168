"""The causal section's tables as a reader sees them: in the page, in Markdown, and on the console."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from prs_lightning.analysis.causes import (
    CAUSAL,
    FAILED,
    HIGH,
    LOW,
    MASKING,
    NEGATIVE,
    NEITHER,
    POSITIVE,
    UNDECIDED,
    Arm,
    Causes,
)
from prs_lightning.analysis.contrasts import END, MATCHED, TOGETHER
from prs_lightning.analysis.relations import label
from prs_lightning.analysis.shown import NOTHING, Mark, change, corrected, number, p_value
from prs_lightning.analysis.verdict import Answer
from prs_lightning.measures import (
    AUDITED_ACCURACY,
    PRS_RATIO,
    ROBUST_ACCURACY,
    TEMPERATURE,
    TEST_ACCURACY,
)

MARKS = {
    CAUSAL: Mark("supported", "✓", "green"),
    MASKING: Mark("association-only", "◐", "yellow"),
    NEITHER: Mark("negligible", "≈", "blue"),
    UNDECIDED: Mark("undecided", "?", ""),
    FAILED: Mark("contradicted", "✗", "red"),
}
AIMS = {LOW: "fewer regions", HIGH: "more regions", POSITIVE: "positive control", NEGATIVE: "negative control"}
TIMES = {END: "at the end", MATCHED: "at equal test accuracy and logit gap"}
RULE = (
    "Causal: an arm that forces fewer regions raises audited RA and distance, at the end and while test accuracy and "
    "logit gap are equal, and one that forces more lowers both. Masking: RA under cross-entropy moves as claimed, and "
    "in the arm where it moves furthest audited RA and distance are shown not to. Neither: none of the three moves. "
    "Undecided: anything else. Before any of these the positive control (adversarial training) must raise audited RA "
    "and distance, and the negative one (the same networks, logits times 1000) must read cross-entropy alone."
)
"""docs/causal.md in short."""
CAVEAT = (
    "An arm moves more than it aims at; the match holds test accuracy and logit gap, nothing else. The networks are "
    "those of this folder, the test set is one."
)
MEDIATION = (
    "How much of an arm's effect on RA under cross-entropy goes through the logit gap (Imai, Keele & Tingley 2010), a "
    "reading that decides nothing. It takes for granted that nothing else moves both the gap and RA once arm and seed "
    "are known, that the effects add up, and that the gap was moved by nothing that RA moved. None of this can be "
    "tested here."
)
FIGURES = ("17", "18")
"""Those that belong to the section."""
STAR = "*"
"""Behind what moves."""


def together(causes: Causes) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The rows of all panels, by arm, time and measure."""
    rows = causes.contrasts[causes.contrasts["panel"] == TOGETHER].to_dict("records")
    return {(row["arm"], row["at"], row["measure"]): _named(row) for row in rows}


def measures_of(causes: Causes) -> list[str]:
    """In the order of the contrasts."""
    return list(dict.fromkeys(causes.contrasts["measure"]))


def checks(causes: Causes) -> pd.DataFrame:
    """The manipulation check, a row per arm: how far the PRS ratio moved, and what the rule reads in the arm."""
    rows = together(causes)
    cells = []
    for arm in causes.arms:
        row = rows[arm.name, END, PRS_RATIO]
        ratio = f"{number(row['none'])} → {number(row['treated'])}"
        told = (_effect(row), corrected(row["p"], row["p_holm"]), str(row["pairs"]), arm.shows, arm.why)
        cells.append((arm.name, AIMS.get(arm.aim, ""), ratio, *told))
    return pd.DataFrame(
        cells, columns=["arm", "aims at", "PRS ratio", "change", "p (Holm)", "pairs", "shows", "reason"]
    )


def effects(
    causes: Causes, at: str, level: float, cell: Callable[[Mapping[str, Any]], str] | None = None
) -> pd.DataFrame:
    """A row per arm, a column per measure: how far it is from ``none``, with a star where it moves."""
    rows, names, told = together(causes), measures_of(causes), cell or _effect
    table = [
        (arm.name, *(told(row) + f" {STAR}" * moves(row, level) for name in names if (row := rows[arm.name, at, name])))
        for arm in causes.arms
        if (at, arm.aim) != (MATCHED, NEGATIVE)  # whose gap is another by design
    ]
    return pd.DataFrame(table, columns=["arm", *map(label, names)])


def moves(row: Mapping[str, Any], level: float) -> bool:
    """Whether a contrast is told from 0 after correction."""
    return bool(row["p_holm"] < 1 - level)


def details(causes: Causes, arm: Arm) -> pd.DataFrame:
    """All of an arm: a row per time and measure, and where there are several panels one for each of these too."""
    own, cells = causes.contrasts[causes.contrasts["arm"] == arm.name], []
    for (at, measure), group in own.groupby(["at", "measure"], sort=False):
        *panels, whole = sorted(map(_named, group.to_dict("records")), key=lambda row: row["panel"] == TOGETHER)
        if len(panels) == 1:
            rows = [whole | {"note": panels[0]["note"], "pairs": panels[0]["pairs"]}]
        else:
            rows = [whole, *panels]
        for row in rows:
            p = corrected(row["p"], row["p_holm"]) if row["panel"] == TOGETHER else p_value(row["p"])
            means = number(row["none"]), number(row["treated"])
            told = (row["panel"], *means, _effect(row), p, str(row["pairs"]), row["note"])
            cells.append((TIMES.get(str(at), str(at)), label(str(measure)), *told))
    head = ["compared", "measure", "panel", "none", "arm", "effect", "p (Holm)", "pairs", "reason"]
    table = pd.DataFrame(cells, columns=head)
    return table.drop(columns="panel") if (table["panel"] == TOGETHER).all() else table


def _named(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}


def mediation(causes: Causes) -> pd.DataFrame:
    """A row per arm, a column per effect."""
    return _pivoted(causes.mediation, "arm", "effect", lambda row: f"{_value(row, 'value')}, p {p_value(row['p'])}")


def doses(causes: Causes) -> pd.DataFrame:
    """A row per measure, a column per intervention: how far the measure moves from one dose to the next."""
    named = causes.doses.assign(
        intervention=[f"{row.intervention} {row.doses}" for row in causes.doses.itertuples()],
        measure=causes.doses["measure"].map(label),
    )
    return _pivoted(
        named, "measure", "intervention", lambda row: f"{_value(row, 'slope')}, p {corrected(row['p'], row['p_holm'])}"
    )


def factorial(causes: Causes) -> pd.DataFrame:
    """A row per measure, a column per factor: how far the measure moves when the factor is doubled."""
    named = causes.factorial.assign(measure=causes.factorial["measure"].map(label))
    return _pivoted(named, "measure", "factor", lambda row: f"{_value(row, 'slope')}, p {p_value(row['p'])}")


def _pivoted(table: pd.DataFrame, row: str, column: str, cell: Callable[[Mapping[str, Any]], str]) -> pd.DataFrame:
    columns = list(dict.fromkeys(table[column]))
    found: dict[str, dict[str, str]] = {}
    for each in table.to_dict("records"):
        found.setdefault(each[row], dict.fromkeys(columns, NOTHING))[each[column]] = cell(_named(each))
    return pd.DataFrame([(name, *cells.values()) for name, cells in found.items()], columns=[row, *columns])


def _effect(row: Mapping[str, Any]) -> str:
    return change(Answer(row["effect"], row["low"], row["high"]))


def _value(row: Mapping[str, Any], name: str) -> str:
    return NOTHING if np.isnan(row[name]) else change(Answer(row[name], row["low"], row["high"]))


SHORT = {
    TEST_ACCURACY: "test acc.", ROBUST_ACCURACY: "RA, PGD", AUDITED_ACCURACY: "RA, audit", TEMPERATURE: "RA, any T",
}  # fmt: skip
"""Heads of narrow columns."""


def console_tables(causes: Causes, level: float) -> list[Table]:
    """The manipulation check, and arm by measure at the end and at the match, for a terminal of 100 columns."""
    told = [_console("did the PRS ratio move?", checks(causes)[["arm", "aims at", "PRS ratio", "change", "shows"]])]
    for at, words in TIMES.items():
        table = effects(causes, at, level, cell=lambda row: change(Answer(row["effect"])))
        table.columns = ["arm", *(SHORT.get(name, label(name)) for name in measures_of(causes))]
        told.append(_console(f"arm minus none, {words}", table.replace(f" \\{STAR}$", STAR, regex=True)))
    return told


def _console(title: str, table: pd.DataFrame) -> Table:
    board = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=title)
    for name in table.columns:
        board.add_column(str(name), overflow="fold")
    for row in table.itertuples(index=False):
        board.add_row(*map(Text, row))
    return board


def controls(causes: Causes) -> list[str]:
    """What each control shows, in words."""
    return [
        f"{AIMS[arm.aim].capitalize()}, {arm.name}: {arm.shows}. {arm.why}"
        for arm in causes.arms
        if arm.aim in (POSITIVE, NEGATIVE)
    ]
