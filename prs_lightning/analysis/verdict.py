"""What is known of a claim, and the verdict on it: a function of that and nothing else (docs/statistics.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import pandas as pd

NAN = float("nan")
NOT_IN_THE_PAPER = "not in the paper"
"""What stands for the paper's finding where it has none."""

SUPPORTED, CONTRADICTED, NEGLIGIBLE = "supported", "contradicted", "negligible"
UNDECIDED, NOT_MEASURABLE = "undecided", "not measurable"
OUTCOMES = (SUPPORTED, CONTRADICTED, NEGLIGIBLE, UNDECIDED, NOT_MEASURABLE)


@dataclass(frozen=True)
class Answer:
    """An effect with its interval, positive where it agrees with the claim; NaN where there is none."""

    effect: float = NAN
    low: float = NAN
    high: float = NAN
    p: float = NAN


@dataclass(frozen=True)
class PanelAnswers:
    """One panel of a claim, for its forest plot.

    Attributes:
        association, between_runs, between_epochs: correlations.
        excluded: why it does not count; empty if it does.
    """

    name: str
    association: Answer = Answer()
    between_runs: Answer = Answer()
    between_epochs: Answer = Answer()
    excluded: str = ""


@dataclass(frozen=True)
class Claim:
    """One row of the scoreboard.

    Attributes:
        figure: of the paper, or of ours.
        measure: how it is measured, in words.
        outcome: one of ``OUTCOMES``.
        verdict: the same in more words: "supported but small", "association only: explained by batch size".
        association: in [-1, 1] of a relation; of other claims the only answer, in their own unit.
        between_runs, between_epochs: at fixed batch size and epoch; NaN for claims of another form.
        change, fixed_change: of the measure, in its unit, over the middle 80% of the PRS ratios: of all models, and of
            those of one batch size and epoch.
        y: column of the measure of a relation; empty in a claim of another form.
        margin: below it a change is negligible.
        p, p_holm: of the claim, and corrected over the scoreboard.
        i2, q_p: how far panels differ: I² in [0, 1], p of Cochran's Q; NaN below two panels.
        new_low, new_high: where the association of a new panel is expected; NaN below three panels.
        heterogeneity: these, and the summary without each panel in turn, in words.
        data: panels, models and runs that count, in words.
        paper: what the paper found.
        note: what else must be known.
        panels: of a relation, those left out too.
    """

    claim: str
    figure: str
    measure: str
    outcome: str = UNDECIDED
    verdict: str = UNDECIDED
    association: Answer = Answer()
    between_runs: Answer = Answer()
    between_epochs: Answer = Answer()
    change: Answer = Answer()
    fixed_change: Answer = Answer()
    margin: float = NAN
    p: float = NAN
    p_holm: float = NAN
    i2: float = NAN
    q_p: float = NAN
    new_low: float = NAN
    new_high: float = NAN
    heterogeneity: str = ""
    data: str = ""
    paper: str = ""
    note: str = ""
    y: str = ""
    panels: tuple[PanelAnswers, ...] = field(default=(), repr=False)


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """claims.csv: a row per claim; an answer is four columns, its effect under its own name."""
    rows = []
    for claim in claims:
        row: dict[str, object] = {}
        for each in fields(claim):
            value = getattr(claim, each.name)
            if isinstance(value, Answer):
                row |= {each.name: value.effect, f"{each.name}_low": value.low, f"{each.name}_high": value.high}
                row |= {f"{each.name}_p": value.p}
            elif each.name != "panels":
                row[each.name] = value
        rows.append(row)
    return pd.DataFrame(rows)


RULE = "docs/statistics.md"
