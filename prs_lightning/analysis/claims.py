"""A verdict on every claim of the paper, by one stated rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from prs_lightning import measures
from prs_lightning.analysis.panels import Statistics
from prs_lightning.analysis.relations import (
    BEYOND_RIVALS,
    MATCHED,
    PAPER_SLOPES,
    UNMATCHED,
    Relation,
    in_words,
    label,
)
from prs_lightning.analysis.statistics import MINIMUM_RUNS, NAN, Array, interval, spearman_of_each

SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported", "not supported", "undecided on this data"

NEGLIGIBLE = 0.1
"""An effect whose whole interval lies within this distance of 0 counts as absent."""

RULE = (
    "Each effect is signed so that a positive one agrees with the claim. Supported: the whole 95% interval lies above "
    f"0. Not supported: it lies below 0, or wholly within ±{NEGLIGIBLE} of 0. Undecided on this data: anything else, "
    f"and whatever has no interval (fewer than {MINIMUM_RUNS} runs in every panel, or not measured). A claim of two "
    "parts is supported if both are, and not supported if one is not."
)


@dataclass(frozen=True)
class Claim:
    """One row of the scoreboard. ``effect``, ``low`` and ``high`` are positive where they agree with the claim."""

    claim: str
    figure: str
    measure: str
    effect: float = NAN
    low: float = NAN
    high: float = NAN
    data: str = ""
    paper: str = ""
    verdict: str = UNDECIDED
    note: str = ""


def verdict(low: float, high: float) -> str:
    """The rule, for the interval of an effect that is positive where it agrees with the claim.

    >>> verdict(0.2, 0.4), verdict(-0.5, -0.2), verdict(-0.05, 0.09), verdict(-0.1, 0.3), verdict(float("nan"), 1.0)
    ('supported', 'not supported', 'not supported', 'undecided on this data', 'undecided on this data')
    """
    if np.isnan(low) or np.isnan(high):
        return UNDECIDED
    if low > 0:
        return SUPPORTED
    if high < 0 or (low >= -NEGLIGIBLE and high <= NEGLIGIBLE):
        return NOT_SUPPORTED
    return UNDECIDED


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "panel"), plural(1200, "panel")
    ('1 panel', '1,200 panels')
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


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

MATCHINGS = {
    UNMATCHED: (
        "inclusion group more robust than exclusion group",
        "RA(inclusion) - RA(exclusion), mean over ε and seeds",
        "figure 9: inclusion above exclusion",
    ),
    MATCHED: (
        "inclusion group more robust at equal margin",
        "RA(inclusion) - RA(exclusion) of pairs matched on the clean margin, mean over ε and seeds",
        "not in the paper",
    ),
}
"""Of each matching of figure 9's groups: the claim, how it is measured, and what the paper says."""


def scoreboard(
    statistics: Statistics,
    rows: pd.DataFrame,
    *,
    groups: pd.DataFrame | None = None,
    failures: pd.DataFrame | None = None,
    level: float = 0.95,
) -> list[Claim]:
    """All claims in the paper's order, and after them those about what the paper did not look at.

    Args:
        rows: of the runs that passed the selection, all epochs.
        groups: numbers of figure 9: network, seed, matching, group, epsilon, robust_accuracy, n.
        failures: numbers of figure 6a: network, outcome, count.
    """
    of_relations = [
        relation_claim(claim, Relation(number, y), statistics, level) for claim, number, y in RELATION_CLAIMS
    ]
    return [
        *of_relations[:OF_THE_PAPER],
        group_claim(groups, level),
        epochs_claim(rows, level),
        failures_claim(failures, level),
        *of_relations[OF_THE_PAPER:],
        group_claim(groups, level, MATCHED),
        relation_claim(BEYOND, BEYOND_RIVALS, statistics, level),
    ]


