"""Was a measure able to tell the networks of a panel apart? Asked before any verdict (docs/statistics.md)."""

from __future__ import annotations

import numpy as np
from scipy import stats

from prs_lightning.analysis.statistics import NAN, Array, is_constant

AT_THE_EDGE = 0.8
"""More than this share of values at 0 or 1: what is left is the story of a few models."""
LEVELS = 5
"""Fewer different values than this cannot be ranked to any purpose."""
SAMPLES = 100_000
"""No share is taken to be of more samples than this."""


def samples_of(shares: Array) -> int:
    """The least number of samples, up to ``SAMPLES``, that all these can be shares of.

    A multiple of what two of them differ by at least; if none fits, as they were rounded or smoothed, that itself.

    >>> samples_of(np.array([0.0, 0.25, 0.3])), samples_of(np.array([0.2, 0.5]))
    (20, 10)
    """
    levels = np.unique(np.concatenate([np.clip(shares, 0, 1), [0.0, 1.0]]))
    apart = np.diff(levels)
    least = 1 / apart[apart > 0.5 / SAMPLES].min()
    candidates = np.unique(np.round(least * np.arange(1, 51)).clip(1, SAMPLES))
    fits = [np.abs(levels * each - np.round(levels * each)).max() < 0.01 for each in candidates]
    return int(candidates[fits][0] if any(fits) else candidates[0])


def _near(samples: int) -> float:
    """How far from 0 or 1 is within one sample of it; of a handful of samples none is."""
    return min(1.5 / samples, 0.1)


def why_not(values: Array, samples: int | None = None, *, drawn: bool = True) -> str:
    """Why the values of one panel's models tell nothing apart; empty if they do.

    Args:
        values: (N,) of the models.
        samples: they are shares, in [0, 1], of so many; None for other measures.
        drawn: the samples stand for others, as those of a test set do: their number makes an error.
    """
    if is_constant(values):
        return f"{values[0]:.4g} in every model" if len(values) else "no model"
    if samples is None:
        distinct, counts = np.unique(values, return_counts=True)
        if counts.max() > AT_THE_EDGE * len(values):
            return f"{distinct[counts.argmax()]:.4g} in {counts.max()} of {len(values)} models"
        return ""
    if values.min() < 0 or values.max() > 1:
        return f"is no share of samples in every model ({values.min():.4g} to {values.max():.4g})"
    for edge in (0, 1):
        near = int((np.abs(values - edge) <= _near(samples)).sum())
        if near > AT_THE_EDGE * len(values):
            return f"within one sample of {edge} in {near} of {len(values)} models"
    if (levels := len(np.unique(values[values > _near(samples)]))) < min(LEVELS, len(values)):
        return f"{levels} different values above one sample of {samples:,}"
    if not drawn:
        return ""
    mean = float(values.mean())
    dispersion = samples * float(((values - mean) ** 2).sum()) / (mean * (1 - mean))
    if stats.chi2.sf(dispersion, len(values) - 1) > 0.05:
        return f"differs by no more than counting {samples:,} samples does"
    return ""


def edge_of(shares: Array, samples: int, level: float = 0.95) -> tuple[float, float]:
    """0 or 1 where almost all shares lie at it, else NaN; and the exact upper bound of the largest.

    The bound is Clopper & Pearson's (1934), of the largest share as a count of samples.
    """
    shares = np.clip(shares, 0, 1)
    near = max(_near(samples), 0.001)
    edges = [edge for edge in (0, 1) if (np.abs(shares - edge) <= near).mean() > AT_THE_EDGE]
    exact = stats.binomtest(round(float(shares.max()) * samples), samples).proportion_ci(level, "exact")
    return (edges[0] if edges else NAN), float(exact.high)
