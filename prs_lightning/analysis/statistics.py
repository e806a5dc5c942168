"""Estimates on one panel: models (points) that belong to runs (clusters).

Epochs of one run are not independent, so the number of runs, not of models, says how much was observed. The paper's
OLS p-value counts models; the others here count runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.multitest import multipletests

Array = NDArray[np.float64]
NAN = float("nan")


@dataclass(frozen=True)
class Line:
    """Ordinary least squares ``y = intercept + slope * x``; ``p`` is two-sided for slope 0, models as independent."""

    slope: float
    intercept: float
    r_squared: float
    p: float


def ols(x: Array, y: Array) -> Line:
    """The paper's fit (figures 4, 8, 10, 12). Needs 3 points and an x that is not constant, else all are NaN."""
    if len(x) < 3 or is_constant(x):
        return Line(NAN, NAN, NAN, NAN)
    if is_constant(y):
        return Line(0.0, float(y[0]), NAN, NAN)
    fit = stats.linregress(x, y)
    return Line(float(fit.slope), float(fit.intercept), float(fit.rvalue**2), float(fit.pvalue))


def is_constant(values: Array) -> bool:
    """Whether the values differ by no more than rounding."""
    return len(values) == 0 or bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def cluster_robust_p(x: Array, y: Array, runs: NDArray[np.intp]) -> float:
    """Two-sided p for slope 0 with standard errors clustered by run and G - 1 degrees of freedom for G runs.

    Liang & Zeger 1986 with the usual small-sample factor. NaN below 3 runs.
    """
    if len(np.unique(runs)) < 3 or is_constant(x) or is_constant(y):
        return NAN
    design = np.column_stack([np.ones_like(x), x])
    fit = OLS(y, design).fit(cov_type="cluster", cov_kwds={"groups": runs}, use_t=True)
    return float(fit.pvalues[1])


def spearman(x: Array, y: Array) -> float:
    """Spearman's rank correlation; NaN if a side is constant or there are fewer than 3 points."""
    if len(x) < 3 or is_constant(x) or is_constant(y):
        return NAN
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def partial_spearman(x: Array, y: Array, controls: Sequence[Array]) -> tuple[float, float]:
    """Spearman's correlation of x and y with the ranks of ``controls`` held fixed, and its p, models as independent.

    The correlation of what ordinary least squares on the ranks of the controls leaves of the ranks of x and of y;
    p from t with n - 2 - k degrees of freedom (k controls that vary). Controls that are constant change nothing.
    NaN where no degree of freedom is left, or the controls determine x or y.
    """
    varying = [stats.rankdata(control) for control in controls if not is_constant(control)]
    design = np.column_stack([np.ones_like(x), *varying])
    freedom = len(x) - 1 - int(np.linalg.matrix_rank(design))
    if freedom < 1 or is_constant(x) or is_constant(y):
        return NAN, NAN
    ranks = np.column_stack([stats.rankdata(x), stats.rankdata(y)])
    residuals = ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0]
    lengths = np.linalg.norm(residuals, axis=0)
    if (lengths < 1e-9 * np.linalg.norm(ranks - ranks.mean(axis=0), axis=0)).any():
        return NAN, NAN
    rho = float(np.clip(residuals[:, 0] @ residuals[:, 1] / lengths.prod(), -1, 1))
    t = rho * np.sqrt(freedom / max(1 - rho**2, 1e-300))
    return rho, float(2 * stats.t.sf(abs(t), freedom))


def run_means(values: Array, runs: NDArray[np.intp]) -> Array:
    """The mean of each run's models, in the order of the run codes 0 .. G - 1; NaN for a code without models."""
    counts = np.bincount(runs)
    with np.errstate(invalid="ignore"):
        return np.bincount(runs, values) / counts


def between_interval(x: Array, y: Array, runs: NDArray[np.intp], level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the least-squares slope through the means of runs, which are independent."""
    means_x, means_y = run_means(x, runs), run_means(y, runs)
    if len(means_x) < 3 or is_constant(means_x) or is_constant(means_y):
        return NAN, NAN
    fit = stats.linregress(means_x, means_y)
    half = stats.t.ppf((1 + level) / 2, len(means_x) - 2) * fit.stderr
    return float(fit.slope - half), float(fit.slope + half)


@dataclass(frozen=True)
class Mixed:
    """Slopes within runs and between the means of runs, with two-sided p, and why they are missing."""

    within: float = NAN
    within_p: float = NAN
    between: float = NAN
    between_p: float = NAN
    note: str = ""


def mixed_model(x: Array, y: Array, runs: NDArray[np.intp]) -> Mixed:
    """Linear mixed model ``y ~ (x - mean of its run) + mean of its run + (1 | run)``, REML (statsmodels' MixedLM).

    The first slope is the effect within runs, the second the effect between runs (Mundlak 1978).
    """
    if is_constant(y) or is_constant(x):
        return Mixed(note="mixed model: a constant side")
    means = run_means(x, runs)
    inside, outside = x - means[runs], means[runs]
    if len(np.unique(runs)) < 4:
        return Mixed(note="mixed model: fewer than 4 runs")
    if is_constant(inside) or len(x) - len(np.unique(runs)) < 2:
        return Mixed(note="mixed model: x does not vary within the runs")
    if is_constant(outside):
        return Mixed(note="mixed model: x does not vary between the runs")
    # Standard units, so that the optimiser meets the same problem whatever the units of the panel.
    units = inside.std(), outside.std(), y.std()
    design = np.column_stack([np.ones_like(x), inside / units[0], (outside - outside.mean()) / units[1]])
    try:
        with warnings.catch_warnings():
            # A variance of 0 between runs lies on the edge of the parameter space and is a valid answer.
            warnings.simplefilter("ignore")
            fit = MixedLM((y - y.mean()) / units[2], design, groups=runs).fit(reml=True)
    except (np.linalg.LinAlgError, ValueError) as error:
        return Mixed(note=f"mixed model: not fitted ({error})")
    slopes, p = np.asarray(fit.fe_params), np.asarray(fit.pvalues)
    if not np.isfinite(p[1:3]).all():
        return Mixed(note="mixed model: not fitted (no standard errors)")
    scale = units[2] / np.array(units[:2])
    return Mixed(float(slopes[1] * scale[0]), float(p[1]), float(slopes[2] * scale[1]), float(p[2]))


def holm(p_values: Array) -> Array:
    """Holm's step-down correction over the p-values that are not NaN; NaN stays NaN."""
    known = ~np.isnan(p_values)
    corrected = np.full(len(p_values), NAN)
    if known.any():
        corrected[known] = multipletests(p_values[known], method="holm")[1]
    return corrected
