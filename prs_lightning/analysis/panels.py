"""The table of statistics: a row per relation, network architecture and data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from prs_lightning.analysis import resampling, statistics
from prs_lightning.analysis.evidence import (
    PERMUTATIONS,
    Models,
    Panel,
    as_estimate,
    association,
    at_fixed_batch_and_epoch,
)
from prs_lightning.analysis.fixed import Permuted, between_models
from prs_lightning.analysis.measurable import edge_of, samples_of, why_not
from prs_lightning.analysis.relations import DRAWN, PAPER_SLOPES, RELATIONS, Relation, is_share, label, plural
from prs_lightning.analysis.statistics import MINIMUM_RUNS, NAN, Array
from prs_lightning.measures import TEST_ACCURACY

COLUMNS = (
    "figure", "relation", "y", "x", "model", "data", "n_models", "n_runs", "not_measurable",
    "ols_slope", "ols_intercept", "ols_p", "ols_p_holm", "r_squared", "paper_slope",
    "slope_low", "slope_high", "cluster_p", "cluster_p_holm",
    "spearman", "spearman_low", "spearman_high",
    "between", "between_low", "between_high", "between_p", "between_p_holm",
    "within", "within_low", "within_high", "within_p", "within_p_holm",
    "partial_spearman", "partial_low", "partial_high", "partial_p", "partial_p_holm", "controls",
    "change", "change_low", "change_high", "fixed_change", "fixed_change_low", "fixed_change_high", "degenerate_draws",
    "one_per_run_slope", "one_per_run_p", "one_per_run_spearman", "one_per_run_n",
    "reading", "note",
)  # fmt: skip
"""The columns of statistics.csv; ``<name>_holm`` is ``<name>`` corrected over the panels of the same relation.

