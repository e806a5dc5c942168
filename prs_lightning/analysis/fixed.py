"""What is left of a relation at fixed batch size and epoch: between runs, and between the epochs of a run.

Only runs of one batch size (a stratum) are compared, at one epoch (a cell). The uncertainty is that of permuting whole
runs within their strata, which is exact if nothing but the stratum relates x to y, whatever the epochs of a run have to
do with each other (docs/statistics.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from prs_lightning.analysis.statistics import NAN, Array

Block = Array
"""One stratum: (K, runs, epochs) of x, y and K - 2 controls; NaN where a run has no model at an epoch."""


@dataclass(frozen=True)
class Permuted:
    """A statistic that permutations of whole runs leave around 0.

    Plain permutations are too sure where runs are not alike: where the same runs are volatile in x and in y, and where
    a seed moves its runs of all batch sizes. Both are reckoned with by how much larger the variance then is.

    Attributes:
        value: the statistic; NaN where x or y does not vary.
        plain: its variance over all permutations.
        volatile: the sandwich estimate of its variance (HC3, MacKinnon & White 1985) over that of permutations of the
            residuals; below 1 it is chance.
        alike: the variance if runs of one seed are permuted alike in all strata, over that of permutations; likewise.
            1 where strata hold other seeds.
        freedom: runs less strata less controls.
        null: (B,) the statistic of random permutations.
    """

    value: float = NAN
    plain: float = NAN
    volatile: float = 1.0
    alike: float = 1.0
    freedom: int = 0
    null: Array = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def variance(self) -> float:
        """That of permutations, enlarged."""
        return self.plain * max(1.0, self.volatile) * max(1.0, self.alike)

    @property
    def p(self) -> float:
        """Two-sided: how often a permutation, enlarged, is as far from 0, itself counted (Phipson & Smyth 2010)."""
        if not len(self.null) or np.isnan(self.value):
            return NAN
        far = np.abs(self.null) * np.sqrt(self.variance / self.plain) >= abs(self.value) - 1e-12
        return float((1 + far.sum()) / (1 + len(far)))


def blocks_of(columns: Sequence[Array], strata: NDArray[np.intp], runs: NDArray[np.intp], epochs: Array) -> list[Block]:
    """The strata of two runs or more; one run has none to be compared with.

    Args:
        columns: K arrays (N,) of x, y and controls.
        strata, runs, epochs: (N,) of each model.
    """
    blocks = []
    for stratum in np.unique(strata):
        inside = np.flatnonzero(strata == stratum)
        members, row = np.unique(runs[inside], return_inverse=True)
        times, column = np.unique(epochs[inside], return_inverse=True)
        if len(members) > 1:
            block = np.full((len(columns), len(members), len(times)), NAN)
            block[:, row, column] = [each[inside] for each in columns]
            blocks.append(block)
    return blocks


def between_runs(blocks: Sequence[Block], *, draws: int, rng: np.random.Generator, crossed: bool = False) -> Permuted:
    """Do runs of one batch size differ? The correlation of their mean normal scores, less the means of cells.

    Args:
        crossed: the runs of all strata have the same seeds, in the same order.
    """
    means = [np.nanmean(_centred(_normal_scores(block)), axis=2, keepdims=True) for block in blocks]
    return _correlation([_centred(block) for block in means], draws, rng, crossed)


def between_epochs(blocks: Sequence[Block], *, draws: int, rng: np.random.Generator, crossed: bool = False) -> Permuted:
    """Do epochs of a run differ? The correlation of what the means of runs and of cells leave of normal scores."""
    left = [_two_way(_normal_scores(block)) for block in blocks]
    return _correlation([block for block in left if block.shape[1] > 1], draws, rng, crossed)


def between_models(blocks: Sequence[Block], *, draws: int, rng: np.random.Generator, crossed: bool = False) -> Permuted:
    """Both together: the correlation of normal scores less the means of cells, of all models."""
    return _correlation([_centred(_normal_scores(block)) for block in blocks], draws, rng, crossed)


def fixed_slope(blocks: Sequence[Block], *, crossed: bool = False) -> tuple[Permuted, float]:
    """The least-squares slope of y on x among models of one cell, and how far apart their x lie.

    The distance is that of the 10th and the 90th percentile of x about the means of cells. The slope has the variance
    of permutations, and no draws of them.
    """
    centred = [_centred(block) for block in blocks]
    if not centred:
        return Permuted(), NAN
    known = np.concatenate([block[0][~np.isnan(block[0])] for block in centred])
    return _permuted(centred, 0, np.random.default_rng(0), crossed, lambda x, y: x), middle(known)


def middle(values: Array) -> float:
    """How far the 90th percentile lies above the 10th."""
    return float(np.subtract(*np.quantile(values, [0.9, 0.1])))


def _centred(block: Block) -> Block:
    """Less the mean of each cell; 0, and not what rounding leaves, where all runs are equal."""
    left = block - np.nanmean(block, axis=1, keepdims=True)
    largest = np.nanmax(np.abs(block), axis=(1, 2), keepdims=True)
    return np.where(np.abs(left) <= 1e-12 * largest, 0.0, left)


def _two_way(block: Block, passes: int = 50) -> Block:
    """Less the means of runs and of cells; without runs of one epoch, of which nothing is left.

    One pass does it where no model is missing; else the passes converge to the least-squares residuals.
    """
    left = block[:, (~np.isnan(block[0])).sum(axis=1) > 1]
    left = left[:, :, ~np.isnan(left[0]).all(axis=0)]
    if not left.size:
        return left
    largest = np.nanmax(np.abs(left), axis=(1, 2), keepdims=True)
    for _ in range(passes if np.isnan(left).any() else 1):
        left = left - np.nanmean(left, axis=2, keepdims=True)
        left = _centred(left)
    # What is left of a constant is 0, and not what rounding leaves.
    unit = np.where(largest > 0, largest, 1)
    return np.round(left / unit, 12) * unit


def _normal_scores(block: Block) -> Block:
    """Of each column over the stratum (van der Waerden 1952).

    No answer then hangs on the scale of a measure, no skewed one rests on a few models, and batch size cannot act.
    Ranks within cells, of five runs mostly, are too coarse to take a control out of.
    """
    flat = block.reshape(len(block), -1)
    ranks = stats.rankdata(flat, axis=1, nan_policy="omit")
    known = (~np.isnan(flat)).sum(axis=1, keepdims=True)
    return stats.norm.ppf(ranks / (known + 1)).reshape(block.shape)


def _correlation(blocks: Sequence[Block], draws: int, rng: np.random.Generator, crossed: bool) -> Permuted:
    return _permuted(blocks, draws, rng, crossed, lambda x, y: float(np.sqrt(x * y)))


def _permuted(
    blocks: Sequence[Block], draws: int, rng: np.random.Generator, crossed: bool, norm: Callable[[float, float], float]
) -> Permuted:
    """The sum of products of x and y over ``norm`` of their sums of squares, controls taken out of both.

    The residuals of y are permuted (Freedman & Lane 1983). Products of every run's x with every run's y hold all that
    a permutation needs: it is a sum over one entry of each row and column.
    """
    blocks = [np.where(np.isnan(block), 0, block) for block in blocks if block.shape[1] > 1]
    if not blocks:
        return Permuted()
    freedom = sum(block.shape[1] - 1 for block in blocks) - (len(blocks[0]) - 2)
    x, y = _without_controls(blocks)
    squares_x, squares_y = (sum(float((part**2).sum()) for part in parts) for parts in (x, y))
    if squares_x <= 0 or squares_y <= 0 or freedom < 1:
        return Permuted()
    scale = norm(squares_x, squares_y)
    matrices = [one @ other.T for one, other in zip(x, y, strict=True)]
    null = np.zeros(draws)
    for products in matrices:
        order = rng.permuted(np.tile(np.arange(len(products)), (draws, 1)), axis=1)
        null += products[np.arange(len(products)), order].sum(axis=1)
    value = sum(map(float, map(np.trace, matrices)))
    residuals = [m - value / squares_x * one @ one.T for m, one in zip(matrices, x, strict=True)]
    plain, of_residuals = (sum(map(_variance, each)) for each in (matrices, residuals))
    volatile = alike = 1.0
    if of_residuals > 0:
        leverage = np.concatenate([(one**2).sum(axis=1) for one in x]) / squares_x
        scores = np.concatenate([np.diag(each) for each in residuals]) / (1 - np.minimum(leverage, 0.99))
        volatile = float((scores**2).sum()) / of_residuals
        if crossed and len({*map(len, residuals)}) == 1:
            alike = _variance(np.sum(residuals, axis=0)) / of_residuals
    if plain <= 0:  # runs are equal in x or in y but for some that no permutation pairs
        return Permuted()
    # Permuted residuals leave the space that the controls leave: their products are too small (Freedman & Lane 1983).
    wider = (freedom + len(blocks[0]) - 2) / freedom
    return Permuted(value / scale, plain * wider / scale**2, volatile, alike, freedom, null * np.sqrt(wider) / scale)


def _variance(products: Array) -> float:
    """Of the sum of one entry of each row and column, over all permutations (Hoeffding 1951, eq. 10)."""
    centred = products - products.mean(axis=0) - products.mean(axis=1, keepdims=True) + products.mean()
    return float((centred**2).sum()) / (len(products) - 1)


def _without_controls(blocks: Sequence[Block]) -> tuple[list[Array], list[Array]]:
    """x and y of each stratum, (runs, epochs), less what is linear in the controls over all strata."""
    flat = np.concatenate([block.reshape(len(block), -1) for block in blocks], axis=1)
    sides, controls = flat[:2].T, flat[2:].T
    if controls.shape[1]:
        left = sides - controls @ np.linalg.lstsq(controls, sides, rcond=None)[0]
        gone = np.linalg.norm(left, axis=0) < 1e-9 * np.linalg.norm(sides, axis=0)
        sides = np.where(gone, 0, left)
    ends = np.cumsum([block[0].size for block in blocks])[:-1]
    shapes = [block.shape[1:] for block in blocks]
    x, y = ([part.reshape(shape) for part, shape in zip(np.split(side, ends), shapes, strict=True)] for side in sides.T)
    return x, y
