"""Coupled pairs: of two models that differ in one factor alone, has the one with the lower PRS ratio the higher y?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from prs_lightning.analysis.claims import RELATION_CLAIMS
from prs_lightning.analysis.panels import samples_behind
from prs_lightning.analysis.relations import DRAWN, label
from prs_lightning.analysis.resampling import strata_of
from prs_lightning.analysis.statistics import MINIMUM_RUNS, NAN, Array
from prs_lightning.measures import PRS_RATIO
from prs_lightning.runs.naming import is_bookkeeping

Indices = NDArray[np.intp]

COLUMNS = (
    "claim", "y", "factor", "pairs", "runs", "tied", "sign_error", "low", "high", "worst",
    "worst_environment", "worst_sign_error", "worst_pairs",
)  # fmt: skip
"""The columns of coupled.csv."""

ALIKE = {
    "seed": ("model", "data", "batch_size", "epoch"),
    "batch size": ("model", "data", "seed", "epoch"),
    "epoch": ("run",),
    "architecture": ("data", "batch_size", "seed", "epoch"),
}
"""Of each factor: what two models must share, beside all other settings."""
DIFFERENT = {"seed": "seed", "batch size": "batch_size", "epoch": "epoch", "architecture": "model"}
"""Of each factor: its column."""


def coupled_pairs(models: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """The sign error of each relation claim over the pairs of models that differ in one factor alone.

    The sign error of a set of pairs is the mean of (1 + sign(x - x') sign(y - y')) / 2, x the PRS ratio: the share of
    pairs in which the model with the lower ratio is not the one with the higher y; 0.5 is a coin. A pair counts a half
    where x are equal, or y are, or shares of test samples lie within one sample of each other.

    1 - 2 x the sign error of a factor is the granulated Kendall coefficient psi of Jiang et al. 2020, "Fantastic
    generalization measures and where to find them" (section on Kendall's rank correlation), of a claim that says
    "low", every pair weighing the same. Dziugaite et al. 2020, "In search of robust measures of generalization", judge
    by the largest error over environments, sup_e E_e[loss], and not by the mean: so the worst factor is marked, and of
    each factor the worst environment is named: a panel, of architectures a data set. As the largest of several it lies
    above 0.5 by chance alone where pairs are few.

    The interval is a jackknife: each run is left out in turn with all its pairs, within its panel and batch size, and
    Student's t has as many degrees of freedom as runs less strata; pairs do not count as independent. It errs to the
    wide side: by a fifth at five seeds, by two thirds at three (simulated, of a coin). Where all pairs agree it is
    the exact one of as many trials as there are pairs without a run in common. There is none below five runs or three
    degrees of freedom, where all pairs are ties, or where a run takes all pairs of its stratum with it (two seeds).

    Args:
        models: ``Selection.models``.

    Returns:
        ``COLUMNS``, a row per claim that was measured and factor; ``tied``: the share of pairs that count a half;
        ``runs``: those in any pair. NaN where no pair differs in that factor alone.
    """
    measured = [(claim, y) for claim, _, y in RELATION_CLAIMS if y in models and models[y].notna().any()]
    if PRS_RATIO not in models or not measured:
        return pd.DataFrame(columns=list(COLUMNS))
    models = models[models[PRS_RATIO].notna()].reset_index(drop=True)
    pairs = {factor: pairs_of(models, factor) for factor in ALIKE}
    rows = []
    for claim, y in measured:
        of_claim = [{"claim": claim, "y": y} | _row(models, y, factor, pairs[factor], level) for factor in ALIKE]
        errors = np.array([row["sign_error"] for row in of_claim], dtype=float)
        if not np.isnan(errors).all():
            of_claim[int(np.nanargmax(errors))]["worst"] = True
        rows += of_claim
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"worst_pairs": "Int64"})


def pairs_of(models: pd.DataFrame, factor: str) -> tuple[Indices, Indices]:
    """Positions of both models of every pair that differs in ``factor`` and nothing else, each pair once."""
    same, differs = list(ALIKE[factor]), DIFFERENT[factor]
    known = models[[*same, differs]].notna().all(axis=1).to_numpy()
    keys = models[same].assign(settings=_settings(models, factor))
    group = np.where(known, keys.groupby([*keys], observed=True, dropna=False).ngroup(), -1)
    values = pd.factorize(models[differs])[0]
    order = np.argsort(group, kind="stable")[np.count_nonzero(~known) :]
    sizes = np.bincount(group[order])
    starts = np.cumsum(sizes) - sizes
    first, second = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for size in np.unique(sizes[sizes > 1]):
        members = order[starts[sizes == size, None] + np.arange(size)]  # groups x models
        one, other = np.triu_indices(size, 1)
        first.append(members[:, one].ravel())
        second.append(members[:, other].ravel())
    one, other = np.concatenate(first), np.concatenate(second)
    apart = values[one] != values[other]
    return one[apart], other[apart]


def _settings(models: pd.DataFrame, factor: str) -> Indices:
    """A code of all settings beside batch size and seed; for architectures, of those that every network has."""
    if factor == "epoch":
        return np.zeros(len(models), np.intp)
    keys = [
        name
        for name in models.columns
        if name == "epochs" or (name.startswith("config.") and name.rsplit(".", 1)[-1] not in ("seed", "batch_size"))
    ]
    keys = [name for name in keys if not is_bookkeeping(name.removeprefix("config."))]
    if factor == "architecture":
        keys = [name for name in keys if not name.startswith("config.model.") or models[name].notna().all()]
    code = np.zeros(len(models), np.intp)
    for name in keys:
        own, values = pd.factorize(models[name].astype(object), use_na_sentinel=False)
        if len(values) > 1:
            code = np.unique(code * len(values) + own, return_inverse=True)[1]
    return code


def _row(models: pd.DataFrame, y: str, factor: str, pairs: tuple[Indices, Indices], level: float) -> dict[str, object]:
    """What there is to say of the pairs whose y are known."""
    values = models[y].to_numpy(float)
    known = ~np.isnan(values[pairs[0]]) & ~np.isnan(values[pairs[1]])
    first, second = pairs[0][known], pairs[1][known]
    runs, names = pd.factorize(models["run"])
    row: dict[str, object] = {"factor": factor, "pairs": len(first), "worst": False, "worst_environment": ""}
    row |= {"runs": len(np.unique(runs[np.concatenate([first, second])])), "sign_error": NAN}
    if not len(first):
        return row
    errors = sign_errors(models[PRS_RATIO].to_numpy(float), values, first, second, tie=_one_sample(models, y)[first])
    environment = ["data"] if factor == "architecture" else ["model", "data"]
    places = models.groupby(environment, observed=True).ngroup().to_numpy()[first]
    counts = np.bincount(places)
    means = np.bincount(places, errors) / np.where(counts, counts, NAN)
    worst = int(np.nanargmax(means))
    where = models.loc[first[places == worst][0], environment]
    low, high = jackknife(errors, runs[first], runs[second], strata_of_runs(models, names), level)
    return row | {
        "tied": float((errors == 0.5).mean()), "sign_error": float(errors.mean()), "low": low, "high": high,
        "worst_environment": ", ".join(label(name) for name in where), "worst_sign_error": float(means[worst]),
        "worst_pairs": int(counts[worst]),
    }  # fmt: skip


def sign_errors(x: Array, y: Array, first: Indices, second: Indices, *, tie: Array | float = 0.0) -> Array:
    """Of each pair: 0 if the model with the lower x has the higher y, 1 if not, 1/2 if x are equal or y within ``tie``.

    >>> sign_errors(np.array([0.1, 0.2, 0.2]), np.array([0.9, 0.5, 1.0]), np.array([0, 0, 1]), np.array([1, 2, 2]))
    array([0. , 1. , 0.5])
    """
    apart = y[first] - y[second]
    return (1 + np.sign(x[first] - x[second]) * np.sign(apart) * (np.abs(apart) > tie)) / 2


def _one_sample(models: pd.DataFrame, y: str) -> Array:
    """What one test sample moves a share of them by (N,), with room for rounding; 0 of other measures."""
    found = np.zeros(len(models))
    if y in DRAWN:
        for places in models.groupby(["model", "data"], observed=True).indices.values():
            panel = models.iloc[places]
            found[places] = 1.5 / (samples_behind(panel[panel[y].notna()], y) or np.inf)
    return found


def strata_of_runs(models: pd.DataFrame, names: pd.Index) -> Indices:
    """The stratum of each run in ``names``: its batch size in its panel."""
    known = models.groupby("run")[["model", "data", "batch_size"]].first().loc[names]
    strata, found = np.empty(len(known), np.intp), 0
    for places in known.groupby(["model", "data"], observed=True).indices.values():
        strata[places] = strata_of(known["batch_size"].fillna(-1).to_numpy(float)[places]) + found
        found = strata[places].max() + 1
    return strata


def jackknife(errors: Array, first: Indices, second: Indices, strata: Indices, level: float) -> tuple[float, float]:
    """The interval of the mean error of pairs of runs, where each run is left out in turn within its stratum.

    Args:
        errors: (P,) in [0, 1].
        first, second: (P,) the runs of each pair, the same one for two epochs of it.
        strata: (G,) of every run.
    """
    there = np.unique(np.concatenate([first, second]))
    freedom = len(there) - len(np.unique(strata[there]))
    if len(there) < MINIMUM_RUNS or freedom < 3:
        return NAN, NAN
    if errors.min() == errors.max():
        trials = len(there) // 2 if (first != second).any() else len(there)
        if errors[0] == 0.5:
            return NAN, NAN
        exact = stats.binomtest(round(errors[0]) * trials, trials).proportion_ci(level, "exact")
        return float(exact.low), float(exact.high)
    # What a stratum has in pairs with itself, or with another, weighs the same without a run as with it.
    group = np.unique(np.sort([strata[first], strata[second]], axis=0), axis=1, return_inverse=True)[1]
    pairs, sums = np.bincount(group), np.bincount(group, errors)
    run, place = np.append(first, second[first != second]), np.append(group, group[first != second])
    cells, cell = np.unique(run * len(pairs) + place, return_inverse=True)
    run, place = np.divmod(cells, len(pairs))
    left = pairs[place] - np.bincount(cell)
    if (left == 0).any():
        return NAN, NAN
    means = (sums[place] - np.bincount(cell, np.append(errors, errors[first != second]))) / left
    moved = np.bincount(run, pairs[place] / len(errors) * (means - sums[place] / pairs[place]), len(strata))[there]
    groups = strata[there]
    sizes = np.maximum(np.bincount(groups), 1)
    centred = moved - (np.bincount(groups, moved) / sizes)[groups]
    variance = float((centred**2 * ((sizes - 1) / sizes)[groups]).sum())
    half = stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(variance)
    return max(0.0, float(errors.mean() - half)), min(1.0, float(errors.mean() + half))
