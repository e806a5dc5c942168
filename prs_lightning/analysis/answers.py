"""The answers to a relation claim, of all panels together: association, between runs, between epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from prs_lightning.analysis.evidence import Panel, as_estimate
from prs_lightning.analysis.excluded import left_out, name_of, not_measurable
from prs_lightning.analysis.fixed import Permuted
from prs_lightning.analysis.panels import Statistics
from prs_lightning.analysis.pooling import Estimate, Pooled, pooled, put_together
from prs_lightning.analysis.relations import (
    MARGINS,
    PAPER_SLOPES,
    Relation,
    in_words,
    label,
    margin_of,
    plural,
)
from prs_lightning.analysis.shown import interval
from prs_lightning.analysis.statistics import MINIMUM_RUNS
from prs_lightning.analysis.verdict import NOT_IN_THE_PAPER, NOT_MEASURABLE, Answer, Claim, PanelAnswers
from prs_lightning.measures import ROBUST_ACCURACY


def relation_claim(
    claim: str,
    relation: Relation,
    statistics: Statistics,
    level: float = 0.95,
    margins: Mapping[str, float] = MARGINS,
    smaller: Callable[[Panel], str] = lambda panel: "",
) -> Claim:
    """Both answers of a relation, of the panels together; the verdict waits for the correction over all claims.

    Args:
        smaller: which epsilon would tell the networks of a panel apart, in words.
    """
    panels = statistics.panels.get(relation.title, [])
    table = statistics.table[statistics.table["relation"] == relation.title]
    slopes = [] if relation.controls else [slope for (y, *_), slope in PAPER_SLOPES.items() if y == relation.y]
    paper = NOT_IN_THE_PAPER
    if slopes:
        falling = sum(slope < 0 for slope in slopes)
        paper = f"OLS slopes {min(slopes):.2f} to {max(slopes):.2f}; {falling} of {len(slopes)} negative"
    measure = "Spearman with the PRS ratio, sign reversed"
    if relation.controls:
        measure = f"partial {measure}; fixed: {in_words([label(name) for name in relation.controls])}"
    told = partial(
        Claim, claim, relation.figure, measure=measure, paper=paper, y=relation.y,
        margin=margin_of(relation.y, margins), panels=tuple(_panel_answers(panel, level) for panel in panels),
    )  # fmt: skip
    if not panels:
        why = "; ".join(filter(None, table["note"].unique())) or "not measured"
        return told(outcome=NOT_MEASURABLE, verdict="not measured", data="no panel", note=why)
    counted = [panel for panel in panels if not panel.excluded]
    if not counted:
        first = statistics.panels.get(Relation("4", ROBUST_ACCURACY).title, [])
        return told(**not_measurable(relation, panels, first, smaller))
    with_interval = [panel for panel in counted if panel.association.known]
    used = with_interval or counted  # an effect and its interval are of the same panels
    whole = pooled([panel.association for panel in used], level)
    association = _answer(whole.summary, level)
    if not with_interval:
        association = Answer(-float(np.mean([panel.spearman for panel in used])))
    between, epochs = (
        _permuted_answer([getattr(panel, name) for panel in used], level) for name in ("between_runs", "between_epochs")
    )
    agreeing = [answer.p for answer in (between, epochs) if answer.effect * association.effect > 0]
    measure += put_together(len(used))
    new_low, new_high = _reversed(*np.tanh([whole.new_low, whole.new_high]).tolist())
    return told(
        measure=measure, association=association, between_runs=between, between_epochs=epochs,
        change=_change([panel.change for panel in used], level),
        fixed_change=_change([panel.fixed_change for panel in used], level),
        p=max(association.p, min(1.0, 2 * min(agreeing, default=1.0))),
        explained_by=_explained_by(used), i2=whole.i2, q_p=whole.q_p,
        new_low=new_low, new_high=new_high,
        heterogeneity=_heterogeneity(whole, used, Answer(low=new_low, high=new_high)),
        data=f"{plural(len(used), 'panel')}, {plural(sum(panel.models for panel in used), 'model')}, "
        f"{plural(sum(panel.runs for panel in used), 'run')}",
        note="; ".join(_notes(panels, used, table)),
    )  # fmt: skip


def _reversed(low: float, high: float) -> tuple[float, float]:
    return -high, -low


def _answer(summary: Estimate, level: float) -> Answer:
    """A summary on Fisher's z as a correlation, positive where it agrees with the claim."""
    low, high = _reversed(*np.tanh(summary.interval(level)).tolist())
    return Answer(-float(np.tanh(summary.value)), low, high, summary.p)


