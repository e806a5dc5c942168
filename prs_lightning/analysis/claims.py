"""A verdict on every claim of the paper, by one stated rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import stats

from prs_lightning.analysis.panels import Statistics
from prs_lightning.analysis.relations import PAPER_SLOPES, Relation, label
from prs_lightning.analysis.resampling import MINIMUM_RUNS, interval
from prs_lightning.analysis.statistics import NAN, Array, spearman
from prs_lightning.measures import (
    AUDITED_ACCURACY,
    COSINE_SIMILARITY,
    INCLUSION_RATIO,
    PRS_RATIO,
    ROBUST_ACCURACY,
    SPARSITY,
)

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
    effect: float
    low: float
    high: float
    data: str
    paper: str
    verdict: str
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
    ("low PRS ratio → high robust accuracy", "4", ROBUST_ACCURACY),
    ("low PRS ratio → high cosine similarity of the final layer's weights", "8", COSINE_SIMILARITY),
    ("low PRS ratio → high inclusion ratio", "10", INCLUSION_RATIO),
    ("low PRS ratio → sparse features", "12", SPARSITY),
)
AUDIT_CLAIM = ("low PRS ratio → high robust accuracy after the audit", "4b", AUDITED_ACCURACY)


def scoreboard(
    statistics: Statistics,
    rows: pd.DataFrame,
    *,
    groups: pd.DataFrame | None = None,
    failures: pd.DataFrame | None = None,
    level: float = 0.95,
) -> list[Claim]:
    """All claims in the paper's order, and after them the one about robustness after the audit.

    Args:
        statistics: of the panels.
        rows: of the runs that passed the selection, all epochs.
        groups: numbers of figure 9: network, seed, group, epsilon, robust_accuracy, n.
        failures: numbers of figure 6a: network, outcome, count.
    """
    related = [relation_claim(*claim, statistics, level) for claim in (*RELATION_CLAIMS, AUDIT_CLAIM)]
    return [
        *related[:-1],
        group_claim(groups, level),
        epochs_claim(rows, level),
        failures_claim(failures, level),
        related[-1],
    ]


def relation_claim(claim: str, figure: str, y: str, statistics: Statistics, level: float) -> Claim:
    """Pooled Spearman: the mean over panels, with the bootstrap draws of the panels averaged draw by draw."""
    relation = Relation(figure, y)
    table = statistics.table[(statistics.table["y"] == y) & (statistics.table["relation"] == relation.title)]
    known = table[table["spearman"].notna()]
    paper = _paper_slopes(y)
    measure = "Spearman with the PRS ratio, sign reversed, mean of panels"
    if known.empty:
        why = "; ".join(dict.fromkeys(note for note in table["note"] if note)) or "not measured"
        return Claim(claim, figure, measure, NAN, NAN, NAN, "no panel", paper, UNDECIDED, why)
    low, high, pooled = _pooled(relation, statistics, level)
    described = f"{plural(len(known), 'panel')}, {known['n_models'].sum():,} models, {known['n_runs'].sum():,} runs"
    effect = -float(known["spearman"].mean())
    decided = verdict(low, high)
    notes = [f"{int((known['spearman'] < 0).sum())} of {len(known)} panels in the claimed direction"]
    if pooled < len(known):
        notes.append(f"interval from {plural(pooled, 'panel')} of {MINIMUM_RUNS} runs or more")
    return Claim(claim, figure, measure, effect, low, high, described, paper, decided, "; ".join(notes + _reads(known)))


def _pooled(relation: Relation, statistics: Statistics, level: float) -> tuple[float, float, int]:
    draws = [resampled for (key, _, _), resampled in statistics.draws.items() if key == relation.title]
    if not draws:
        return NAN, NAN, 0
    # Panels share no run, so draws of the same position are independent between panels.
    runs = sum(resampled.runs - 1 for resampled in draws) + 1
    mean = np.mean([resampled.spearman for resampled in draws], axis=0)
    return *interval(-mean, runs, level), len(draws)


def _reads(known: pd.DataFrame) -> list[str]:
    """What the scoreboard must not hide: how far the relation survives within runs and at fixed controls."""
    told = []
    readings = known["reading"][known["reading"] != ""]
    if len(readings):
        within = readings.str.startswith("within").sum()
        told.append(f"an effect within runs in {within} of {len(readings)} panels")
        if within == 0 and readings.str.startswith("between").any():
            told.append("the relation is between runs only")
    partial = known[known["partial_low"].notna()]
    if len(partial):
        kept = int((partial["partial_high"] < 0).sum())
        told.append(f"at fixed batch size, epoch and test accuracy in {kept} of {len(partial)}")
    return told


def _paper_slopes(y: str) -> str:
    slopes = [slope for (name, _, _), slope in PAPER_SLOPES.items() if name == y]
    if not slopes:
        return "not in the paper"
    agreeing = sum(slope < 0 for slope in slopes)
    return f"OLS slopes {min(slopes):.2f} to {max(slopes):.2f}; {agreeing} of {len(slopes)} negative"


def group_claim(groups: pd.DataFrame | None, level: float) -> Claim:
    """Figure 9: RA of the inclusion group minus that of the exclusion group, mean over epsilon > 0, for each seed."""
    text = (
        "inclusion group more robust than exclusion group",
        "9",
        "RA(inclusion) - RA(exclusion), mean over ε and seeds",
    )
    paper = "figure 9: inclusion above exclusion"
    if groups is None or groups.empty:
        return Claim(*text, NAN, NAN, NAN, "no pair of networks", paper, UNDECIDED, "figure 9 was not made")
    attacked = groups[(groups["epsilon"] > 0) & (groups["n"] > 0)]
    wide = attacked.pivot_table("robust_accuracy", ["network", "seed", "epsilon"], "group")
    if not {"inclusion", "exclusion"} <= set(wide.columns) or wide.dropna().empty:
        return Claim(*text, NAN, NAN, NAN, "one group is empty", paper, UNDECIDED, "a group has no samples")
    gap = (wide["inclusion"] - wide["exclusion"]).dropna()
    by_network = gap.groupby(["network", "seed"]).mean()
    low, high = _t_interval(by_network.to_numpy(), level)
    note = "; ".join(f"network {name}: {value:+.3f}" for name, value in by_network.groupby("network").mean().items())
    return Claim(
        *text, float(by_network.mean()), low, high, plural(len(by_network), "network"), paper, verdict(low, high), note
    )


def _t_interval(values: Array, level: float) -> tuple[float, float]:
    """Student's interval of a mean of independent values; NaN below ``MINIMUM_RUNS``."""
    if len(values) < MINIMUM_RUNS:
        return NAN, NAN
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def epochs_claim(rows: pd.DataFrame, level: float) -> Claim:
    """PRS falls and RA rises with epochs: Spearman with the epoch in each run, mean over runs (all epochs)."""
    parts = [_trend(rows, PRS_RATIO, -1, level), _trend(rows, ROBUST_ACCURACY, 1, level)]
    verdicts = [verdict(low, high) for _, low, high, _ in parts]
    joint = SUPPORTED if set(verdicts) == {SUPPORTED} else NOT_SUPPORTED if NOT_SUPPORTED in verdicts else UNDECIDED
    names = ((PRS_RATIO, "falls"), (ROBUST_ACCURACY, "rises"))
    note = "; ".join(
        f"{label(name)} {way}: {_shown(*part)}, {decided}"
        for (name, way), part, decided in zip(names, parts, verdicts, strict=True)
    )
    # The weaker part stands in the row: the claim is no better than it.
    effect, low, high, _ = min(parts, key=lambda part: np.inf if np.isnan(part[0]) else part[0])
    return Claim(
        "PRS ratio falls and RA rises with epochs", "2b, 5",
        "Spearman with the epoch within runs, for the PRS ratio with its sign reversed; the weaker of the two",
        effect, low, high, f"{rows['run'].nunique()} runs, all epochs", "figure 5: falls, rises", joint, note,
    )  # fmt: skip


