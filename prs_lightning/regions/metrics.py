"""torchmetrics twins of the region functions: of one layer, over processes with uneven shards.

Sign patterns are kept as keys of 16 bytes a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from prs_lightning.errors import ConfigError
from prs_lightning.regions.keys import PLAIN_UNITS, keys_of_words, pack, packed_words, region_keys, unpack
from prs_lightning.regions.signs import has_nan, refuse_nan, sign_patterns
from prs_lightning.regions.sorting import count_keys, find_keys, group_keys
from prs_lightning.regions.statistics import (
    added_up,
    entropy,
    hamming_to_major,
    major_keys,
    positives_by_class,
    purity,
)


class Measure(Metric):
    """What all metrics of the project share: states that are tables, and whole when processes exchange them."""

    full_state_update = False
    is_differentiable = False
    higher_is_better = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tables: dict[str, tuple[Callable[[list[Tensor]], Tensor], int, torch.dtype]] = {}

    def add_table(
        self, state: str, join: Callable[[list[Tensor]], Tensor], columns: int = 0, dtype: torch.dtype = torch.int64
    ) -> None:
        """A state that lists tables (N, columns); ``join`` makes one of several."""
        self.tables[state] = join, columns, dtype
        self.add_state(state, default=[], dist_reduce_fx=None)

    def table(self, state: str) -> Tensor:
        """The one table that a state's tables make."""
        join, columns, dtype = self.tables[state]
        return join([*getattr(self, state), torch.zeros(0, columns, dtype=dtype, device=self.device)])

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        # A process without samples must send tables too.
        for state in self.tables:
            setattr(self, state, [self.table(state)])
        super()._sync_dist(*args, **kwargs)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """torchmetrics' plot: of the current value, of one given, or of a list of values over time."""
        return self._plot(val, ax)


class _Keyed(Measure):
    """What the metrics over regions share: a NaN that is reported by `compute`.

    `update` does not refuse NaN at once: that would wait for the GPU at every batch and, over several processes,
    leave the others waiting for the one that failed. `compute` refuses it on all processes.
    """

    plot_lower_bound = 0.0
    nan_batches: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("nan_batches", default=torch.tensor(0), dist_reduce_fx="sum")

    def keys_of(self, z: Tensor) -> Tensor:
        """The keys of a batch; a NaN is noted."""
        self.nan_batches = self.nan_batches + has_nan(z)
        return region_keys(z, check=False)


def _distinct(keys: list[Tensor]) -> Tensor:
    return count_keys(torch.cat(keys))[0]


class PopulatedRegions(_Keyed):
    """``count`` and ``ratio`` of the populated regions of pre-activations (N, D) or (N, C, H, W); `regions.prs_ratio`.

    ``compute`` returns ``{"count": int64, "ratio": float64 in [0, 1]}``. Only distinct keys are exchanged.

    >>> metric = PopulatedRegions()
    >>> metric.update(torch.tensor([[1.0, -1.0], [2.0, -3.0], [-1.0, 1.0], [0.0, 0.5]]))
    >>> {name: value.item() for name, value in metric.compute().items()}
    {'count': 2, 'ratio': 0.5}
    """

    keys: list[Tensor]
    samples: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_table("keys", _distinct, columns=2)
        self.add_state("samples", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, z: Tensor) -> None:
        """Count the samples of one batch of pre-activations."""
        self.keys.append(self.keys_of(z))
        self.samples = self.samples + len(z)

    def compute(self) -> dict[str, Tensor]:
        """``count`` of regions, ``ratio`` to the samples (NaN without samples)."""
        refuse_nan(self.nan_batches > 0)
        count = torch.tensor(len(self.table("keys")), device=self.device)
        return {"count": count, "ratio": count.double() / self.samples}


