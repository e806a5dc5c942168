"""FGSM, BIM and PGD over whole tensors, what is read off them, and the audit: how far that can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from prs_lightning.attacks.engine import AttackResult, Progress, Samples, gradient_attack
from prs_lightning.attacks.network import AttackedNetwork, check_images
from prs_lightning.attacks.threat_model import ThreatModel
from prs_lightning.errors import ConfigError

Attack = Callable[..., AttackResult]
POINT, FEW = 0.01, 2
"""Differences of robust accuracy up to one percentage point pass, or of two samples if that is more."""


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
    check_images(images, labels)
    images = images.detach()
    if indices is None:
        indices = torch.arange(len(labels), device=labels.device)
    return gradient_attack(
        model,
        Samples(lambda rows: images[rows].to(torch.float32), labels.to(torch.int64), indices),
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


@dataclass(frozen=True)
class Check:
    """One row of the table: ``figure`` is what was found, ``expected`` what an attack that can be trusted gives."""

    name: str
    passed: bool
    figure: str
    expected: str


@dataclass(frozen=True)
class Audit:
    """``robust_accuracy`` of PGD alone, ``audited`` of what withstood every attack of the audit, and the checks.

    ``str(audit)`` is the table; ``masking_gap`` is the difference that the margin loss alone makes.
    """

    checks: tuple[Check, ...]
    robust_accuracy: float
    audited: float
    masking_gap: float

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        rows = [("check", "", "found", "expected")]
        for check in self.checks:
            rows.append((check.name, "pass" if check.passed else "WARN", check.figure, check.expected))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join([*lines, f"robust accuracy {self.robust_accuracy:.4f}, audited {self.audited:.4f}"])


def audit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float = 8 / 255,
    step_size: float = 2 / 255,
    steps: int = 20,
    restarts: int = 5,
    square_steps: int = 200,
    seed: int = 0,
    batch_size: int = 128,
) -> Audit:
    """Audit the robust accuracy that PGD with cross-entropy reports.

    The checks follow Carlini et al. 2019, "On Evaluating Adversarial Robustness" (section 4) and the flags of
    AutoAttack (Croce & Hein 2020); Athalye et al. 2018 name the signs of masked gradients. Every attack after the first
    meets the samples that withstood the first; ``audited`` counts those that withstood all of them.

    Args:
        model, images, labels, epsilon, step_size, steps, batch_size: as for :func:`prs_lightning.attacks.pgd`.
        restarts: random starts of the check on restarts.
        square_steps: queries per sample of the gradient-free attack.
        seed: of all random starts.

    Raises:
        ConfigError, RunError: as for :func:`prs_lightning.attacks.pgd`.
    """
    threat: dict[str, Any] = {"epsilon": epsilon, "step_size": step_size, "steps": steps, "batch_size": batch_size}
    attack = partial(pgd, model, images, labels, keep_adversarial=False, **threat)
    first = attack(generator=torch.Generator().manual_seed(seed))
    base, count, standing = first.robust_accuracy, len(labels), first.correct_after
    tolerance = max(POINT, FEW / count)
    checks: list[Check] = []

    def check(name: str, passed: bool, figure: str, expected: str) -> None:
        checks.append(Check(name, passed, figure, expected))

    def again(key: int = seed, **changes: Any) -> AttackResult:
        generator = torch.Generator().manual_seed(key)
        return attack(diagnose=False, among=first.correct_after, generator=generator, **changes)

    def survivors(name: str, after: AttackResult) -> None:
        """Check an attack on those that withstood the first; ``standing`` is who withstood all."""
        nonlocal standing
        standing = standing & after.correct_after
        # The accuracies are shares of counts: a difference of exactly the tolerance must not hang on rounding.
        passed = base - after.robust_accuracy <= tolerance + 1e-9
        check(name, passed, f"{base:.3f} -> {after.robust_accuracy:.3f}", f"falls by <= {tolerance:.3g}")

    network = AttackedNetwork(model, images.device)
    logits, twice = (network.logits(images[:batch_size].float()) for _ in range(2))
    sums, difference = logits.sum(1), float((logits - twice).abs().max())
    probabilities = bool((logits.amin() >= 0) & ((sums - 1).abs() < 1e-4).all())
    found = f"sums {float(sums.min()):.3g} to {float(sums.max()):.3g}"
    check("outputs are logits", not probabilities, found, "not probabilities")
    check("deterministic forward", difference == 0, f"differs by {difference:.3g}", "the same twice")
    clean, end = (int(zero.sum()) / count for zero in (first.zero_gradient_clean, first.zero_gradient_end & standing))
    found = f"{clean:.3f} clean, {end:.3f} at the end"
    check("zero gradients", max(clean, end) <= tolerance, found, f"<= {tolerance:.3g}")
    reach = steps * step_size
    check("steps * step_size", reach >= epsilon, f"{reach:.4g}", f">= epsilon = {epsilon:.4g}")

    margin = again(loss="margin")
    survivors("survivors under margin", margin)
    for loss in ("dlr", "rescaled_cross_entropy"):
        if loss != "dlr" or logits.shape[1] > 2:
            survivors(f"survivors under {loss}", again(loss=loss))

    weaker = {
        "FGSM": robust_accuracy(model, images, labels, partial(fgsm, epsilon=epsilon)),
        "BIM": robust_accuracy(model, images, labels, partial(bim, **threat)),
        "PGD": base,
    }
    ordered = all(after <= before + tolerance for before, after in pairwise(weaker.values()))
    found = " ".join(f"{name} {value:.3f}" for name, value in weaker.items())
    check("iterating helps", ordered, found, "FGSM >= BIM >= PGD")
    survivors(f"PGD-{5 * steps} after PGD-{steps}", again(steps=5 * steps))
    survivors(f"{restarts} restarts more", again(seed + 1, restarts=restarts))

    # With the whole cube within reach every image can become any other: only a blind attack leaves survivors.
    whole = again(epsilon=1.0, step_size=2.5 / steps).robust_accuracy
    check("unbounded attack", whole == 0, f"{whole:.3f} at epsilon 1", "0")

    from prs_lightning.attacks.art import square  # imports ART, which takes seconds

    options: dict[str, Any] = {"epsilon": epsilon, "seed": seed, "batch_size": batch_size, "max_iter": square_steps}
    survivors("survivors under Square", square(model, images, labels, among=first.correct_after, **options))
    audited = float(standing.double().mean())
    return Audit(tuple(checks), base, audited, masking_gap=base - margin.robust_accuracy)
