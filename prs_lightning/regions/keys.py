"""128-bit keys of sign patterns, and exact sorting, grouping and searching of such keys.

A pattern of at most 128 units is its own key: the packed bits. A longer one is hashed by eight independent members of
a strongly universal family with a key that is fixed for good, so equal patterns have equal keys on every device, in
every process and on every day.

Collision bound: for a key drawn at random, two given distinct patterns share a key with probability exactly 2^-128;
N patterns hold a collision with probability below N^2 / 2^129 (see `collision_bound`; 10 million: 1.5e-25). The
drawn key is public, so the bound is about networks and images, not about an adversary who picks patterns against it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

PLAIN_UNITS = 128
"""Patterns of up to this many units are not hashed."""

PARTS = 8
PART_BITS = 16
"""A hashed key is eight hashes of 16 bits."""

_MULTIPLIER_BITS = PART_BITS + 8 - 1
# Features whose signs are taken at once on a CPU, and those that are worth a thread: below, torch's own workers, which
# wait busily for a while after each operation, take more time from it than it saves.
_BLOCK = 2**19
_WORTH_A_THREAD = 2**25
_KEY_NAME = b"prs-lightning region keys, version 1"
# The fractional part of the golden ratio, as a signed 64-bit integer: odd, and without pattern in its bits.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
# One multiplication moves the lowest bit of each of eight bytes into the topmost byte, the first byte's bit lowest.
_GATHER_BITS = 0x0102040810204080


Counts = tuple[Tensor, Tensor]
"""Distinct keys (R, 2), in order, and how often each occurs, int64 (R,)."""


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
    """Strongly universal hashes of packed words (N, W): int64 (N, P) with values in [0, 2^16).

    ``h_p = ((m_0p + sum_i m_ip b_i) mod 2^23) >> 7`` over the 8W bytes ``b_i`` of the words (Lemire & Kaser, "Strongly
    universal string hashing is fast", 2014, section 2: multilinear, with K = 23 and L = 8). For multipliers
    (8W + 1, P) that are uniform over [0, 2^23), distinct words agree in one column with probability exactly 2^-16,
    columns being independent.

    The sum is a float64 matrix product: it is exact, being below 2^53, for fewer than 2^22 bytes a pattern.
    """
    return _hashes_of_sums(words.contiguous().view(torch.uint8).double() @ multipliers[1:], multipliers)


def _hashes_of_sums(sums: Tensor, multipliers: Tensor) -> Tensor:
    return ((sums + multipliers[0]).to(torch.int64) & (2**_MULTIPLIER_BITS - 1)) >> 7


@lru_cache(maxsize=64)
def _multipliers(words: int, device: torch.device) -> Tensor:
    """The fixed multipliers, float64 (8 * words + 1, PARTS): the low bits of 32-bit little-endian SHAKE-128 output."""
    count = (8 * words + 1) * PARTS
    stream = np.frombuffer(hashlib.shake_128(_KEY_NAME).digest(4 * count), dtype="<u4")
    values = (stream & (2**_MULTIPLIER_BITS - 1)).astype(np.float64)
    return torch.from_numpy(values).to(device).view(-1, PARTS)


def keys_of_patterns(patterns: Tensor) -> Tensor:
    """The keys int64 (N, 2) of boolean patterns (N, D): 16 bytes a sample, whatever D is."""
    return keys_of_words(pack(patterns))


def keys_of_words(words: Tensor) -> Tensor:
    """The keys int64 (N, 2) of packed patterns (N, W): the words themselves if they are two."""
    if words.shape[1] == 2:
        return words
    return _keys_of_hashes(multilinear(words, _multipliers(words.shape[1], words.device)))


def _keys_of_hashes(hashes: Tensor) -> Tensor:
    one, two, three, four = hashes.view(len(hashes), 2, PARTS // 2).unbind(-1)
    return one | (two << PART_BITS) | (three << 2 * PART_BITS) | (four << 3 * PART_BITS)


def keys_of_blocks(features: NDArray[Any], write_signs: Callable[[NDArray[Any], NDArray[np.bool_]], Any]) -> Tensor:
    """`keys_of_patterns` of the signs of features (N, D) on a CPU: block by block, so that signs stay in the cache, and
    in as many threads as torch has, since one alone cannot read memory fast enough.

    ``write_signs(block, signs)`` writes the signs of a block of rows into a boolean array.
    """
    samples, units = features.shape
    words = packed_words(units)
    plain, multipliers = words == 2, _multipliers(words, torch.device("cpu"))
    columns = multipliers[1 : 1 + -(-units // 8)].numpy()
    # Of each sample its packed bits, or the sums that its hashes are made of.
    kept: NDArray[Any] = np.zeros((samples, 16), dtype=np.uint8) if plain else np.empty((samples, PARTS))
    rows = max(1, _BLOCK // units)

    def fill(starts: range) -> None:
        # Written again and again: new memory for every block would cost as much as all the rest.
        signs = np.empty((rows, units), dtype=np.bool_)
        numbers = np.empty((0 if plain else rows, len(columns)))
        for start in starts:
            block = features[start : start + rows]
            write_signs(block, signs[: len(block)])
            # Packing whole rows at once takes half the time, where no row ends within a byte.
            packed = np.packbits(signs[: len(block)], axis=None if units % 8 == 0 else 1, bitorder="little")
            packed = packed.reshape(len(block), -1)
            if plain:
                kept[start : start + rows, : packed.shape[1]] = packed
            else:
                numbers[: len(block)] = packed
                np.matmul(numbers[: len(block)], columns, out=kept[start : start + rows])

    threads = max(1, min(torch.get_num_threads(), features.size // _WORTH_A_THREAD))
    shares = [range(0, samples, rows)[thread::threads] for thread in range(threads)]
    if threads == 1:
        fill(shares[0])
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, shares))
    if plain:
        return torch.from_numpy(kept.view(np.int64))
    return _keys_of_hashes(_hashes_of_sums(torch.from_numpy(kept), multipliers))


def sort_words(keys: Any) -> Any:
    """What keys (N, 2) are sorted by first, int64 (N,): different keys hardly ever agree in it. Tensor or array."""
    # Without the shift, two patterns that differ in the last unit of either word would agree.
    mixed = keys[:, 1] * _GOLDEN
    return keys[:, 0] + (mixed ^ (mixed >> 32)) * _GOLDEN


def _in_order(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The indices (N,) that put keys (N, 2) into the one order that is used throughout, and where in it a key differs
    from the one before, boolean (N,). The order is by `sort_words`, then by the first word, then by the second."""
    starts = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
    by, order = sort_words(keys).sort()
    second = keys[:, 1][order]
    changes = by[1:] != by[:-1]
    if (~changes & (second[1:] != second[:-1])).any():
        order = keys[:, 1].argsort()
        for column in (keys[:, 0], sort_words(keys)):
            order = order[column[order].argsort(stable=True)]
        changes = (keys[order[1:]] != keys[order[:-1]]).any(dim=1)
    starts[1:] = changes
    return order, starts


def count_keys(keys: Tensor, weights: Tensor | None = None) -> Counts:
    """The distinct keys (R, 2), in order, and how often each occurs, int64 (R,); ``weights`` (N,) count as repetitions.

    >>> count_keys(torch.tensor([[7, 0], [3, 0], [7, 0]]))
    (tensor([[3, 0],
            [7, 0]]), tensor([1, 2]))
    """
    order, starts = _in_order(keys)
    first = starts.nonzero().flatten()
    ends = torch.cat([first[1:], first.new_full((min(1, len(first)),), len(keys))])
    distinct = keys.index_select(0, order[first])
    if weights is None:
        return distinct, ends - first
    running = F.pad(weights[order].cumsum(0), (1, 0))
    return distinct, running[ends] - running[first]


def group_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct keys (R, 2), in order, and for every given key its place among them, int64 (N,)."""
    order, starts = _in_order(keys)
    places = torch.empty_like(order)
    places[order] = starts.cumsum(0) - 1
    return keys[order[starts]], places


def find_keys(known: Tensor, wanted: Tensor) -> Tensor:
    """The place of each wanted key (M, 2) among distinct keys (R, 2) in order, or -1 where it is absent; int64 (M,)."""
    found = torch.full((len(wanted),), -1, device=wanted.device)
    if not len(known) or not len(wanted):
        return found
    by, sought = sort_words(known), sort_words(wanted)
    first, ends = torch.searchsorted(by, sought), torch.searchsorted(by, sought, right=True)
    # Hardly ever more than one round: several keys would have to agree in what they are sorted by.
    for step in range(int((ends - first).max())):
        places = (first + step).clamp(max=len(known) - 1)
        found = torch.where((known[places] == wanted).all(dim=1), places, found)
    return found
