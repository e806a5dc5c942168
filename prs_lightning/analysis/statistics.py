"""Estimates on one panel, models (points) that belong to runs (clusters), and their cluster bootstrap over runs.

Epochs of one run are not independent, so the number of runs, not of models, says how much was observed. The paper's
OLS p-value counts models; the others here count runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from statsmodels.regression.linear_model import OLS

Array = NDArray[np.float64]
NAN = float("nan")

RANKS_AT_ONCE = 1_000_000
"""Numbers in memory for the bootstrap: models x columns x draws."""
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

    Liang & Zeger 1986 with the usual small-sample factor. NaN below 3 runs; x and y must vary.
    """
    if len(np.unique(runs)) < 3:
        return NAN
    fit = OLS(y, np.column_stack([np.ones_like(x), x])).fit(cov_type="cluster", cov_kwds={"groups": runs}, use_t=True)
    return float(fit.pvalues[1])


def spearman(x: Array, y: Array) -> float:
    """Spearman's rank correlation; NaN if a side is constant or there are fewer than 3 points."""
    if len(x) < 3 or is_constant(x) or is_constant(y):
        return NAN
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def spearman_of_each(x: Array, y: Array, runs: NDArray[np.intp]) -> Array:
    """``spearman`` within each run, in the order of the codes 0 .. G - 1; runs of one length are ranked at once."""
    pairs = np.stack([x, y])[:, np.argsort(runs, kind="stable")]
    lengths = np.bincount(runs)
    starts = np.cumsum(lengths) - lengths
    found = np.full(len(lengths), NAN)
    for length in np.unique(lengths[lengths >= 3]):
        chosen = np.flatnonzero(lengths == length)
        values = pairs[:, starts[chosen, None] + np.arange(length)]  # (2, runs, models)
        ranks = stats.rankdata(values, axis=-1) - (length + 1) / 2
        (xx, xy), (_, yy) = np.einsum("irn,jrn->ijr", ranks, ranks) * (1 / (length - 1))  # as numpy scales it
        constant = np.ptp(values, axis=-1) <= 1e-12 * np.maximum(1.0, np.abs(values).max(axis=-1))
        with np.errstate(invalid="ignore", divide="ignore"):
            found[chosen] = np.where(constant.any(axis=0), NAN, np.clip(xy / np.sqrt(xx) / np.sqrt(yy), -1, 1))
    return found


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
    """The mean of each run's models, in the order of the run codes 0 .. G - 1, of which each has a model."""
    return np.bincount(runs, values) / np.bincount(runs)


