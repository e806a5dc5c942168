"""What the figures of networks A and B have in common: samples, and the networks' outputs on them."""

from __future__ import annotations

import torch
from torch import Tensor

from prs_lightning.data import Split, StoredImages, balanced_subset, to_unit_range
from prs_lightning.measuring import evaluating, float32
from prs_lightning.models.base import ImageClassifier

BATCH = 200


def first_samples(split: Split, limit: int) -> Split:
    """At most ``limit`` samples, balanced over the classes where these allow it."""
    if limit >= len(split.labels):
        return Split(split.images[:], split.labels)
    counts = split.labels.unique(return_counts=True)[1]
    balanced = -(-limit // len(counts)) <= int(counts.min())
    chosen = balanced_subset(split.labels, limit) if balanced else slice(limit)
    return Split(split.images[chosen], split.labels[chosen])


def outputs(network: ImageClassifier, images: Tensor | StoredImages) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) and penultimate pre-activations (N, D), in float32 and eval mode, on the network's device.

    Args:
        images: uint8, or float with any values (N, C, H, W); moved to the device a batch at a time.
    """
    device = next(network.parameters()).device
    found = []
    with evaluating(network), float32(device), torch.no_grad():
        for batch in images.split(BATCH):
            moved = batch.to(device)
            pixels = to_unit_range(moved) if moved.dtype == torch.uint8 else moved
            found.append(network.logits_and_pre_activations(pixels))
    logits, pre_activations = zip(*found, strict=True)
    return torch.cat(logits), torch.cat(pre_activations)


def on_device_of(network: ImageClassifier, split: Split) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] and labels on the network's device."""
    device = next(network.parameters()).device
    return to_unit_range(split.images[:].to(device)), split.labels.to(device)
