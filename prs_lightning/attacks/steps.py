"""The equations of an L-infinity attack: the ball, the random start, the sign step."""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed word: the increment of SplitMix64
_MIX = (-4658895280553007687, -7723592293110705685)  # 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def bounds(clean: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Lower and upper limits of the pixels: the ball of radius epsilon around the clean images, cut to [0, 1]."""
    return (clean - epsilon).clamp_(0, 1), (clean + epsilon).clamp_(0, 1)


def sign_step(images: Tensor, gradient: Tensor, step_size: float, lower: Tensor, upper: Tensor) -> Tensor:
    """x <- clip(x + alpha sign(grad)) (Madry et al. 2018, section 2.1)."""
    return torch.clamp(images.add(gradient.sign(), alpha=step_size), lower, upper)


def random_start(clean: Tensor, indices: Tensor, key: int, epsilon: float, lower: Tensor, upper: Tensor) -> Tensor:
    """Uniform in the ball, each pixel by itself, then cut to [0, 1]; it follows from (key, index, pixel) alone."""
    noise = keyed_uniform(indices, clean[0].numel(), key).view(clean.shape)
    return torch.clamp(clean + epsilon * (2 * noise - 1), lower, upper)


def keyed_uniform(indices: Tensor, width: int, key: int) -> Tensor:
    """float32 (N, width) uniform on [0, 1), multiples of 2^-24: row i depends on ``key`` and ``indices[i]`` alone.

    A counter-based generator: the output function of SplitMix64 (Steele, Lea & Flood 2014, figure 17; it passes
    BigCrush) at the counter key + index * width + pixel. Unlike one generator per sample it is a few element-wise
    operations on the device; unlike one generator for all it does not depend on how the samples were batched.
    """
    pixel = torch.arange(width, device=indices.device)
    word = (indices.to(torch.int64)[:, None] * width + pixel + 1).mul_(_GOLDEN).add_(key)
    word = (word ^ _shift_right(word, 30)).mul_(_MIX[0])
    word = (word ^ _shift_right(word, 27)).mul_(_MIX[1])
    word = word ^ _shift_right(word, 31)
    return _shift_right(word, 40).to(torch.float32).mul_(2.0**-24)


def _shift_right(word: Tensor, bits: int) -> Tensor:
    """Shift that fills with zeros; torch's own repeats the sign bit."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def draw_key(generator: torch.Generator) -> int:
    """The next key of a generator, a signed 64-bit word."""
    return int(torch.empty((), dtype=torch.int64, device=generator.device).random_(-(2**63), None, generator=generator))
