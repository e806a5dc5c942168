"""A set of images, in memory or stored, and their labels: class-balanced subsets, and images in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from prs_lightning.data.stored import StoredImages
from prs_lightning.errors import ConfigError


class Split(NamedTuple):
    """``images`` uint8 (N, C, H, W), a tensor or stored, and ``labels`` int64 (N,)."""

    images: Tensor | StoredImages
    labels: Tensor

    def select(self, rows: Tensor) -> Split:
        """Some of the samples; stored images stay stored."""
        images = self.images
        return Split(images.select(rows) if isinstance(images, StoredImages) else images[rows], self.labels[rows])

    def to(self, device: torch.device) -> Split:
        """On a device, but for images that stay stored."""
        return Split(self.images.to(device) if isinstance(self.images, Tensor) else self.images, self.labels.to(device))

    def batches(self, groups: Sequence[Tensor | slice]) -> Iterator[tuple[Tensor, Tensor]]:
        """(images float32 in [0, 1], labels) of each group of rows, on the device of the labels."""
        device = self.labels.device
        if isinstance(self.images, StoredImages):
            read = self.images.batches(groups, pin_memory=device.type == "cuda")
        else:
            read = (self.images[rows] for rows in groups)
        for rows, images in zip(groups, read, strict=True):
            yield to_unit_range(images.to(device, non_blocking=True)), self.labels[rows]


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


def balanced_subset(labels: Tensor, limit: int) -> Tensor:
    """Indices, ascending, of ``limit`` samples with class counts that differ by one at most.

    The first samples of each class are taken, so that a smaller limit gives a subset of a larger one.

    Raises:
        ConfigError: fewer samples in a class than its share.
    """
    classes, counts = (each.tolist() for each in labels.unique(return_counts=True))
    for position, (label, count) in enumerate(zip(classes, counts, strict=True)):
        share = limit // len(classes) + (position < limit % len(classes))
        if count < share:
            raise ConfigError(f"a class-balanced limit of {limit} needs {share} of class {label}: only {count}")
    return spread_subset(labels, limit)


def spread_subset(labels: Tensor, limit: int) -> Tensor:
    """Indices, ascending, of ``limit`` samples, or of all there are, spread over the classes as evenly as they allow.

    The first of each class are taken, then the second, and so on: `balanced_subset` where no class is too small.

    >>> spread_subset(torch.tensor([7, 7, 7, 7, 3, 5]), 4)
    tensor([0, 1, 4, 5])
    """
    classes, places = labels.unique(return_inverse=True)
    order = places.argsort(stable=True)  # by class
    counts = places.bincount(minlength=len(classes))
    within = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[places[order]]
    return order[(within * len(classes) + places[order]).argsort()[:limit]].sort().values
