"""Seeds that are keyed by what they are for, so that no result hangs on how much random state was used before."""

from __future__ import annotations

import numpy as np
import torch


def mixed_seed(*words: int) -> int:
    """A 64-bit seed from non-negative integers such as (seed, epoch, rank).

    numpy's SeedSequence spreads neighbouring words over unrelated streams; adding them up would not.
    """
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def keyed_generator(*words: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator of its own, seeded with ``mixed_seed(*words)``; global random state is not touched."""
    return torch.Generator(device=device).manual_seed(mixed_seed(*words))
