"""What an attack refuses, before it starts and after it ended."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from prs_lightning.attacks.losses import resolve
from prs_lightning.attacks.network import PRECISIONS
from prs_lightning.attacks.results import Settings
from prs_lightning.errors import ConfigError, RunError

TOLERANCE = 1e-6
"""Of the ball's radius: the rounding of x + epsilon in float32 for pixels in [0, 1], with room to spare."""


def check_settings(settings: Settings) -> None:
    """Raise ConfigError for a value that no attack can use."""
    for name in ("epsilon", "step_size"):
        value = getattr(settings, name)
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name}={value} must be a finite number, 0 or more, in pixel units of images in [0, 1]")
    if settings.epsilon > 1:
        raise ConfigError(f"epsilon={settings.epsilon:g} must be 1 or less: pixels lie in [0, 1] (divide by 255)")
    for name in ("steps", "restarts", "batch_size"):
        value = getattr(settings, name)
        if int(value) != value or value < 1:
            raise ConfigError(f"{name}={value} must be a whole number, 1 or more")
    if settings.diagnose not in (True, False, "clean"):
        raise ConfigError(f"diagnose={settings.diagnose!r} is unknown: expected True, False or 'clean'")
    if settings.restarts > 1 and not settings.random_start:
        raise ConfigError(f"restarts={settings.restarts} without random_start would repeat the same attack")
    if settings.precision not in PRECISIONS:
        raise ConfigError(f"precision={settings.precision!r} is unknown: expected one of {', '.join(PRECISIONS)}")
    resolve(settings.loss)


def check_images(images: Tensor, labels: Tensor) -> None:
    """Raise ConfigError unless images are float (N, ...) in [0, 1] with integer labels (N,) on the same device."""
    if not images.is_floating_point():
        raise ConfigError(f"images are {images.dtype}: expected floating point in [0, 1] (divide uint8 by 255)")
    if len(images) != len(labels) or labels.ndim != 1:
        raise ConfigError(f"labels have shape {tuple(labels.shape)}: expected ({len(images)},), one per image")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ConfigError(f"labels are {labels.dtype}: expected whole class numbers")
    if images.device != labels.device:
        raise ConfigError(f"images are on {images.device}, labels on {labels.device}: move them to one device")
    if len(labels) == 0:
        raise ConfigError("images are empty: expected one sample or more")
    low, high = torch.stack(images.aminmax()).tolist()
    if not (low >= 0 and high <= 1):
        raise ConfigError(f"images lie in [{low:g}, {high:g}]: expected [0, 1]; normalise inside the network")


def check_model(model: nn.Module, device: torch.device) -> None:
    """Raise ConfigError unless the network is in eval mode, on that device, and gradients can be taken."""
    for name, module in model.named_modules():
        if module.training:
            raise ConfigError(f"the network is in train mode ({name or type(module).__name__}): call model.eval()")
    found = next((parameter.device for parameter in model.parameters()), device)
    if found != device:
        raise ConfigError(f"the network is on {found}, the images on {device}: move them to one device")
    if torch.is_inference_mode_enabled():
        raise ConfigError("an attack needs gradients, but inference mode is on: use Trainer(inference_mode=False)")


def check_classes(labels: Tensor, classes: int) -> None:
    """Raise ConfigError for labels outside the network's classes."""
    low, high = torch.stack(labels.aminmax()).tolist()
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ConfigError(f"label {wrong} is out of range: the network has {classes} classes, 0 to {classes - 1}")


def excess(adversarial: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """By how much each image leaves the ball or [0, 1], (n,); 0 or less if it does not, NaN if a pixel is."""
    beyond_ball = (adversarial - clean).abs().flatten(1).amax(1) - epsilon
    beyond_range = torch.maximum(-adversarial.flatten(1).amin(1), adversarial.flatten(1).amax(1) - 1)
    return torch.maximum(beyond_ball, beyond_range)


def check_ball(excesses: Tensor, epsilon: float) -> None:
    """Raise RunError if an adversarial image left the ball; the post-condition of every attack."""
    outside = ~(excesses <= TOLERANCE)  # written so that NaN counts as outside
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise RunError(
            f"the adversarial image of row {row} leaves the ball of epsilon={epsilon} or [0, 1] by "
            f"{float(excesses[row]):.3g} ({int(outside.sum())} rows do): the attack is wrong, do not use its result"
        )
