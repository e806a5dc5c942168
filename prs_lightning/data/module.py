"""The data of a run, for training and for measuring: on the training device, or stored and read by workers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from prs_lightning.data.batches import MeasuringBatches, TrainingBatches, refuses_one
from prs_lightning.data.choice import DataChoice, Loaded, load_data
from prs_lightning.data.facts import channel_statistics
from prs_lightning.data.sources import SplitSource
from prs_lightning.data.splits import Split, balanced_subset, to_unit_range
from prs_lightning.errors import ConfigError, RunError, at_least

log = logging.getLogger(__name__)


class ImageData(LightningDataModule):
    """A data set of images: an embedded or known one by name, one of torchvision, a folder, or arrays of a file.

    Args:
        batch_size: global training batch, divided over the devices.
        seed: of the training order.
        mean, std: per channel, of the training images in [0, 1]; None: found (exact, over all that is trained on).
        epsilon, step_size: of attacks, in pixel units; the default is the paper's for CIFAR-10, 8/255 and 2/255.
        measuring_batch_size: per device, for the measuring pass; about 100 to 250 is fastest on a CPU.
        choice: which data, and how they are kept: the arguments of `DataChoice`.

    ``channels``, ``classes``, ``mean`` and ``std`` are found, where they are None, by ``prepare_data``.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        seed: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        epsilon: float = 8 / 255,
        step_size: float = 2 / 255,
        measuring_batch_size: int = 200,
        **choice: Any,
    ) -> None:
        super().__init__()
        at_least("batch_size", batch_size, 1)
        at_least("data.measuring_batch_size", measuring_batch_size, 1)
        if (mean is None) != (std is None):
            raise ConfigError(f"data.mean={mean}, data.std={std}: expected both, or neither")
        self.choice = DataChoice(**choice)
        self.data_name = self.choice.called
        self.channels, self.classes, self.mean, self.std = self.choice.channels, self.choice.classes, mean, std
        self.batch_size, self.seed, self.epsilon, self.step_size = batch_size, seed, epsilon, step_size
        self.measuring_batch_size = measuring_batch_size
        self.prepared: Loaded | None = None
        self.facts: dict[str, Any] = {}
        self.train: Split | None = None
        self.test: Split | None = None

    def prepare_data(self) -> None:
        """Download, verify and check, on one process per machine, so that the others find the files."""
        if self.facts:
            return
        self.prepared = load_data(self.choice)
        train, test, self.classes, class_names = self.prepared
        _, self.channels, *size = train.images.shape
        if self.mean is None or self.std is None:
            self.mean, self.std = channel_statistics(train.images)
            if not all(self.std):
                raise ConfigError(
                    f"data.std: channel {self.std.index(0)} is the same in all training images of {self.data_name}; "
                    "give data.mean and data.std"
                )
        self.facts = {
            "train": len(train.labels),
            "test": len(test.labels),
            "size": size,
            "channels": self.channels,
            "classes": self.classes,
            "class_names": class_names,
            "mean": list(self.mean),
            "std": list(self.std),
            "in_memory": isinstance(train.images, Tensor),
        }

    def found(self, *, files: str | None = None, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the data are, for the record: plain values, of data that are read now if they were not.

        Args:
            files: tells the files from others.
            before: what was found when the run began that is now to go on.

        Raises:
            RunError: the data are not those of ``before``.
        """
        before = before or {}
        if self.mean is None and files and before.get("files") == files:
            self.mean, self.std = before["mean"], before["std"]  # stored images need not be read for them again
        self.prepare_data()
        now = self.facts | {"files": files}
        for key, value in now.items():
            if key != "in_memory" and value != before.get(key, value):
                raise RunError(
                    f"{self.data_name} is not what this run was begun with: {key} {before[key]} then, {value} now; "
                    "restore it, or choose another run_dir or data.name"
                )
        return now

    def for_network(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """What was found of that which the config of a network leaves open (null)."""
        self.prepare_data()
        shared = ("channels", "classes", "mean", "std")
        return {key: self.facts[key] for key in shared if key in model and model[key] is None}

    def check_test_limit(self, limit: int | None) -> None:
        """Refuse a class-balanced subset of the test set that cannot be: attacks would find it after an epoch.

        Raises:
            ConfigError: fewer samples in a class than its share.
        """
        split = self.test if self.prepared is None else self.prepared.test
        if limit is not None and split is not None:
            balanced_subset(split.labels, limit)

    def some_images(self) -> Tensor:
        """Two training images in [0, 1], (2, C, H, W), once the data are prepared."""
        split = self.train if self.prepared is None else self.prepared.train
        assert split is not None
        return to_unit_range(split.images[:2])

    def setup(self, stage: str | None = None) -> None:
        """Move the images to the training device, as uint8, unless they stay stored."""
        self.prepare_data()
        if self.prepared is not None:
            device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
            self.train, self.test = self.prepared.train.to(device), self.prepared.test.to(device)
            self.prepared = None

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
