"""Panels that do not count, and what to do where none does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from prs_lightning import measures
from prs_lightning.analysis.evidence import Panel
from prs_lightning.analysis.relations import DRAWN, Relation, in_words, label, plural
from prs_lightning.analysis.verdict import NOT_MEASURABLE

VANISHES = {
    measures.AUDITED_ACCURACY: "the robustness vanishes under the audit",
    measures.DLR: "the robustness vanishes under the DLR loss",
    measures.AUTOATTACK: "the robustness vanishes under AutoAttack",
    measures.TEMPERATURE: "the robustness vanishes at another temperature",
}
"""What it means that RA is 0 under a further attack, where it is not under the first."""


def name_of(panel: Panel) -> str:
    """A panel in words."""
    return f"{label(panel.model)} on {label(panel.data)}"


def left_out(panels: Sequence[Panel]) -> list[str]:
    """The panels that do not count, by their reason."""
    reasons: dict[str, list[str]] = {}
    for panel in panels:
        reasons.setdefault(panel.left_out, []).append(name_of(panel))
    return [f"left out: {in_words(names)}: {why}" for why, names in reasons.items()]


def not_measurable(
    relation: Relation, panels: Sequence[Panel], first: Sequence[Panel], smaller: Callable[[Panel], str]
) -> dict[str, Any]:
    """Outcome, verdict, data and note of a claim without a panel that counts.

    Args:
        first: the panels of RA under the first attack.
        smaller: which epsilon would tell the networks of a panel apart, in words.
    """
    told = {"outcome": NOT_MEASURABLE, "data": f"0 of {plural(len(panels), 'panel')}"}
    notes = left_out(panels)
    at_zero = [panel for panel in panels if panel.edge == 0]
    withstood = {(panel.model, panel.data) for panel in first if not panel.excluded}
    if relation.y in VANISHES and len(at_zero) == len(panels) and {(p.model, p.data) for p in panels} & withstood:
        most = max(panels, key=lambda panel: panel.bound)
        bound = f"no network keeps more than {most.bound:.2g} of the test samples (exact bound, {name_of(most)})"
        return told | {"verdict": VANISHES[relation.y], "note": "; ".join([bound, *notes])}
    at_an_edge = [panel for panel in panels if panel.edge in (0, 1)]
    if relation.y not in DRAWN or relation.y == measures.INCLUSION_RATIO or not at_an_edge:
        return told | {"verdict": "not measurable: these values tell no networks apart", "note": "; ".join(notes)}
    too = "strong" if len(at_zero) * 2 >= len(at_an_edge) else "weak"
    verdict = f"not measurable at this epsilon: too {too} an attack to tell these networks apart"
    advice = [f"{name_of(panel)}: {words}" for panel in panels if (words := smaller(panel))]
    another = "use a smaller epsilon, or the distance" if too == "strong" else "use a larger epsilon"
    return told | {"verdict": f"{verdict}; {another}", "note": "; ".join([*advice, *notes])}


def smaller_epsilon(rows: pd.DataFrame, curve: pd.DataFrame | None = None) -> Callable[[Panel], str]:
    """Tells which epsilon would tell the networks of a panel apart; empty where nothing says so.

    The median distance to the decision boundary: in that ball half of the samples of half of the models are lost. Else
    the largest radius of networks A and B's curve at which both keep between a tenth and nine tenths.

    Args:
        rows: one per run and epoch.
        curve: numbers of figure 3.
    """
    medians: dict[Any, float] = {}
    if measures.DISTANCE in rows:
        known = rows.dropna(subset=[measures.DISTANCE])
        medians = known.groupby(["model", "data"], observed=True)[measures.DISTANCE].median().to_dict()
    of_the_pair = ""
    if curve is not None and len(curve):
        tested = curve[(curve["split"] == "test") & (curve["attack"] == "PGD-20") & (curve["epsilon"] > 0)]
        both = tested.groupby("epsilon")["robust_accuracy"].agg(["min", "max"])
        fit = both[(both["min"] >= 0.1) & (both["max"] <= 0.9)]
        if len(fit):
            of_the_pair = f"epsilon {fit.index.max():.2g} tells networks A and B apart (figure 3)"

    def told(panel: Panel) -> str:
        median = medians.get((panel.model, panel.data))
        if median:
            return f"epsilon about {median:.2g} would do, the median distance"
        return of_the_pair

    return told
