"""The table of statistics: a row per relation, network architecture and data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prs_lightning.analysis import statistics
from prs_lightning.analysis.relations import PAPER_SLOPES, RELATIONS, Relation, label
from prs_lightning.analysis.statistics import MINIMUM_RUNS, NAN, Array
from prs_lightning.measures import TEST_ACCURACY

CONTROLS = ("batch_size", "epoch", TEST_ACCURACY)
"""Held fixed in every partial Spearman correlation; the rank of the batch size is the rank of its logarithm."""

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
"""The columns of statistics.csv; ``<name>_holm`` is ``<name>`` corrected over the panels of the same relation."""

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Statistics:
    """``table`` has ``COLUMNS``; ``draws``: relation title -> (runs, draws of Spearman) of each panel that has any.

    Of a relation with controls of its own the draws are those of the partial correlation.
    """

    table: pd.DataFrame
    draws: dict[str, list[tuple[int, Array]]]


def panel_statistics(
    models: pd.DataFrame,
    relations: Iterable[Relation] = RELATIONS,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    progress: Callable[[str], None] = lambda line: None,
) -> Statistics:
    """Every statistic of every panel of ``Selection.models``; what cannot be computed is NaN and ``note`` says why."""
    rows: list[dict[str, Any]] = []
    kept: dict[str, list[tuple[int, Array]]] = {}
    relations = list(relations)
    panels = [
        (str(model), str(data), group, RankCovariances(group, relations, draws, seed))
        for (model, data), group in models.groupby(["model", "data"], sort=True)
    ]
    for relation in relations:
        empty = {
            "figure": relation.figure, "relation": relation.title, "y": relation.y, "x": relation.x,
            "model": "", "data": "", "n_models": 0, "n_runs": 0, "reading": "",
        }  # fmt: skip
        if missing := [name for name in relation.columns if name not in models or models[name].isna().all()]:
            rows.append(empty | {"note": f"not measured: {', '.join(label(name) for name in missing)}"})
            continue
        progress(f"statistics: {relation.title}")
        for model, data, group, covariances in panels:
            known = group.dropna(subset=relation.columns)
            row, resampled = _panel(relation, known, covariances, level)
            paper = NAN if relation.controls else PAPER_SLOPES.get((relation.y, model, data), NAN)
            rows.append(empty | {"model": model, "data": data, "n_models": len(known), "paper_slope": paper} | row)
            if resampled:
                drawn = resampled["partial" if relation.controls else "spearman"]
                kept.setdefault(relation.title, []).append((row["n_runs"], drawn))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in COLUMNS:
        if f"{name}_holm" in COLUMNS:
            p_values = table.groupby("relation", sort=False)[name]
            table[f"{name}_holm"] = p_values.transform(lambda group: statistics.holm(group.to_numpy(float)))
    return Statistics(table, kept)


class RankCovariances:
    """The draws of one panel, and in them the covariances of ranks of all that its relations name.

    Relations that are known of the same models share them: ranking the PRS ratio and the controls anew for each would
    be most of the time of an analysis.
    """

    def __init__(self, group: pd.DataFrame, relations: Iterable[Relation], draws: int, seed: int) -> None:
        self.group, self.draws, self.seed = group, draws, seed
        self.relations = [each for each in relations if {*each.columns} <= {*group.columns}]
        self.made: dict[bytes, tuple[list[str], Array, Array]] = {}

    def of(self, known: pd.DataFrame, runs: NDArray[np.intp], names: Iterable[str]) -> tuple[Array, Array]:
        """The counts of runs in the draws, and the covariances of ``names``, all known of the models ``known``."""
        key = known.index.to_numpy().tobytes()
        if key not in self.made:
            alike = [each for each in self.relations if len(self.group.dropna(subset=each.columns)) == len(known)]
            wanted = dict.fromkeys(name for each in alike for name in (*each.columns, *CONTROLS))
            there = [name for name in wanted if name in known and not known[name].isna().any()]
            counts = statistics.drawn_runs(runs, draws=self.draws, seed=self.seed)
            columns = [known[name].to_numpy(float) for name in there]
            self.made[key] = there, counts, statistics.rank_covariances(columns, runs, counts)
        there, counts, covariances = self.made[key]
        places = [there.index(name) for name in names]
        return counts, covariances[:, places][:, :, places]


def _panel(
    relation: Relation, known: pd.DataFrame, covariances: RankCovariances, level: float
) -> tuple[dict[str, Any], dict[str, Array]]:
    """What there is to say of the models with x and y, and the draws if there are runs enough."""
    x, y = known[relation.x].to_numpy(float), known[relation.y].to_numpy(float)
    runs, names = pd.factorize(known["run"])
    row: dict[str, Any] = {"n_runs": len(names)}
    if len(x) < 3:
        return row | {"note": f"{len(x)} models: too few"}, {}
    notes = [
        f"{label(name)} is constant ({values[0]:.4g}): no slope, no correlation"
        for name, values in ((relation.x, x), (relation.y, y))
        if statistics.is_constant(values)
    ]
    constant = bool(notes)
    if len(names) < MINIMUM_RUNS:
        notes.append(f"{len(names)} run{'s' * (len(names) != 1)}: no interval below {MINIMUM_RUNS} runs")
    if constant:
        return row | {"note": "; ".join(notes)}, {}
    wanted = [name for name in (*CONTROLS, *relation.controls) if name in known and not known[name].isna().any()]
    controls = [known[name].to_numpy(float) for name in wanted]
    slopes, without = statistics.mixed_model(x, y, runs)
    # The last models of the runs are independent, so plain p-values hold.
    last = known.sort_values("epoch").groupby("run").tail(1)
    last_x, last_y = last[relation.x].to_numpy(float), last[relation.y].to_numpy(float)
    row |= slopes | {
        "spearman": statistics.spearman(x, y), "cluster_p": statistics.cluster_robust_p(x, y, runs),
        "controls": ", ".join(label(name) for name in wanted),
        "one_per_run_spearman": statistics.spearman(last_x, last_y), "one_per_run_n": len(last),
    }  # fmt: skip
    row["ols_slope"], row["ols_intercept"], row["r_squared"], row["ols_p"] = statistics.ols(x, y)
    row["one_per_run_slope"], _, _, row["one_per_run_p"] = statistics.ols(last_x, last_y)
    row["partial_spearman"], row["partial_p"] = statistics.partial_spearman(x, y, controls)
    if np.isnan(row["partial_spearman"]):
        notes.append("partial Spearman: the controls leave nothing of x or y")
    if without:
        notes.append(without)
    resampled: dict[str, Array] = {}
    if len(names) >= MINIMUM_RUNS:
        row["between_low"], row["between_high"] = statistics.between_interval(x, y, runs, level)
        varying = [name for name, values in zip(wanted, controls, strict=True) if not statistics.is_constant(values)]
        counts, ranks = covariances.of(known, runs, (relation.x, relation.y, *varying))
        resampled = statistics.resampled(x, y, runs, counts, ranks)
    for name, drawn in resampled.items():
        row[f"{name}_low"], row[f"{name}_high"] = statistics.interval(drawn, len(names), level)
    return row | {"reading": reading(row), "note": "; ".join(notes)}, resampled


def reading(row: dict[str, Any]) -> str:
    """Where the relation lives, in words: within runs, between runs, both, or neither; empty if that is not known.

    An effect is there if its interval (over runs) excludes 0 and its p in the mixed model is below 0.05.
    """
    signs = []
    for name in ("within", "between"):
        low, high, p = (row.get(f"{name}_{part}", NAN) for part in ("low", "high", "p"))
        if np.isnan([low, high, p]).any():
            return ""
        signs.append(np.sign(row[f"{name}_slope"]) if low * high > 0 and p < SIGNIFICANT else 0)
    within, between = signs
    if within and between:
        return "within and between runs" if within == between else "opposite directions within and between runs"
    if between:
        return "between runs only: no effect within a run was found"
    if within:
        return "within runs only: no effect between runs was found"
    misleading = ", although the OLS p is small" if row["ols_p"] < SIGNIFICANT else ""
    return f"no effect was found within or between runs{misleading}"
