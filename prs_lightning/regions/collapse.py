"""Neural collapse: how small classes are against their distances, how equal their angles; and the torchmetrics twin.

Papyan, Han & Donoho 2020, "Prevalence of neural collapse during the terminal phase of deep learning training".
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from prs_lightning.errors import ConfigError
from prs_lightning.regions.metrics import Measure

MOST_FEATURES = 8192
"""Up to this many features (D, D) sums are kept for nc1: half a GiB."""
BLOCK = 512
"""So many rows of them at a time, right of the diagonal alone: the sums are symmetric."""
ROWS = 1024
"""At least so many samples are added to those sums at a time: a sum is cheaper for many than for few."""


def centred_means(means: Tensor) -> Tensor:
    """Class means (C, D) less their mean, in which each class counts alike, whatever its size."""
    return means - means.mean(dim=0)


def nc2(means: Tensor) -> Tensor:
    """Mean over pairs of classes of |cos of the angle between their centred means + 1 / (C - 1)|: in [0, 2], float64.

    0 for a simplex equiangular tight frame, so always for two classes (Papyan et al. 2020, figure 3). A class whose
    mean is the centre has no angle, its cosines count as 0. NaN where means (C, D) are of fewer than two classes or
    all equal, as far as float32 tells.

    >>> round(nc2(torch.eye(4)).item(), 6), round(nc2(torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])).item(), 6)
    (0.0, 0.444444)
    """
    means = means.double()
    if len(means) < 2 or not _apart(means):
        return means.new_full((), torch.nan)
    classes = len(means)
    pairs = torch.triu_indices(classes, classes, offset=1, device=means.device)
    rows = F.normalize(centred_means(means), dim=1)
    return ((rows @ rows.T)[pairs[0], pairs[1]] + 1 / (classes - 1)).abs().mean()


def _apart(means: Tensor) -> bool:
    """Whether class means differ by more than float32 rounds."""
    return bool(centred_means(means).norm(dim=1).max() > torch.finfo(torch.float32).eps * means.norm(dim=1).max())


def inverse_root(means: Tensor) -> Tensor:
    """Q (r, D) with Q^T Q = Sigma_B^+, of the between-class covariance Sigma_B = 1/C sum (m_c - m)(m_c - m)^T.

    Its rank r is C - 1 at most, so no (D, D) matrix is needed. Eigenvalues below those that ``torch.linalg.pinv``
    keeps count as 0.
    """
    centred = centred_means(means.double())
    values, directions = torch.linalg.svd(centred, full_matrices=False)[1:]
    eigenvalues = values**2 / len(means)
    kept = eigenvalues > eigenvalues[0] * max(centred.shape) * torch.finfo(torch.float64).eps
    return directions[kept] / eigenvalues[kept].sqrt().unsqueeze(1)


def centred_rows(features: Tensor, labels: Tensor, counts: Tensor, means: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a batch adds to the scatter within classes, as rows R with sum R^T R, and counts and means with the batch.

    The rows are the batch's features less their class's mean in the batch, and for each class the difference of its
    means before and in the batch, times sqrt(n m / (n + m)) for n and m samples (Chan, Golub & LeVeque 1983,
    "Algorithms for computing the sample variance", equation 2.1): no large sums cancel.

    Args:
        features: (N, D). labels: int64 (N,).
        counts: of each class before, float64 (C,). means: likewise (C, D).

    Returns:
        Rows (N + C, D) in the features' type; counts (C,) and means (C, D), float64.
    """
    one_hot = F.one_hot(labels, len(counts)).double()
    added = one_hot.sum(dim=0)
    its_means = one_hot.T @ features.double() / added.clamp_min(1).unsqueeze(1)
    both = (counts + added).clamp_min(1)
    shift = its_means - means
    between = (counts * added / both).sqrt().unsqueeze(1) * shift
    rows = torch.cat([features - its_means.to(features.dtype)[labels], between.to(features.dtype)])
    return rows, counts + added, means + shift * (added / both).unsqueeze(1)


