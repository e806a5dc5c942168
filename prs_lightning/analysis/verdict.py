"""What is known of a claim, and the verdict on it: a function of that and nothing else (docs/statistics.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import pandas as pd

NAN = float("nan")
NOT_IN_THE_PAPER = "not in the paper"
"""What stands for the paper's finding where it has none."""

SUPPORTED, CONTRADICTED, NEGLIGIBLE = "supported", "contradicted", "negligible"
UNDECIDED, NOT_MEASURABLE = "undecided", "not measurable"
OUTCOMES = (SUPPORTED, CONTRADICTED, NEGLIGIBLE, UNDECIDED, NOT_MEASURABLE)

RULE = (
    "Supported: over all models the association has the claimed sign, and so has the relation between runs or between "
    "the epochs of a run at fixed batch size and epoch; its p is below 0.05 (with 95% "
    "intervals) after correction for all claims. "
    "Contradicted: the same with the other sign. Negligible: two one-sided tests place both changes within the margin. "
    "Not measurable: the values do not tell these networks apart. Undecided: anything else; where an association is "
    "there but nothing of it is left at fixed batch size and epoch, or where panels disagree, the verdict says so. "
    "docs/statistics.md has the rule in full."
)
"""The rule of the verdicts, short."""


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
        explained_by: what would explain an association that is nothing else: batch size, the epoch, or both.
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
    explained_by: str = ""
    y: str = ""
    panels: tuple[PanelAnswers, ...] = field(default=(), repr=False)


def disagree(panels: Sequence[tuple[float, float]], q_p: float, level: float) -> bool:
    """Whether one panel says the opposite of another, each for certain, and Cochran's Q that panels differ.

    Args:
        panels: effect and p of each; p counts as many times as there are panels (Bonferroni).
    """
    sure = {np.sign(effect) for effect, p in panels if p * len(panels) < 1 - level}
    return q_p < 1 - level and len(sure) > 1


def judged(claim: Claim, level: float = 0.95) -> Claim:
    """The claim with its verdict; ``p_holm`` is known by now.

    A claim of another form than a relation brings its outcome along, and keeps it if the corrected p allows it.
    """
    significant = 1 - level
    corrected = f"undecided after correction for all claims (p {claim.p:.2g}, corrected {claim.p_holm:.2g})"
    if claim.outcome in (SUPPORTED, CONTRADICTED) and not claim.p_holm <= significant:
        return replace(claim, outcome=UNDECIDED, verdict=corrected)
    if claim.outcome != UNDECIDED or not claim.panels:
        return claim
    effect, low, high = claim.association.effect, claim.association.low, claim.association.high
    if np.isnan(low):
        return replace(claim, verdict="undecided: too few runs for an interval")
    panels = [(each.association.effect, each.association.p) for each in claim.panels if not each.excluded]
    if disagree(panels, claim.q_p, level):
        return replace(claim, verdict="panels disagree")
    found = low * high > 0
    fixed = [claim.between_runs, claim.between_epochs]
    holding = [each for each in fixed if each.low * each.high > 0 and 2 * each.p <= significant]
    alike = [each for each in holding if each.effect * effect > 0]
    if len({np.sign(each.effect) for each in holding}) > 1:
        return replace(claim, verdict="undecided: opposite directions between runs and between epochs")
    if found and alike and claim.p_holm <= significant:
        outcome = SUPPORTED if effect > 0 else CONTRADICTED
        small = " but small" if abs(claim.fixed_change.effect) < claim.margin else ""
        return replace(claim, outcome=outcome, verdict=outcome + small)
    changes = (claim.change, claim.fixed_change)
    if all(each.low > -claim.margin and each.high < claim.margin for each in changes):
        return replace(claim, outcome=NEGLIGIBLE, verdict=NEGLIGIBLE)
    if found and alike:
        return replace(claim, verdict=corrected)
    if found:
        against = "" if effect > 0 else ", against the claim"
        return replace(claim, verdict=f"association only{against}: {_why_only(claim, opposite=bool(holding))}")
    alone = "undecided: a relation at fixed batch size and epoch alone"
    return replace(claim, verdict=alone if holding else "undecided on this data")


def _why_only(claim: Claim, *, opposite: bool) -> str:
    """What there is instead at fixed batch size and epoch, in words.

    It takes intervals that hold 0 and end below half of the association to say that this is explained.
    """
    if opposite:
        return "the opposite at fixed batch size and epoch"
    sign = 1 if claim.association.effect > 0 else -1
    known = [each for each in (claim.between_runs, claim.between_epochs) if not np.isnan(each.low)]
    ends = [(min(sign * each.low, sign * each.high), max(sign * each.low, sign * each.high)) for each in known]
    half = abs(claim.association.effect) / 2
    if ends and all(low <= 0 and high < half for low, high in ends):
        return f"explained by {claim.explained_by}"
    return "not shown at fixed batch size and epoch"


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
