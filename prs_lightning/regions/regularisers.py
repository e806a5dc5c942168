"""The maths of interventions that aim at no region, and of the one that the paper's authors published."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prs_lightning.regions.statistics import major_keys

WITHIN = 1e-6
"""A weight is brought so far below its bound, as a share of it, that rounding takes it over at no later step."""


def smoothing(logits: Tensor, labels: Tensor) -> Tensor:
    """What smoothed labels add to cross-entropy, times their amount: mean over samples of mean_k(-log p_k) + log p_y.

    Szegedy et al. 2016, "Rethinking the Inception architecture", section 7.

    Args:
        logits: (N, classes). labels: int64 (N,).

    >>> logits, labels = torch.tensor([[3.0, 0.0, -1.0]]), torch.tensor([0])
    >>> smoothed = F.cross_entropy(logits, labels) + 0.1 * smoothing(logits, labels)
    >>> torch.allclose(smoothed, F.cross_entropy(logits, labels, label_smoothing=0.1))
    True
    """
    log_shares = logits.log_softmax(1)
    return -log_shares.mean() - F.nll_loss(log_shares, labels)


@torch.no_grad()
def decay_weights(optimizer: torch.optim.Optimizer, amount: float) -> None:
    """Multiply each parameter that has a gradient by 1 - lr * amount, lr the learning rate of its group.

    So ``torch.optim.AdamW`` begins its step (Loshchilov & Hutter 2019, algorithm 2), to the bit where it is not fused.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:  # the optimizer leaves the others alone, too
                parameter.mul_(1 - group["lr"] * amount)


def bounded(weight: Tensor, bound: float) -> Tensor:
    """A weight scaled down to the Frobenius norm ``bound``, or as it is where its norm is not larger.

    >>> bounded(torch.tensor([[3.0, 4.0]]), 5.0).tolist()
    [[3.0, 4.0]]
    >>> round(bounded(torch.tensor([[6.0, 8.0]]), 5.0).norm().item(), 4)
    5.0
    """
    norm = torch.linalg.vector_norm(weight, dtype=torch.float64)
    factor = torch.where(norm > bound, bound * (1 - WITHIN) / norm, 1.0)
    return weight * factor.to(weight.dtype)


def major_sums(features: Tensor, regions: Tensor, regions_of_all: Tensor, classes: int) -> Tensor:
    """Of the major region of each class, the sum of its samples' features and their number: float32 (classes, D + 1).

    Its samples are those of other classes, too.

    Args:
        features: of this process's samples, (n, D).
        regions: of these, rows of a key and a label, int64 (n, 3).
        regions_of_all: of the samples of all processes, likewise: which region is the major one hangs on all.
        classes: labels lie in [0, classes); one that does not occur has zeros.

    >>> regions = torch.tensor([[5, 0, 1], [5, 0, 1], [6, 0, 1], [5, 0, 2]])
    >>> major_sums(torch.tensor([[1.0], [3.0], [9.0], [2.0]]), regions, regions, classes=3).tolist()
    [[0.0, 0.0], [6.0, 3.0], [6.0, 3.0]]
    """
    keys, labels = regions_of_all[:, :2], regions_of_all[:, 2]
    inside = (regions[:, None, :2] == major_keys(keys, labels)).all(2)
    sums = features.new_zeros(classes, features.shape[1] + 1)
    sums[labels.unique()] = inside.to(features).T @ F.pad(features, (0, 1), value=1.0)
    return sums


def pull_to_mean(features: Tensor, means: Tensor) -> Tensor:
    """Mean over samples of the mean of (a - mu)^2 over the units where mu > 0; who has no such unit is left out.

    Args:
        features: a, behind the ReLU, (N, D). means: mu of each sample's class, 0 or more, (N, D).

    >>> pull_to_mean(torch.tensor([[1.0, 5.0], [7.0, 7.0]]), torch.tensor([[3.0, 0.0], [0.0, 0.0]])).item()
    4.0
    """
    positive = means > 0
    units = positive.sum(1)
    each = ((features - means).square() * positive).sum(1) / units.clamp_min(1)
    return each.sum() / (units > 0).sum().clamp_min(1)


def pull_to_signs(features: Tensor, means: Tensor) -> Tensor:
    """The soft Hamming distance, mean over samples and units of (tanh a - sign mu)^2; arguments as of `pull_to_mean`.

    >>> round(pull_to_signs(torch.tensor([[0.0, 100.0]]), torch.tensor([[1.0, 2.0]])).item(), 3)
    0.5
    """
    return (features.tanh() - means.sign()).square().mean()
