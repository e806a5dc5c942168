"""How far a robust accuracy can be trusted: the checks that reviewers ask for, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from prs_lightning.attacks.attacks import bim, fgsm, pgd, robust_accuracy
from prs_lightning.attacks.network import AttackedNetwork
from prs_lightning.attacks.samples import AttackResult, check_images

POINT, FEW = 0.01, 2
"""Differences of robust accuracy up to one percentage point pass, or of two samples if that is more."""


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
        rows += [
            (check.name, "pass" if check.passed else "WARN", check.figure, check.expected) for check in self.checks
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
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
    check_images(images, labels)
    network = AttackedNetwork(model, device=images.device)
    threat: dict[str, Any] = {"epsilon": epsilon, "step_size": step_size, "steps": steps, "batch_size": batch_size}
    attack = partial(pgd, model, images, labels, keep_adversarial=False, **threat)
    first = attack(generator=keyed(seed))
    base, count = first.robust_accuracy, len(labels)
    tolerance = max(POINT, FEW / count)
    standing = first.correct_after

    def again(key: int = seed, **changes: Any) -> AttackResult:
        return attack(diagnose=False, among=first.correct_after, generator=keyed(key), **changes)

    def survivors(name: str, after: AttackResult) -> Check:
        """A check of an attack on those that withstood the first; ``standing`` is who withstood all."""
        nonlocal standing
        standing = standing & after.correct_after
        # The accuracies are shares of counts: a difference of exactly the tolerance must not hang on rounding.
        passed = base - after.robust_accuracy <= tolerance + 1e-9
        return Check(name, passed, f"{base:.3f} -> {after.robust_accuracy:.3f}", f"falls by <= {tolerance:.3g}")

    logits = [network.logits(images[:batch_size].float()) for _ in range(2)]
    checks = [*_of_the_network(*logits)]
    clean, end = first.zero_gradient_clean.sum(), (first.zero_gradient_end & standing).sum()
    found = f"{int(clean) / count:.3f} clean, {int(end) / count:.3f} at the end"
    checks.append(Check("zero gradients", max(int(clean), int(end)) / count <= tolerance, found, f"<= {tolerance:.3g}"))
    reach = steps * step_size
    checks.append(Check("steps * step_size", reach >= epsilon, f"{reach:.4g}", f">= epsilon = {epsilon:.4g}"))

    masking_gap = base - (margin := again(loss="margin")).robust_accuracy
    checks.append(survivors("survivors under margin", margin))
    if logits[0].shape[1] > 2:
        checks.append(survivors("survivors under dlr", again(loss="dlr")))
    checks.append(survivors("survivors under rescaled_cross_entropy", again(loss="rescaled_cross_entropy")))

    weaker = {
        "FGSM": robust_accuracy(model, images, labels, partial(fgsm, epsilon=epsilon)),
        "BIM": robust_accuracy(model, images, labels, partial(bim, **threat)),
        "PGD": base,
    }
    ordered = all(after <= before + tolerance for before, after in pairwise(weaker.values()))
    found = " ".join(f"{name} {value:.3f}" for name, value in weaker.items())
    checks.append(Check("iterating helps", ordered, found, "FGSM >= BIM >= PGD"))
    checks.append(survivors(f"PGD-{5 * steps} after PGD-{steps}", again(steps=5 * steps)))
    checks.append(survivors(f"{restarts} restarts more", again(seed + 1, restarts=restarts)))

    # With the whole cube within reach every image can become any other: only a blind attack leaves survivors.
    whole = again(epsilon=1.0, step_size=2.5 / steps).robust_accuracy
    checks.append(Check("unbounded attack", whole == 0, f"{whole:.3f} at epsilon 1", "0"))

    from prs_lightning.attacks.art import square  # imports ART, which takes seconds

    options: dict[str, Any] = {"epsilon": epsilon, "seed": seed, "batch_size": batch_size, "max_iter": square_steps}
    free = square(model, images, labels, among=first.correct_after, **options)
    checks.append(survivors("survivors under Square", free))
    return Audit(tuple(checks), base, float(standing.double().mean()), masking_gap)


def keyed(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _of_the_network(outputs: Tensor, again: Tensor) -> Iterator[Check]:
    """What can be seen from the outputs alone."""
    sums = outputs.sum(1)
    probabilities = bool((outputs.amin() >= 0) & ((sums - 1).abs() < 1e-4).all())
    yield Check(
        "outputs are logits",
        not probabilities,
        f"sums {float(sums.min()):.3g} to {float(sums.max()):.3g}",
        "not probabilities",
    )
    difference = float((outputs - again).abs().max())
    yield Check("deterministic forward", difference == 0, f"differs by {difference:.3g}", "the same twice")
