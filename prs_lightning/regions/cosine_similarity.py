"""Cosine similarity of the class rows of a weight: the formula, and its torchmetrics twin."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric

from prs_lightning.errors import ConfigError


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


class CosineSimilarity(MeanMetric):
    """Mean over pairs i < j of cos(w_i, w_j), w_i the rows of a weight (K, D): float64 in [-1, 1]; `cosine_similarity`.

    Several updates, and processes, are averaged: all processes hold the same weights.

    >>> metric = CosineSimilarity()
    >>> metric.update(torch.eye(3))
    >>> metric.compute().item()
    0.0
    """

    plot_lower_bound = -1.0
    plot_upper_bound = 1.0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(nan_strategy="disable", **kwargs)
        self.set_dtype(torch.float64)

    def update(self, weight: Tensor) -> None:  # type: ignore[override]
        """Take one weight matrix."""
        super().update(cosine_similarity(weight))
