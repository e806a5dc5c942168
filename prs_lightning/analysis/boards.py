"""Tables of claims as they are shown: in Markdown, and on the console."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from prs_lightning.analysis.shown import (
    ANSWERS,
    MARKS,
    NOTHING,
    change,
    corrected,
    has_interval,
    interval,
    is_relation,
    kind,
    measure,
    number,
)
from prs_lightning.analysis.verdict import Answer, Claim

HEAD = (
    "claim", "verdict", *(name for _, name in ANSWERS), "p (Holm)", "change", "panels",
    "measured as", "paper", "on", "note",
)  # fmt: skip

ONE_LINE = 140
"""So wide a terminal shows most claims in one line."""


def scoreboard_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """A row per claim with everything that is known of it."""
    return pd.DataFrame([_cells(claim) for claim in claims], columns=list(HEAD))


def _cells(claim: Claim) -> tuple[str, ...]:
    return (
        claim.claim, claim.verdict, *(interval(getattr(claim, name)) for name, _ in ANSWERS),
        corrected(claim.p, claim.p_holm), changes(claim),
        claim.heterogeneity, claim.measure, claim.paper, claim.data, claim.note,
    )  # fmt: skip


def changes(claim: Claim) -> str:
    """How much the measure of a relation moves; of a claim of another form, the interval of two one-sided tests.

    >>> changes(Claim("a", "4", "", change=Answer(0.1, 0.08, 0.12), margin=0.02, y="robust/pgd20"))
    'RA (PGD-20) +0.1 [+0.08, +0.12] over the middle 80% of PRS ratios; margin 0.02'
    """
    told = (
        (
            claim.change.effect,
            f"{measure(claim)} {change(claim.change)} over the middle 80% of PRS ratios"
            if is_relation(claim)
            else f"{change(claim.change)}, the interval of two one-sided tests",
        ),
        (claim.fixed_change.effect, f"at fixed batch size and epoch {change(claim.fixed_change)}"),
        (claim.margin, f"margin {number(claim.margin)}"),
    )
    known = [text for value, text in told if not np.isnan(value)]
    return "; ".join(known) if len(known) > 1 else NOTHING


def facts(claim: Claim) -> dict[str, str]:
    """What is known of a claim, by its name."""
    return {name: cell for name, cell in zip(HEAD, _cells(claim), strict=True) if cell not in ("", NOTHING)}


def expected(claim: Claim) -> Answer | None:
    """The interval in which a new panel is expected, where it is known."""
    answer = Answer(low=claim.new_low, high=claim.new_high)
    return answer if has_interval(answer) else None


def panels_table(claim: Claim) -> pd.DataFrame:
    """A row per panel of a relation, those left out with their reason, and one of all together."""
    rows = [
        (panel.name, *(interval(getattr(panel, name)) for name, _ in ANSWERS), panel.excluded) for panel in claim.panels
    ]
    together = ("all that count", *(interval(getattr(claim, name)) for name, _ in ANSWERS), "")
    rows += [together] * bool(rows)
    if new := expected(claim):
        rows.append(("a new one, expected", interval(new), "", "", ""))
    return pd.DataFrame(rows, columns=["panel", *(name for _, name in ANSWERS), "left out"])


def console_board(claims: Sequence[Claim], width: int) -> Table:
    """Claim, verdict and the three answers, an interval below its effect where the terminal is narrow."""
    narrow = width < ONE_LINE
    board = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_lines=narrow, title="scoreboard")
    board.add_column("claim", overflow="fold", ratio=4)
    board.add_column("verdict", overflow="fold", ratio=3)
    for _, name in ANSWERS:
        board.add_column(name, overflow="fold", min_width=14 if narrow else 20)
    for claim in claims:
        mark = MARKS[kind(claim)]
        answers = (interval(getattr(claim, name)) for name, _ in ANSWERS)
        cells = (answer.replace(" [", "\n[") if narrow else answer for answer in answers)
        board.add_row(Text(claim.claim), Text(f"{mark.sign} {claim.verdict}", mark.colour), *map(Text, cells))
    return board


def coupled_table(coupled: pd.DataFrame) -> pd.DataFrame:
    """A row per claim: the sign error of each factor, and the worst of them."""
    factors = list(dict.fromkeys(coupled["factor"]))
    rows = []
    for claim, of_claim in coupled.groupby("claim", sort=False):
        cells = {"claim": claim} | dict.fromkeys(factors, "") | {"worst": ""}
        for row in of_claim.to_dict("records"):
            error = interval(Answer(row["sign_error"], row["low"], row["high"]))
            cells[row["factor"]] = f"{error} of {row['pairs']:,} pairs" if row["pairs"] else "no pairs"
            if row["worst"]:
                cells["worst"] = f"{row['factor']}: {number(row['worst_sign_error'])} for {row['worst_environment']}"
        rows.append(cells)
    return pd.DataFrame(rows)


def console_plan(plan: pd.DataFrame, title: str) -> Table:
    """How many seeds decide each claim, as narrow as a terminal may be."""
    board = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=title)
    for name in plan.columns:
        board.add_column(name.removesuffix(" seeds"), overflow="fold", min_width=16 if name == "claim" else 5)
    for row in plan.itertuples(index=False):
        board.add_row(*map(Text, row))
    return board
