"""How often each key occurred in a stream of any length, in little more memory than the distinct keys take."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from prs_lightning.regions.sorting import Counts, count_keys, find_keys, sort_words

# Merging waits until so many keys, or a quarter of the distinct ones, are there: a stream costs O(N log N) in all.
_MERGE_AT = 2**16
# From so many distinct keys on they are kept in ranges, one for each value of so many first bits of `sort_words`.
_MANY_KEYS, _RANGE_BITS = 2**20, 6


class KeyCounts:
    """Distinct keys and how often each occurred: 24 bytes a key.

    The keys of a small set are kept as one sorted table, those of a large one as a table for each range, in order. The
    tables are merged one by one, so that a large set never stands in memory twice.
    """

    def __init__(self) -> None:
        self._tables: list[Counts] = []
        self._waiting = torch.empty(0, 2, dtype=torch.int64)
        self._waiting_keys = 0

    def add(self, keys: Tensor) -> None:
        """Count keys, int64 (N, 2)."""
        distinct = sum(len(known) for known, _ in self._tables)
        if len(keys) >= max(_MERGE_AT, distinct // 4) // 4:
            self._merge(keys)
            return
        if self._waiting_keys + len(keys) > len(self._waiting):
            room = max(_MERGE_AT, len(self) // 4)  # its length merges what waits
            with torch.inference_mode(False):  # or it could not be written to outside that mode
                self._waiting = torch.empty(room, 2, dtype=torch.int64, device=keys.device)
        self._waiting[self._waiting_keys : self._waiting_keys + len(keys)] = keys
        self._waiting_keys += len(keys)

    def add_counts(self, other: KeyCounts) -> None:
        """Count what another counted."""
        for keys, counts in other._merged():
            self._merge(keys, counts)

    def keys(self) -> Tensor:
        """The distinct keys, int64 (R, 2), in the order of their `sort_words`."""
        tables = [keys for keys, _ in self._merged()]
        return torch.cat(tables) if tables else torch.empty(0, 2, dtype=torch.int64)

    def counts(self) -> Tensor:
        """How often each of ``keys()`` occurred, int64 (R,)."""
        tables = [counts for _, counts in self._merged()]
        return torch.cat(tables) if tables else torch.empty(0, dtype=torch.int64)

    def counts_of(self, wanted: Tensor) -> Tensor:
        """How often each of the wanted keys (M, 2) occurred: int64 (M,), 0 for one that did not."""
        tables = self._merged()
        found = torch.zeros(len(wanted), dtype=torch.int64, device=wanted.device)
        for (keys, counts), rows in zip(tables, _by_range(wanted, len(tables)), strict=True):
            places = find_keys(keys, wanted[rows])
            known = places >= 0
            found[rows[known]] = counts[places[known]]
        return found

    def __len__(self) -> int:
        """The number of distinct keys."""
        return sum(len(keys) for keys, _ in self._merged())

    def _merged(self) -> list[Counts]:
        if self._waiting_keys:
            self._merge(self._waiting[: self._waiting_keys])
            self._waiting_keys = 0
        return self._tables

    def _merge(self, keys: Tensor, weights: Tensor | None = None) -> None:
        """Count keys (N, 2), each once or with ``weights`` (N,), into the tables."""
        tables = self._tables
        if not tables:
            tables.append(count_keys(keys, weights))
            return
        if len(tables) == 1 and len(tables[0][0]) + len(keys) >= _MANY_KEYS:
            distinct, counts = tables[0]
            tables[:] = [(distinct[rows], counts[rows]) for rows in _by_range(distinct, 2**_RANGE_BITS)]
        for number, rows in enumerate(_by_range(keys, len(tables))):
            distinct, counts = tables[number]
            more = torch.ones_like(rows) if weights is None else weights[rows]
            tables[number] = count_keys(torch.cat([distinct, keys[rows]]), torch.cat([counts, more]))


def _by_range(keys: Tensor, ranges: int) -> Iterator[Tensor]:
    """For each range, in order, the rows of the keys (N, 2) that lie in it."""
    if ranges <= 1:
        yield from [torch.arange(len(keys), device=keys.device)] * ranges
        return
    # In parts, for the sake of memory.
    first_bits = [sort_words(part) >> (64 - _RANGE_BITS) for part in keys.split(2**18)]
    numbers = torch.cat([(bits + ranges // 2).to(torch.uint8) for bits in first_bits])
    for number in range(ranges):
        yield (numbers == number).nonzero().flatten()
