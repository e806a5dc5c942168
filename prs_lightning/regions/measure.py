"""The populated regions of any layer of any torch module."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from prs_lightning.errors import ConfigError
from prs_lightning.measuring import evaluating, float32
from prs_lightning.regions.layers import watching
from prs_lightning.regions.region_set import RegionSet


def measure(model: nn.Module, loader: Iterable[Any], *, layer: str) -> RegionSet:
    """The populated regions of one layer of any torch module over all samples of a loader.

    The network runs in eval mode, without gradients and in float32; afterwards its modes, its hooks and torch's random
    state are as before. Name the layer before the ReLU: it does not matter if that ReLU works in place.

    Args:
        model: takes a batch of inputs; they are moved to the device of its parameters.
        loader: batches, each a tensor or a tuple or list whose first element is one.
        layer: a name of ``model.named_modules()``, with an output (N, D) or (N, C, H, W).

    Raises:
        ConfigError: an unknown layer (with near names), one that does not run once in each forward pass, or a batch
            of another kind.

    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> measure(network, [torch.zeros(5, 4), torch.zeros(3, 4)], layer="0").ratio
    0.125
    """
    regions, outputs = RegionSet(), 0

    def seen(name: str, output: Tensor) -> None:
        nonlocal outputs
        outputs += 1
        regions.add(output)

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with torch.random.fork_rng(devices=[]), evaluating(model), float32(device), torch.no_grad():
        with watching(model, [layer], seen):
            for batch in loader:
                images = batch[0] if isinstance(batch, tuple | list) and batch else batch
                if not isinstance(images, Tensor):
                    raise ConfigError(f"a batch of type {type(batch).__name__}: expected a tensor, or a tuple with one")
                outputs = 0
                model(images.to(device))
                if outputs != 1:
                    raise ConfigError(f"layer {layer!r} ran {outputs} times in a forward pass: expected once")
    return regions