def _trend(rows: pd.DataFrame, column: str, sign: int, level: float) -> tuple[float, float, float, int]:
    if column not in rows:
        return NAN, NAN, NAN, 0
    known = rows.dropna(subset=[column])
    values = np.array([sign * _with_epoch(run, column) for _, run in known.groupby("run")], dtype=float)
    values = values[~np.isnan(values)]
    if not len(values):
        return NAN, NAN, NAN, 0
    low, high = np.clip(_t_interval(values, level), -1, 1)
    return float(values.mean()), float(low), float(high), len(values)


def _shown(effect: float, low: float, high: float, runs: int) -> str:
    if np.isnan(effect):
        return "not measured over epochs"
    return f"{effect:.2f}" + ("" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]") + f" ({plural(runs, 'run')})"


def _with_epoch(run: pd.DataFrame, column: str) -> float:
    return spearman(run["epoch"].to_numpy(float), run[column].to_numpy(float))


def failures_claim(failures: pd.DataFrame | None, level: float) -> Claim:
    """Figure 6a: share of zero-gradient samples among network B's failed attacks, minus one half; exact interval."""
    text = ("failures against network B have zero gradients", "6a", "share of B's failures with zero gradient, above ½")
    paper = "figure 6a: most of B's failures"
    if failures is None or failures.empty:
        return Claim(*text, NAN, NAN, NAN, "no pair of networks", paper, UNDECIDED, "figure 6a was not made")
    counts = failures[failures["network"] == "B"].groupby("outcome")["count"].sum()
    zero, moving = int(counts.get("failure_zero_gradient", 0)), int(counts.get("failure_with_gradient", 0))
    if zero + moving == 0:
        return Claim(*text, NAN, NAN, NAN, "no failures", paper, UNDECIDED, "every attack on network B succeeded")
    exact = stats.binomtest(zero, zero + moving).proportion_ci(level, "exact")
    low, high = float(exact.low) - 0.5, float(exact.high) - 0.5
    share = zero / (zero + moving)
    failed = plural(zero + moving, "failed attack")
    note = f"share {share:.3f} of {failed}; the interval counts samples of this one network"
    return Claim(*text, share - 0.5, low, high, failed, paper, verdict(low, high), note)


def claims_frame(claims: Sequence[Claim]) -> pd.DataFrame:
    """The scoreboard as a table."""
    return pd.DataFrame([asdict(claim) for claim in claims])
