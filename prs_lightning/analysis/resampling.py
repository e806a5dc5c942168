"""The bootstrap of one panel: whole runs are drawn within strata of batch size, all draws at once.

A draw is a vector of weights, one per run, so resampled statistics are weighted statistics of the original models and
nothing is copied: slopes come from sums per run, Spearman from weighted mid-ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from prs_lightning.analysis.pooling import Estimate
from prs_lightning.analysis.statistics import MINIMUM_RUNS, NAN, Array

RANKS_AT_ONCE = 1_000_000
"""Numbers in memory for the bootstrap: models x columns x draws."""
LARGEST = 0.999
"""No correlation is taken to be larger: Fisher's z of 1 is infinite."""
KNOWN = 0.95
"""The least share of draws that must have a value."""


def strata_of(batch_sizes: Array) -> NDArray[np.intp]:
    """The stratum of each run (G,): its batch size; one that a single run has is joined with the next larger one.

    >>> strata_of(np.array([64, 128, 128, 64, 2048, 512])).tolist()
    [0, 1, 1, 0, 2, 2]
    """
    _, codes = np.unique(batch_sizes, return_inverse=True)
    joined, held = np.zeros(codes.max() + 1, dtype=np.intp), 0
    for code, count in enumerate(np.bincount(codes)):
        joined[code] = joined[code - 1] + (held > 1) if code else 0
        held = count if held > 1 else held + count
    if held == 1 and joined[-1]:
        joined[joined == joined[-1]] -= 1
    return joined[codes]


def drawn_runs(strata: NDArray[np.intp], *, draws: int, rng: np.random.Generator) -> Array:
    """Weights (B, G) of the G runs: of a stratum of n, n - 1 are drawn with replacement, and weigh n / (n - 1).

    Drawing n would make the variance too small by (n - 1) / n: half of it, for two runs (Rao & Wu 1988, section 2).
    """
    weights = np.ones((draws, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        if (count := len(members)) > 1:
            drawn = rng.multinomial(count - 1, np.full(count, 1 / count), size=draws)
            weights[:, members] = drawn * (count / (count - 1))
    return weights


def rank_covariances(columns: Sequence[Array], runs: NDArray[np.intp], weights: Array) -> Array:
    """Sums of products of the centred mid-ranks of K columns (N,) in each draw: (B, K, K)."""
    sizes = weights @ np.bincount(runs)
    places = [np.unique(column, return_inverse=True)[1] for column in columns]
    orders = [np.argsort(place, kind="stable") for place in places]
    found = np.empty((len(weights), len(columns), len(columns)))
    at_once = max(1, RANKS_AT_ONCE // (len(runs) * len(columns)))
    for start in range(0, len(weights), at_once):
        part = slice(start, start + at_once)
        copies = weights[part].T[runs]  # models x draws: what follows moves whole rows
        middle = (sizes[part] + 1) / 2
        centred = np.empty((len(middle), len(columns), len(runs)))
        for column, (place, order) in enumerate(zip(places, orders, strict=True)):
            centred[:, column] = (_ranks(copies, place, order) - middle).T
        found[part] = (centred * weights[part][:, None, runs]) @ centred.swapaxes(1, 2)
    return found


def _ranks(weights: Array, place: NDArray[np.intp], order: NDArray[np.intp]) -> Array:
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


def partial_correlations(covariances: Array) -> Array:
    """The correlation of the first two columns in each draw, the others held fixed; NaN where a side does not vary."""
    across = covariances[:, :2, 2:]
    explained = across @ np.linalg.pinv(covariances[:, 2:, 2:], rcond=1e-10, hermitian=True) @ across.swapaxes(1, 2)
    left = covariances[:, :2, :2] - explained
    squares = left[:, [0, 1], [0, 1]]
    varies = (squares > 1e-9 * covariances[:, [0, 1], [0, 1]]) & (squares > 1e-9)
    product = np.where(varies.all(axis=1), squares.prod(axis=1), NAN)
    return np.clip(left[:, 0, 1] / np.sqrt(product), -1, 1)


def resampled_slopes(x: Array, y: Array, runs: NDArray[np.intp], weights: Array) -> Array:
    """The least-squares slope of y on x in each draw; NaN where x does not vary."""
    x, y = x - x.mean(), y - y.mean()  # the sums of squares below lose no digits to a common offset
    columns = (np.ones_like(x), x, y, x * x, x * y)
    n, sx, sy, sxx, sxy = (weights @ np.stack([np.bincount(runs, column) for column in columns], axis=1)).T
    below = sxx - sx * sx / n
    below[below <= 1e-12 * np.maximum(sxx, 1e-300)] = NAN
    return (sxy - sx * sy / n) / below


def estimate(value: float, draws: Array, strata: NDArray[np.intp], controls: int = 0) -> Estimate:
    """The value with the variance of its draws, from their 16th and 84th percentiles, which no outlier moves.

    Without a variance below ``MINIMUM_RUNS`` runs or three degrees of freedom (runs less strata), each beside the
    controls, or where more than one draw in twenty has no value.
    """
    freedom = len(strata) - len(np.unique(strata)) - controls
    known = draws[~np.isnan(draws)]
    if len(strata) < MINIMUM_RUNS + controls or freedom < 3 or len(known) < KNOWN * len(draws):
        return Estimate(value, freedom=max(freedom, 0))
    low, high = np.quantile(known, stats.norm.cdf([-1, 1]))
    return Estimate(value, float(high - low) ** 2 / 4, freedom)


def fishers_z(correlation: float, draws: Array, strata: NDArray[np.intp], models: int, controls: int = 0) -> Estimate:
    """A correlation on Fisher's scale; its variance is not below that of as many independent models.

    That is 1 / (N - K - 3) with K controls (Fisher 1924).
    """
    *drawn, value = np.arctanh(np.clip(np.append(draws, correlation), -LARGEST, LARGEST))
    found = estimate(float(value), np.array(drawn), strata, controls)
    if np.isnan(found.variance):
        return found
    return replace(found, variance=max(found.variance, 1 / max(models - controls - 3, 1)))
