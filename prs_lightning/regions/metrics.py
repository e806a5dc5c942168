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
from prs_lightning.regions.keys import (
    PLAIN_UNITS,
    count_keys,
    find_keys,
    group_keys,
    keys_of_patterns,
    pack,
    packed_words,
)
from prs_lightning.regions.region_set import has_nan, refuse_nan, region_keys, sign_patterns
from prs_lightning.regions.statistics import (
    added_up,
    entropy,
    hamming_to_major,
    kept_patterns,
    major_keys,
    patterns_of_keys,
    positives_by_class,
    possible_majors,
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

    def patterns_of(self, z: Tensor) -> Tensor:
        """The sign patterns of a batch; a NaN is noted."""
        self.nan_batches = self.nan_batches + has_nan(z)
        return sign_patterns(z, check=False)

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
        self.nan_batches = self.nan_batches + has_nan(z)
        self.keys.append(region_keys(z, check=False))
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
    """All figures of the populated regions of one layer, labels known; the functions of `region_statistics`.

    ``compute`` returns ``count``, ``ratio``, ``entropy`` (nats), ``singleton_share``, ``purity``,
    ``hamming_to_major`` (units), and the numbers of units ``dead_units``, ``always_positive_units`` and
    ``mean_positive_units``. 24 bytes a sample are kept and exchanged. Of layers of more than 128 units, patterns are
    kept (D / 8 bytes each) of the latest samples and of the regions that can still be the largest of their class.

    Args:
        classes: labels lie in [0, classes).
    """

    # `forward` must count a batch in the running states themselves: pruning needs all samples so far.
    full_state_update = True
    PRUNE_AT = 8192
    """Patterns wait to be pruned until there are this many, or a sixteenth of the samples if that is more."""

    plot_lower_bound = 0.0
    labelled_keys: list[Tensor]
    positives: list[Tensor]
    candidates: list[Tensor]

    def __init__(self, classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes = classes
        self.add_rows("labelled_keys", 3)
        # At most one tensor (classes, units); not known before how many units there are.
        self.add_state("positives", default=[], dist_reduce_fx=None)
        # Packed patterns: first those that were kept at the last pruning, then those of the batches since.
        self.add_state("candidates", default=[], dist_reduce_fx=None)

    def update(self, z: Tensor, labels: Tensor) -> None:
        """Count one batch of pre-activations (N, D) or (N, C, H, W) with their labels, int (N,)."""
        patterns, labels = self.patterns_of(z), labels.to(torch.int64)
        keys = keys_of_patterns(patterns)
        self.labelled_keys.append(torch.cat([keys, labels.unsqueeze(1)], dim=1))
        self.positives = [added_up([*self.positives, positives_by_class(patterns, labels, self.classes)])]
        if patterns.shape[1] > PLAIN_UNITS:
            self.candidates.append(pack(patterns))
        if sum(map(len, self.candidates[1:])) > max(self.PRUNE_AT, sum(map(len, self.labelled_keys)) // 16):
            self._prune()

    def _prune(self) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        processes = torch.distributed.get_world_size(self.process_group) if distributed else 1
        keys, labels = self._keys_and_labels()
        possible = possible_majors(keys, labels, self.classes, processes)
        self.candidates = [kept_patterns(torch.cat(self.candidates), possible)]

    def _keys_and_labels(self) -> tuple[Tensor, Tensor]:
        rows = self.rows("labelled_keys")
        return rows[:, :2], rows[:, 2]

    def _sync_dist(self, dist_sync_fn: Any = gather_all_tensors, process_group: Any = None) -> None:
        candidates, self.candidates = self.candidates, []
        none = torch.zeros(0, 0, dtype=torch.int64, device=self.device)
        self.positives = [added_up([*self.positives, none])]
        super()._sync_dist(dist_sync_fn, process_group)
        units = added_up(self.positives).shape[1]
        if units > PLAIN_UNITS:
            majors = major_keys(*self._keys_and_labels(), self.classes)
            words = torch.cat([*candidates, none.new_zeros(0, packed_words(units))])
            found = dist_sync_fn(kept_patterns(words, majors), group=process_group or self.process_group)
            self.candidates = list(found)

    def compute(self) -> dict[str, Tensor]:
        """The figures as scalars on the metric's device; those that are shares or means are NaN without samples."""
        refuse_nan(self.nan_batches > 0)
        keys, labels = self._keys_and_labels()
        positives = added_up(self.positives)
        _, populations = count_keys(keys)
        figures = {
            "count": torch.tensor(len(populations), device=self.device),
            "ratio": torch.tensor(len(populations), device=self.device).double() / len(keys),
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
        words = torch.cat(self.candidates) if len(self.candidates) else None
        majors = patterns_of_keys(major_keys(keys, labels, self.classes)[present], words, positives.shape[1])
        figures["hamming_to_major"] = hamming_to_major(positives[present], majors, class_samples[present])
        return figures


class InclusionRatio(_Keyed):
    """Share of test samples whose region holds a training sample, in [0, 1]; `regions.inclusion_ratio`.

    Only the keys of test samples are exchanged, not those of the training set.

    >>> metric = InclusionRatio()
    >>> metric.update(torch.tensor([[1.0, 1.0]]), train=True)
    >>> metric.update(torch.tensor([[2.0, 3.0], [-1.0, 1.0]]), train=False)
    >>> metric.compute().item()
    0.5
    """

    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    train_keys: list[Tensor]
    test_keys: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_rows("train_keys", 2)
        self.add_rows("test_keys", 2)

    def update(self, z: Tensor, *, train: bool) -> None:
        """Take the regions of one batch of training (``train=True``) or test samples (``train=False``)."""
        self.nan_batches = self.nan_batches + has_nan(z)
        (self.train_keys if train else self.test_keys).append(region_keys(z, check=False))

    def compute(self) -> Tensor:
        """The ratio, float64; NaN without test samples."""
        refuse_nan(self.nan_batches > 0)
        return self._included(self.rows("test_keys")).double().mean()

    def _included(self, test_keys: Tensor) -> Tensor:
        return find_keys(count_keys(self.rows("train_keys"))[0], test_keys) >= 0

    def _sync_dist(self, dist_sync_fn: Any = gather_all_tensors, process_group: Any = None) -> None:
        group = process_group or self.process_group
        test_keys = torch.cat(dist_sync_fn(self.rows("test_keys"), group=group))
        included = torch.stack(dist_sync_fn(self._included(test_keys), group=group)).any(dim=0)
        self.nan_batches = torch.stack(dist_sync_fn(self.nan_batches, group=group)).sum()
        # Of all training regions, those that hold a test sample tell the ratio.
        self.train_keys, self.test_keys = [test_keys[included]], [test_keys]
