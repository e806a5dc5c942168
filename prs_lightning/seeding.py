"""Seeds that are keyed by what they are for, so that no result hangs on how much random state was used before."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed word: the increment of SplitMix64
_MIX = (-4658895280553007687, -7723592293110705685)  # 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mixed_seed(*words: int) -> int:
    """A 64-bit seed from non-negative integers such as (seed, epoch, rank).

    numpy's SeedSequence spreads neighbouring words over unrelated streams; adding them up would not.
    """
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def keyed_generator(*words: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator of its own, seeded with ``mixed_seed(*words)``; global random state is not touched."""
    return torch.Generator(device=device).manual_seed(mixed_seed(*words))


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


def keyed_normal(indices: Tensor, width: int, key: int) -> Tensor:
    """float64 (N, width) of the standard normal distribution, each row and pixel as by `keyed_uniform`.

    By the inverse of the distribution function, so that each number takes one uniform of its own.
    """
    uniform = keyed_uniform(indices, width, key).double() + 2.0**-25  # the middle of each step: never 0, never 1
    return torch.special.ndtri(uniform)


def _shift_right(word: Tensor, bits: int) -> Tensor:
    """Shift that fills with zeros; torch's own repeats the sign bit."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def draw_key(generator: torch.Generator) -> int:
    """The next key of a generator, a signed 64-bit word."""
    return int(torch.empty((), dtype=torch.int64, device=generator.device).random_(-(2**63), None, generator=generator))
