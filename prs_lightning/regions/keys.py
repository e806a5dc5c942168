"""128-bit keys of sign patterns, by packing or hashing.

A pattern of at most 128 units is its own key: the packed bits. A longer one is hashed by eight independent members of
a strongly universal family with a key that is fixed for good, so equal patterns have equal keys on every device, in
every process and on every day.

Collision bound: for a key drawn at random, two given distinct patterns share a key with probability exactly 2^-128;
N patterns hold a collision with probability below N^2 / 2^129 (10 million: 1.5e-25). The drawn key is public, so the
bound is about networks and images, not about an adversary who picks patterns against it.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from prs_lightning.regions.signs import flat, positive, refuse_nan, sign_patterns

PLAIN_UNITS = 128
"""Patterns of up to this many units are not hashed."""

_KEY_NAME = b"prs-lightning region keys, version 1"
# Eight hashes of 16 bits make a key; their multipliers have 16 + 8 - 1 bits.
_HASHES, _MULTIPLIER_BITS = 8, 23
# One multiplication moves the lowest bit of each of eight bytes into the topmost byte, the first byte's bit lowest.
_GATHER_BITS = 0x0102040810204080
# Pre-activations whose signs fit into the cache of a CPU, and those that are worth a thread: below, torch's own
# workers, which wait busily for a while after each operation, take more time from it than it saves.
_CACHED, _WORTH_A_THREAD = 2**19, 2**25
# Those taken at once elsewhere, so that signs need little memory.
_BLOCK = 2**27


def packed_words(units: int) -> int:
    """How many 64-bit words a packed pattern takes: two at least."""
    return max(2, -(-units // 64))


def pack(patterns: Tensor) -> Tensor:
    """Boolean patterns (N, D) as int64 words (N, max(2, ceil(D / 64))); unit d is bit d % 64 of word d // 64.

    >>> pack(torch.tensor([[True, False, True]])).tolist()
    [[5, 0]]
    """
    padding = packed_words(patterns.shape[1]) * 64 - patterns.shape[1]
    groups_of_eight = F.pad(patterns, (0, padding)).contiguous().view(torch.uint8).view(torch.int64)
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
    return _hashes(words.view(torch.uint8).double() @ multipliers[1:], multipliers)


def _hashes(products: Tensor, multipliers: Tensor) -> Tensor:
    return ((products + multipliers[0]).to(torch.int64) >> 7) & 0xFFFF


@lru_cache(maxsize=64)
def _multipliers(words: int, device: torch.device) -> Tensor:
    """The fixed multipliers, float64 (8 * words + 1, 8): the low bits of 32-bit little-endian SHAKE-128 output."""
    count = (8 * words + 1) * _HASHES
    stream = np.frombuffer(hashlib.shake_128(_KEY_NAME).digest(4 * count), dtype="<u4")
    values = (stream & (2**_MULTIPLIER_BITS - 1)).astype(np.float64)
    return torch.from_numpy(values).to(device).view(-1, _HASHES)


def keys_of_words(words: Tensor) -> Tensor:
    """The keys int64 (N, 2) of packed patterns (N, W): the words themselves if they are two, else eight hashes."""
    if words.shape[1] == 2:
        return words
    return multilinear(words, _multipliers(words.shape[1], words.device)).to(torch.int16).view(torch.int64)


def region_keys(z: Tensor, *, check: bool = True) -> Tensor:
    """The keys, int64 (N, 2), of the regions of pre-activations (N, D) or (N, C, H, W): 16 bytes a sample.

    ``check`` refuses NaN at once (RunError); on a GPU that waits for the device.
    """
    z = flat(z)
    # numpy knows these types of a CPU, and compares and packs them two to three times faster than torch.
    if z.device.type == "cpu" and z.dtype in (torch.float32, torch.float64) and len(z):
        return _keys_by_numpy(z.numpy(), check)
    blocks = z.split(max(1, _BLOCK // z.shape[1]))
    return torch.cat([keys_of_words(pack(sign_patterns(block, check=check))) for block in blocks])


def _keys_by_numpy(z: NDArray[Any], check: bool) -> Tensor:
    """Block by block, so that signs stay in the cache, and in as many threads as torch has where that pays."""
    samples, units = z.shape
    multipliers = _multipliers(packed_words(units), torch.device("cpu"))
    columns = multipliers[1 : 1 + -(-units // 8)].numpy()

    def packed_or_hashed(block: NDArray[Any]) -> NDArray[Any]:
        """Of each sample its packed bits, or the products that its hashes are made of."""
        if check:
            refuse_nan(bool(np.isnan(block.max())))
        # Packing whole rows at once is a quarter faster, where no row ends within a byte.
        packed = np.packbits(positive(block), axis=None if units % 8 == 0 else 1, bitorder="little")
        packed = packed.reshape(len(block), -1)
        return packed if units <= PLAIN_UNITS else packed.astype(np.float64) @ columns

    rows = max(1, _CACHED // units)
    blocks = [z[start : start + rows] for start in range(0, samples, rows)]
    threads = min(torch.get_num_threads(), z.size // _WORTH_A_THREAD)
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            found = np.concatenate(list(pool.map(packed_or_hashed, blocks)))
    else:
        found = np.concatenate([packed_or_hashed(block) for block in blocks])
    if units > PLAIN_UNITS:
        return _hashes(torch.from_numpy(found), multipliers).to(torch.int16).view(torch.int64)
    return torch.from_numpy(np.pad(found, ((0, 0), (0, 16 - found.shape[1])))).view(torch.int64)
