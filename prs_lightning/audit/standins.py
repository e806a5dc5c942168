"""Thin stand-ins until the measures and the distances are there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prs_lightning.attacks.losses import cross_entropy
from prs_lightning.attacks.network import AttackedNetwork


def logit_gap(logits: Tensor) -> Tensor:
    top = logits.topk(2, dim=1).values
    return top[:, 0] - top[:, 1]


def loss_underflow(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels) == 0


def gradient_noise(model: Any, images: Tensor, labels: Tensor, *, batch_size: int = 128) -> Tensor:
    network = AttackedNetwork(model, images.device)
    return torch.cat(
        [
            network.gradient(*each).largest == 0
            for each in zip(images.split(batch_size), labels.split(batch_size), strict=True)
        ]
    )