def between_interval(x: Array, y: Array, runs: NDArray[np.intp], level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the least-squares slope through the means of runs, which are independent."""
    means_x, means_y = run_means(x, runs), run_means(y, runs)
    if len(means_x) < 3 or is_constant(means_x) or is_constant(means_y):
        return NAN, NAN
    fit = stats.linregress(means_x, means_y)
    half = stats.t.ppf((1 + level) / 2, len(means_x) - 2) * fit.stderr
    return float(fit.slope - half), float(fit.slope + half)


def mixed_model(x: Array, y: Array, runs: NDArray[np.intp]) -> tuple[dict[str, float], str]:
    """Linear mixed model ``y ~ (x - mean of its run) + mean of its run + (1 | run)``, fitted by REML; y must vary.

    ``within_slope`` is the effect within runs, ``between_slope`` the effect between runs (Mundlak 1978); ``within_p``
    and ``between_p`` are two-sided, of Student's t with N - G - 1 and G - 2 degrees of freedom for N models of G runs.
    Where there is no fit the numbers are missing, and the text says why.

    A random intercept leaves a single unknown, the ratio of the two variances, so the likelihood is maximised over
    that alone: exact, quick, and sound at a ratio of 0, where statsmodels' MixedLM (equal elsewhere) may fail.
    """
    means = run_means(x, runs)
    count, inside = len(means), x - means[runs]
    if count < 4:
        return {}, "mixed model: fewer than 4 runs"
    if is_constant(inside) or len(x) - count < 2:
        return {}, "mixed model: x does not vary within the runs"
    if is_constant(means):
        return {}, "mixed model: x does not vary between the runs"
    design = np.column_stack([np.ones_like(x), inside, (means - means.mean())[runs]])
    columns = np.column_stack([design, y - y.mean()])
    products, sizes = columns.T @ columns, np.bincount(runs).astype(float)
    sums = np.stack([np.bincount(runs, column) for column in columns.T], axis=1)

    def reml(ratio: float) -> tuple[float, Array, Array]:
        """Restricted log-likelihood, slopes and their covariance for variance(run) = ``ratio`` * variance(model)."""
        # Each run's inverse covariance is the identity less this share of the matrix of ones.
        share = ratio / (1 + ratio * sizes)
        weighted = products - sums.T @ (sums * share[:, None])
        inverse = np.linalg.inv(weighted[:-1, :-1])
        slopes = inverse @ weighted[:-1, -1]
        freedom = sizes.sum() - len(slopes)
        variance = max(float(weighted[-1, -1] - weighted[:-1, -1] @ slopes), 1e-300) / freedom
        determinant = -np.linalg.slogdet(inverse)[1] + np.log1p(ratio * sizes).sum()
        return -0.5 * float(freedom * np.log(variance) + determinant), slopes, variance * inverse

    # The ratio's logarithm; below e^-12 it is 0 for any data, and 0 itself is compared as well.
    found = optimize.minimize_scalar(lambda log: -reml(np.exp(log))[0], bounds=(-12, 12), method="bounded")
    _, slopes, covariance = max(reml(0.0), reml(float(np.exp(found.x))), key=lambda fit: fit[0])
    with np.errstate(divide="ignore"):
        t = np.abs(slopes) / np.sqrt(np.diag(covariance))
    p = 2 * stats.t.sf(t[1:], [len(x) - count - 1, count - 2])
    return {"within_slope": slopes[1], "within_p": p[0], "between_slope": slopes[2], "between_p": p[1]}, ""


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


def cluster_bootstrap(
    x: Array, y: Array, runs: NDArray[np.intp], controls: Sequence[Array] = (), *, draws: int = 2000, seed: int = 0
) -> dict[str, Array]:
    """Statistics of ``draws`` resamples: whole runs are drawn with replacement, all draws at once.

    A draw is a vector of counts, one per run, so resampled statistics are weighted statistics of the original models
    and nothing is copied: slopes come from sums per run, Spearman from weighted mid-ranks. Both equal exactly what the
    plain formula gives on the resampled rows.

    Args:
        x, y: (N,) the models.
        runs: (N,) codes 0 .. G - 1 of the run of each model.
        controls: held fixed in ``partial``, each (N,).

    Returns:
        Draws (B,) of ``slope``, ``within``, ``spearman`` and ``partial``; NaN where a draw made x or y constant.
    """
    counts = drawn_runs(runs, draws=draws, seed=seed)
    varying = [control for control in controls if not is_constant(control)]
    return resampled(x, y, runs, counts, rank_covariances((x, y, *varying), runs, counts))


def drawn_runs(runs: NDArray[np.intp], *, draws: int, seed: int) -> Array:
    """How often each draw (B, G) has each of the G runs."""
    count = int(runs.max()) + 1
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws).astype(float)


def resampled(x: Array, y: Array, runs: NDArray[np.intp], counts: Array, covariances: Array) -> dict[str, Array]:
    """``cluster_bootstrap`` of given draws, with the ``rank_covariances`` of x, y and the controls that vary."""
    across = covariances[:, :2, 2:]
    explained = across @ np.linalg.pinv(covariances[:, 2:, 2:], rcond=1e-10, hermitian=True) @ across.swapaxes(1, 2)
    return {
        "slope": _slopes(counts, x, y, runs),
        # Each run's deviations sum to 0, so the intercept stays 0 in every draw.
        "within": _slopes(counts, x - run_means(x, runs)[runs], y - run_means(y, runs)[runs], runs),
        "spearman": _correlation(covariances[:, :2, :2]),
        "partial": _correlation(covariances[:, :2, :2] - explained),
    }


def rank_covariances(columns: Sequence[Array], runs: NDArray[np.intp], counts: Array) -> Array:
    """Sums of products of the centred mid-ranks of K columns (N,) in each draw: (B, K, K).

    Ranks and their mean are halves of integers, so the sums are exact, in whatever order they are taken.
    """
    sizes = counts @ np.bincount(runs)
    exact = np.float32 if sizes.max() < 2**22 else np.float64  # for halves of integers up to there
    places = [np.unique(column, return_inverse=True)[1] for column in columns]
    orders = [np.argsort(place, kind="stable") for place in places]
    found = np.empty((len(counts), len(columns), len(columns)))
    at_once = max(1, RANKS_AT_ONCE // (len(runs) * len(columns)))
    for start in range(0, len(counts), at_once):
        part = slice(start, start + at_once)
        weights = counts[part].T[runs].astype(exact)  # models x draws: what follows moves whole rows
        middle = ((sizes[part] + 1) / 2).astype(exact)
        centred = np.empty((len(middle), len(columns), len(runs)))
        for column, (place, order) in enumerate(zip(places, orders, strict=True)):
            centred[:, column] = (_ranks(weights, place, order) - middle).T
        found[part] = (centred * counts[part][:, None, runs]) @ centred.swapaxes(1, 2)
    return found


def _slopes(weights: Array, x: Array, y: Array, runs: NDArray[np.intp]) -> Array:
    """OLS slope of each draw from sums per run."""
    x, y = x - x.mean(), y - y.mean()  # the sums of squares below lose no digits to a common offset
    columns = (np.ones_like(x), x, y, x * x, x * y)
    sums = weights @ np.stack([np.bincount(runs, column) for column in columns], axis=1)
    n, sx, sy, sxx, sxy = sums.T
    below = sxx - sx * sx / n
    below[below <= 1e-12 * np.maximum(sxx, 1e-300)] = NAN
    return (sxy - sx * sy / n) / below


def _ranks(weights: NDArray[Any], place: NDArray[np.intp], order: NDArray[np.intp]) -> NDArray[Any]:
    """Mid-ranks (N, B) in resamples of weights (N, B), the mean rank of the copies of each value.

    Args:
        place: (N,) of each model's value among all values.
        order: (N,) the models, sorted by value.
    """
    models = np.bincount(place)
    copies = weights[order]
    if len(models) < len(place):
        copies = np.add.reduceat(copies, np.cumsum(models) - models, axis=0)
    return (np.cumsum(copies, axis=0) - (copies - 1) / 2)[place]


def _correlation(covariance: Array) -> Array:
    product = covariance[:, 0, 0] * covariance[:, 1, 1]
    product[product <= 1e-9] = NAN  # ranks differ by a half at least, so a side that varies is far above this
    return np.clip(covariance[:, 0, 1] / np.sqrt(product), -1, 1)


def interval(draws: Array, runs: int, level: float = 0.95) -> tuple[float, float]:
    """Expanded percentile interval of bootstrap draws of ``runs`` clusters; NaN below ``MINIMUM_RUNS``.

    The percentiles are moved outwards so that for a mean the interval is as wide as Student's t with ``runs`` - 1
    degrees of freedom (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 4.3): plain
    percentiles are too narrow for few clusters. NaN also if more than one draw in twenty has no value.
    """
    known = draws[~np.isnan(draws)]
    if runs < MINIMUM_RUNS or len(known) < 0.95 * len(draws):
        return NAN, NAN
    tail = stats.norm.cdf(-np.sqrt(runs / (runs - 1)) * stats.t.ppf((1 + level) / 2, runs - 1))
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)
