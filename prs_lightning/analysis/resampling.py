"""Cluster bootstrap over runs: whole runs are drawn with replacement, all draws at once.

A draw is a vector of counts, one per run, so resampled statistics are weighted statistics of the original models and
nothing is copied: slopes come from sums per run, Spearman from weighted mid-ranks. Both equal exactly what the plain
formula gives on the resampled rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from prs_lightning.analysis.statistics import NAN, Array, is_constant, run_means

MINIMUM_RUNS = 5
"""Below this number of runs no interval is given: the bootstrap has too few distinct draws to cover what it says."""

CHUNK = 1_000_000
"""Weights (draws x models) held at a time."""


@dataclass(frozen=True)
class Draws:
    """Bootstrap draws (B,) of each statistic; NaN where a draw made x or y constant."""

    runs: int
    slope: Array
    within: Array
    spearman: Array
    partial: Array


def cluster_bootstrap(
    x: Array, y: Array, runs: NDArray[np.intp], controls: Sequence[Array] = (), *, draws: int = 2000, seed: int = 0
) -> Draws:
    """Statistics of ``draws`` resamples of runs with replacement.

    Args:
        x, y: (N,) the models.
        runs: (N,) codes 0 .. G - 1 of the run of each model.
        controls: held fixed in ``partial``, each (N,).
    """
    count = int(runs.max()) + 1
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(count, np.full(count, 1 / count), size=draws).astype(float)
    varying = [control for control in controls if not is_constant(control)]
    rho, partial = [], []
    for counts in np.array_split(weights, max(1, -(-draws * len(x) // CHUNK))):
        part = counts[:, runs]
        covariance = _covariances(part, np.stack([_ranks(part, column) for column in (x, y, *varying)], axis=-1))
        across = covariance[:, :2, 2:]
        explained = across @ np.linalg.pinv(covariance[:, 2:, 2:], rcond=1e-10, hermitian=True) @ across.swapaxes(1, 2)
        rho.append(_correlation(covariance[:, :2, :2]))
        partial.append(_correlation(covariance[:, :2, :2] - explained))
    return Draws(
        runs=count,
        slope=_slopes(weights, x, y, runs),
        # Each run's deviations sum to 0, so the intercept stays 0 in every draw.
        within=_slopes(weights, x - run_means(x, runs)[runs], y - run_means(y, runs)[runs], runs),
        spearman=np.concatenate(rho),
        partial=np.concatenate(partial),
    )


def _slopes(weights: Array, x: Array, y: Array, runs: NDArray[np.intp]) -> Array:
    """OLS slope of each draw from sums per run."""
    x, y = x - x.mean(), y - y.mean()  # the sums of squares below lose no digits to a common offset
    columns = (np.ones_like(x), x, y, x * x, x * y)
    sums = weights @ np.stack([np.bincount(runs, column, minlength=weights.shape[1]) for column in columns], axis=1)
    n, sx, sy, sxx, sxy = sums.T
    below = sxx - sx * sx / n
    below[below <= 1e-12 * np.maximum(sxx, 1e-300)] = NAN
    return (sxy - sx * sy / n) / below


def _ranks(weights: Array, column: Array) -> Array:
    """Mid-ranks (B, N) of a column in resamples of weights (B, N): the mean rank of the copies of each value."""
    _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
    order = np.argsort(place, kind="stable")
    copies = np.add.reduceat(weights[:, order], np.cumsum(counts) - counts, axis=1)
    return (np.cumsum(copies, axis=1) - (copies - 1) / 2)[:, place]


def _covariances(weights: Array, columns: Array) -> Array:
    """Weighted covariances (B, K, K) of columns (B, N, K), times the total weight."""
    means = np.einsum("bn,bnk->bk", weights, columns) / weights.sum(axis=1, keepdims=True)
    centred = columns - means[:, None]
    return np.matmul((centred * weights[..., None]).swapaxes(1, 2), centred)


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