def relation_claim(claim: str, relation: Relation, statistics: Statistics, level: float) -> Claim:
    """Pooled Spearman: the mean over panels, with the bootstrap draws of the panels averaged draw by draw.

    Of a relation with controls of its own it is the partial one, and an interval needs ``MINIMUM_RUNS`` runs more than
    there are controls: with fewer, runs are too few to tell their effects apart.
    """
    column = "partial_spearman" if relation.controls else "spearman"
    table = statistics.table[statistics.table["relation"] == relation.title]
    known = table[table[column].notna()]
    slopes = [] if relation.controls else [slope for (y, *_), slope in PAPER_SLOPES.items() if y == relation.y]
    paper = "not in the paper"
    if slopes:
        agreeing = sum(slope < 0 for slope in slopes)
        paper = f"OLS slopes {min(slopes):.2f} to {max(slopes):.2f}; {agreeing} of {len(slopes)} negative"
    measure = "Spearman with the PRS ratio, sign reversed, mean of panels"
    fixed = 0
    if relation.controls:
        fixed = max((len(names.split(", ")) for names in known["controls"]), default=0)
        rivals = in_words([label(name) for name in relation.controls])
        measure = f"partial {measure}; fixed: {rivals}, beside batch size, epoch and test accuracy"
    told = partial(Claim, claim, relation.figure, measure, paper=paper)
    if known.empty:
        return told(data="no panel", note="; ".join(filter(None, table["note"].unique())) or "not measured")
    needed = MINIMUM_RUNS + fixed
    draws = [each for each in statistics.draws.get(relation.title, []) if each[0] >= needed]
    low, high = NAN, NAN
    if draws:
        # Panels share no run, so draws of the same position are independent between panels.
        mean = np.mean([spearmans for _, spearmans in draws], axis=0)
        low, high = interval(-mean, sum(runs - fixed - 1 for runs, _ in draws) + 1, level)
    notes = [f"{int((known[column] < 0).sum())} of {len(known)} panels in the claimed direction"]
    if len(draws) < len(known):
        beside = f", {MINIMUM_RUNS} beside {fixed} controls" if fixed else ""
        notes.append(f"interval from {plural(len(draws), 'panel')} of {needed} runs or more{beside}")
    effect = -float(known[column].mean())
    note = "; ".join([*notes, *(() if relation.controls else _reads(known))])
    data = f"{plural(len(known), 'panel')}, {known['n_models'].sum():,} models, {known['n_runs'].sum():,} runs"
    return told(effect=effect, low=low, high=high, data=data, verdict=verdict(low, high), note=note)


def _reads(known: pd.DataFrame) -> Iterator[str]:
    """What the scoreboard must not hide: how far the relation survives within runs and at fixed controls."""
    readings = known["reading"][known["reading"] != ""]
    if len(readings):
        within = readings.str.startswith("within").sum()
        yield f"an effect within runs in {within} of {len(readings)} panels"
        if within == 0 and readings.str.startswith("between").any():
            yield "the relation is between runs only"
    partial_high = known["partial_high"].dropna()
    if len(partial_high):
        kept = int((partial_high < 0).sum())
        yield f"at fixed batch size, epoch and test accuracy in {kept} of {len(partial_high)}"


def group_claim(groups: pd.DataFrame | None, level: float, matching: str = UNMATCHED) -> Claim:
    """Figure 9: RA of the inclusion group minus that of the exclusion group, mean over epsilon > 0, for each seed."""
    claim, measure, paper = MATCHINGS[matching]
    told = partial(Claim, claim, "9", measure, paper=paper)
    if groups is None:
        return told(data="no pair of networks", note="figure 9 was not made")
    groups = groups[groups["matching"] == matching]
    attacked = groups[(groups["epsilon"] > 0) & (groups["n"] > 0)]
    wide = attacked.pivot_table("robust_accuracy", ["network", "seed", "epsilon"], "group")
    wide = wide.reindex(columns=["inclusion", "exclusion"]).dropna()
    if wide.empty:
        why = (
            "a group has no samples" if matching == UNMATCHED else "no two samples of the groups are as near in margin"
        )
        return told(data="one group is empty", note=why)
    by_seed = (wide["inclusion"] - wide["exclusion"]).groupby(["network", "seed"]).mean()
    effect, low, high = _mean(by_seed.to_numpy(), level)
    note = "; ".join(f"network {name}: {value:+.3f}" for name, value in by_seed.groupby("network").mean().items())
    data = plural(len(by_seed), "network")
    return told(effect=effect, low=low, high=high, data=data, verdict=verdict(low, high), note=note)