``spearman`` is partial where the relation has controls; ``between`` (runs) and ``within`` (runs: between epochs) are
at fixed batch size and epoch, ``partial_spearman`` of all models at fixed batch size, epoch and test accuracy.
``change`` is that of y from the 10th to the 90th percentile of x, with the interval of two one-sided tests.
"""

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Statistics:
    """``table`` has ``COLUMNS``; ``panels``: relation title -> what each panel says, those without numbers left out."""

    table: pd.DataFrame
    panels: dict[str, list[Panel]]


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
    kept: dict[str, list[Panel]] = {}
    relations = list(relations)
    groups = [
        (str(model), str(data), group, Resamples(group, relations, draws, [seed, crc32(f"{model} {data}".encode())]))
        for (model, data), group in models.groupby(["model", "data"], sort=True)
    ]
    for relation in relations:
        empty = {
            "figure": relation.figure, "relation": relation.title, "y": relation.y, "x": relation.x,
            "model": "", "data": "", "n_models": 0, "n_runs": 0, "not_measurable": "", "reading": "",
        }  # fmt: skip
        if missing := [name for name in relation.columns if name not in models or models[name].isna().all()]:
            rows.append(empty | {"note": f"not measured: {', '.join(label(name) for name in missing)}"})
            continue
        progress(f"statistics: {relation.title}")
        for model, data, group, resamples in groups:
            known = group.dropna(subset=relation.columns)
            row, panel = _panel(
                relation, known, Panel(model, data, len(known), known["run"].nunique()), resamples, level
            )
            paper = NAN if relation.controls else PAPER_SLOPES.get((relation.y, model, data), NAN)
            numbers = {"n_models": panel.models, "n_runs": panel.runs, "not_measurable": panel.excluded}
            rows.append(empty | {"model": model, "data": data, "paper_slope": paper} | numbers | row)
            if panel.models:
                kept.setdefault(relation.title, []).append(panel)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in COLUMNS:
        if f"{name}_holm" in COLUMNS:
            p_values = table.groupby("relation", sort=False)[name]
            table[f"{name}_holm"] = p_values.transform(lambda group: statistics.holm(group.to_numpy(float)))
    return Statistics(table, kept)


class Resamples:
    """The draws of one panel, and in them the covariances of ranks of all that its relations name.

    Relations that are known of the same models share them: ranking the PRS ratio anew for each would be most of the
    time of an analysis.
    """

    def __init__(self, group: pd.DataFrame, relations: Iterable[Relation], draws: int, seed: list[int]) -> None:
        self.group, self.draws, self.seed = group, draws, seed
        self.relations = [each for each in relations if {*each.columns} <= {*group.columns}]
        self.made: dict[bytes, tuple[list[str], Array, Array]] = {}

    def of(self, known: pd.DataFrame, models: Models, names: Iterable[str]) -> tuple[Array, Array]:
        """The weights of runs in the draws, and the covariances of ranks of ``names``, all known of ``known``."""
        key = known.index.to_numpy().tobytes()
        if key not in self.made:
            alike = [each for each in self.relations if len(self.group.dropna(subset=each.columns)) == len(known)]
            wanted = dict.fromkeys(name for each in alike for name in each.columns)
            there = [name for name in wanted if not known[name].isna().any()]
            weights = resampling.drawn_runs(models.strata, draws=self.draws, rng=np.random.default_rng(self.seed))
            columns = [known[name].to_numpy(float) for name in there]
            self.made[key] = there, weights, resampling.rank_covariances(columns, models.runs, weights)
        there, weights, covariances = self.made[key]
        places = [there.index(name) for name in names]
        return weights, covariances[:, places][:, :, places]


def _panel(
    relation: Relation, known: pd.DataFrame, panel: Panel, resamples: Resamples, level: float
) -> tuple[dict[str, Any], Panel]:
    """What there is to say of the models with x, y and controls: the row of the table, and what a claim needs."""
    x, y, *controls = (known[name].to_numpy(float) for name in relation.columns)
    if panel.models < 3:
        return {"note": f"{panel.models} models: too few"}, replace(panel, excluded="fewer than three models")
    sides = {relation.x: x, relation.y: y}
    samples = {name: samples_behind(known, name) for name in sides}
    reasons = {name: why_not(values, samples[name], drawn=name in DRAWN) for name, values in sides.items()}
    panel = replace(panel, excluded="; ".join(f"{label(name)} {why}" for name, why in reasons.items() if why))
    if reasons[relation.y] and (behind := samples[relation.y]):
        edge, bound = edge_of(y, behind, level)
        panel = replace(panel, edge=edge, bound=bound)
    constant = [
        f"{label(name)} is constant ({values[0]:.4g}): no slope, no correlation"
        for name, values in sides.items()
        if statistics.is_constant(values)
    ]
    few = f"{plural(panel.runs, 'run')}: no interval below {MINIMUM_RUNS} runs" if panel.runs < MINIMUM_RUNS else ""
    if constant:
        return {"note": "; ".join(filter(None, [*constant, few]))}, panel
    runs, _ = pd.factorize(known["run"])
    batches, epochs = (known[name].to_numpy(float) for name in ("batch_size", "epoch"))
    seeds = known["seed"].to_numpy(float) if "seed" in known else None
    models = Models(x, y, runs, batches, epochs, controls, seeds)
    weights, covariances = resamples.of(known, models, relation.columns)
    panel = replace(
        panel, **association(models, weights, covariances), **at_fixed_batch_and_epoch(models, resamples.seed)
    )
    row = (
        _paper_fit(known, models)
        | _answers(panel, level)
        | _at_equal_accuracy(known, models, relation, resamples.seed, level)
    )
    notes = [few]
    if np.isnan(row["spearman"]):
        notes.append("Spearman: the controls leave nothing of x or y")
    if panel.degenerate > 1 - resampling.KNOWN:
        notes.append(panel.without_interval)
    if panel.between_runs.freedom < 3:
        notes.append("too few runs of one batch size to compare at fixed batch size")
    return row | {"reading": reading(row), "note": "; ".join(filter(None, notes))}, panel


def samples_behind(models: pd.DataFrame, name: str) -> int | None:
    """The number of samples that a share of a panel's models is of; None for other measures.

    All attacks meet the same test samples, so that their robust accuracies tell it together.
    """
    if not is_share(name):
        return None
    alike = (
        [each for each in DRAWN if each in models and each.startswith("robust/")]
        if name.startswith("robust/")
        else [name]
    )
    return samples_of(models[alike].to_numpy(float)[~models[alike].isna().to_numpy()])


def _paper_fit(known: pd.DataFrame, models: Models) -> dict[str, Any]:
    """Least squares over the models as independent, with clustered p, and over the last model of each run."""
    x, y = models.plain
    # The last models of the runs are independent, so plain p-values hold.
    last = np.flatnonzero(~known.sort_values("epoch").duplicated("run", keep="last").reindex(known.index).to_numpy())
    row: dict[str, Any] = {
        "cluster_p": statistics.cluster_robust_p(x, y, models.runs),
        "one_per_run_spearman": statistics.partial_spearman(x[last], y[last]), "one_per_run_n": len(last),
    }  # fmt: skip
    row["ols_slope"], row["ols_intercept"], row["r_squared"], row["ols_p"] = statistics.ols(x, y)
    row["one_per_run_slope"], _, _, row["one_per_run_p"] = statistics.ols(x[last], y[last])
    return row


def _answers(panel: Panel, level: float) -> dict[str, Any]:
    """The answers of a panel as cells of the table."""
    row: dict[str, Any] = {"degenerate_draws": panel.degenerate, "spearman": panel.spearman}
    row["slope_low"], row["slope_high"] = panel.slope.interval(level)
    row["spearman_low"], row["spearman_high"] = np.tanh(panel.association.interval(level))
    for name, permuted in (("between", panel.between_runs), ("within", panel.between_epochs)):
        row |= _correlation(name, permuted, level)
    for name, change in (("change", panel.change), ("fixed_change", panel.fixed_change)):
        row[name] = change.value
        row[f"{name}_low"], row[f"{name}_high"] = change.interval(2 * level - 1)  # of two one-sided tests
    return row


def _correlation(name: str, permuted: Permuted, level: float) -> dict[str, float]:
    low, high = np.tanh(as_estimate(permuted, correlation=True).interval(level))
    return {name: permuted.value, f"{name}_low": low, f"{name}_high": high, f"{name}_p": permuted.p}


def _at_equal_accuracy(
    known: pd.DataFrame, models: Models, relation: Relation, seed: Sequence[int], level: float
) -> dict[str, Any]:
    """The partial correlation of all models at fixed batch size, epoch and, where it was measured, test accuracy."""
    further = [TEST_ACCURACY] if TEST_ACCURACY in known and not known[TEST_ACCURACY].isna().any() else []
    blocks = models.blocks(*(known[name].to_numpy(float) for name in further))
    rng = np.random.default_rng([*seed, 2])
    found = between_models(blocks, draws=PERMUTATIONS, rng=rng, crossed=models.crossed)
    told = _correlation("partial", found, level)
    controls = ", ".join(label(name) for name in ("batch_size", "epoch", *further, *relation.controls))
    return told | {"partial_spearman": told.pop("partial"), "controls": controls}


def reading(row: dict[str, Any]) -> str:
    """Where the relation lives at fixed batch size and epoch, in words; empty if that is not known.

    An effect is there if its interval excludes 0 and its p, of permuted runs, is below 0.05.
    """
    signs = []
    for name in ("between", "within"):
        low, high, p = (row[f"{name}_{part}"] for part in ("low", "high", "p"))
        if np.isnan([low, high, p]).any():
            return ""
        signs.append(np.sign(row[name]) if low * high > 0 and p < SIGNIFICANT else 0)
    between, within = signs
    if within and between:
        return "within and between runs" if within == between else "opposite directions within and between runs"
    if between:
        return "between runs only: no effect between the epochs of a run was found"
    if within:
        return "within runs only: no effect between runs was found"
    misleading = ", although the OLS p is small" if row["ols_p"] < SIGNIFICANT else ""
    return f"no effect was found at fixed batch size and epoch{misleading}"
