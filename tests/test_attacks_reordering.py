"""ReLU behind pooling and in place: not a bit changes, and what cannot be changed so is left alone."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prs_lightning.attacks.reordering import pool_first
from prs_lightning.models.cnn6 import CNN6
from prs_lightning.models.vgg16 import VGG16
from tests.attacked import trained


def pairs(network: nn.Module) -> int:
    """How often max pooling follows ReLU in a container."""
    containers = [module for module in network.modules() if isinstance(module, nn.Sequential)]
    return sum(
        isinstance(first, nn.ReLU) and isinstance(second, nn.MaxPool2d)
        for container in containers
        for first, second in pairwise(container)
    )


def gradient(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_(True)
    logits = network(images)
    (found,) = torch.autograd.grad((logits * torch.arange(1.0, 1 + logits[0].numel()).view_as(logits[0])).sum(), images)
    return logits.detach(), found


@pytest.mark.parametrize("kind", [CNN6, VGG16])
def test_networks_of_the_paper_keep_every_bit(kind: type[nn.Module]) -> None:
    network, images = kind(channels=3).eval(), torch.rand(4, 3, 32, 32)
    before = copy.deepcopy(network)
    twin = pool_first(network, images)
    assert pairs(network) > 2
    assert pairs(twin) == 0
    assert all(torch.equal(*both) for both in zip(gradient(twin, images), gradient(before, images), strict=True))
    assert str(network) == str(before)
    assert [*map(id, twin.parameters())] == [*map(id, network.parameters())]
    assert [name for name, _ in twin.named_parameters()] == [name for name, _ in network.named_parameters()]
    assert isinstance(twin, kind)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 3), st.integers(1, 3), st.integers(0, 1))
def test_ties_and_zeros_keep_every_bit(seed: int, size: int, stride: int, padding: int) -> None:
    """Small whole numbers: maxima of 0, and equal ones, everywhere."""
    generator = torch.Generator().manual_seed(seed)
    layers = [nn.Conv2d(1, 2, 2, bias=False), nn.ReLU(), nn.MaxPool2d(size, stride, padding)]
    network = nn.Sequential(*layers, nn.Conv2d(2, 2, 2, bias=False), nn.ReLU())
    for weight in network.parameters():
        weight.data = torch.randint(-1, 2, weight.shape, generator=generator).float()
    images = torch.randint(-1, 2, (3, 1, 9, 9), generator=generator).float()
    twin = pool_first(network, images)
    assert pairs(twin) == 0
    assert all(torch.equal(*both) for both in zip(gradient(twin, images), gradient(network, images), strict=True))


class Inside(nn.Module):
    """Looks at what goes on between the layers of its container."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2))

    def forward(self, images: Tensor) -> Tensor:
        seen = images
        for layer in self.layers[:2]:
            seen = layer(seen)
        return seen.flatten(1)


def test_what_cannot_be_changed_is_left_alone() -> None:
    images, nothing = torch.rand(2, 1, 8, 8), nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.MaxPool2d(2))
    assert pool_first(nothing, images) is nothing
    assert pool_first(trained(), torch.rand(2, 1, 32, 32)) is trained()
    inside = Inside()
    assert pool_first(inside, images) is inside
    indices = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, return_indices=True))
    assert pool_first(indices, images) is indices
    watched = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    handle = watched[0].register_forward_hook(lambda module, inputs, output: None)
    assert pool_first(watched, images) is watched
    handle.remove()
    assert pool_first(watched, images) is not watched


class Holder(nn.Module):
    """One ReLU stands twice in its container, and a layer is switched off."""

    def __init__(self) -> None:
        super().__init__()
        relu, pool = nn.ReLU(), nn.MaxPool2d(2)
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 3), relu, pool, nn.Conv2d(2, 2, 2), relu, pool)
        self.register_module("projection", None)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).flatten(1)


def test_layers_that_stand_twice_and_layers_that_are_none() -> None:
    network, images = Holder(), torch.randn(2, 1, 12, 12)
    twin = pool_first(network, images)
    assert (pairs(network), pairs(twin)) == (2, 0)
    assert all(torch.equal(*both) for both in zip(gradient(twin, images), gradient(network, images), strict=True))
