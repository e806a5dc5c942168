"""Whether a network has a gradient that an attack can follow, and gives the same twice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prs_lightning.attacks import AttackResult
from prs_lightning.attacks.losses import margin
from prs_lightning.attacks.network import AttackedNetwork
from prs_lightning.audit.findings import Gradients
from prs_lightning.audit.standins import gradient_noise, logit_gap, loss_underflow

NOISE_OF = 50
"""The gradient in float64 is taken at so many samples: it is slow."""
CHANGED = 1e-3
"""Two gradients differ if they do by this part of the largest value."""


def look(
    model: nn.Module, images: Tensor, labels: Tensor, first: AttackResult, among: Tensor, *, batch_size: int
) -> Gradients:
    """Look at the gradients of a network.

    Args:
        first: PGD with cross-entropy, diagnosed.
        among: the samples that withstood it, or some of them, bool (N,).
    """
    network = AttackedNetwork(model, images.device, margin)
    logits = torch.cat([network.logits(part.float()) for part in images.split(batch_size)])
    correct = first.correct_before
    twice = network.logits(images[:batch_size].float())
    sums, difference = logits[: len(twice)].sum(1), float((logits[: len(twice)] - twice).abs().max())
    rows = among.nonzero().flatten()
    largest = [network.gradient(images[part].float(), labels[part]).largest for part in rows.split(batch_size)]
    few = (rows if len(rows) else torch.arange(len(labels), device=labels.device))[:batch_size]
    one, other = (network.gradient(images[few].float(), labels[few]) for _ in range(2))
    change = (one.images - other.images).abs().flatten(1).amax(1)
    noisy = correct.nonzero().flatten()
    noisy = noisy[torch.linspace(0, max(len(noisy) - 1, 0), min(NOISE_OF, len(noisy))).round().to(torch.int64)]
    noise = gradient_noise(model, images[noisy], labels[noisy], batch_size=batch_size) if len(noisy) else torch.zeros(0)
    return Gradients(
        zero_clean=int(first.zero_gradient_clean.sum()),
        zero_end=int((first.zero_gradient_end & first.correct_after).sum()),
        looked=len(rows),
        absent=_mean(torch.cat(largest) < torch.finfo(torch.float32).tiny),
        underflow=_mean(loss_underflow(logits, labels)[correct]),
        logit_gap=float(logit_gap(logits)[correct].median()) if bool(correct.any()) else float("nan"),
        noise=_mean(noise),
        noise_of=len(noisy),
        outputs_differ=difference / max(float(logits.abs().max()), 1e-30),
        gradients_differ=_mean(change > CHANGED * torch.maximum(one.largest, other.largest)),
        largest_difference=difference,
        probabilities=bool((logits[: len(twice)].amin() >= 0) & ((sums - 1).abs() < 1e-4).all()),
        output_sums=(float(sums.min()), float(sums.max())),
    )


def _mean(flags: Tensor) -> float:
    return float(flags.double().mean()) if len(flags) else 0.0
