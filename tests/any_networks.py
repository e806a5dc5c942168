"""Networks as users bring them: none knows this project."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Convolutional(nn.Module):
    """Flattens its maps by ``view``, rectifies by a function."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 12) -> None:
        super().__init__()
        self.maps = nn.Conv2d(in_channels, 4, kernel_size=5, stride=3)
        self.hidden = nn.Linear(4 * 10 * 10, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        flat = F.relu(self.maps(images)).view(len(images), -1)
        return self.head(F.relu(self.hidden(flat)))


class Reshaping(Convolutional):
    """The same function, flattened in a way that takes any layout."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(F.relu(self.maps(images)).flatten(1))))


class Gelu(nn.Module):
    """Batch normalisation and dropout, no ReLU, sizes that are fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(1024, 12), nn.BatchNorm1d(12), nn.GELU(), nn.Dropout(0.5), nn.Linear(12, 10)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class OneOutput(nn.Module):
    """A binary network whose only output is the logit of class 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(1024, 12), nn.ReLU(), nn.Linear(12, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Normalising(nn.Module):
    """Normalises by itself."""

    def __init__(self, mean: list[float], std: list[float], classes: int) -> None:
        super().__init__()
        self.mean, self.std = mean[0], std[0]
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(1024, 12), nn.ReLU(), nn.Linear(12, classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers((images - self.mean) / self.std)


class Own(pl.LightningModule):
    """Trains itself by gradient descent, validates itself, and logs under names that measures have, too."""

    def __init__(self, classes: int, rate: float = 0.1) -> None:
        super().__init__()
        self.rate = rate
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(1024, 12), nn.ReLU(), nn.Linear(12, classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", 123.0, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.log("mine/validated", float(len(batch[1])), reduce_fx="sum")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.rate)


class Dropping(Own):
    """Draws random numbers as it trains."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(1024, classes))


class Probabilities(Gelu):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).softmax(1)


class Double(Gelu):
    def __init__(self) -> None:
        super().__init__()
        self.double()


class Scripted(nn.Module):
    def __new__(cls) -> nn.Module:  # type: ignore[misc]
        return torch.jit.trace(Gelu().eval(), torch.rand(2, 1, 32, 32))


def no_network() -> int:
    return 3


def with_options(**options: object) -> nn.Module:
    """Hides what it takes, and knows no sizes."""
    if options:
        raise TypeError(f"with_options() got an unexpected keyword argument '{next(iter(options))}'")
    return Gelu()
