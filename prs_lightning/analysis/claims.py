"""A verdict on every claim of the paper, and on ours, by the rule of docs/statistics.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from prs_lightning import measures
from prs_lightning.analysis.answers import relation_claim
from prs_lightning.analysis.evidence import Panel
from prs_lightning.analysis.excluded import left_out, smaller_epsilon
from prs_lightning.analysis.measurable import why_not
from prs_lightning.analysis.network_claims import failures_claim, group_claim
from prs_lightning.analysis.panels import Statistics, samples_behind
from prs_lightning.analysis.pooling import Estimate, pooled, put_together
from prs_lightning.analysis.relations import BEYOND_RIVALS, DRAWN, MARGINS, MATCHED, Relation, label, margin_of, plural
from prs_lightning.analysis.shown import interval
from prs_lightning.analysis.statistics import holm, trends
from prs_lightning.analysis.verdict import (
    CONTRADICTED,
    NOT_MEASURABLE,
    SUPPORTED,
    UNDECIDED,
    Answer,
    Claim,
    disagree,
    judged,
)

RELATION_CLAIMS = (
    ("low PRS ratio → high robust accuracy", "4", measures.ROBUST_ACCURACY),
    ("low PRS ratio → high cosine similarity of the final layer's weights", "8", measures.COSINE_SIMILARITY),
    ("low PRS ratio → high inclusion ratio", "10", measures.INCLUSION_RATIO),
    ("low PRS ratio → sparse features", "12", measures.SPARSITY),
    ("low PRS ratio → high robust accuracy after the audit", "4b", measures.AUDITED_ACCURACY),
    ("low PRS ratio → larger distance", "4b", measures.DISTANCE),
    ("low PRS ratio → high robust accuracy at the best temperature", "4b", measures.TEMPERATURE),
)
OF_THE_PAPER = 4
"""So many of them are the paper's."""

BEYOND = "PRS predicts audited RA beyond logit gap, norms, local complexity and collapse"


def scoreboard(
    statistics: Statistics,
    rows: pd.DataFrame,
    *,
    groups: pd.DataFrame | None = None,
    failures: pd.DataFrame | None = None,
    curve: pd.DataFrame | None = None,
    margins: Mapping[str, float] = MARGINS,
    level: float = 0.95,
) -> list[Claim]:
    """All claims in the paper's order, and after them those about what the paper did not look at.

    Args:
        rows: of the runs that passed the selection, all epochs.
        groups: numbers of figure 9: network, seed, matching, group, epsilon, robust_accuracy, n.
        failures: numbers of figure 6a: network, seed, outcome, count.
        curve: numbers of figure 3: network, split, attack, epsilon, robust_accuracy.
        margins: by kind of measure, as ``MARGINS``.
    """
    related = partial(
        relation_claim, statistics=statistics, level=level, margins=margins, smaller=smaller_epsilon(rows, curve)
    )
    of_relations = [related(claim, Relation(number, y)) for claim, number, y in RELATION_CLAIMS]
    claims = [
        *of_relations[:OF_THE_PAPER],
        group_claim(groups, level, margin=margins["robust_accuracy"]),
        epochs_claim(rows, level),
        failures_claim(failures, level, margin=margin_of(measures.ZERO_GRADIENT, margins)),
        *of_relations[OF_THE_PAPER:],
        group_claim(groups, level, MATCHED, margin=margins["robust_accuracy"]),
        related(BEYOND, BEYOND_RIVALS),
    ]
    corrected = holm(np.array([claim.p for claim in claims]))
    return [judged(replace(claim, p_holm=p), level) for claim, p in zip(claims, corrected.tolist(), strict=True)]


def epochs_claim(rows: pd.DataFrame, level: float) -> Claim:
    """PRS falls and RA rises with epochs; the weaker part stands in the row: the claim is no better than it."""
    parts = [
        _trend(rows, *part, level)
        for part in ((measures.PRS_RATIO, "falls", -1), (measures.ROBUST_ACCURACY, "rises", 1))
    ]
    told = partial(
        Claim, "PRS ratio falls and RA rises with epochs", "2b, 5",
        "Spearman with the epoch within runs, for the PRS ratio with its sign reversed; the weaker of the two",
        data=f"{plural(rows['run'].nunique(), 'run')}, all epochs", paper="figure 5: falls, rises",
        note="; ".join(part.note for part in parts),
    )  # fmt: skip
    if against := [part for part in parts if part.outcome == CONTRADICTED]:  # one is enough, of two that were tried
        worst = min(against, key=lambda part: part.p)
        p = min(1.0, len(parts) * worst.p)
        return told(outcome=CONTRADICTED, verdict=CONTRADICTED, association=worst.association, p=p)
    if missing := [part for part in parts if part.outcome == NOT_MEASURABLE]:
        return told(outcome=NOT_MEASURABLE, verdict=missing[0].verdict)
    outcome = UNDECIDED if UNDECIDED in [part.outcome for part in parts] else SUPPORTED
    weaker = min(parts, key=lambda part: part.association.effect)
    p = max(part.p for part in parts)
    return told(outcome=outcome, verdict=outcome, association=weaker.association, p=p)


def _trend(rows: pd.DataFrame, column: str, way: str, sign: int, level: float) -> Claim:
    """One part of the claim: ``sign`` times Spearman with the epoch in each run, averaged in each panel."""
    told = partial(Claim, "", "", "")
    known = rows.dropna(subset=[column]) if column in rows else rows.iloc[:0]
    excluded, panels = [], []
    for (model, data), group in known.groupby(["model", "data"], sort=True, observed=True):
        values, epochs = (group[name].to_numpy(float) for name in (column, "epoch"))
        found = trends(values, epochs, pd.factorize(group["run"])[0])
        found = sign * found[~np.isnan(found)]
        why = (
            why_not(values, samples_behind(group, column), drawn=column in DRAWN) if len(found) else "runs of one epoch"
        )
        if why:
            excluded.append(Panel(str(model), str(data), excluded=f"{label(column)} {why}"))
        elif len(found) > 1:
            # Trends that all are 1 are not without an error: that of a single run of as many epochs counts at least.
            least = 1 / (group["run"].value_counts().mean() - 1)
            variance = max(float(found.var(ddof=1)), least) / len(found)
            panels.append(Estimate(float(found.mean()), variance, len(found) - 1))
    words = f"{label(column)} {way}: "
    if not panels:
        none = "not measurable" if excluded else "not measured over epochs"
        note = "; ".join([words + none, *left_out(excluded)])
        return told(outcome=NOT_MEASURABLE, verdict=f"{none}: {label(column)}", note=note)
    whole = pooled(panels, level)
    low, high = np.clip(whole.summary.interval(level), -1, 1).tolist()
    effect = float(np.clip(whole.summary.value, -1, 1))
    outcome = SUPPORTED if low > 0 else CONTRADICTED if high < 0 else UNDECIDED
    answer = Answer(effect, low, high, whole.summary.p)
    apart = outcome == UNDECIDED and disagree([(each.value, each.p) for each in panels], whole.q_p, level)
    how = f"{plural(len(panels), 'panel')}{put_together(len(panels))}"
    shown = f"{interval(answer)} ({how}), {'panels disagree' if apart else outcome}"
    note = "; ".join([words + shown, *left_out(excluded)])
    return told(outcome=outcome, verdict=outcome, association=answer, p=answer.p, note=note)
