"""Small networks to attack: trained on real digits in a second or two."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prs_lightning.data import load, to_unit_range
from prs_lightning.seeding import mixed_seed


class Scaled(nn.Module):
    """Logits times a factor: the same predictions, vanishing cross-entropy gradients."""

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) * self.factor


@functools.cache
def digits(count: int = 200) -> tuple[Tensor, Tensor]:
    """Test images in [0, 1] and their labels, of all classes."""
    _, test = load("mnist5k", "data")
    rows = torch.linspace(0, len(test.labels) - 1, count).round().to(torch.int64)
    return to_unit_range(test.images[rows]), test.labels[rows]


@functools.cache
def trained(batch_norm: bool = False) -> nn.Sequential:
    """A convolutional network with some 95% test accuracy, in eval mode."""
    train, _ = load("mnist5k", "data")
    with torch.random.fork_rng():
        torch.manual_seed(mixed_seed(0))
        norms = [nn.BatchNorm2d(8), nn.BatchNorm2d(16)] if batch_norm else [nn.Identity(), nn.Identity()]
        network = nn.Sequential(
            *(nn.Conv2d(1, 8, 5, stride=2, padding=2), norms[0], nn.ReLU()),
            *(nn.Conv2d(8, 16, 5, stride=2, padding=2), norms[1], nn.ReLU()),
            *(nn.Flatten(), nn.Linear(1024, 32), nn.ReLU(), nn.Linear(32, 10)),
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(3):
            for rows in torch.randperm(len(train.labels)).split(100):
                loss = F.cross_entropy(network(to_unit_range(train.images[rows])), train.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return network.eval()
