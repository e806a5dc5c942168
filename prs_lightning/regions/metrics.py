"""torchmetrics twins of the region functions: of one layer, over processes with uneven shards.

Sign patterns are kept as keys of 16 bytes a sample.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
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
    singleton_share,
    unit_activity,
)


class Measure(Metric):
    """What all metrics of the project share."""

    full_state_update = False
    is_differentiable = False
    higher_is_better = None

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """torchmetrics' plot: of the current value, of one given, or of a list of values over time."""
        return self._plot(val, ax)


class _Keyed(Measure):
    """What the metrics over regions share: keys of samples in list states, and a NaN that is reported by `compute`.

    `update` does not refuse NaN at once: that would wait for the GPU at every batch and, over several processes,
    leave the others waiting for the one that failed. `compute` refuses it on all processes.
    """

    nan_batches: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.columns: dict[str, int] = {}
        self.add_state("nan_batches", default=torch.tensor(0), dist_reduce_fx="sum")

    def add_rows(self, state: str, columns: int) -> None:
        """A state that gathers int64 rows (N, columns)."""
        self.columns[state] = columns
        self.add_state(state, default=[], dist_reduce_fx="cat")

    def rows(self, state: str) -> Tensor:
        """All rows of the state so far, int64 (N, columns)."""
        parts = getattr(self, state)
        empty = torch.empty(0, self.columns[state], dtype=torch.int64, device=self.device)
        # After an exchange the state is one tensor, before it a list.
        return dim_zero_cat(parts) if len(parts) else empty

    def keys_of(self, z: Tensor) -> Tensor:
        """The keys of a batch; a NaN is noted."""
        self.nan_batches = self.nan_batches + has_nan(z)
        return region_keys(z, check=False)

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        # A process without samples must send rows of the right shape and type too.
        for state in self.columns:
            setattr(self, state, [self.rows(state)])
        super()._sync_dist(*args, **kwargs)


class PopulatedRegions(_Keyed):
    """``count`` and ``ratio`` of the populated regions of pre-activations (N, D) or (N, C, H, W); `regions.prs_ratio`.

    ``compute`` returns ``{"count": int64, "ratio": float64 in [0, 1]}``. Only distinct keys are exchanged.

    >>> metric = PopulatedRegions()
    >>> metric.update(torch.tensor([[1.0, -1.0], [2.0, -3.0], [-1.0, 1.0], [0.0, 0.5]]))
    >>> {name: value.item() for name, value in metric.compute().items()}
    {'count': 2, 'ratio': 0.5}
    """

    plot_lower_bound = 0.0
    keys: list[Tensor]
    samples: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_rows("keys", 2)
        self.add_state("samples", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, z: Tensor) -> None:
        """Count the samples of one batch of pre-activations."""
        self.keys.append(self.keys_of(z))
        self.samples = self.samples + len(z)

    def compute(self) -> dict[str, Tensor]:
        """``count`` of regions, ``ratio`` to the samples (NaN without samples)."""
        refuse_nan(self.nan_batches > 0)
        count = torch.tensor(len(count_keys(self.rows("keys"))[0]), device=self.device)
        return {"count": count, "ratio": count.double() / self.samples}

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        self.keys = [count_keys(self.rows("keys"))[0]]
        super()._sync_dist(*args, **kwargs)


