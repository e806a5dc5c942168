"""What is attacked, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from prs_lightning.data import to_unit_range
from prs_lightning.errors import ConfigError

Progress = Callable[[int, int, int], None]
"""Called with the samples done, the samples in all, and how many of the done ones withstood."""


class Samples(NamedTuple):
    """A source of images that need not be in memory as floats.

    ``gather(rows)`` gives the images (n, C, H, W), float32 in [0, 1]; ``labels`` is int64 (N,); ``indices`` (N,) are
    the numbers by which random starts are keyed, so that a shard of a data set draws what the whole would.
    """

    gather: Callable[[Tensor], Tensor]
    labels: Tensor
    indices: Tensor

    @classmethod
    def of(cls, images: Tensor, labels: Tensor, indices: Tensor | None = None) -> Samples:
        """Samples of a tensor: float images as they are, uint8 images divided by 255 a batch at a time."""
        if indices is None:
            indices = torch.arange(len(labels), device=labels.device)
        if images.dtype == torch.uint8:
            return cls(lambda rows: to_unit_range(images[rows]), labels, indices)
        return cls(lambda rows: images[rows].to(torch.float32), labels, indices)


@dataclass(frozen=True)
class AttackResult:
    """One row per given sample; N samples of shape (C, H, W).

    Attributes:
        adversarial: float32 (N, C, H, W): the image at which the attack ended, in the ball and in [0, 1]; the clean
            image where it was misclassified already. None if it was not asked for.
        correct_before: bool (N,): the clean image is classified correctly.
        correct_after: bool (N,): the sample withstood. With ``early_exit`` it was never misclassified at any
            iterate (worst case); without, it is classified correctly at the last iterate.
        zero_gradient_clean: bool (N,): the loss gradient at the clean image is exactly 0 everywhere.
            False where nobody looked (``diagnose``, ART).
        zero_gradient_end: bool (N,): so is the gradient at the image where the attack ended.
        steps_to_success: int64 (N,): steps taken until the sample was first misclassified, restarts counted
            on; 0 if the clean image or the random start was; -1 if it never was.
    """

    adversarial: Tensor | None
    correct_before: Tensor
    correct_after: Tensor
    zero_gradient_clean: Tensor
    zero_gradient_end: Tensor
    steps_to_success: Tensor

    @property
    def robust_accuracy(self) -> float:
        """Share of *all* given samples that are still classified correctly, in [0, 1]."""
        return float(self.correct_after.double().mean())


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
