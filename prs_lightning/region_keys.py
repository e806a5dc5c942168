"""128-bit keys of sign patterns, and exact sorting, grouping and searching of such keys.

A pattern of at most 128 units is its own key: the packed bits. A longer one is hashed by four independent members of
a strongly universal family with a key that is fixed for good, so equal patterns have equal keys on every device, in
every process and on every day.

Collision bound: for a key drawn at random, two given distinct patterns share a key with probability exactly 2^-128;
N patterns hold a collision with probability below N^2 / 2^129 (see `collision_bound`; 10 million: 1.5e-25). The
drawn key is public, so the bound is about networks and images, not about an adversary who picks patterns against it.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PLAIN_UNITS = 128
"""Patterns of up to this many units are not hashed."""

PARTS = 4
_KEY_NAME = b"prs-lightning region keys, version 1"
_LOW_32 = 0xFFFFFFFF
# One multiplication moves the lowest bit of each of eight bytes into the topmost byte, the first byte's bit lowest.
_GATHER_BITS = 0x0102040810204080


def collision_bound(samples: int) -> float:
    """Upper bound of the probability that any two of ``samples`` distinct hashed patterns share a key.

    >>> collision_bound(10_000_000) < 2e-25
    True
    """
    return samples * samples / 2**129


def packed_words(units: int) -> int:
    """How many 64-bit words a packed pattern takes: two at least."""
    return max(2, -(-units // 64))


def pack(patterns: Tensor) -> Tensor:
    """Boolean patterns (N, D) as int64 words (N, max(2, ceil(D / 64))); unit d is bit d % 64 of word d // 64.

    >>> pack(torch.tensor([[True, False, True]])).tolist()
    [[5, 0]]
    """
    samples, units = patterns.shape
    words = packed_words(units)
    if not samples:
        return torch.empty(0, words, dtype=torch.int64, device=patterns.device)
    if units < words * 64:
        patterns = F.pad(patterns, (0, words * 64 - units))
    # numpy packs with the processor's own instructions, 2 to 4 times faster than the multiplication.
    packed = _pack_by_numpy if patterns.device.type == "cpu" else _pack_by_multiplication
    return packed(patterns.flatten()).view(samples, words)


def _pack_by_numpy(patterns: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(patterns.numpy(), bitorder="little")).view(torch.int64)


def _pack_by_multiplication(patterns: Tensor) -> Tensor:
    groups_of_eight = patterns.view(torch.uint8).view(torch.int64)
    return ((groups_of_eight * _GATHER_BITS) >> 56).to(torch.uint8).view(torch.int64)


def unpack(words: Tensor, units: int) -> Tensor:
    """The boolean patterns (N, units) of packed words (N, W): the inverse of `pack`."""
    bits = (words.unsqueeze(-1) >> torch.arange(64, device=words.device)) & 1
    return bits.flatten(1)[:, :units].bool()


def multilinear(words: Tensor, multipliers: Tensor) -> Tensor:
    """Strongly universal hashes of packed words (N, W): int64 (N, P) with values in [0, 2^32).

    ``h_p = ((m_0p + sum_i m_ip s_i) mod 2^64) >> 32`` over the 2W 32-bit halves ``s_i`` of the words (Lemire & Kaser,
    "Strongly universal string hashing is fast", 2014, section 2: multilinear). For multipliers (2W + 1, P) that are
    uniform over 64-bit integers, distinct words agree in one column with probability exactly 2^-32, columns being
    independent. int64 arithmetic wraps, which is the "mod 2^64".
    """
    halves = words.contiguous().view(torch.int32).to(torch.int64).bitwise_and_(_LOW_32)
    # torch multiplies integer matrices slowly on a CPU and not at all on a GPU.
    products = _product_by_numpy if words.device.type == "cpu" else _product_by_column
    return ((products(halves, multipliers[1:]) + multipliers[0]) >> 32) & _LOW_32


def _product_by_numpy(rows: Tensor, columns: Tensor) -> Tensor:
    return torch.from_numpy(rows.numpy() @ columns.numpy())


def _product_by_column(rows: Tensor, columns: Tensor) -> Tensor:
    return torch.stack([(rows * column).sum(1) for column in columns.T], dim=1)


@lru_cache(maxsize=64)
def _multipliers(words: int, device: torch.device) -> Tensor:
    """The fixed multipliers (2 * words + 1, PARTS): SHAKE-128 of a name, little-endian."""
    count = (2 * words + 1) * PARTS
    stream = hashlib.shake_128(_KEY_NAME).digest(8 * count)
    values = [int.from_bytes(stream[8 * i : 8 * i + 8], "little", signed=True) for i in range(count)]
    return torch.tensor(values, dtype=torch.int64, device=device).view(-1, PARTS)


def keys_of_patterns(patterns: Tensor) -> Tensor:
    """The keys int64 (N, 2) of boolean patterns (N, D): 16 bytes a sample, whatever D is."""
    return keys_of_words(pack(patterns))


def keys_of_words(words: Tensor) -> Tensor:
    """The keys int64 (N, 2) of packed patterns (N, W): the words themselves if they are two."""
    if words.shape[1] == 2:
        return words
    parts = multilinear(words, _multipliers(words.shape[1], words.device))
    return (parts[:, 0::2] << 32) | parts[:, 1::2]


def lexicographic_order(keys: Tensor) -> Tensor:
    """The indices (N,) that sort keys (N, 2) by their first word, then by their second.

    Hashed keys hardly ever tie in the first word without being equal, so one sort is tried before two.
    """
    first, order = keys[:, 0].sort()
    second = keys[:, 1][order]
    if not ((first[1:] == first[:-1]) & (second[1:] < second[:-1])).any():
        return order
    order = keys[:, 1].argsort()
    return order[keys[:, 0][order].argsort(stable=True)]


def _starts_of_groups(sorted_keys: Tensor) -> Tensor:
    starts = torch.ones(len(sorted_keys), dtype=torch.bool, device=sorted_keys.device)
    torch.any(sorted_keys[1:] != sorted_keys[:-1], dim=1, out=starts[1:])
    return starts


def count_keys(keys: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The distinct keys (R, 2), sorted, and how often each occurs, int64 (R,); ``weights`` (N,) count as repetitions.

    >>> count_keys(torch.tensor([[7, 0], [3, 0], [7, 0]]))
    (tensor([[3, 0],
            [7, 0]]), tensor([1, 2]))
    """
    order = lexicographic_order(keys)
    keys = keys[order]
    first = _starts_of_groups(keys).nonzero().flatten()
    ends = torch.cat([first[1:], first.new_full((min(1, len(first)),), len(keys))])
    if weights is None:
        return keys[first], ends - first
    running = F.pad(weights[order].cumsum(0), (1, 0))
    return keys[first], running[ends] - running[first]


