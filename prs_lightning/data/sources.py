"""The samples of a data set in order, each once, for measures: proven to be that, or refused."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from prs_lightning.data.batches import MeasuringBatches
from prs_lightning.data.splits import Split, to_unit_range
from prs_lightning.errors import ConfigError
from prs_lightning.measuring import random_states_kept

SETS = {"train": "training", "test": "test"}
"""What each set is called in messages."""

INSTEAD = "give {name}= a data set, a DataLoader or (inputs, labels) without it"
PARTS = ("transform", "transforms", "target_transform")
HOLDS = re.compile("transform|aug")
"""Names of the attributes in which a data set of one's own holds its transforms."""

PROBED = 8
"""Samples that are read twice to see whether they change."""


class Source(Protocol):
    """``len(source)`` samples; ``batches`` gives those of one process in order, ``gather`` those of some rows."""

    batch_size: int
    batch_key: str
    """What a user sets to change ``batch_size``."""

    def __len__(self) -> int: ...

    def batches(self, *, rank: int = 0, world: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs, labels) of the samples ``[rank::world]``, wherever they lie."""

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(inputs, labels) of the samples of those numbers (n,)."""


class SplitSource:
    """A split, in memory or stored."""

    batch_key = "data.measuring_batch_size"

    def __init__(self, split: Split, batch_size: int = 200) -> None:
        self.split, self.batch_size = split, batch_size

    def __len__(self) -> int:
        return len(self.split.labels)

    def batches(self, *, rank: int = 0, world: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        yield from MeasuringBatches(self.split, self.batch_size, rank=rank, world=world)

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return to_unit_range(self.split.images[rows]), self.split.labels[rows]


class DatasetSource:
    """A map-style data set, read by a DataLoader that is made for it.

    Args:
        dataset: gives (input, label).
        name: ``train`` or ``test``, for messages.
        loader: whose batch size, workers and collation are used; None: 200 at a time, no workers.

    Raises:
        ConfigError: a data set without a length, samples that are no (input, label), or that change when they are read
            again.
    """

    batch_key = "the loader's batch_size"

    def __init__(self, dataset: Dataset[Any], name: str, loader: DataLoader[Any] | None = None) -> None:
        self.dataset, self.name = dataset, name
        self.length = _length(dataset, name)
        # Workers that live on would keep a copy of the data set as it was when they began.
        self.settings: dict[str, Any] = {"batch_size": 200}
        if loader is not None:
            self.settings = {
                key: getattr(loader, key)
                for key in ("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn")
            }
            self.settings |= {"batch_size": loader.batch_size or 200}
            if loader.num_workers:
                self.settings["multiprocessing_context"] = loader.multiprocessing_context
        self.batch_size: int = self.settings["batch_size"]
        refuse_random(self, name)

    def __len__(self) -> int:
        return self.length

    def _read(self, indices: Sequence[int] | range) -> Iterator[tuple[Tensor, Tensor]]:
        # A generator of its own: to iterate a DataLoader draws a seed from the global one.
        generator = torch.Generator().manual_seed(0)
        for batch in DataLoader(Subset(self.dataset, indices), shuffle=False, generator=generator, **self.settings):
            yield inputs_and_labels(batch, self.name)

    def batches(self, *, rank: int = 0, world: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self._read(range(rank, self.length, world))

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        collate = self.settings.get("collate_fn") or torch.utils.data.default_collate
        return inputs_and_labels(collate([self.dataset[index] for index in rows.tolist()]), self.name)


def source_of(data: Any, name: str) -> Source:
    """The samples of what a Trainer trains on, or of what a user gave by hand.

    Args:
        data: a DataLoader, a map-style data set, a pair of tensors (inputs, labels), a split or a source.
        name: ``train`` or ``test``, for messages.

    Raises:
        ConfigError: whatever cannot be shown to give each sample once and unchanged; says what to give instead.
    """
    if isinstance(data, Split):
        return SplitSource(data)
    if isinstance(data, SplitSource | DatasetSource):
        return data
    if isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        inputs, labels = data
        if len(inputs) != len(labels):
            raise ConfigError(f"{name}=: {len(inputs)} inputs and {len(labels)} labels; expected one label an input")
        return DatasetSource(TensorDataset(inputs, labels), name)
    if isinstance(data, DataLoader):
        return DatasetSource(_whole(data, name), name, data)
    if isinstance(data, Dataset):
        return DatasetSource(data, name)
    kind = type(data).__name__
    raise ConfigError(
        f"the {SETS[name]} data are a {kind}, which may shuffle, change or leave out samples: give {name}= a data set, "
        "a DataLoader or (inputs, labels)"
    )


def _length(dataset: Any, name: str) -> int:
    instead = INSTEAD.format(name=name)
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        kind = type(dataset).__name__
        raise ConfigError(f"{kind} is a stream: nothing shows that it gives each sample once; {instead}")
    try:
        return len(dataset)
    except TypeError:
        raise ConfigError(f"{type(dataset).__name__} has no length; {instead}") from None


def _whole(loader: DataLoader[Any], name: str) -> Dataset[Any]:
    """The data set whose every sample the loader gives once an epoch."""
    dataset, sampler = loader.dataset, loader.sampler
    instead = INSTEAD.format(name=name)
    _length(dataset, name)
    if loader.batch_sampler is not None and type(loader.batch_sampler) is not BatchSampler:
        inner = getattr(loader.batch_sampler, "sampler", None)
        if not isinstance(loader.batch_sampler, BatchSampler) or inner is None:
            kind = type(loader.batch_sampler).__name__
            raise ConfigError(f"{kind} may repeat or leave out samples; {instead}")
        sampler = inner
    if isinstance(sampler, DistributedSampler):  # Lightning puts it around the user's
        sampler = getattr(sampler.dataset, "_sampler", SequentialSampler(dataset))  # type: ignore[arg-type]
    if isinstance(sampler, RandomSampler):
        if sampler.replacement or sampler.num_samples != len(dataset):  # type: ignore[arg-type]
            raise ConfigError(
                f"RandomSampler draws {sampler.num_samples} samples, replacement={sampler.replacement}, of "
                f"{len(dataset)}: not each once; {instead}"  # type: ignore[arg-type]
            )
        return dataset
    if isinstance(sampler, SubsetRandomSampler):
        indices = [int(index) for index in sampler.indices]
        if len(set(indices)) < len(indices):
            raise ConfigError(f"SubsetRandomSampler names samples twice; {instead}")
        return Subset(dataset, sorted(indices))
    if isinstance(sampler, SequentialSampler):
        return dataset
    raise ConfigError(f"{type(sampler).__name__} may repeat or leave out samples; {instead}")


def inputs_and_labels(batch: Any, name: str) -> tuple[Tensor, Tensor]:
    """(inputs, int64 labels (n,)) of a batch.

    Raises:
        ConfigError: a batch of another kind, or labels that are no class numbers.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        parts = ", ".join(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
        raise ConfigError(
            f"a batch of {SETS[name]} data is ({parts}): expected (inputs, labels); give {name}= such data"
        )
    inputs, labels = batch
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.is_floating_point() and bool((labels == labels.round()).all()) and labels.ndim == 1:
        labels = labels.to(torch.int64)  # as the targets of binary_cross_entropy are
    if labels.ndim != 1 or labels.is_floating_point() or len(labels) != len(inputs):
        raise ConfigError(
            f"labels of {SETS[name]} data have shape {tuple(labels.shape)}, {labels.dtype}: expected whole class "
            f"numbers ({len(inputs)},); give {name}= such data"
        )
    return inputs, labels.to(torch.int64)


def _transforms(dataset: Any) -> Iterator[Any]:
    """Every transform that a data set holds, those within others too."""
    waiting, seen = [dataset], set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Dataset):
            held = {**vars(each)} | {part: getattr(each, part, None) for part in PARTS}
            waiting += [part for name, part in held.items() if isinstance(part, Dataset) or HOLDS.search(name)]
            waiting += list(getattr(each, "datasets", ()))
        elif isinstance(each, tuple | list | torch.nn.ModuleList | torch.nn.Sequential):
            waiting += list(each)
        elif each is not None and not isinstance(each, Tensor):
            yield each
            waiting += [getattr(each, part, None) for part in (*PARTS, "lambd")]


AUGMENTATIONS = (
    *("Random", "AutoAugment", "TrivialAugment", "AugMix", "RandAugment", "ColorJitter", "ElasticTransform"),
    *("GaussianNoise", "GaussianBlur", "CutMix", "MixUp", "ScaleJitter", "JPEG"),
)
"""How the names of transforms begin that change an image by chance."""


def _same(inputs: Tensor, again: Tensor) -> bool:
    return inputs.shape == again.shape and bool(((inputs == again) | ((inputs != inputs) & (again != again))).all())


def refuse_random(source: DatasetSource, name: str) -> None:
    """Refuse a data set whose samples are not the same whenever they are read, by name or by reading some again."""
    instead = f"give {name}= the same data without random transforms"
    for transform in _transforms(source.dataset):
        kind = type(transform).__name__
        if kind.startswith(AUGMENTATIONS):
            raise ConfigError(f"the {SETS[name]} data pass {kind}: measures need them un-augmented; {instead}")
    count = min(PROBED, len(source))
    if not count:
        raise ConfigError(f"the {SETS[name]} data are empty: expected one sample or more")
    rows = torch.linspace(0, len(source) - 1, count).long()
    readings = []
    for seed in range(3):
        with random_states_kept():
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            random.seed(seed)
            readings.append(source.gather(rows))
    (inputs, labels), *others = readings
    if not all(_same(inputs, again) and torch.equal(labels, same) for again, same in others):
        raise ConfigError(
            f"the {SETS[name]} data change when they are read again: measures need them as they are; {instead}"
        )
