"""Sign patterns: the one place that decides when a unit is positive.

A decision region is a sign pattern ("Empirical Study of the Decision Region and Robustness in Deep Neural Networks",
section 3): the set of inputs for which the same units of a layer are positive, and a unit is positive iff z > 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prs_lightning.errors import ConfigError, RunError


def has_nan(z: Tensor) -> Tensor:
    """Whether any element is NaN, as a boolean scalar on the tensor's device; no host sync."""
    # A maximum is NaN as soon as one element is, and needs no mask of the tensor's size.
    return z.amax().isnan() if z.numel() else torch.zeros((), dtype=torch.bool, device=z.device)


def refuse_nan(found: Tensor | bool) -> None:
    """Raise RunError if the flag of `has_nan` is set."""
    if found:
        raise RunError("a pre-activation is NaN, which has no sign: check the network's weights and the images")


def sign_patterns(z: Tensor, *, check: bool = True) -> Tensor:
    """The sign pattern of each sample: True where a unit is positive, that is z > 0; zero counts as negative.

    Args:
        z: pre-activations (N, D) or (N, C, H, W), any floating type.
        check: refuse NaN at once; on a GPU that waits for the device.

    Returns:
        Boolean (N, D), or (N, C * H * W).

    Raises:
        ConfigError: not a floating tensor of at least two dimensions, or no units.
        RunError: NaN.

    >>> sign_patterns(torch.tensor([[0.5, 0.0, -1.0]]))
    tensor([[ True, False, False]])
    """
    z = flat(z)
    if check:
        refuse_nan(has_nan(z))
    return positive(z)


def positive(z: Any) -> Any:
    """The one place of ``z > 0``, for a tensor or a numpy array."""
    return z > 0


def flat(z: Tensor) -> Tensor:
    """Pre-activations (N, D) or (N, C, H, W) as (N, units), detached; ConfigError for anything else, or no units."""
    if z.ndim < 2 or not z.is_floating_point():
        raise ConfigError(
            f"pre-activations of shape {tuple(z.shape)}, {z.dtype}: expected floating (N, D) or (N, C, H, W)"
        )
    if not z.shape[1:].numel():
        raise ConfigError(f"pre-activations of shape {tuple(z.shape)} have no units: expected at least one")
    return z.detach().flatten(1)
