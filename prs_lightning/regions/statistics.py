"""What populated regions are made of: statistics beyond the paper, from keys, labels and counts of positive units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from prs_lightning.regions.sorting import most_frequent


def added_up(parts: Sequence[Tensor]) -> Tensor:
    """The sum of counts (L, M) whose shapes may differ: a smaller one counts nothing in the places it lacks."""
    rows, columns = (max(part.shape[axis] for part in parts) for axis in (0, 1))
    padded = [F.pad(part, (0, columns - part.shape[1], 0, rows - part.shape[0])) for part in parts]
    return torch.stack(padded).sum(dim=0)


def entropy(populations: Tensor) -> Tensor:
    """Entropy in nats, ``-sum p ln p``, of populations (R,) as shares p of the samples: in [0, ln R], float64.

    >>> entropy(torch.tensor([5, 5])).exp().item()
    2.0
    """
    shares = populations.double() / populations.sum()
    return (shares * shares.reciprocal().log()).sum()


def purity(places: Tensor, labels: Tensor) -> Tensor:
    """Share of samples whose region holds samples of one class only: in [0, 1], float64.

    Args:
        places: the region of each sample as a number from 0, int64 (N,).
        labels: the class of each sample, int (N,).

    >>> purity(torch.tensor([0, 0, 1, 1]), torch.tensor([7, 7, 7, 8])).item()
    0.5
    """
    labels = labels.to(torch.int64)
    bounds = labels.new_zeros(int(places.max()) + 1 if len(places) else 0)
    smallest = bounds.scatter_reduce(0, places, labels, "amin", include_self=False)
    largest = bounds.scatter_reduce(0, places, labels, "amax", include_self=False)
    return (smallest == largest)[places].double().mean()


def positives_by_class(patterns: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How many samples of each class have each unit positive: int64 (classes, D) of patterns (N, D), labels (N,)."""
    # Sums of fewer than 2^24 ones are exact in float32.
    one_hot = (labels.unsqueeze(1) == torch.arange(classes, device=labels.device)).float()
    return (one_hot.T @ patterns.float()).round().to(torch.int64)


def major_keys(keys: Tensor, labels: Tensor) -> Tensor:
    """The key of the major region of each class that occurs, int64 (K, 2), in the order of labels."""
    majors = [most_frequent(keys[labels == label])[0] for label in labels.unique()]
    return torch.stack(majors) if majors else keys


def hamming_to_major(positives: Tensor, majors: Tensor, class_samples: Tensor) -> Tensor:
    """Mean over all samples of the Hamming distance, in units, to the major pattern of their class: float64.

    A unit that is positive in the major pattern differs for the samples in which it is not, and the other way round,
    so the counts of positive units suffice and no sample's pattern is needed.

    Args:
        positives: samples of each class with each unit positive, int64 (K, D).
        majors: the major patterns, boolean (K, D).
        class_samples: int64 (K,).
    """
    differing = torch.where(majors, class_samples.unsqueeze(1) - positives, positives)
    return differing.sum().double() / class_samples.sum()
