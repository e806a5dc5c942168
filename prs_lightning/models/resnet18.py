"""ResNet-18 for 32 x 32 images."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from prs_lightning.errors import ConfigError
from prs_lightning.models.base import ImageClassifier

STEMS = ("imagenet", "cifar")


class ResNet18(ImageClassifier):
    """ResNet-18 (He et al. 2016, table 1) with batch normalisation; 512 penultimate units.

    The penultimate pre-activations are the globally pooled features, already non-negative.

    Args:
        stem: ``imagenet`` (7x7 convolution of stride 2 and a pool: a 32 x 32 input ends at 1 x 1, where pooled > 0
            equals the sign before the last ReLU) or ``cifar`` (3x3 convolution of stride 1, no pool: ends at 4 x 4,
            where nearly every pooled feature is > 0 and the PRS ratio says little).
    """

    def __init__(self, *, stem: str = "imagenet", **arguments: Any) -> None:
        if stem not in STEMS:
            raise ConfigError(f"stem={stem!r} is unknown: expected one of {', '.join(STEMS)}")
        self.stem = stem
        super().__init__(**arguments)
        self.hparams["stem"] = stem

    def build(self, channels: int, classes: int) -> None:
        network = resnet18(num_classes=classes)
        if self.stem == "cifar":
            network.conv1 = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
            network.maxpool = nn.Identity()
        elif channels != 3:
            network.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        children = OrderedDict(network.named_children())
        self.final = children.pop("fc")
        self.convolutions = nn.Sequential(children)

    def logits(self, images: Tensor) -> Tensor:
        return self.final(torch.flatten(self.convolutions(images), 1))
