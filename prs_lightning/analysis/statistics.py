"""Estimates on one panel: of models (points) that belong to runs (clusters).

Epochs of one run are not independent, so the number of runs, not of models, says how much was observed. The paper's
OLS p-value counts models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.regression.linear_model import OLS

Array = NDArray[np.float64]
NAN = float("nan")

MINIMUM_RUNS = 5
"""Below this number of runs no interval is given: the bootstrap has too few distinct draws to cover what it says."""


def ols(x: Array, y: Array) -> tuple[float, float, float, float]:
    """Slope, intercept, R² and two-sided p of slope 0, models as independent: the paper's fit (figures 4, 8, 10, 12).

    Needs 3 points and an x that is not constant, else all are NaN.
    """
    if len(x) < 3 or is_constant(x):
        return NAN, NAN, NAN, NAN
    if is_constant(y):
        return 0.0, float(y[0]), NAN, NAN
    fit = stats.linregress(x, y)
    return float(fit.slope), float(fit.intercept), float(fit.rvalue**2), float(fit.pvalue)


def is_constant(values: Array) -> bool:
    """Whether the values differ by no more than rounding."""
    return len(values) == 0 or bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def residual(values: Array, *given: Array) -> Array:
    """What a linear function of all of ``given`` together, each (N,), does not explain of ``values`` (N,).

    The slope of one such residual on another is the coefficient of the joint regression (theorem of Frisch, Waugh and
    Lovell): taking out one after the other would leave what the given have in common.

    >>> one, other = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.0, 1.0, 3.0])
    >>> residual(2 * one - other + 5, one, other).round(9).tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    centred = np.column_stack([one - one.mean() for one in given if not is_constant(one)] or [np.zeros(len(values))])
    lengths = np.linalg.norm(centred, axis=0)
    design = centred / np.where(lengths > 0, lengths, 1)  # units of measurement must not decide what counts as rank
    inside = values - values.mean()
    left = inside - design @ np.linalg.lstsq(design, inside, rcond=1e-10)[0]
    return left if np.linalg.norm(left) > 1e-9 * np.linalg.norm(inside) else np.zeros(len(values))


def cluster_robust_p(x: Array, y: Array, runs: NDArray[np.intp]) -> float:
    """Two-sided p for slope 0 with standard errors clustered by run and G - 1 degrees of freedom for G runs.

    Liang & Zeger 1986 with the usual small-sample factor. NaN below 3 runs, or where x or y is constant.
    """
    if len(np.unique(runs)) < 3 or is_constant(x) or is_constant(y):
        return NAN
    fit = OLS(y, np.column_stack([np.ones_like(x), x])).fit(cov_type="cluster", cov_kwds={"groups": runs}, use_t=True)
    return float(fit.pvalues[1])


def trends(values: Array, times: Array, runs: NDArray[np.intp]) -> Array:
    """Spearman with time in each run, in the order of the codes 0 .. G - 1; 0 where the values do not change.

    NaN for runs of one model; with two it is a sign.
    """
    found = np.full(int(runs.max(initial=-1)) + 1, NAN)
    order = np.argsort(runs, kind="stable")
    lengths = np.bincount(runs, minlength=len(found))
    starts = np.cumsum(lengths) - lengths
    for length in np.unique(lengths[lengths > 1]):  # runs of one length are ranked at once
        chosen = np.flatnonzero(lengths == length)
        members = order[starts[chosen, None] + np.arange(length)]  # (runs, models)
        x, y = (stats.rankdata(side[members], axis=1) - (length + 1) / 2 for side in (times, values))
        y[np.ptp(values[members], axis=1) <= 1e-12 * np.maximum(1.0, np.abs(values[members]).max(axis=1))] = 0
        norm = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
        found[chosen] = np.clip((x * y).sum(axis=1) / np.where(norm > 0, norm, 1), -1, 1)
    return found


def partial_spearman(x: Array, y: Array, controls: Sequence[Array] = ()) -> float:
    """Spearman's correlation of x and y, with the ranks of ``controls`` held fixed.

    The correlation of what least squares on the ranks of the controls leaves of the ranks of x and of y. NaN where
    they leave nothing, or no degree of freedom.
    """
    ranked = [stats.rankdata(control) for control in controls if not is_constant(control)]
    if is_constant(x) or is_constant(y) or len(x) < 3 + len(ranked):
        return NAN
    left = [residual(stats.rankdata(side), *ranked) for side in (x, y)]
    product = float(np.prod([np.linalg.norm(each) for each in left]))
    return float(np.clip(left[0] @ left[1] / product, -1, 1)) if product > 0 else NAN


def held_fixed(x: Array, y: Array, groups: NDArray[np.intp]) -> float:
    """The correlation of the ranks of x and y less their means in ``groups``; NaN where nothing is left."""
    left = []
    for side in (x, y):
        ranks = stats.rankdata(side)
        left.append(ranks - (np.bincount(groups, ranks) / np.bincount(groups))[groups])
    norm = float(np.linalg.norm(left[0]) * np.linalg.norm(left[1]))
    return float(left[0] @ left[1] / norm) if norm > 1e-9 else NAN


def holm(p_values: Array) -> Array:
    """Holm's step-down correction over the p-values that are not NaN; NaN stays NaN.

    statsmodels' multipletests gives the same, but runs the garbage collector at each call: seconds for a report.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    corrected = np.full(len(p_values), NAN)
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]  # NaN sorts to the end
    steps = p_values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected
