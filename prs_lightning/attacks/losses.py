"""Losses that an attack maximises: functions of (logits (N, classes), labels (N,)), one value per sample.

Given ``targets`` (N,) each is its targeted form: larger the nearer a sample is to being taken for its target.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor

from prs_lightning.errors import ConfigError

Loss = Callable[..., Tensor]
"""Of (logits, labels), and of targets where there are any."""


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """-log softmax(z)_y, in float32: exactly 0 from a margin of 17, its gradient exactly 0 from 104.

    Targeted: log softmax(z)_t.
    """
    if targets is not None:
        return -F.cross_entropy(logits, targets, reduction="none")
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """max_{i != y} z_i - z_y: positive iff misclassified (Carlini & Wagner 2017, section IV-A, f_6 without its bound).

    Its gradient with respect to the logits is 1 and -1, however confident the network is. Targeted: z_t - z_y.
    """
    own = labels[:, None]
    if targets is not None:
        return (logits.gather(1, targets[:, None]) - logits.gather(1, own)).squeeze(1)
    return logits.scatter(1, own, float("-inf")).amax(1) - logits.gather(1, own).squeeze(1)


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """(max_{i != y} z_i - z_y) / (z_1st - z_3rd): unchanged by scale and shift of the logits.

    Difference of Logits Ratio (Croce & Hein 2020, "Reliable evaluation of adversarial robustness", equation 3, where
    the sign is inside too). It needs three classes. Targeted, equation 6: (z_t - z_y) / (z_1st - (z_3rd + z_4th) / 2).
    It needs four.

    Raises:
        ConfigError: fewer classes.
    """
    needed = 3 if targets is None else 4
    if logits.shape[1] < needed:
        aimed = "" if targets is None else " with targets"
        raise ConfigError(
            f"loss='dlr'{aimed} needs {needed} classes or more, the network has {logits.shape[1]}: use loss='margin'"
        )
    top = logits.topk(needed, dim=1).values
    return margin(logits, labels, targets) / (top[:, 0] - top[:, 2:].mean(1) + 1e-12)


def rescaled_cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits rescaled, per sample, to a range of 10, the scale being held constant.

    It undoes what a network gains by large logits alone (Carlini & Wagner 2016, "Defensive distillation is not
    robust to adversarial examples": divide the logits before the softmax).
    """
    span = logits.amax(1, keepdim=True) - logits.amin(1, keepdim=True)
    return cross_entropy(_rescaled(logits, 10, span), labels, targets)


def top_two_cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits rescaled, per sample, so that the two largest lie 1 apart, the scale held constant.

    At this scale the rounding of the gradient is small (Yu & Xu 2023, "Efficient loss function by minimizing the
    detrimental effect of floating-point errors on gradient-based attacks": MIFPE with t = 1).
    """
    largest, second = logits.topk(2, dim=1).values.split(1, dim=1)
    return cross_entropy(_rescaled(logits, 1, largest - second), labels, targets)


def _rescaled(logits: Tensor, wanted: float, found: Tensor) -> Tensor:
    """The logits times wanted / found (N, 1), which is held constant; where nothing is found, as large as can be."""
    tiny = torch.finfo(logits.dtype).tiny
    return logits * (wanted / found.detach().clamp_min(tiny)).clamp_max(1e30)


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "rescaled_cross_entropy": rescaled_cross_entropy,
    "top_two_cross_entropy": top_two_cross_entropy,
}


def resolve(loss: str | Loss, temperature: float = 1.0) -> Loss:
    """The function of that name, or the callable itself; of logits / ``temperature``.

    Raises:
        ConfigError: an unknown name.
    """
    if not callable(loss) and loss not in LOSSES:
        raise ConfigError(f"loss={loss!r} is unknown: expected one of {', '.join(LOSSES)}, or a callable")
    found = loss if callable(loss) else LOSSES[loss]
    if temperature == 1:
        return found

    @wraps(found)
    def cooled(logits: Tensor, *given: Tensor) -> Tensor:
        return found(logits / temperature, *given)

    return cooled
