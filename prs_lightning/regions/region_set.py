"""The set of populated regions of a layer, PRS(X, f, l): which regions hold samples, and how many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from prs_lightning.errors import ConfigError
from prs_lightning.regions.keys import region_keys
from prs_lightning.regions.signs import sign_patterns
from prs_lightning.regions.sorting import Counts, count_keys, find_keys, most_frequent, sort_words

# Merging waits until so many keys, or a quarter of the distinct ones, are there: a stream costs O(N log N) in all.
_MERGE_AT = 2**16
# From so many distinct keys on they are kept in ranges, one for each value of so many first bits of `sort_words`.
_MANY_KEYS, _RANGE_BITS = 2**20, 6


class RegionSet:
    """The populated regions of a layer, and how many samples each holds: 24 bytes a region, whatever D is.

    The keys of a small set are kept as one sorted table, those of a large one as a table for each range, in order. The
    tables are merged one by one, so that a large set never stands in memory twice.

    >>> regions = RegionSet.from_pre_activations(torch.tensor([[1.0, -1.0], [2.0, -3.0], [-1.0, 1.0]]))
    >>> len(regions), regions.samples, regions.populations().tolist()
    (2, 3, [2, 1])
    >>> regions.contains(torch.tensor([[9.0, 0.0], [1.0, 1.0]])).tolist()
    [True, False]
    """

    def __init__(self) -> None:
        self.units: int | None = None
        self.samples = 0
        self._tables: list[Counts] = []
        self._waiting = torch.empty(0, 2, dtype=torch.int64)
        self._waiting_keys = 0

    @classmethod
    def from_pre_activations(cls, z: Tensor) -> RegionSet:
        """The regions of pre-activations (N, D) or (N, C, H, W)."""
        return cls().add(z)

    def add(self, z: Tensor) -> RegionSet:
        """Count the samples of one more batch; returns the set itself."""
        keys = region_keys(z)
        self._check_units(z.shape[1:].numel())
        self.samples += len(keys)
        if self._waiting_keys + len(keys) > len(self._waiting):
            room = max(_MERGE_AT, len(self) // 4)  # its length merges what waits
            if len(keys) > room // 4:
                self._merge(keys)
                return self
            with torch.inference_mode(False):  # or it could not be written to outside that mode
                self._waiting = torch.empty(room, 2, dtype=torch.int64, device=keys.device)
        self._waiting[self._waiting_keys : self._waiting_keys + len(keys)] = keys
        self._waiting_keys += len(keys)
        return self

    def _check_units(self, units: int) -> None:
        if self.units not in (None, units):
            raise ConfigError(f"a set of regions of {self.units} units met {units} units: expected the same layer")
        self.units = units

    def _merged(self) -> list[Counts]:
        """The tables, with what waited merged into them."""
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

    def _counts(self) -> Counts:
        """All keys and counts as one table."""
        tables = self._merged() or [count_keys(torch.empty(0, 2, dtype=torch.int64))]
        keys, counts = zip(*tables, strict=True)
        return torch.cat(keys), torch.cat(counts)

    def _counts_of(self, wanted: Tensor) -> Tensor:
        """How often each of the wanted keys (M, 2) occurred: int64 (M,), 0 for one that did not."""
        tables = self._merged()
        found = torch.zeros(len(wanted), dtype=torch.int64, device=wanted.device)
        for (keys, counts), rows in zip(tables, _by_range(wanted, len(tables)), strict=True):
            places = find_keys(keys, wanted[rows])
            known = places >= 0
            found[rows[known]] = counts[places[known]]
        return found

    def keys(self) -> Tensor:
        """The keys, int64 (R, 2), in the order of their `sort_words`: for up to 128 units the packed signs, else their
        hash."""
        return self._counts()[0]

    def populations(self) -> Tensor:
        """Samples in each region, int64 (R,), the largest first."""
        return self._counts()[1].sort(descending=True).values

    def __len__(self) -> int:
        """The number of populated regions."""
        return sum(len(keys) for keys, _ in self._merged())

    @property
    def ratio(self) -> float:
        """PRS ratio: regions / samples, in [0, 1]; NaN for no samples."""
        return len(self) / self.samples if self.samples else float("nan")

    def __repr__(self) -> str:
        return f"RegionSet({len(self)} regions, {self.samples} samples, {self.units} units, ratio {self.ratio:.4g})"

    def inclusion_ratio(self, other: RegionSet) -> float:
        """Share of the samples of ``other`` whose region is in this set: in [0, 1], NaN if it has no samples."""
        if not (self.samples and other.samples):
            return 0.0 if other.samples else float("nan")
        self._check_units(other.units or 0)
        keys, counts = other._counts()
        return int(counts[self._counts_of(keys) > 0].sum()) / other.samples

    def contains(self, z: Tensor) -> Tensor:
        """Whether each sample of z (M, D) or (M, C, H, W) lies in a region of the set: boolean (M,)."""
        return self.population_of(z) > 0

    def population_of(self, z: Tensor) -> Tensor:
        """How many samples of the set share the region of each sample of z: int64 (M,), 0 outside the set."""
        wanted = region_keys(z)
        if self.samples:
            self._check_units(z.shape[1:].numel())
        return self._counts_of(wanted)

    def union(self, other: RegionSet) -> RegionSet:
        """A new set that holds the samples of both, each counted; also written ``a | b``."""
        if self.units is not None and other.units is not None:
            self._check_units(other.units)
        merged = RegionSet()
        merged.units, merged.samples = self.units or other.units, self.samples + other.samples
        for keys, counts in [*self._merged(), *other._merged()]:
            merged._merge(keys, counts)
        return merged

    __or__ = union


def _by_range(keys: Tensor, ranges: int) -> Iterator[Tensor]:
    """For each range, in order, the rows of the keys (N, 2) that lie in it."""
    if ranges <= 1:
        yield from [torch.arange(len(keys), device=keys.device)] * ranges
        return
    # In parts, for the sake of memory.
    first_bits = [(sort_words(part) >> (64 - _RANGE_BITS)).to(torch.int8) for part in keys.split(2**18)]
    numbers = torch.cat(first_bits) + ranges // 2
    for number in range(ranges):
        yield (numbers == number).nonzero().flatten()


def prs_ratio(z: Tensor) -> float:
    """|PRS| / |X| of pre-activations (N, D) or (N, C, H, W): in (0, 1], NaN for no samples.

    >>> prs_ratio(torch.tensor([[1.0], [2.0], [-1.0], [0.0]]))
    0.5
    """
    return RegionSet.from_pre_activations(z).ratio


def inclusion_ratio(z_train: Tensor, z_test: Tensor) -> float:
    """Share of test samples whose region holds a training sample: in [0, 1], NaN for no test samples.

    >>> inclusion_ratio(torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 3.0], [-1.0, 1.0]]))
    0.5
    """
    return RegionSet.from_pre_activations(z_train).inclusion_ratio(RegionSet.from_pre_activations(z_test))


@dataclass(frozen=True)
class MajorRegion:
    """The region that holds most of a class's samples: its ``pattern`` (D,), how many of them (``count``), and the
    ``mean`` (D,) of their pre-activations."""

    pattern: Tensor
    count: int
    mean: Tensor


def major_regions(z: Tensor, labels: Tensor) -> dict[int, MajorRegion]:
    """For every class that occurs, its major region; of equally large ones that whose key comes first.

    Args:
        z: pre-activations (N, D) or (N, C, H, W).
        labels: int (N,).

    >>> major = major_regions(torch.tensor([[1.0, -1.0], [3.0, -1.0], [-1.0, 1.0]]), torch.tensor([0, 0, 0]))[0]
    >>> major.pattern.tolist(), major.count, major.mean.tolist()
    ([True, False], 2, [2.0, -1.0])
    """
    if labels.shape != (len(z),):
        raise ConfigError(f"labels of shape {tuple(labels.shape)} for {len(z)} samples: expected one label a sample")
    keys, majors = region_keys(z), {}
    for label in labels.unique().tolist():
        of_class = labels == label
        key, count = most_frequent(keys[of_class])
        members = z[of_class & (keys == key).all(dim=1)].detach().flatten(1)
        majors[label] = MajorRegion(sign_patterns(members[:1])[0], count, members.mean(dim=0))
    return majors
