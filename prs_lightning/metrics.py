"""The project's torchmetrics: populated regions, inclusion, sparsity, cosine similarity.

Every metric counts each sample once over processes with uneven shards (also empty ones), and can be reset, pickled
and, after ``persistent(True)``, kept in a checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prs_lightning.errors import ConfigError
from prs_lightning.regions.metrics import InclusionRatio, Measure, PopulatedRegions, RegionStatistics
from prs_lightning.regions.statistics import added_up

__all__ = [
    "CosineSimilarity",
    "InclusionRatio",
    "PopulatedRegions",
    "RegionStatistics",
    "Sparsity",
    "cosine_matrix",
    "cosine_similarity",
    "count_zeros",
]


def cosine_matrix(weight: Tensor) -> Tensor:
    """cos(w_i, w_j) of the rows of ``weight`` (K, D): float64 (K, K) in [-1, 1]; 0 where a row is all zeros."""
    rows = F.normalize(weight.detach().double(), dim=1)
    return (rows @ rows.T).clamp(-1, 1)


def cosine_similarity(weight: Tensor) -> Tensor:
    """Mean over pairs i < j of cos(w_i, w_j), w_i the rows of ``weight`` (K, D): a scalar in [-1, 1].

    >>> cosine_similarity(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])).item()
    0.3333333333333333
    """
    if weight.ndim != 2 or len(weight) < 2:
        raise ConfigError(f"weight of shape {tuple(weight.shape)}: expected (K, D) with at least two rows to compare")
    pairs = torch.triu_indices(len(weight), len(weight), offset=1, device=weight.device)
    return cosine_matrix(weight)[pairs[0], pairs[1]].mean()


_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def count_zeros(values: Tensor) -> Tensor:
    """How many of ``values`` (floating point, any shape) equal 0, as -0 does: a scalar, int64.

    Counted as whole numbers of the same bits, for ``count_nonzero`` of floats is not vectorised on a CPU. For the
    largest output of CNN-6, 200 images, it took 29 ms and this takes 5 ms; over all outputs that was a fifth of a
    measuring pass.

    >>> count_zeros(torch.tensor([0.0, -0.0, 1e-45, torch.nan])).item()
    2
    """
    values = values.detach()
    return values.numel() - values.abs().view(_BITS[values.element_size()]).count_nonzero()


class Sparsity(Measure):
    """For every ReLU output the ratio of zeros, then the mean over the layers: in [0, 1].

    >>> metric = Sparsity()
    >>> metric.update(torch.tensor([[0.0, 1.0]]), layer=0)
    >>> metric.update(torch.tensor([[0.0, 0.0, 0.0, 2.0]]), layer=1)
    >>> metric.compute().item()
    0.625
    """

    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    counts: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # At most one tensor (layers, 2) of zeros and elements; not known before how many layers there are.
        self.add_state("counts", default=[], dist_reduce_fx=None)

    def update(self, output: Tensor, layer: int = 0) -> None:
        """Count the zeros of one batch of ReLU outputs of any shape; ``layer`` is the output's place, from 0."""
        counts = torch.zeros(layer + 1, 2, dtype=torch.int64, device=output.device)
        counts[layer, 0] = count_zeros(output)
        counts[layer, 1] = output.numel()
        self.counts = [added_up([*self.counts, counts])]

    def layers(self) -> Tensor:
        """Ratio of zeros of each layer seen so far by this process: float64 (L,)."""
        zeros, elements = added_up(self.counts).double().T
        return zeros / elements

    def compute(self) -> Tensor:
        """The mean over layers, float64."""
        return self.layers().mean()

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        empty = torch.zeros(0, 2, dtype=torch.int64, device=self.device)
        self.counts = [added_up([*self.counts, empty])]
        super()._sync_dist(*args, **kwargs)


class CosineSimilarity(Measure):
    """Mean over pairs i < j of cos(w_i, w_j), w_i the rows of a weight (K, D): in [-1, 1]; `cosine_similarity`.

    Several updates, and processes, are averaged: all processes hold the same weights.

    >>> metric = CosineSimilarity()
    >>> metric.update(torch.eye(3))
    >>> metric.compute().item()
    0.0
    """

    plot_lower_bound = -1.0
    plot_upper_bound = 1.0
    total: Tensor
    updates: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("updates", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, weight: Tensor) -> None:
        """Take one weight matrix."""
        self.total = self.total + cosine_similarity(weight)
        self.updates = self.updates + 1

    def compute(self) -> Tensor:
        """The mean, float64."""
        return self.total / self.updates
