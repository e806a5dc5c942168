"""torchmetrics twins of the region functions, of sparsity and of cosine similarity.

Every metric counts each sample once over processes with uneven shards (also empty ones), and can be reset, pickled
and, after ``persistent(True)``, kept in a checkpoint. Keys are exchanged at 16 bytes a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from prs_lightning.errors import ConfigError
from prs_lightning.region_keys import count_keys, find_keys
from prs_lightning.regions import has_nan, refuse_nan, region_keys


def added_up(parts: Sequence[Tensor]) -> Tensor:
    """The sum of counts (L, M) whose shapes may differ: a smaller one counts nothing in the places it lacks."""
    rows, columns = (max((part.shape[axis] for part in parts), default=0) for axis in (0, 1))
    padded = [F.pad(part, (0, columns - part.shape[1], 0, rows - part.shape[0])) for part in parts]
    return torch.stack(padded).sum(dim=0) if padded else torch.zeros(0, 0, dtype=torch.int64)


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


class _Keyed(Metric):
    """What the metrics over regions share: keys of samples in list states, and a NaN that is reported by `compute`.

    `update` does not refuse NaN at once: that would wait for the GPU at every batch and, over several processes,
    leave the others waiting for the one that failed. `compute` refuses it on all processes.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None
    nan_batches: Tensor

    def __init__(self, *, states: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.key_states = tuple(states)
        for state in states:
            self.add_state(state, default=[], dist_reduce_fx="cat")
        self.add_state("nan_batches", default=torch.tensor(0), dist_reduce_fx="sum")

    def _keys_of(self, z: Tensor) -> Tensor:
        self.nan_batches = self.nan_batches + has_nan(z)
        return region_keys(z, check=False)

    def _gathered(self, state: str) -> Tensor:
        parts = getattr(self, state)
        return dim_zero_cat(parts) if len(parts) else torch.empty(0, 2, dtype=torch.int64, device=self.device)

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        # A process without samples must send keys of the right shape and type too.
        for state in self.key_states:
            setattr(self, state, [self._gathered(state)])
        super()._sync_dist(*args, **kwargs)


class PopulatedRegions(_Keyed):
    """``count`` and ``ratio`` of the populated regions of pre-activations (N, D) or (N, C, H, W); `regions.prs_ratio`.

    ``compute`` returns ``{"count": int64, "ratio": float64 in [0, 1]}``.

    >>> metric = PopulatedRegions()
    >>> metric.update(torch.tensor([[1.0, -1.0], [2.0, -3.0], [-1.0, 1.0], [0.0, 0.5]]))
    >>> {name: value.item() for name, value in metric.compute().items()}
    {'count': 2, 'ratio': 0.5}
    """

    plot_lower_bound = 0.0
    keys: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(states=("keys",), **kwargs)

    def update(self, z: Tensor) -> None:
        """Count the samples of one batch of pre-activations."""
        self.keys.append(self._keys_of(z))

    def compute(self) -> dict[str, Tensor]:
        """``count`` of regions, ``ratio`` to the samples (NaN without samples)."""
        refuse_nan(self.nan_batches > 0)
        keys = self._gathered("keys")
        count = torch.tensor(len(count_keys(keys)[0]), device=self.device)
        return {"count": count, "ratio": count.double() / len(keys)}


class InclusionRatio(_Keyed):
    """Share of test samples whose region holds a training sample, in [0, 1]; `regions.inclusion_ratio`.

    >>> metric = InclusionRatio()
    >>> metric.update(torch.tensor([[1.0, 1.0]]), train=True)
    >>> metric.update(torch.tensor([[2.0, 3.0], [-1.0, 1.0]]), train=False)
    >>> metric.compute().item()
    0.5
    """

    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    train_keys: list[Tensor]
    test_keys: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(states=("train_keys", "test_keys"), **kwargs)

    def update(self, z: Tensor, *, train: bool) -> None:
        """Take the regions of one batch of training (``train=True``) or test samples (``train=False``)."""
        (self.train_keys if train else self.test_keys).append(self._keys_of(z))

    def compute(self) -> Tensor:
        """The ratio, float64; NaN without test samples."""
        refuse_nan(self.nan_batches > 0)
        regions, _ = count_keys(self._gathered("train_keys"))
        return (find_keys(regions, self._gathered("test_keys")) >= 0).double().mean()


class Sparsity(Metric):
    """For every ReLU output the ratio of zeros, then the mean over the layers: in [0, 1].

    >>> metric = Sparsity()
    >>> metric.update(torch.tensor([[0.0, 1.0]]), layer=0)
    >>> metric.update(torch.tensor([[0.0, 0.0, 0.0, 2.0]]), layer=1)
    >>> metric.compute().item()
    0.625
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None
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
        counts[layer, 0] = output.numel() - output.detach().count_nonzero()
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


class CosineSimilarity(Metric):
    """Mean over pairs i < j of cos(w_i, w_j), w_i the rows of a weight (K, D): in [-1, 1]; `cosine_similarity`.

    Several updates, and processes, are averaged: all processes hold the same weights.

    >>> metric = CosineSimilarity()
    >>> metric.update(torch.eye(3))
    >>> metric.compute().item()
    0.0
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None
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
