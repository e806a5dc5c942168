"""The audit, and its table: how far the robust accuracy that PGD with cross-entropy reports can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from prs_lightning.attacks import ThreatModel
from prs_lightning.attacks.network import check_images
from prs_lightning.audit.attacking import find
from prs_lightning.audit.battery import Progress
from prs_lightning.audit.findings import Findings, Trial
from prs_lightning.audit.verdict import Verdict, judge
from prs_lightning.errors import at_least

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
    """What was found; checks and verdict follow from that alone. ``str(audit)`` is the table with the verdict."""

    findings: Findings

    @property
    def verdict(self) -> Verdict:
        return judge(self.findings)

    @property
    def checks(self) -> tuple[Check, ...]:
        return tuple(table(self.findings))

    @property
    def robust_accuracy(self) -> float:
        """Of PGD with cross-entropy alone."""
        return self.findings.robust_accuracy

    @property
    def audited(self) -> float:
        """Of what withstood every attack of the audit: the number to quote."""
        return self.findings.audited_accuracy

    @property
    def masking_gap(self) -> float:
        """The difference that the margin loss alone makes."""
        margin = self.findings.trial("margin")
        return self.robust_accuracy - self.findings.after(margin) if margin else 0.0

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
        numbers = f"robust accuracy {self.robust_accuracy:.4f}, audited {self.audited:.4f}"
        return "\n".join([*lines, numbers, f"verdict: {self.verdict}"])


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
    against: nn.Module | None = None,
    subset: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
    progress: Progress | None = None,
) -> Audit:
    """Audit the robust accuracy that PGD with cross-entropy reports.

    The checks follow Carlini et al. 2019, "On Evaluating Adversarial Robustness" (section 4), the flags of AutoAttack
    (Croce & Hein 2020) and the indicators of Pintor et al. 2022; Athalye et al. 2018 name the signs of masked
    gradients. Every attack after the first meets the samples that withstood the first, or ``subset`` of them;
    ``audited`` counts those that withstood all of them. The verdict's rule is ``prs_lightning.audit.RULE``.

    A network that is random is attacked like any other: each pass is another draw, a sample counts as fooled if any
    draw on its way was, and its verdict says so.

    Args:
        model, images, labels, epsilon, step_size, steps, batch_size: as for :func:`prs_lightning.attacks.pgd`.
        restarts: random starts of the check on restarts.
        square_steps: queries per sample of the gradient-free attack.
        against: another network in eval mode, whose adversarial images are tried on ``model``.
        subset: samples that the further attacks, the curve and the distances look at, spread evenly; None: all.
        seed: of all random starts.
        progress: called with what is done, the samples done of it and those in all.

    Raises:
        ConfigError, RunError: as for :func:`prs_lightning.attacks.pgd`.
    """
    check_images(images, labels)
    for name, value in (("square_steps", square_steps), *([("subset", subset)] if subset is not None else [])):
        at_least(name, value, 1)
    threat = ThreatModel(epsilon=epsilon, step_size=step_size, steps=steps)
    return Audit(
        find(
            model, images.detach(), labels.long(), threat, restarts=restarts, square_steps=square_steps, seed=seed,
            batch_size=batch_size, against=against, subset=subset, progress=progress,
        )
    )  # fmt: skip


def table(findings: Findings) -> Iterator[Check]:
    """The checks, in the order in which one asks."""
    gradients, base = findings.gradients, findings.robust_accuracy
    tolerance = max(POINT, FEW / findings.samples)
    low, high = gradients.output_sums
    yield Check("outputs are logits", not gradients.probabilities, f"sums {low:.3g} to {high:.3g}", "not probabilities")
    difference = gradients.largest_difference
    yield Check("deterministic forward", difference == 0, f"differs by {difference:.3g}", "the same twice")
    clean, end = (count / findings.samples for count in (gradients.zero_clean, gradients.zero_end))
    found = f"{clean:.3f} clean, {end:.3f} at the end"
    yield Check("zero gradients", max(clean, end) <= tolerance, found, f"<= {tolerance:.3g}")
    reach = findings.steps * findings.step_size
    yield Check("steps * step_size", reach >= findings.epsilon, f"{reach:.4g}", f">= epsilon = {findings.epsilon:.4g}")

    def survivors(trial: Trial) -> Check:
        # The accuracies are shares of counts: a difference of exactly the tolerance must not hang on rounding.
        after = findings.after(trial)
        some = "" if trial.met == findings.standing else f" ({trial.met} of {findings.standing})"
        passed = base - after <= tolerance + 1e-9
        name = f"survivors under {trial.name}" if trial.family != "more" else trial.name
        return Check(name, passed, f"{base:.3f} -> {after:.3f}{some}", f"falls by <= {tolerance:.3g}")

    yield from (survivors(trial) for trial in findings.trials if trial.family == "scale")
    weaker = {**dict(findings.weaker), "PGD": base}
    ordered = all(after <= before + tolerance for before, after in pairwise(weaker.values()))
    found = " ".join(f"{name} {value:.3f}" for name, value in weaker.items())
    yield Check("iterating helps", ordered, found, "FGSM >= BIM >= PGD")
    yield from (survivors(trial) for trial in findings.trials if trial.family in ("more", "stronger"))
    left = base * findings.unbounded / findings.met if findings.met else 0.0
    yield Check("unbounded attack", findings.unbounded == 0, f"{left:.3f} at epsilon 1", "0")
    yield from (survivors(trial) for trial in findings.trials if trial.family in ("blind", "transfer"))
