"""Two runs at epochs of equal test accuracy and logit gap; no outcome is looked at to choose them."""

from __future__ import annotations

import numpy as np

from prs_lightning.analysis.statistics import Array


def matched_epochs(
    none: Array, treated: Array, *, accuracy_tolerance: float, gap_tolerance: float
) -> tuple[int, int] | None:
    """The places of the two epochs, one of them the last of its run, that are nearest; None where none are near enough.

    How far apart two are is the larger of the differences in accuracy and in gap, each in its tolerance; of equals the
    later ones. Without an end on either side the nearest would be early ones, where no arm has done anything yet.

    Args:
        none, treated: (E, 2) and (F, 2), test accuracy and logit gap of each epoch, in order; NaN where not taken.
        accuracy_tolerance: how far test accuracies may lie apart.
        gap_tolerance: how far logit gaps may, as a share of the larger one.
    """
    one, other = none[:, None], treated[None]
    allowed = np.stack(
        np.broadcast_arrays(accuracy_tolerance, gap_tolerance * np.maximum(one[..., 1], other[..., 1])), axis=-1
    )
    gone = np.abs(one - other)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.where(gone == 0, 0.0, gone / allowed).max(axis=-1)  # a tolerance of 0 allows what is equal
    apart = np.where(apart <= 1 + 1e-9, apart, np.inf)  # NaN too; shares that differ by the tolerance lie within it
    apart[:-1, :-1] = np.inf
    if not np.isfinite(apart).any():
        return None
    nearest = np.argwhere(apart == apart.min())
    first, second = nearest[nearest.sum(axis=1).argmax()]
    return int(first), int(second)