class RegionStatistics(_Keyed):
    """All figures of the populated regions of one layer, labels known; the functions of `regions.statistics`.

    ``compute`` returns ``count``, ``ratio``, ``entropy`` (nats), ``singleton_share``, ``purity``, ``inclusion_ratio``
    (of test samples, NaN without), ``hamming_to_major`` (units), and in [0, D] the numbers of units ``dead_units``
    (never positive), ``always_positive_units``, ``live_units`` (neither) and ``mean_positive_units`` (mean over the
    samples). Each batch is keyed once. 24 bytes a training sample and 16 a test sample are kept and exchanged. Of
    layers of more than 128 units, the patterns are kept too (D / 8 bytes a training sample), and of those the major
    regions' exchanged.

    Args:
        classes: labels lie in [0, classes).
    """

    labelled_keys: list[Tensor]
    test_keys: list[Tensor]
    positives: list[Tensor]
    keyed_patterns: list[Tensor]

    def __init__(self, classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes = classes
        self.add_table("labelled_keys", torch.cat, columns=3)
        self.add_table("test_keys", torch.cat, columns=2)
        # (classes, units); not known before how many units there are.
        self.add_table("positives", added_up)
        # Rows of a key and the packed pattern that it stands for; none where keys are patterns.
        self.add_state("keyed_patterns", default=[], dist_reduce_fx=None)

    def update(self, z: Tensor, labels: Tensor | None = None) -> None:
        """Count one batch of pre-activations (N, D) or (N, C, H, W): of training samples with their labels, int (N,),
        or without labels of test samples, which the inclusion ratio is about and nothing else."""
        if labels is None:
            self.test_keys.append(self.keys_of(z))
            return
        self.nan_batches = self.nan_batches + has_nan(z)
        patterns, labels = sign_patterns(z, check=False), labels.to(torch.int64)
        words = pack(patterns)
        keys = keys_of_words(words)
        self.labelled_keys.append(torch.cat([keys, labels.unsqueeze(1)], dim=1))
        self.positives = [added_up([*self.positives, positives_by_class(patterns, labels, self.classes)])]
        if patterns.shape[1] > PLAIN_UNITS:
            self.keyed_patterns.append(torch.cat([keys, words], dim=1))

    def _keys_and_labels(self) -> tuple[Tensor, Tensor]:
        rows = self.table("labelled_keys")
        return rows[:, :2], rows[:, 2]

    def _sync_dist(self, dist_sync_fn: Any = gather_all_tensors, process_group: Any = None) -> None:
        keyed_patterns, self.keyed_patterns = self.keyed_patterns, []
        super()._sync_dist(dist_sync_fn, process_group)
        units = self.table("positives").shape[1]
        if units > PLAIN_UNITS:
            rows = torch.zeros(0, 2 + packed_words(units), dtype=torch.int64, device=self.device)
            rows = torch.cat([*keyed_patterns, rows])
            rows = _rows_of(rows, major_keys(*self._keys_and_labels()))
            self.keyed_patterns = dist_sync_fn(rows, group=process_group or self.process_group)

    def compute(self) -> dict[str, Tensor]:
        """The figures as scalars on the metric's device; those that are shares or means are NaN without samples."""
        refuse_nan(self.nan_batches > 0)
        keys, labels = self._keys_and_labels()
        samples = len(labels)
        if samples and (labels.min() < 0 or labels.max() >= self.classes):
            low, high = int(labels.min()), int(labels.max())
            raise ConfigError(
                f"labels from {low} to {high}: expected 0 to {self.classes - 1}, as classes={self.classes}"
            )
        distinct, populations = count_keys(keys)
        count = torch.tensor(len(populations), device=self.device)
        positives, present = self.table("positives"), labels.unique()
        majors = self._patterns(major_keys(keys, labels), positives.shape[1])
        class_samples = labels.bincount(minlength=self.classes)
        positive = positives.sum(dim=0)
        return {
            "count": count,
            "ratio": count.double() / samples,
            "entropy": entropy(populations),
            "singleton_share": (populations == 1).sum().double() / samples,
            "purity": purity(group_keys(keys)[1], labels),
            "dead_units": (positive == 0).sum().double(),
            "live_units": ((positive > 0) & (positive < samples)).sum().double(),
            "always_positive_units": (positive == samples).sum().double(),
            "mean_positive_units": positive.sum().double() / samples,
            "hamming_to_major": hamming_to_major(positives[present], majors, class_samples[present]),
            "inclusion_ratio": (find_keys(distinct, self.table("test_keys")) >= 0).double().mean(),
        }

    def _patterns(self, wanted: Tensor, units: int) -> Tensor:
        """Boolean patterns (K, units) of the wanted keys (K, 2)."""
        if units > PLAIN_UNITS:
            rows = _rows_of(torch.cat(list(self.keyed_patterns)), wanted)
            if len(rows) < len(wanted):
                raise ConfigError(
                    "the pattern of a major region is not there: states of several metrics cannot be merged"
                )
            wanted = rows[:, 2:]
        return unpack(wanted, units)


def _rows_of(rows: Tensor, wanted: Tensor) -> Tensor:
    """Of rows (M, 2 + W) that start with a key, one for each wanted key (K, 2) that is there, in the order of those."""
    known, places = group_keys(rows[:, :2])
    row_of = places.new_zeros(len(known))
    row_of[places] = torch.arange(len(rows), device=rows.device)
    found = find_keys(known, wanted)
    return rows[row_of[found[found >= 0]]]
