"""Populated decision regions: which sign patterns of a layer's pre-activations hold samples.

The sets and ratios of section 2 of the design ("Empirical Study of the Decision Region and Robustness in Deep Neural
Networks", section 3): a decision region is a sign pattern, a unit is positive iff z > 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prs_lightning.errors import ConfigError, RunError
from prs_lightning.measuring import evaluating, float32
from prs_lightning.regions.counts import KeyCounts
from prs_lightning.regions.keys import group_keys, keys_of_blocks, keys_of_patterns
from prs_lightning.regions.layers import watching

# Elements taken at once beside a CPU, so that signs need little memory.
_BLOCK = 2**27


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

    `_positive` is the only place that decides what positive means.

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
    _check_shape(z)
    if check:
        refuse_nan(has_nan(z))
    return _positive(z.detach().flatten(1))


def _positive(z: Any, signs: NDArray[np.bool_] | None = None) -> Any:
    """The one place of ``z > 0``, for a tensor, or for a numpy array with an array for the result."""
    return z > 0 if signs is None else np.greater(z, 0, out=signs)


def _check_shape(z: Tensor) -> None:
    if z.ndim < 2 or not z.is_floating_point():
        raise ConfigError(
            f"pre-activations of shape {tuple(z.shape)}, {z.dtype}: expected floating (N, D) or (N, C, H, W)"
        )
    if not z.shape[1:].numel():
        raise ConfigError(f"pre-activations of shape {tuple(z.shape)} have no units: expected at least one")


def region_keys(z: Tensor, *, check: bool = True) -> Tensor:
    """The keys, int64 (N, 2), of the regions of pre-activations (N, D) or (N, C, H, W): 16 bytes a sample."""
    _check_shape(z)
    z = z.detach().flatten(1)
    # numpy knows these types of a CPU, and compares them several times faster than torch.
    if z.device.type == "cpu" and z.dtype in (torch.float32, torch.float64):
        return keys_of_blocks(z.numpy(), _write_checked_signs if check else _positive)
    blocks = z.split(max(1, _BLOCK // z.shape[1]))
    return torch.cat([keys_of_patterns(sign_patterns(block, check=check)) for block in blocks])


def _write_checked_signs(block: NDArray[Any], signs: NDArray[np.bool_]) -> None:
    refuse_nan(bool(np.isnan(block.max())))
    _positive(block, signs)


class RegionSet:
    """The populated regions of a layer, and how many samples each holds: 24 bytes a region, whatever D is.

    >>> regions = RegionSet.from_features(torch.tensor([[1.0, -1.0], [2.0, -3.0], [-1.0, 1.0]]))
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
    def from_features(cls, z: Tensor) -> RegionSet:
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
    return RegionSet.from_features(z).ratio


def inclusion_ratio(z_train: Tensor, z_test: Tensor) -> float:
    """Share of test samples whose region holds a training sample: in [0, 1], NaN for no test samples.

    >>> inclusion_ratio(torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 3.0], [-1.0, 1.0]]))
    0.5
    """
    return RegionSet.from_features(z_train).inclusion_ratio(RegionSet.from_features(z_test))


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
        region, count = _largest(places[of_class])
        members = z[of_class[places[of_class] == region]].detach().flatten(1)
        majors[label] = MajorRegion(sign_patterns(members[:1])[0], count, members.mean(dim=0))
    return majors


def _largest(places: Tensor) -> tuple[int, int]:
    """The place that occurs most often, the smallest of several, and how often."""
    counts = places.bincount()
    largest = int(counts.max())
    return int((counts == largest).nonzero()[0]), largest


def measure(model: nn.Module, loader: Iterable[Any], *, layer: str) -> RegionSet:
    """The populated regions of one layer of any torch module over all samples of a loader.

    The network runs in eval mode, without gradients and in float32; afterwards its modes, its hooks and torch's random
    state are as before. Name the layer before the ReLU: it does not matter if that ReLU works in place.

    Args:
        model: takes a batch of inputs; they are moved to the device of its parameters.
        loader: batches, each a tensor or a tuple or list whose first element is one.
        layer: a name of ``model.named_modules()``, with an output (N, D) or (N, C, H, W).

    Raises:
        ConfigError: an unknown layer (with near names), one that does not run once in each forward pass, or a batch
            of another kind.

    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> measure(network, [torch.zeros(5, 4), torch.zeros(3, 4)], layer="0").ratio
    0.125
    """
    regions, outputs = RegionSet(), 0

    def seen(name: str, output: Tensor) -> None:
        nonlocal outputs
        outputs += 1
        regions.add(output)

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with torch.random.fork_rng(devices=[]), evaluating(model), float32(device), torch.no_grad():
        with watching(model, [layer], seen):
            for batch in loader:
                images = batch[0] if isinstance(batch, tuple | list) and batch else batch
                if not isinstance(images, Tensor):
                    raise ConfigError(f"a batch of type {type(batch).__name__}: expected a tensor, or a tuple with one")
                outputs = 0
                model(images.to(device))
                if outputs != 1:
                    raise ConfigError(f"layer {layer!r} ran {outputs} times in a forward pass: expected once")
    return regions
