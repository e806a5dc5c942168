"""What an attacker may do: one frozen object that travels from the config to the engine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prs_lightning.attacks.ball import BALLS, Ball
from prs_lightning.attacks.losses import LOSSES, Loss, resolve
from prs_lightning.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """An attack that steps along the gradient of a loss and stays in a ball.

    Args:
        epsilon: radius of the ball, in pixel units of images in [0, 1].
        step_size: alpha, in pixel units.
        steps: number of steps.
        norm: of the ball: ``"linf"``, or ``"l2"``, the root of the sum of squares over all pixels.
        loss: what is maximised: ``"cross_entropy"``, ``"margin"`` (Carlini & Wagner), ``"dlr"`` (AutoAttack),
            ``"rescaled_cross_entropy"``, ``"top_two_cross_entropy"``, or a function of (logits, labels) that gives one
            value per sample. It is taken in float32 and summed over the batch.
        temperature: T; the loss is that of logits / T. No prediction depends on it, and neither does a loss without
            scale (margin but for a factor, DLR, the rescaled ones).
        targets: n, to attack n times, each time with the loss's targeted form towards another class, the likeliest at
            the clean image first; a sample counts as fooled when it is misclassified as any. 0: untargeted.
        random_start: start uniformly in the ball instead of at the image.
        restarts: how often those that withstood are attacked again from another random start.
        early_exit: a sample that is misclassified at any iterate is fooled (worst case, as AutoAttack counts) and
            leaves; False: only the last iterate counts.
        precision: ``"float32"``, or ``"bfloat16"`` for the gradients; every success and every zero gradient is then
            verified in float32.

    Raises:
        ConfigError: a value that no attack can use; the message names it.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 20
    norm: str = "linf"
    loss: str | Loss = "cross_entropy"
    temperature: float = 1.0
    targets: int = 0
    random_start: bool = True
    restarts: int = 1
    early_exit: bool = True
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("epsilon", "step_size"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(
                    f"{name}={value} must be a finite number, 0 or more, in pixel units of images in [0, 1]"
                )
        if self.norm == "linf" and self.epsilon > 1:
            raise ConfigError(f"epsilon={self.epsilon:g} must be 1 or less: pixels lie in [0, 1] (divide by 255)")
        for name in ("steps", "restarts"):
            check_count(name, getattr(self, name))
        if self.restarts > 1 and not self.random_start:
            raise ConfigError(f"restarts={self.restarts} without random_start would repeat the same attack")
        for name, known in (("precision", ("float32", "bfloat16")), ("norm", BALLS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)!r} is unknown: expected one of {', '.join(known)}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"temperature={self.temperature} must be a finite number above 0")
        if self.targets:
            check_count("targets", self.targets)
            if callable(self.loss):
                raise ConfigError(
                    f"targets={self.targets} needs a loss by its name: expected one of {', '.join(LOSSES)}"
                )
        self.objective()

    def objective(self) -> Loss:
        """What is maximised: a function of (logits, labels), and of targets where there are ``targets``."""
        return resolve(self.loss, self.temperature)

    @property
    def ball(self) -> Ball:
        return BALLS[self.norm](self.epsilon)


def check_count(name: str, value: float) -> None:
    """Raise ConfigError unless ``value`` is a whole number of 1 or more."""
    if int(value) != value or value < 1:
        raise ConfigError(f"{name}={value} must be a whole number, 1 or more")
