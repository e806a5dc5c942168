"""What one panel says of a relation: the association, and what is left of it at fixed batch size and epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prs_lightning.analysis import fixed, resampling
from prs_lightning.analysis.fixed import Permuted
from prs_lightning.analysis.pooling import Estimate
from prs_lightning.analysis.relations import plural
from prs_lightning.analysis.statistics import NAN, Array, held_fixed, ols, partial_spearman, residual

UNKNOWN = Estimate()
PERMUTATIONS = 2000


@dataclass(frozen=True)
class Models:
    """The models of a panel, each array (N,).

    Attributes:
        controls: measures to be held fixed in all answers.
        runs: codes 0 .. G - 1.
        batch_sizes, epochs: of each model.
        seeds: of each model, where they are known.
    """

    x: Array
    y: Array
    runs: NDArray[np.intp]
    batch_sizes: Array
    epochs: Array
    controls: Sequence[Array] = ()
    seeds: Array | None = None

    @cached_property
    def crossed(self) -> bool:
        """Whether all strata have one run of each of the same seeds."""
        if self.seeds is None or np.isnan(self.seeds).any():
            return False
        first = np.unique(self.runs, return_index=True)[1]
        of_strata = [
            tuple(sorted(self.seeds[first][self.batch_sizes[first] == size])) for size in np.unique(self.batch_sizes)
        ]
        return len({*of_strata}) == 1 and len({*of_strata[0]}) == len(of_strata[0])

    @cached_property
    def strata(self) -> NDArray[np.intp]:
        """Of each run (G,)."""
        return resampling.strata_of(self.batch_sizes[np.unique(self.runs, return_index=True)[1]])

    @cached_property
    def plain(self) -> tuple[Array, Array]:
        """x and y less what is linear in the controls."""
        if not self.controls:
            return self.x, self.y
        x, y = (residual(side, *self.controls) for side in (self.x, self.y))
        return x, y

    def blocks(self, *further: Array) -> list[fixed.Block]:
        """The strata, of x, y, the controls and ``further`` ones."""
        codes = np.unique(self.batch_sizes, return_inverse=True)[1]
        runs = self.runs
        if self.seeds is not None and self.crossed:  # in the order of their seeds in every stratum
            runs = np.unique(np.stack([self.seeds, runs]), axis=1, return_inverse=True)[1].reshape(-1)
        return fixed.blocks_of([self.x, self.y, *self.controls, *further], codes, runs, self.epochs)


@dataclass(frozen=True)
class Panel:
    """What one panel says of a relation; effects have the sign of y on x.

    Attributes:
        excluded: why nothing can be told of it; empty if something can.
        edge: 0 or 1 where y lies there and is excluded for it; NaN elsewhere.
        bound: then, of the largest share of samples, the exact upper bound.
        spearman: of all models, partial where there are controls.
        association: the same on Fisher's z.
        change, fixed_change: of y in its unit, over the middle 80% of x: of all models, and of those of one cell.
        fixed_batch, fixed_epoch: the correlation of ranks with one of them held fixed alone.
        slope: of least squares, with its draws' variance.
        degenerate: share of draws without a value.
    """

    model: str = ""
    data: str = ""
    models: int = 0
    runs: int = 0
    excluded: str = ""
    edge: float = NAN
    bound: float = NAN
    spearman: float = NAN
    association: Estimate = UNKNOWN
    between_runs: Permuted = field(default_factory=Permuted, repr=False)
    between_epochs: Permuted = field(default_factory=Permuted, repr=False)
    change: Estimate = UNKNOWN
    fixed_change: Estimate = UNKNOWN
    fixed_batch: float = NAN
    fixed_epoch: float = NAN
    slope: Estimate = UNKNOWN
    degenerate: float = NAN

    @property
    def without_interval(self) -> str:
        """Why its association has no interval; empty if it has one."""
        if self.association.known:
            return ""
        if self.degenerate > 1 - resampling.KNOWN:
            return f"no interval: x or y is constant in {self.degenerate:.0%} of the draws"
        return f"no interval ({plural(self.runs, 'run')})"

    @property
    def left_out(self) -> str:
        """Why it does not count; empty if it does."""
        return self.excluded or self.without_interval


def association(models: Models, weights: Array, covariances: Array) -> dict[str, Any]:
    """The answers over all models, for ``Panel``; x and y must vary.

    Args:
        weights: (B, G) of ``resampling.drawn_runs``.
        covariances: (B, K, K) of the ranks of x, y and controls in these draws.
    """
    draws = resampling.partial_correlations(covariances)
    value = partial_spearman(models.x, models.y, models.controls)
    x, y = models.plain
    strata = models.strata
    controls = len(models.controls)
    slopes = resampling.resampled_slopes(x, y, models.runs, weights)
    slope = resampling.estimate(ols(x, y)[0], slopes, strata, controls)
    return {
        "spearman": value,
        "association": resampling.fishers_z(value, draws, strata, len(x), controls),
        "slope": slope,
        "change": times(slope, fixed.middle(x)),
        "degenerate": float(np.isnan(draws).mean()),
    }


def at_fixed_batch_and_epoch(models: Models, seed: Sequence[int]) -> dict[str, Any]:
    """The answers of permuted runs, for ``Panel``.

    Epochs of a run say nothing beyond controls: of a hundred models, what the shape of a control's influence leaves is
    enough to be found.
    """
    blocks = models.blocks()
    rng = np.random.default_rng([*seed, 1])
    slope, spread = fixed.fixed_slope(blocks, crossed=models.crossed)
    permuted: dict[str, Any] = {"draws": PERMUTATIONS, "rng": rng, "crossed": models.crossed}
    codes = [np.unique(each, return_inverse=True)[1] for each in (models.batch_sizes, models.epochs)]
    return {
        "between_runs": fixed.between_runs(blocks, **permuted),
        "between_epochs": Permuted() if models.controls else fixed.between_epochs(blocks, **permuted),
        "fixed_change": times(as_estimate(slope), spread),
        "fixed_batch": held_fixed(*models.plain, codes[0]),
        "fixed_epoch": held_fixed(*models.plain, codes[1]),
    }


def as_estimate(permuted: Permuted, *, correlation: bool = False) -> Estimate:
    """With the variance of the permutations, of a correlation on Fisher's z; none below three degrees of freedom."""
    value = permuted.value
    if correlation:
        value = float(np.arctanh(np.clip(value, -resampling.LARGEST, resampling.LARGEST)))
    enough = permuted.freedom >= 3
    return Estimate(value, permuted.variance if enough else NAN, permuted.freedom)


def times(estimate: Estimate, factor: float) -> Estimate:
    """The estimate of a multiple."""
    return Estimate(estimate.value * factor, estimate.variance * factor**2, estimate.freedom)