class RegionStatistics(_Keyed):
    """All figures of the populated regions of one layer, labels known; the functions of `regions.statistics`.

    ``compute`` returns ``count``, ``ratio``, ``entropy`` (nats), ``singleton_share``, ``purity``, ``inclusion_ratio``
    (of test samples, NaN without), ``hamming_to_major`` (units), and the numbers of units ``dead_units``,
    ``always_positive_units`` and ``mean_positive_units``. Each batch is keyed once. 24 bytes a training sample and 16
    a test sample are kept and exchanged. Of layers of more than 128 units, the patterns are kept too (D / 8 bytes a
    training sample), and of those the major regions' exchanged.

    Args:
        classes: labels lie in [0, classes).
    """

    plot_lower_bound = 0.0
    labelled_keys: list[Tensor]
    test_keys: list[Tensor]
    positives: list[Tensor]
    keyed_patterns: list[Tensor]

    def __init__(self, classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes = classes
        self.add_rows("labelled_keys", 3)
        self.add_rows("test_keys", 2)
        # At most one tensor (classes, units); not known before how many units there are.
        self.add_state("positives", default=[], dist_reduce_fx=None)
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
        rows = self.rows("labelled_keys")
        return rows[:, :2], rows[:, 2]

    def _sync_dist(self, dist_sync_fn: Any = gather_all_tensors, process_group: Any = None) -> None:
        keyed_patterns, self.keyed_patterns = self.keyed_patterns, []
        none = torch.zeros(0, 0, dtype=torch.int64, device=self.device)
        self.positives = [added_up([*self.positives, none])]
        super()._sync_dist(dist_sync_fn, process_group)
        units = added_up(self.positives).shape[1]
        if units > PLAIN_UNITS:
            rows = torch.cat([*keyed_patterns, none.new_zeros(0, 2 + packed_words(units))])
            majors = count_keys(major_keys(*self._keys_and_labels(), self.classes))[0]
            self.keyed_patterns = dist_sync_fn(_first_rows(rows, majors), group=process_group or self.process_group)

    def compute(self) -> dict[str, Tensor]:
        """The figures as scalars on the metric's device; those that are shares or means are NaN without samples."""
        refuse_nan(self.nan_batches > 0)
        keys, labels = self._keys_and_labels()
        positives = added_up(self.positives)
        distinct, populations = count_keys(keys)
        count = torch.tensor(len(populations), device=self.device)
        figures = {
            "count": count,
            "ratio": count.double() / len(keys),
            "entropy": entropy(populations),
            "singleton_share": singleton_share(populations),
            "purity": purity(group_keys(keys)[1], labels),
            **unit_activity(positives.sum(dim=0), len(keys)),
        }
        class_samples = (labels.unsqueeze(1) == torch.arange(self.classes, device=self.device)).sum(dim=0)
        if int(class_samples.sum()) != len(labels):
            low, high = int(labels.min()), int(labels.max())
            raise ConfigError(
                f"labels from {low} to {high}: expected 0 to {self.classes - 1}, as classes={self.classes}"
            )
        present = class_samples > 0
        majors = self._patterns(major_keys(keys, labels, self.classes)[present], positives.shape[1])
        figures["hamming_to_major"] = hamming_to_major(positives[present], majors, class_samples[present])
        figures["inclusion_ratio"] = (find_keys(distinct, self.rows("test_keys")) >= 0).double().mean()
        return figures

    def _patterns(self, wanted: Tensor, units: int) -> Tensor:
        """Boolean patterns (K, units) of the wanted keys (K, 2)."""
        if units <= PLAIN_UNITS:
            return unpack(wanted, units)
        rows = _first_rows(torch.cat(list(self.keyed_patterns)), count_keys(wanted)[0])
        places = find_keys(rows[:, :2], wanted)
        if (places < 0).any():
            raise ConfigError("the pattern of a major region is not there: states of several metrics cannot be merged")
        return unpack(rows[places, 2:], units)


def _first_rows(rows: Tensor, wanted: Tensor) -> Tensor:
    """Of rows (M, 2 + W) that start with a key, the first for each of the distinct, ordered keys (K, 2), in order."""
    places = find_keys(wanted, rows[:, :2])
    numbers = torch.arange(len(rows), device=rows.device)
    first = torch.full((len(wanted),), len(rows), device=rows.device)
    found = places >= 0
    first.scatter_reduce_(0, places[found], numbers[found], "amin")
    return rows[first[first < len(rows)]]
