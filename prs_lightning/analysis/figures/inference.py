"""What the figures of networks A and B have in common: samples, and the networks' outputs on them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prs_lightning.data import Split, StoredImages, balanced_subset, to_unit_range
from prs_lightning.errors import RunError
from prs_lightning.network import MeasuredNetwork, as_measured, device_of
from prs_lightning.regions.layers import Tap, tapping
from prs_lightning.regions.tracing import Ends, find_ends

BATCH = 200


def first_samples(split: Split, limit: int) -> Split:
    """At most ``limit`` samples, balanced over the classes where these allow it."""
    if limit >= len(split.labels):
        return Split(split.images[:], split.labels)
    counts = split.labels.unique(return_counts=True)[1]
    balanced = -(-limit // len(counts)) <= int(counts.min())
    chosen = balanced_subset(split.labels, limit) if balanced else slice(limit)
    return Split(split.images[chosen], split.labels[chosen])


def ends_of(network: nn.Module, images: Tensor | StoredImages) -> Ends:
    """The final layer of a network and where its penultimate pre-activations are read, by running it on two images."""
    device = device_of(network)
    with as_measured(network, device):
        return find_ends(MeasuredNetwork(network, device), _pixels(images[:2], device))


def outputs(network: nn.Module, images: Tensor | StoredImages, tap: Tap | None = None) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) and penultimate pre-activations (N, D), in float32 and eval mode, on the network's device.

    Args:
        images: uint8, or float with any values (N, C, H, W); moved to the device a batch at a time.
        tap: give what is there instead of the penultimate pre-activations.
    """
    device, logits, tapped = device_of(network), [], []
    tap = tap or ends_of(network, images).penultimate
    with as_measured(network, device):
        measured = MeasuredNetwork(network, device)
        with tapping(measured.model, [tap], lambda tap, tensor: tapped.append(tensor.flatten(1).clone())):
            for batch in images.split(BATCH):
                logits.append(measured(_pixels(batch, device)))
    if len(tapped) != len(logits):
        raise RunError(f"layer {tap} ran {len(tapped)} times in {len(logits)} forward passes: expected once in each")
    return torch.cat(logits), torch.cat(tapped)


def _pixels(images: Tensor, device: torch.device) -> Tensor:
    moved = images.to(device)
    return to_unit_range(moved) if moved.dtype == torch.uint8 else moved


def on_device_of(network: nn.Module, split: Split) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] and labels on the network's device."""
    device = device_of(network)
    return to_unit_range(split.images[:].to(device)), split.labels.to(device)
