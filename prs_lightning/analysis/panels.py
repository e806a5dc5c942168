"""The table of statistics: a row per relation, network architecture and data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from prs_lightning.analysis.relations import PAPER_SLOPES, RELATIONS, Relation, label
from prs_lightning.analysis.resampling import MINIMUM_RUNS, Draws, cluster_bootstrap, interval
from prs_lightning.analysis.statistics import (
    NAN,
    between_interval,
    cluster_robust_p,
    holm,
    is_constant,
    mixed_model,
    ols,
    partial_spearman,
    spearman,
)
from prs_lightning.measures import TEST_ACCURACY

CONTROLS = ("batch_size", "epoch", TEST_ACCURACY)
"""Held fixed in every partial Spearman correlation; the rank of the batch size is the rank of its logarithm."""

CORRECTED = ("ols_p", "cluster_p", "within_p", "between_p", "partial_p")
"""Each of these has a twin ``<name>_holm``, corrected over the panels of the same relation."""

COLUMNS = (
    "figure", "relation", "y", "x", "model", "data", "n_models", "n_runs",
    "ols_slope", "ols_intercept", "ols_p", "ols_p_holm", "r_squared", "paper_slope",
    "slope_low", "slope_high", "cluster_p", "cluster_p_holm",
    "spearman", "spearman_low", "spearman_high",
    "partial_spearman", "partial_low", "partial_high", "partial_p", "partial_p_holm", "controls",
    "within_slope", "within_low", "within_high", "within_p", "within_p_holm",
    "between_slope", "between_low", "between_high", "between_p", "between_p_holm",
    "one_per_run_slope", "one_per_run_p", "one_per_run_spearman", "one_per_run_n",
    "reading", "note",
)  # fmt: skip
"""The columns of statistics.csv."""

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Statistics:
    """``table`` with ``COLUMNS``, and the bootstrap draws of each panel under (relation's key, model, data)."""

    table: pd.DataFrame
    draws: dict[tuple[str, str, str], Draws]


def panel_statistics(
    models: pd.DataFrame,
    relations: Iterable[Relation] = RELATIONS,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    progress: Callable[[str], None] = lambda line: None,
) -> Statistics:
    """Every statistic of every panel; what cannot be computed is NaN and ``note`` says why.

    Args:
        models: ``Selection.models``.
        draws: of the cluster bootstrap.
        seed: of the draws.
        level: of the intervals.
    """
    rows, kept = [], {}
    for relation in relations:
        if missing := [name for name in (relation.x, relation.y) if name not in models or models[name].isna().all()]:
            rows.append(_empty(relation, f"not measured: {', '.join(label(name) for name in missing)}"))
            continue
        progress(f"statistics: {relation.title}")
        panels = []
        for (model, data), group in models.groupby(["model", "data"], sort=True):
            row, resampled = _panel(relation, group, draws, seed, level)
            panels.append({"model": model, "data": data} | row)
            if resampled is not None:
                kept[relation.key, str(model), str(data)] = resampled
        rows += _corrected(panels)
    return Statistics(pd.DataFrame(rows, columns=list(COLUMNS)), kept)


def _empty(relation: Relation, note: str) -> dict[str, Any]:
    return {
        "figure": relation.figure, "relation": relation.title, "y": relation.y, "x": relation.x,
        "model": "", "data": "", "n_models": 0, "n_runs": 0, "reading": "", "note": note,
    }  # fmt: skip


def _corrected(panels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for name in CORRECTED:
        corrected = holm(np.array([panel.get(name, NAN) for panel in panels]))
        for panel, value in zip(panels, corrected, strict=True):
            panel[f"{name}_holm"] = value
    return panels


def _panel(
    relation: Relation, group: pd.DataFrame, draws: int, seed: int, level: float
) -> tuple[dict[str, Any], Draws | None]:
    model, data = str(group["model"].iloc[0]), str(group["data"].iloc[0])
    wanted = [name for name in (*CONTROLS, *relation.controls) if name in group]
    known = group.dropna(subset=[relation.x, relation.y])
    x, y = known[relation.x].to_numpy(float), known[relation.y].to_numpy(float)
    runs, names = pd.factorize(known["run"])
    row = _empty(relation, "") | {
        "model": model, "data": data, "n_models": len(x), "n_runs": len(names),
        "paper_slope": PAPER_SLOPES.get((relation.y, model, data), NAN) if not relation.controls else NAN,
    }  # fmt: skip
    notes = _degenerate(relation, x, y, len(names))
    if len(x) < 3 or is_constant(x) or is_constant(y):
        return row | {"note": "; ".join(notes)}, None
    line = ols(x, y)
    row |= {"ols_slope": line.slope, "ols_intercept": line.intercept, "ols_p": line.p, "r_squared": line.r_squared}
    row |= {"spearman": spearman(x, y), "cluster_p": cluster_robust_p(x, y, runs)}
    columns = {name: known[name].to_numpy(float) for name in wanted}
    controls = [column for column in columns.values() if not np.isnan(column).any()]
    row["partial_spearman"], row["partial_p"] = partial_spearman(x, y, controls)
    row["controls"] = ", ".join(label(name) for name, column in columns.items() if not np.isnan(column).any())
    if np.isnan(row["partial_spearman"]):
        notes.append("partial Spearman: the controls leave nothing of x or y")
    mixed = mixed_model(x, y, runs)
    row |= {"within_slope": mixed.within, "within_p": mixed.within_p}
    row |= {"between_slope": mixed.between, "between_p": mixed.between_p}
    if mixed.note:
        notes.append(mixed.note)
    row |= _one_per_run(relation, known)
    resampled = None
    if len(names) >= MINIMUM_RUNS:
        row["between_low"], row["between_high"] = between_interval(x, y, runs, level)
        resampled = cluster_bootstrap(x, y, runs, controls, draws=draws, seed=seed)
        for name in ("slope", "spearman", "partial", "within"):
            row[f"{name}_low"], row[f"{name}_high"] = interval(getattr(resampled, name), len(names), level)
    return row | {"reading": reading(row), "note": "; ".join(notes)}, resampled


def _degenerate(relation: Relation, x: np.ndarray, y: np.ndarray, runs: int) -> list[str]:
    if len(x) < 3:
        return [f"{len(x)} models: too few"]
    notes = [
        f"{label(name)} is constant ({values[0]:.4g}): no slope, no correlation"
        for name, values in ((relation.x, x), (relation.y, y))
        if is_constant(values)
    ]
    if runs < MINIMUM_RUNS:
        notes.append(f"{runs} run{'s' * (runs != 1)}: no interval below {MINIMUM_RUNS} runs")
    return notes


def _one_per_run(relation: Relation, known: pd.DataFrame) -> dict[str, Any]:
    """The same on the last model of each run alone: these are independent, so plain p-values hold."""
    last = known.sort_values("epoch").groupby("run").tail(1)
    x, y = last[relation.x].to_numpy(float), last[relation.y].to_numpy(float)
    line = ols(x, y)
    return {
        "one_per_run_slope": line.slope, "one_per_run_p": line.p,
        "one_per_run_spearman": spearman(x, y), "one_per_run_n": len(last),
    }  # fmt: skip


def reading(row: dict[str, Any]) -> str:
    """Where the relation lives, in words: within runs, between runs, both, or neither.

    An effect is there if its interval (over runs) excludes 0 and its p in the mixed model is below 0.05.
    """

    def sign(name: str) -> int | None:
        low, high, p = row.get(f"{name}_low", NAN), row.get(f"{name}_high", NAN), row.get(f"{name}_p", NAN)
        if np.isnan([low, high, p]).any():
            return None
        return int(np.sign(row[f"{name}_slope"])) if low * high > 0 and p < SIGNIFICANT else 0

    within, between = sign("within"), sign("between")
    if within is None or between is None:
        return ""
    if within and between:
        return "within and between runs" if within == between else "opposite directions within and between runs"
    if between:
        return "between runs only: no effect within a run was found"
    if within:
        return "within runs only: no effect between runs was found"
    misleading = ", although the OLS p is small" if row["ols_p"] < SIGNIFICANT else ""
    return f"no effect was found within or between runs{misleading}"
