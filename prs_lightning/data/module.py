"""The data of a run: one data set on the training device, for training and for measuring."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from prs_lightning.data.batches import MeasuringBatches, TrainingBatches, refuses_one
from prs_lightning.data.datasets import NAMES, load
from prs_lightning.data.sources import SplitSource
from prs_lightning.data.splits import Split, balanced_subset, to_unit_range
from prs_lightning.errors import ConfigError, at_least

log = logging.getLogger(__name__)


class ImageData(LightningDataModule):
    """One of the data sets ``mnist5k``, ``mnist``, ``fashion_mnist``, ``cifar10``.

    Args:
        name: which one.
        batch_size: global training batch, divided over the devices.
        seed: of the training order.
        root: folder of the files.
        train_limit, test_limit: class-balanced subsets; None for all.
        channels, classes, mean, std, epsilon, step_size: what the config says of the data set; the channels and
            classes are checked against the images, the others are kept for the network and the attacks.
        measuring_batch_size: per device, for the measuring pass; about 100 to 250 is fastest on a CPU.
    """

    def __init__(
        self,
        *,
        name: str,
        batch_size: int,
        seed: int = 0,
        root: str = "data",
        train_limit: int | None = None,
        test_limit: int | None = None,
        channels: int,
        classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        epsilon: float,
        step_size: float,
        measuring_batch_size: int = 200,
    ) -> None:
        super().__init__()
        if name not in NAMES:
            raise ConfigError(f"data.name={name!r} is unknown: expected one of {', '.join(NAMES)}")
        for key, value in {
            "batch_size": batch_size,
            "data.train_limit": train_limit,
            "data.test_limit": test_limit,
            "data.measuring_batch_size": measuring_batch_size,
        }.items():
            if value is not None:
                at_least(key, value, 1)
        self.data_name, self.batch_size, self.seed, self.root = name, batch_size, seed, root
        self.limits = (train_limit, test_limit)
        self.channels, self.classes, self.mean, self.std = channels, classes, mean, std
        self.epsilon, self.step_size, self.measuring_batch_size = epsilon, step_size, measuring_batch_size
        self.prepared: list[Split] = []
        self.train: Split | None = None
        self.test: Split | None = None

    def prepare_data(self) -> None:
        """Download, verify and check, on one process per machine, so that the others find the files."""
        if self.train is not None or self.prepared:
            return
        splits = []
        for key, split, limit in zip(("train", "test"), load(self.data_name, self.root), self.limits, strict=True):
            highest, channels = int(split.labels.max()), split.images.shape[1]
            if channels != self.channels:
                raise ConfigError(f"data.channels={self.channels}, but {self.data_name} has {channels}")
            if highest >= self.classes:
                raise ConfigError(f"data.classes={self.classes}, but {self.data_name} has labels up to {highest}")
            if limit is not None:
                if limit > len(split.labels):
                    raise ConfigError(f"data.{key}_limit={limit} exceeds the {len(split.labels)} samples there are")
                chosen = balanced_subset(split.labels, limit)
                split = Split(split.images[chosen], split.labels[chosen])
            splits.append(split)
        self.prepared = splits

    def some_images(self) -> Tensor:
        """Two training images in [0, 1], (2, C, H, W), once the data are prepared."""
        split = self.train if self.train is not None else self.prepared[0]
        return to_unit_range(split.images[:2])

    def setup(self, stage: str | None = None) -> None:
        """Move the images to the training device, as uint8."""
        self.prepare_data()
        if self.train is None:
            device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
            self.train, self.test = (Split(split.images.to(device), split.labels.to(device)) for split in self.prepared)
            self.prepared = []

    def _shard(self) -> dict[str, Any]:
        return {"rank": self.trainer.global_rank, "world": self.trainer.world_size} if self.trainer else {}

    def train_dataloader(self) -> TrainingBatches:
        assert self.train is not None
        batches = TrainingBatches(self.train, self.batch_size, seed=self.seed, **self._shard())
        if self.batch_size % batches.world:
            raise ConfigError(
                f"batch_size={self.batch_size} is global and must be a multiple of the {batches.world} devices"
            )
        last = batches.usable % self.batch_size or self.batch_size
        if last == batches.world and self.trainer and refuses_one(self.trainer.lightning_module, self.train):
            if len(batches) == 1 or last == self.batch_size:
                raise ConfigError(
                    f"batch_size={self.batch_size} of {batches.usable} samples: batch norm needs two or "
                    f"more in a batch, on each of the {batches.world} device(s)"
                )
            if self.trainer.is_global_zero:
                log.warning(
                    "the last batch would be one sample, which batch norm cannot take: it joins the batch before"
                )
            batches = TrainingBatches(self.train, self.batch_size, seed=self.seed, merge_single=True, **self._shard())
        return batches

    def train_source(self) -> SplitSource:
        """The training set in order, for measures."""
        assert self.train is not None
        return SplitSource(self.train, self.measuring_batch_size)

    def test_source(self) -> SplitSource:
        """The test set in order, for measures."""
        assert self.test is not None
        return SplitSource(self.test, self.measuring_batch_size)

    def val_dataloader(self) -> Iterable[Any]:
        """The test set in order, for a module that validates itself.

        To others one batch without content: ``trainer.validate`` runs for its hooks, as measures have a pass of their
        own.
        """
        if self.trainer is None or getattr(self.trainer.lightning_module, "VALIDATES", True):
            assert self.test is not None
            return MeasuringBatches(self.test, self.measuring_batch_size, **self._shard())
        return range(1)
