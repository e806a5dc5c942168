"""FGSM, BIM and PGD over whole tensors, and what is read off them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from prs_lightning.attacks.checks import check_images
from prs_lightning.attacks.engine import gradient_attack
from prs_lightning.attacks.losses import Loss
from prs_lightning.attacks.results import AttackResult, Progress, Samples, Settings
from prs_lightning.errors import ConfigError

Attack = Callable[..., AttackResult]


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float = 8 / 255,
    step_size: float = 2 / 255,
    steps: int = 20,
    loss: str | Loss = "cross_entropy",
    random_start: bool = True,
    restarts: int = 1,
    early_exit: bool = True,
    precision: str = "float32",
    generator: torch.Generator | None = None,
    batch_size: int = 128,
    keep_adversarial: bool = True,
    diagnose: bool | str = True,
    indices: Tensor | None = None,
    among: Tensor | None = None,
    progress: Progress | None = None,
) -> AttackResult:
    """Projected gradient descent in the L-infinity ball (Madry et al. 2018): x <- clip(x + alpha sign(grad loss)).

    Args:
        model: any module in eval mode that maps images in [0, 1] to logits (N, classes). It is left as it was.
        images: float (N, C, H, W) in [0, 1].
        labels: whole class numbers (N,).
        epsilon: radius of the ball, in pixel units.
        step_size: alpha, in pixel units.
        steps: number of sign steps.
        loss: what is maximised: ``"cross_entropy"``, ``"margin"`` (Carlini & Wagner), ``"dlr"`` (AutoAttack),
            ``"rescaled_cross_entropy"``, or a function of (logits, labels) that gives one value per sample. It is
            taken in float32 and summed over the batch.
        random_start: start uniformly in the ball instead of at the image.
        restarts: how often those that withstood are attacked again from another random start.
        early_exit: a sample that is misclassified at any iterate is fooled (worst case, as AutoAttack counts) and
            leaves; False: only the last iterate counts.
        precision: ``"float32"``, or ``"bfloat16"`` for the forward and backward passes; every success and every zero
            gradient is then verified in float32.
        generator: where the random starts come from: one key is drawn per restart, and a sample's start follows
            from the key and its index, whatever the batches. None: a generator seeded with 0.
        batch_size: samples per pass; about 100 to 250 is fastest on a CPU.
        keep_adversarial: False saves the memory of the adversarial images.
        diagnose: False saves the gradients that only tell ``zero_gradient_clean`` and ``zero_gradient_end``;
            ``"clean"`` saves those of the second alone.
        indices: int64 (N,), the samples' numbers in their data set; None: 0 ... N-1.
        among: bool (N,), the samples known to be classified correctly; the others are not attacked and count as
            misclassified. None: all are looked at.
        progress: called with (done, total, withstood) as samples are done.

    Raises:
        ConfigError: values, images, labels or a network that cannot work; the message names the value.
        RunError: a network that returns NaN, or an adversarial image outside the ball.
    """
    check_images(images, labels)
    labels = labels.to(torch.int64)
    settings = Settings(
        epsilon=epsilon,
        step_size=step_size,
        steps=steps,
        loss=loss,
        random_start=random_start,
        restarts=restarts,
        early_exit=early_exit,
        precision=precision,
        batch_size=batch_size,
        diagnose=diagnose,
    )
    return gradient_attack(
        model,
        Samples.of(images, labels, indices),
        settings,
        generator=generator,
        among=among,
        adversarial=images.detach().to(torch.float32, copy=True) if keep_adversarial else None,
        progress=progress,
    )


def bim(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float = 8 / 255,
    step_size: float = 2 / 255,
    steps: int = 5,
    random_start: bool = False,
    **options: object,
) -> AttackResult:
    """Basic iterative method (Kurakin et al. 2017): :func:`pgd` that starts at the image itself; the same options."""
    options |= {"epsilon": epsilon, "step_size": step_size, "steps": steps, "random_start": random_start}
    return pgd(model, images, labels, **options)  # type: ignore[arg-type]


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float = 8 / 255,
    step_size: float | None = None,
    steps: int = 1,
    random_start: bool = False,
    **options: object,
) -> AttackResult:
    """Fast gradient sign method (Goodfellow et al. 2015): one step to the edge of the ball; options as :func:`pgd`."""
    step_size = epsilon if step_size is None else step_size
    options |= {"epsilon": epsilon, "step_size": step_size, "steps": steps, "random_start": random_start}
    return pgd(model, images, labels, **options)  # type: ignore[arg-type]


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


NAMED: dict[str, Attack] = {
    "fgsm": fgsm,
    "bim5": partial(bim, steps=5),
    "pgd20": partial(pgd, steps=20),
    "pgd100": partial(pgd, steps=100),
}
"""The attacks of the paper; epsilon and step_size are the caller's."""