class Collapse(Measure):
    """``nc1`` and ``nc2`` of features (N, D) with labels, over one pass and all processes: float64 scalars.

    ``nc1`` = Tr(Sigma_W Sigma_B^+) / C, 0 or more: the covariance within classes, Sigma_W = 1/N sum (h - m_y)(h -
    m_y)^T over all samples, against that between class means, `inverse_root`. ``nc2`` as the function of that name. C
    are the classes that occur; a class of one sample adds nothing to Sigma_W. Both are NaN where fewer than two
    classes occur or their means are all equal; ``nc1`` also beyond `MOST_FEATURES` features.

    Kept are the class means and, once there are more samples than features, half of their (D, D) scatter. Processes
    exchange the means, then the trace, which is additive: never a matrix.

    >>> metric = Collapse(classes=2)
    >>> metric.update(torch.tensor([[1.0, 3.0], [3.0, 3.0], [-2.0, 3.0]]), torch.tensor([0, 0, 1]))
    >>> {name: round(value.item(), 6) for name, value in metric.compute().items()}
    {'nc1': 0.083333, 'nc2': 0.0}
    """

    full_state_update = True  # two states that come of parts cannot be merged by name alone
    plot_lower_bound = 0.0
    counts: Tensor
    means: list[Tensor]
    scatter: list[Tensor]
    features: list[Tensor]
    labels: list[Tensor]
    trace: list[Tensor]

    def __init__(self, classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("counts", default=torch.zeros(classes, dtype=torch.float64), dist_reduce_fx=None)
        # Not known before how many features there are; features and labels wait for enough of them.
        for state in ("means", "scatter", "features", "labels", "trace"):
            self.add_state(state, default=[], dist_reduce_fx=None)

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Take features (N, D) of samples with labels, int (N,), in [0, classes)."""
        if features.ndim != 2:
            raise ConfigError(f"features of shape {tuple(features.shape)}: expected (N, D)")
        self.features.append(features.detach().clone())
        self.labels.append(labels.to(torch.int64))
        width = features.shape[1]
        if sum(map(len, self.labels)) >= (ROWS if width > MOST_FEATURES else max(ROWS, width)):
            rows, self.counts, means = self._with_waiting()
            self.means, self.features, self.labels = [means], [], []
            if width <= MOST_FEATURES:
                before = self.scatter[0] if self.scatter else rows.new_zeros(width, width, dtype=torch.float64)
                for start in range(0, width, BLOCK):
                    before[start : start + BLOCK, start:] += rows[:, start : start + BLOCK].T @ rows[:, start:]
                self.scatter = [before]

    def _with_waiting(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, counts and means, those samples included that wait."""
        if not self.features:
            means = self.means[0] if self.means else self.counts.new_zeros(len(self.counts), 0)
            return means[:0].float(), self.counts, means
        features = torch.cat(self.features)
        means = self.means[0] if self.means else features.new_zeros(len(self.counts), features.shape[1]).double()
        return centred_rows(features, torch.cat(self.labels), self.counts, means)

    def _trace(self, rows: Tensor, root: Tensor) -> Tensor:
        """Of the scatter within classes times Sigma_B^+."""
        trace = (rows.double() @ root.T).square().sum()
        if self.scatter:
            upper, twice = self.scatter[0].triu(), self.scatter[0].diagonal()
            trace = trace + 2 * ((root @ upper) * root).sum() - (twice * root.square()).sum()
        return trace

    def _sync_dist(self, dist_sync_fn: Any = gather_all_tensors, process_group: Any = None) -> None:
        group = process_group or self.process_group
        rows, counts, means = self._with_waiting()
        parts = dist_sync_fn(torch.cat([counts.unsqueeze(1), means], dim=1), group=group)
        width = max(part.shape[1] for part in parts) - 1
        self.counts, sums = torch.zeros_like(counts), counts.new_zeros(len(counts), width)
        for part in parts:
            self.counts = self.counts + part[:, 0]
            if part.shape[1] > 1:  # a process without samples knows no width
                sums += part[:, :1] * part[:, 1:]
        overall = sums / self.counts.clamp_min(1).unsqueeze(1)
        trace = counts.new_zeros(())
        if means.shape[1] and (present := overall[self.counts > 0]).shape[0] > 1 and _apart(present):
            root = inverse_root(present)
            trace = self._trace(rows, root) + (counts * ((means - overall) @ root.T).square().sum(dim=1)).sum()
        self.trace = [torch.stack(dist_sync_fn(trace, group=group)).sum()]
        self.means, self.features, self.labels, self.scatter = [overall], [], [], []

    def compute(self) -> dict[str, Tensor]:
        """The two, as scalars on the metric's device."""
        rows, counts, means = self._with_waiting()
        present = means[counts > 0]
        if len(present) < 2 or not _apart(present):
            return dict.fromkeys(("nc1", "nc2"), counts.new_full((), torch.nan))
        trace = self.trace[0] if self.trace else self._trace(rows, inverse_root(present))
        if means.shape[1] > MOST_FEATURES:
            trace = trace * torch.nan
        return {"nc1": trace / counts.sum() / len(present), "nc2": nc2(present)}
