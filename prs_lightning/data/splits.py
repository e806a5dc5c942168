"""A data set in memory: uint8 images and labels, class-balanced subsets, and images in [0, 1]."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from prs_lightning.errors import ConfigError


class Split(NamedTuple):
    """``images`` uint8 (N, C, 32, 32) and ``labels`` int64 (N,)."""

    images: Tensor
    labels: Tensor


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


def balanced_subset(labels: Tensor, limit: int) -> Tensor:
    """Indices, ascending, of ``limit`` samples with class counts that differ by one at most.

    The first samples of each class are taken, so that a smaller limit gives a subset of a larger one.

    Raises:
        ConfigError: fewer samples in a class than its share.
    """
    classes = labels.unique().tolist()
    chosen = []
    for position, label in enumerate(classes):
        share = limit // len(classes) + (position < limit % len(classes))
        members = (labels == label).nonzero().flatten()
        if len(members) < share:
            raise ConfigError(f"a class-balanced limit of {limit} needs {share} of class {label}: only {len(members)}")
        chosen.append(members[:share])
    return torch.cat(chosen).sort().values
