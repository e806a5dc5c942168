"""Whether a network has a gradient that an attack can follow, and gives the same twice."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from prs_lightning.attacks import AttackResult
from prs_lightning.attacks.gradient_noise import gradient_noise
from prs_lightning.attacks.losses import margin
from prs_lightning.attacks.network import AttackedNetwork
from prs_lightning.audit.findings import Gradients
from prs_lightning.errors import ConfigError
from prs_lightning.network import are_probabilities
from prs_lightning.regions.logits import logit_gap, loss_underflow, median

FEW = 50
"""The gradient in float64 is slow: it is taken at so many correct samples."""
CHANGED = 1e-3
"""Two gradients differ if they do by this part of the largest value."""


def look(
    model: nn.Module, images: Tensor, labels: Tensor, first: AttackResult, among: Tensor, *, batch_size: int
) -> Gradients:
    """Look at the gradients of a network.

    Args:
        first: PGD with cross-entropy, diagnosed.
        among: the samples that withstood it, or some of them, bool (N,); where there are none a few of all are looked
            at.
    """
    network = AttackedNetwork(model, images.device, margin)
    logits, twice = (torch.cat([network.logits(part.float()) for part in images.split(batch_size)]) for _ in range(2))
    correct, sums = first.correct_before, logits.sum(1)
    difference = float((logits - twice).abs().max())
    rows = among.nonzero().flatten() if bool(among.any()) else torch.arange(len(labels), device=labels.device)[:FEW]
    largest, changed = [], []
    for part in rows.split(batch_size):
        one, other = (network.gradient(images[part].float(), labels[part]) for _ in range(2))
        largest.append(one.largest)
        change = (one.images - other.images).abs().flatten(1).amax(1)
        changed.append(change > CHANGED * torch.maximum(one.largest, other.largest))
    noisy = correct.nonzero().flatten()[:FEW]
    try:
        noise = gradient_noise(model, images[noisy], labels[noisy], batch_size=batch_size) if len(noisy) else None
    except ConfigError:  # no float64 to compare with
        noise = None
    return Gradients(
        zero_clean=int(first.zero_gradient_clean.sum()),
        zero_end=int((first.zero_gradient_end & first.correct_after).sum()),
        looked=len(rows),
        absent=float((torch.cat(largest) < torch.finfo(torch.float32).tiny).double().mean()),
        underflow=float(loss_underflow(logits, labels)[correct].double().mean()),
        logit_gap=float(median(logit_gap(logits)[correct])),
        noise=math.nan if noise is None else float(noise.double().mean()),
        noise_of=0 if noise is None else len(noisy),
        outputs_differ=difference / max(float(logits.abs().max()), 1e-30),
        gradients_differ=float(torch.cat(changed).double().mean()),
        largest_difference=difference,
        probabilities=are_probabilities(logits),
        output_sums=(float(sums.min()), float(sums.max())),
    )
