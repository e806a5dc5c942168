"""Thin stand-ins until the measures and the distances are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prs_lightning.attacks import pgd
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
        [network.gradient(i, l).largest == 0 for i, l in zip(images.split(batch_size), labels.split(batch_size))]
    )


@dataclass(frozen=True)
class Distances:
    distance: Tensor
    correct: Tensor


def distances(
    model: Any, images: Tensor, labels: Tensor, *, batch_size: int = 128, among: Tensor, progress: Any = None, **_: Any
) -> Distances:
    found = torch.where(among, torch.inf, 0.0)
    standing = among
    for epsilon in (0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0):
        after = pgd(
            model,
            images,
            labels,
            among=standing,
            epsilon=epsilon,
            step_size=epsilon / 4,
            steps=10,
            loss="margin",
            keep_adversarial=False,
            diagnose=False,
            batch_size=batch_size,
        ).correct_after
        found[standing & ~after] = epsilon
        standing = after
    return Distances(found, among)
