"""Adversarial attacks under one threat model: the fastest honest robust accuracy."""

from prs_lightning.attacks.attacks import bim, fgsm, pgd, robust_accuracy, robustness_curve
from prs_lightning.attacks.distance import Distances, distances
from prs_lightning.attacks.engine import AttackResult, Samples, gradient_attack, look_at_gradients
from prs_lightning.attacks.losses import LOSSES
from prs_lightning.attacks.threat_model import ThreatModel

__all__ = [
    "LOSSES",
    "AttackResult",
    "Distances",
    "Samples",
    "ThreatModel",
    "bim",
    "distances",
    "fgsm",
    "gradient_attack",
    "look_at_gradients",
    "pgd",
    "robust_accuracy",
    "robustness_curve",
]