def together(panels: Sequence[Permuted]) -> Permuted:
    """What permuted runs leave of all panels: the sum, each weighing by its variance."""
    known = [panel for panel in panels if as_estimate(panel).known]
    if not known:
        return Permuted()
    weights = np.array([1 / panel.variance for panel in known])
    plain = weights**2 * [panel.plain for panel in known]  # panels share no run
    volatile, alike = (
        float(plain @ [getattr(panel, name) for panel in known] / plain.sum()) for name in ("volatile", "alike")
    )
    return Permuted(
        float(weights @ [panel.value for panel in known]), float(plain.sum()), volatile, alike,
        null=weights @ np.stack([panel.null for panel in known]),
    )  # fmt: skip


def _permuted_answer(panels: Sequence[Permuted], level: float) -> Answer:
    """The summary of what permuted runs leave, with the p of the permutations of all panels."""
    summary = pooled([as_estimate(panel, correlation=True) for panel in panels], level).summary
    return replace(_answer(summary, level), p=together(panels).p)


def _change(panels: Sequence[Estimate], level: float) -> Answer:
    """The summary of changes, towards small x, with the interval of two one-sided tests."""
    summary = pooled(panels, level).summary
    low, high = _reversed(*summary.interval(2 * level - 1))
    return Answer(-summary.value, low, high, summary.p)


def _panel_answers(panel: Panel, level: float) -> PanelAnswers:
    between, epochs = (
        replace(_answer(as_estimate(permuted, correlation=True), level), p=permuted.p)
        for permuted in (panel.between_runs, panel.between_epochs)
    )
    return PanelAnswers(name_of(panel), _answer(panel.association, level), between, epochs, panel.left_out)


def _explained_by(panels: Sequence[Panel]) -> str:
    """Which of batch size and epoch, held fixed alone, takes half of the association or more."""
    whole = float(np.mean([panel.spearman for panel in panels]))
    left = {
        "batch size": np.nan_to_num([panel.fixed_batch for panel in panels]).mean(),
        "the epoch": np.nan_to_num([panel.fixed_epoch for panel in panels]).mean(),
    }
    return in_words([name for name, value in left.items() if abs(value) < abs(whole) / 2] or list(left))


def _heterogeneity(whole: Pooled, panels: Sequence[Panel], new: Answer) -> str:
    if np.isnan(whole.i2):
        return ""
    told = [f"I² {whole.i2:.0%}, Cochran's Q p {whole.q_p:.2g}"]
    if whole.without:
        told.append(f"a new panel is expected in {interval(new)}")
        each = [-float(np.tanh(summary.value)) for summary in whole.without]
        low_panel, high_panel = (panels[place] for place in (int(np.argmin(each)), int(np.argmax(each))))
        told.append(
            f"without one panel {min(each):.2f} ({name_of(low_panel)}) to {max(each):.2f} ({name_of(high_panel)})"
        )
    return "; ".join(told)


def _notes(panels: Sequence[Panel], used: Sequence[Panel], table: pd.DataFrame) -> list[str]:
    """What the numbers of a claim do not show."""
    agreeing = sum(panel.association.value < 0 for panel in used)
    notes = [f"{agreeing} of {plural(len(used), 'panel')} in the claimed direction"]
    compared = sum(as_estimate(panel.between_runs).known for panel in used)
    if compared < len(used):
        notes.append(f"runs of one batch size can be compared in {compared} of them")
    fixed = table["partial_spearman"].dropna()
    if len(fixed):
        notes.append(f"at fixed batch size, epoch and test accuracy {-fixed.mean():+.2f} (mean of panels)")
    if np.isnan(used[0].association.variance):
        notes.append(
            f"no interval: {MINIMUM_RUNS} runs and 3 more runs than batch sizes (and measures held fixed) are needed"
        )
    return [*notes, *left_out([panel for panel in panels if panel not in used])]
