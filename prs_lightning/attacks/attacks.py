"""FGSM, BIM and PGD over whole tensors, and what is read off them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prs_lightning.attacks.engine import AttackResult, Progress, Samples, gradient_attack
from prs_lightning.attacks.threat_model import ThreatModel
from prs_lightning.errors import ConfigError

Attack = Callable[..., AttackResult]


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    generator: torch.Generator | None = None,
    batch_size: int = 128,
    keep_adversarial: bool = True,
    diagnose: bool = True,
    indices: Tensor | None = None,
    among: Tensor | None = None,
    progress: Progress | None = None,
    **threat: Any,
) -> AttackResult:
    """Projected gradient descent in the ball (Madry et al. 2018): x <- clip(x + alpha sign(grad loss)).

    Args:
        model: any module in eval mode that maps images in [0, 1] to logits (N, classes). It is left as it was.
        images: float (N, C, H, W) in [0, 1].
        labels: whole class numbers (N,).
        generator: where the random starts come from: one key is drawn per restart, and a sample's start follows
            from the key and its index, whatever the batches. None: a generator seeded with 0.
        batch_size: samples per pass; about 100 to 250 is fastest on a CPU.
        keep_adversarial: False saves the memory of the adversarial images.
        diagnose: False saves the gradients that only tell ``zero_gradient_clean`` and ``zero_gradient_end``.
        indices: int64 (N,), the samples' numbers in their data set; None: 0 ... N-1.
        among: bool (N,), the samples known to be classified correctly; the others are not attacked and count as
            misclassified. None: all are looked at.
        progress: called with (done, total, withstood) as samples are done.
        threat: epsilon, step_size, steps, loss and so on: the arguments of :class:`ThreatModel`.

    Raises:
        ConfigError: values, images, labels or a network that cannot work; the message names the value.
        RunError: a network that returns NaN, or an adversarial image outside the ball.
    """
    return gradient_attack(
        model,
        Samples.of(images, labels, indices),
        ThreatModel(**threat),
        generator=generator,
        among=among,
        keep_adversarial=keep_adversarial,
        diagnose=diagnose,
        batch_size=batch_size,
        progress=progress,
    )


def bim(model: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> AttackResult:
    """Basic iterative method (Kurakin et al. 2017): :func:`pgd` of 5 steps that starts at the image; its options."""
    return pgd(model, images, labels, **{"steps": 5, "random_start": False} | options)


def fgsm(model: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> AttackResult:
    """Fast gradient sign method (Goodfellow et al. 2015): one step to the edge of the ball; options as :func:`pgd`."""
    edge = options.get("epsilon", ThreatModel.epsilon)
    return pgd(model, images, labels, **{"steps": 1, "step_size": edge, "random_start": False} | options)


def robust_accuracy(model: nn.Module, images: Tensor, labels: Tensor, attack: Attack = pgd) -> float:
    """Share of all samples that are still classified correctly under ``attack``, in [0, 1].

    Args:
        attack: called as ``attack(model, images, labels)``, for example ``partial(pgd, epsilon=0.1)``.
    """
    if getattr(attack, "func", attack) in (fgsm, bim, pgd):
        attack = partial(attack, keep_adversarial=False, diagnose=False)
    return attack(model, images, labels).robust_accuracy


def robustness_curve(
    model: nn.Module, images: Tensor, labels: Tensor, attack: Attack, epsilons: Sequence[float]
) -> list[float]:
    """Robust accuracy at each epsilon, in the order given; it never rises with epsilon.

    The balls are nested, so a sample fooled at a smaller epsilon counts as fooled at every larger one and is not
    attacked again; this is the worst case over the smaller balls, at most the accuracy of the attack alone.

    Args:
        attack: called as ``attack(model, images, labels, epsilon=..., among=...)``; fgsm, bim, pgd or a partial.

    Raises:
        ConfigError: no epsilon at all, and whatever the attack raises.
    """
    if not len(epsilons):
        raise ConfigError("epsilons is empty: expected one or more")
    standing: Tensor | None = None
    accuracy = {}
    for epsilon in sorted(set(epsilons)):
        standing = attack(model, images, labels, epsilon=epsilon, among=standing).correct_after
        accuracy[epsilon] = float(standing.double().mean())
    return [accuracy[epsilon] for epsilon in epsilons]