def _mean(values: Array, level: float) -> tuple[float, float, float]:
    """The mean of independent values with Student's interval, which is NaN below ``MINIMUM_RUNS``."""
    if len(values) < MINIMUM_RUNS:
        return float(values.mean()) if len(values) else NAN, NAN, NAN
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def _trend(rows: pd.DataFrame, column: str, sign: int, level: float) -> tuple[float, float, float, int]:
    """``sign`` times Spearman with the epoch in each run: the mean over runs, its interval, and how many runs."""
    known = rows.reindex(columns=["run", "epoch", column]).dropna()
    codes, _ = pd.factorize(known["run"], sort=True)
    trends = sign * spearman_of_each(known["epoch"].to_numpy(float), known[column].to_numpy(float), codes)
    trends = trends[~np.isnan(trends)]
    effect, low, high = np.clip(_mean(trends, level), -1, 1).tolist()
    return effect, low, high, len(trends)


def epochs_claim(rows: pd.DataFrame, level: float) -> Claim:
    """PRS falls and RA rises with epochs; the weaker part stands in the row: the claim is no better than it."""
    parts, verdicts, notes = [], [], []
    for column, way, sign in ((measures.PRS_RATIO, "falls", -1), (measures.ROBUST_ACCURACY, "rises", 1)):
        effect, low, high, runs = _trend(rows, column, sign, level)
        within = "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
        shown = f"{effect:.2f}{within} ({plural(runs, 'run')})" if runs else "not measured over epochs"
        parts.append((effect, low, high))
        verdicts.append(verdict(low, high))
        notes.append(f"{label(column)} {way}: {shown}, {verdicts[-1]}")
    joint = SUPPORTED if set(verdicts) == {SUPPORTED} else NOT_SUPPORTED if NOT_SUPPORTED in verdicts else UNDECIDED
    effect, low, high = min(parts, key=lambda part: np.inf if np.isnan(part[0]) else part[0])
    return Claim(
        "PRS ratio falls and RA rises with epochs", "2b, 5",
        "Spearman with the epoch within runs, for the PRS ratio with its sign reversed; the weaker of the two",
        effect, low, high, f"{rows['run'].nunique()} runs, all epochs", "figure 5: falls, rises", joint,
        "; ".join(notes),
    )  # fmt: skip


def failures_claim(failures: pd.DataFrame | None, level: float) -> Claim:
    """Figure 6a: share of zero-gradient samples among network B's failed attacks, minus one half; exact interval."""
    told = partial(
        Claim, "failures against network B have zero gradients", "6a",
        "share of B's failures with zero gradient, above ½", paper="figure 6a: most of B's failures",
    )  # fmt: skip
    if failures is None:
        return told(data="no pair of networks", note="figure 6a was not made")
    counts = failures[failures["network"] == "B"].groupby("outcome")["count"].sum()
    zero, moving = int(counts.get("failure_zero_gradient", 0)), int(counts.get("failure_with_gradient", 0))
    if zero + moving == 0:
        return told(data="no failures", note="every attack on network B succeeded")
    exact = stats.binomtest(zero, zero + moving).proportion_ci(level, "exact")
    low, high = float(exact.low) - 0.5, float(exact.high) - 0.5
    share, failed = zero / (zero + moving), plural(zero + moving, "failed attack")
    note = f"share {share:.3f} of {failed}; the interval counts samples of this one network"
    return told(effect=share - 0.5, low=low, high=high, data=failed, verdict=verdict(low, high), note=note)
