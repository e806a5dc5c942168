"""Adversarial attacks in the L-infinity ball: the fastest honest robust accuracy, and its audit."""

from prs_lightning.attacks.audit import Audit, Check, audit
from prs_lightning.attacks.engine import gradient_attack
from prs_lightning.attacks.gradient import bim, fgsm, pgd, robust_accuracy, robustness_curve
from prs_lightning.attacks.losses import LOSSES
from prs_lightning.attacks.results import AttackResult, Samples, Settings

__all__ = [
    "LOSSES",
    "AttackResult",
    "Audit",
    "Check",
    "Samples",
    "Settings",
    "audit",
    "bim",
    "fgsm",
    "gradient_attack",
    "pgd",
    "robust_accuracy",
    "robustness_curve",
]