def merge_counts(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], slices: int = 16) -> tuple[Tensor, Tensor]:
    """Two results of `count_keys` as one, the counts of common keys added up.

    It is made slice by slice of the first word's range, so that sorting needs little memory beside the result.
    """
    total = len(one[0]) + len(other[0])
    keys, counts = one[0].new_empty(total, 2), one[1].new_empty(total)
    larger = max(one[0], other[0], key=len)[:, 0].contiguous()
    cuts = larger[torch.arange(1, slices, device=larger.device) * len(larger) // slices] if len(larger) else larger
    bounds = [
        [0, *torch.searchsorted(known[:, 0].contiguous(), cuts).tolist(), len(known)] for known in (one[0], other[0])
    ]
    filled = 0
    for (start, end), (other_start, other_end) in zip(*map(pairwise, bounds), strict=True):
        parts = zip((part[start:end] for part in one), (part[other_start:other_end] for part in other), strict=True)
        found, populations = count_keys(*(torch.cat(pair) for pair in parts))
        keys[filled : filled + len(found)] = found
        counts[filled : filled + len(found)] = populations
        filled += len(found)
    # Room that is hardly used is given back.
    return (
        (keys[:filled], counts[:filled]) if filled > 0.8 * total else (keys[:filled].clone(), counts[:filled].clone())
    )


def group_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct keys (R, 2), sorted, and for every given key its place among them, int64 (N,)."""
    order = lexicographic_order(keys)
    keys = keys[order]
    starts = _starts_of_groups(keys)
    places = torch.empty_like(order)
    places[order] = starts.cumsum(0) - 1
    return keys[starts], places


def find_keys(sorted_keys: Tensor, wanted: Tensor) -> Tensor:
    """The place of each wanted key (M, 2) among sorted distinct keys (R, 2), or -1 where it is absent; int64 (M,)."""
    if not len(sorted_keys):
        return torch.full((len(wanted),), -1, device=wanted.device)
    first, sought = sorted_keys[:, 0].contiguous(), wanted[:, 0].contiguous()
    low, end = torch.searchsorted(first, sought), torch.searchsorted(first, sought, right=True)
    high = end
    # Bisection among the keys with the same first word: as many rounds as the longest such run needs.
    for _ in range(int((end - low).max()).bit_length() if len(wanted) else 0):
        middle = (low + high) // 2
        below = (middle < high) & (sorted_keys[middle.clamp(max=len(first) - 1), 1] < wanted[:, 1])
        low, high = torch.where(below, middle + 1, low), torch.where(below, high, middle)
    found = (low < end) & (sorted_keys[low.clamp(max=len(first) - 1)] == wanted).all(dim=1)
    return torch.where(found, low, -1)
