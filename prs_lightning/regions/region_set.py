"""The set of populated regions of a layer, PRS(X, f, l): which regions hold samples, and how many."""

from __future__ import annotations

from dataclasses import dataclass

import torch  # noqa: F401 - for the doctests
from torch import Tensor

from prs_lightning.errors import ConfigError
from prs_lightning.regions.counts import KeyCounts
from prs_lightning.regions.keys import region_keys
from prs_lightning.regions.signs import sign_patterns
from prs_lightning.regions.sorting import group_keys


class RegionSet:
    """The populated regions of a layer, and how many samples each holds: 24 bytes a region, whatever D is.

    >>> regions = RegionSet.from_pre_activations(torch.tensor([[1.0, -1.0], [2.0, -3.0], [-1.0, 1.0]]))
    >>> len(regions), regions.samples, regions.populations().tolist()
    (2, 3, [2, 1])
    >>> regions.contains(torch.tensor([[9.0, 0.0], [1.0, 1.0]])).tolist()
    [True, False]
    """

    def __init__(self) -> None:
        self.units: int | None = None
        self.samples = 0
        self._counts = KeyCounts()

    @classmethod
    def from_pre_activations(cls, z: Tensor) -> RegionSet:
        """The regions of pre-activations (N, D) or (N, C, H, W)."""
        return cls().add(z)

    def add(self, z: Tensor) -> RegionSet:
        """Count the samples of one more batch; returns the set itself."""
        keys = region_keys(z)
        self._check_units(z.shape[1:].numel())
        self.samples += len(keys)
        self._counts.add(keys)
        return self

    def _check_units(self, units: int) -> None:
        if self.units not in (None, units):
            raise ConfigError(f"a set of regions of {self.units} units met {units} units: expected the same layer")
        self.units = units

    def keys(self) -> Tensor:
        """The keys, int64 (R, 2), in the order of their `sort_words`: for up to 128 units the packed signs, else their
        hash."""
        return self._counts.keys()

    def populations(self) -> Tensor:
        """Samples in each region, int64 (R,), the largest first."""
        return self._counts.counts().sort(descending=True).values

    def __len__(self) -> int:
        """The number of populated regions."""
        return len(self._counts)

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
        found = self._counts.counts_of(other.keys()) > 0
        return int(other._counts.counts()[found].sum()) / other.samples

    def contains(self, z: Tensor) -> Tensor:
        """Whether each sample of z (M, D) or (M, C, H, W) lies in a region of the set: boolean (M,)."""
        return self.population_of(z) > 0

    def population_of(self, z: Tensor) -> Tensor:
        """How many samples of the set share the region of each sample of z: int64 (M,), 0 outside the set."""
        wanted = region_keys(z)
        if self.samples:
            self._check_units(z.shape[1:].numel())
        return self._counts.counts_of(wanted)

    def union(self, other: RegionSet) -> RegionSet:
        """A new set that holds the samples of both, each counted; also written ``a | b``."""
        if self.units is not None and other.units is not None:
            self._check_units(other.units)
        merged = RegionSet()
        merged.units, merged.samples = self.units or other.units, self.samples + other.samples
        merged._counts.add_counts(self._counts)
        merged._counts.add_counts(other._counts)
        return merged

    __or__ = union


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
    _, places = group_keys(region_keys(z))
    majors = {}
    for label in labels.unique().tolist():
        of_class = (labels == label).nonzero().flatten()
        populations = places[of_class].bincount()
        count = int(populations.max())
        region = (populations == count).nonzero()[0]
        members = z[of_class[places[of_class] == region]].detach().flatten(1)
        majors[label] = MajorRegion(sign_patterns(members[:1])[0], count, members.mean(dim=0))
    return majors
