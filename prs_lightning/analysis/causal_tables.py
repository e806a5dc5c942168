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
FILES = {
    "causal.csv": "contrasts",
    "causal_mediation.csv": "mediation",
    "causal_doses.csv": "doses",
    "causal_factorial.csv": "factorial",
}
"""Table of ``Causes`` that each file holds."""
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


def interfered(causes: Causes) -> bool:
    """Whether any run has an intervention; where none of these is one of a pair, a message says why."""
    return bool(causes.arms or causes.messages)


Row = Mapping[Any, Any]


def together(causes: Causes) -> dict[tuple[str, str, str], Row]:
    """The rows of all panels, by arm, time and measure."""
    rows = causes.contrasts[causes.contrasts["panel"] == TOGETHER].to_dict("records")
    return {(row["arm"], row["at"], row["measure"]): row for row in rows}


def measures_of(causes: Causes) -> list[str]:
    """In the order of the contrasts."""
    return list(dict.fromkeys(causes.contrasts["measure"]))


def checks(causes: Causes) -> pd.DataFrame:
    """The manipulation check, a row per arm: how far the PRS ratio moved, and what the rule reads in the arm."""
    rows, cells = together(causes), []
    for arm in causes.arms:
        row = rows[arm.name, END, PRS_RATIO]
        ratio = " → ".join(number(row[side]) for side in ("none", "treated"))
        told = (_effect(row), corrected(row["p"], row["p_holm"]), str(row["pairs"]), arm.shows)
        cells.append((arm.name, AIMS.get(arm.aim, ""), ratio if row["pairs"] else NOTHING, *told))
    head = ["arm", "aims at", "PRS ratio", "change", "p (Holm)", "pairs", "shows"]
    return pd.DataFrame(cells, columns=head)


def effects(causes: Causes, at: str, level: float, cell: Callable[[Row], str] | None = None) -> pd.DataFrame:
    """A row per arm, a column per measure: how far it is from ``none``, with a star where it moves; and the pairs."""
    rows, names, told = together(causes), measures_of(causes), cell or _effect
    table = []
    for arm in causes.arms:
        if (at, arm.aim) != (MATCHED, NEGATIVE):  # whose gap is another by design
            own = [rows[arm.name, at, name] for name in names]
            cells = [told(row) + f" {STAR}" * moves(row, level) for row in own]
            table.append((arm.name, *cells, str(max(row["pairs"] for row in own))))
    return pd.DataFrame(table, columns=["arm", *map(label, names), "pairs"])


def moves(row: Row, level: float) -> bool:
    """Whether a contrast is told from 0 after correction."""
    return bool(row["p_holm"] < 1 - level)


def details(causes: Causes, arm: Arm) -> pd.DataFrame:
    """All of an arm: a row per time and measure, and where there are several panels one for each of these too."""
    own, cells = causes.contrasts[causes.contrasts["arm"] == arm.name], []
    known = own[own.groupby("at")["pairs"].transform("sum") > 0]
    for (at, measure), group in known.groupby(["at", "measure"], sort=False):
        *panels, whole = sorted(group.to_dict("records"), key=lambda row: row["panel"] == TOGETHER)
        alone = [panels[0] | {"panel": TOGETHER, "p_holm": whole["p_holm"]}]
        for row in alone if len(panels) == 1 else [whole, *panels]:
            p = corrected(row["p"], row["p_holm"]) if row["panel"] == TOGETHER else p_value(row["p"])
            told = (number(row["none"]), number(row["treated"]), _effect(row), p, str(row["pairs"]), row["note"])
            cells.append((TIMES[str(at)], label(str(measure)), row["panel"], *told))
    head = ["compared", "measure", "panel", "none", "arm", "effect", "p (Holm)", "pairs", "reason"]
    table = pd.DataFrame(cells, columns=head)
    return table.drop(columns="panel") if (table["panel"] == TOGETHER).all() else table


def mediation(causes: Causes) -> pd.DataFrame:
    """A row per arm, a column per effect."""
    return _pivoted(causes.mediation, "arm", "effect", "value")


def doses(causes: Causes) -> pd.DataFrame:
    """A row per measure, a column per intervention: how far the measure moves from one dose to the next."""
    named = causes.doses.assign(
        intervention=[f"{row.intervention} ({row.doses})" for row in causes.doses.itertuples()],
        measure=causes.doses["measure"].map(label),
    )
    return _pivoted(named, "measure", "intervention", "slope")


def factorial(causes: Causes) -> pd.DataFrame:
    """A row per measure, a column per factor: how far the measure moves when the factor is doubled."""
    named = causes.factorial.assign(measure=causes.factorial["measure"].map(label))
    return _pivoted(named, "measure", "factor", "slope")


def _pivoted(table: pd.DataFrame, row: str, column: str, value: str) -> pd.DataFrame:
    """A table of values with interval and p, corrected where that is known."""
    columns = list(dict.fromkeys(table[column]))
    found: dict[str, dict[str, str]] = {}
    for each in table.to_dict("records"):
        p = corrected(each["p"], each["p_holm"]) if "p_holm" in each else p_value(each["p"])
        cell = f"{change(Answer(each[value], each['low'], each['high']))}, p {p}"
        found.setdefault(each[row], dict.fromkeys(columns, NOTHING))[each[column]] = (
            NOTHING if np.isnan(each[value]) else cell
        )
    return pd.DataFrame([(name, *cells.values()) for name, cells in found.items()], columns=[row, *columns])


def _effect(row: Row) -> str:
    return change(Answer(row["effect"], row["low"], row["high"]))


WIDE = 100
"""So wide a terminal shows all measures."""
SHORT = {
    label(TEST_ACCURACY): "test acc.", label(ROBUST_ACCURACY): "RA, PGD", label(AUDITED_ACCURACY): "RA, audit",
    label(TEMPERATURE): "RA, any T",
}  # fmt: skip
"""Heads of narrow columns."""


def console_tables(causes: Causes, level: float, width: int) -> list[Table]:
    """The manipulation check, and arm by measure at the end and at the match; without the ratio below ``WIDE``."""
    told = [_console("did the PRS ratio move?", checks(causes)[["arm", "aims at", "PRS ratio", "change", "shows"]])]
    for at, words in TIMES.items():
        table = effects(causes, at, level, cell=lambda row: change(Answer(row["effect"])))
        table = table.drop(columns=[label(PRS_RATIO), "pairs"] if width < WIDE else [])
        table = table.rename(columns=SHORT).replace(f" \\{STAR}$", STAR, regex=True)
        told.append(_console(f"arm minus none, {words}", table))
    return told


def _console(title: str, table: pd.DataFrame) -> Table:
    board = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=title)
    words = max((len(word) for arm in table["arm"] for word in arm.split()), default=0)
    for name in table.columns:
        board.add_column(str(name), overflow="fold", min_width=words if name == "arm" else None)
    for row in table.itertuples(index=False):
        board.add_row(*map(Text, row))
    return board


def reasons(causes: Causes, *, controls: bool) -> list[str]:
    """What each control shows, or each arm that aims at regions, in words."""
    return [
        f"{arm.name} ({AIMS[arm.aim]}): {arm.shows}. {arm.why[:1].upper()}{arm.why[1:]}."
        for arm in causes.arms
        if arm.aim and controls == (arm.aim in (POSITIVE, NEGATIVE))
    ]
