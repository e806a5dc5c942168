"""Losses that an attack maximises: functions of (logits (N, classes), labels (N,)), one value per sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from prs_lightning.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(z)_y, in float32: exactly 0 from a margin of 17, its gradient exactly 0 from 104."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{i != y} z_i - z_y: positive iff misclassified (Carlini & Wagner 2017, section IV-A, f_6 without its bound).

    Its gradient with respect to the logits is 1 and -1, however confident the network is.
    """
    own = labels[:, None]
    return logits.scatter(1, own, float("-inf")).amax(1) - logits.gather(1, own).squeeze(1)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """(max_{i != y} z_i - z_y) / (z_1st - z_3rd): unchanged by scale and shift of the logits.

    Difference of Logits Ratio (Croce & Hein 2020, "Reliable evaluation of adversarial robustness", equation 3, where
    the sign is inside too). It needs three classes.

    Raises:
        ConfigError: fewer than three classes.
    """
    if logits.shape[1] < 3:
        raise ConfigError(f"loss='dlr' needs 3 classes or more, the network has {logits.shape[1]}: use loss='margin'")
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def rescaled_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits rescaled, per sample, to a range of 10, the scale being held constant.

    It undoes what a network gains by large logits alone (Carlini & Wagner 2016, "Defensive distillation is not
    robust to adversarial examples": divide the logits before the softmax).
    """
    span = (logits.amax(1, keepdim=True) - logits.amin(1, keepdim=True)).detach()
    tiny = torch.finfo(logits.dtype).tiny
    return cross_entropy(logits * (10 / span.clamp_min(tiny)).clamp_max(1e30), labels)


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "rescaled_cross_entropy": rescaled_cross_entropy,
}


def resolve(loss: str | Loss) -> Loss:
    """The function of that name, or the callable itself.

    Raises:
        ConfigError: an unknown name.
    """
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ConfigError(f"loss={loss!r} is unknown: expected one of {', '.join(LOSSES)}, or a callable")
    return LOSSES[loss]
