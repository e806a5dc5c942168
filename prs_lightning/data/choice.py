"""Which data a run has: the keys of ``data`` in its config, and the one way from them to a training and a test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from prs_lightning.data.datasets import NAMES, load
from prs_lightning.data.facts import count_classes
from prs_lightning.data.folder import load_folder
from prs_lightning.data.npz import load_npz
from prs_lightning.data.splits import Split, balanced_subset
from prs_lightning.data.stored import StoredImages
from prs_lightning.data.torchvision_sets import load_torchvision
from prs_lightning.errors import ConfigError, at_least

SOURCES = ("torchvision", "folder", "npz")


class Loaded(NamedTuple):
    """What `load_data` gives: ``classes`` how many there are, ``class_names`` by number where they have names."""

    train: Split
    test: Split
    classes: int
    class_names: list[str] | None


@dataclass(frozen=True, kw_only=True)
class DataChoice:
    """Which data, from where, and how they are kept.

    Args:
        name: in tables and in the names of runs; without a ``source`` one of the embedded or known data sets ``NAMES``.
        source: ``torchvision``, ``folder`` or ``npz``.
        root: folder of the files; with ``source="npz"`` the file.
        dataset, arguments: with ``source="torchvision"`` the name of its class, and more keywords of its constructor.
        size: height and width that images are resized to, one number for a square; None or ``original``: as they are.
        channels, classes: None: those of the images and labels. Images of ``torchvision`` and ``folder`` are converted
            to 1 or 3 channels; others must have them.
        train_limit, test_limit: class-balanced subsets; None for all.
        memory_limit: GiB of uint8 images, training and test set together, that are kept in memory and on the training
            device by each process; more stay stored and are read by ``workers`` processes, whenever they are needed.
        workers: None: one per core, at most 8.

    Raises:
        ConfigError: a value that cannot work.
    """

    name: str | None = None
    source: str | None = None
    root: str | None = "data"
    dataset: str | None = None
    arguments: Mapping[str, Any] | None = None
    size: int | Sequence[int] | str | None = 32
    channels: int | None = None
    classes: int | None = None
    train_limit: int | None = None
    test_limit: int | None = None
    memory_limit: float = 4.0
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.source is None and self.name not in NAMES:
            raise ConfigError(f"data.name={self.name!r} is unknown: expected one of {', '.join(NAMES)}")
        if self.source not in (None, *SOURCES):
            raise ConfigError(f"data.source={self.source!r} is unknown: expected one of {', '.join(SOURCES)}")
        for key in ("channels", "classes", "train_limit", "test_limit"):
            if (value := getattr(self, key)) is not None:
                at_least(f"data.{key}", value, 1)
        if self.workers is not None:
            at_least("data.workers", self.workers, 0)
        if not isinstance(self.memory_limit, int | float) or not self.memory_limit >= 0:
            raise ConfigError(f"data.memory_limit={self.memory_limit} must be a number of GiB, 0 or more")
        if self.source in ("torchvision", "folder") and self.channels not in (None, 1, 3):
            raise ConfigError(f"data.channels={self.channels}: images of {self.source} can have 1 or 3")
        if self.height_and_width is not None:
            for side in self.height_and_width:
                at_least("data.size", side, 1)

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """What ``size`` says."""
        if self.size is None or self.size == "original":
            return None
        if isinstance(self.size, int):
            return (self.size, self.size)
        if isinstance(self.size, str) or len(self.size) != 2:
            raise ConfigError(f"data.size={self.size}: expected a number of pixels, [height, width], or null")
        return (self.size[0], self.size[1])

    @property
    def called(self) -> str:
        """How messages call the data."""
        return self.name or self.dataset or str(self.root)

    @classmethod
    def of(cls, config: Mapping[str, Any], **changes: Any) -> DataChoice:
        """That of a recorded config's ``data``, which holds other keys too."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in config.items() if key in known} | changes)


def load_data(choice: DataChoice) -> Loaded:
    """The training and the test set, with the limits of ``choice``, in memory if they fit.

    Raises:
        ConfigError: values that do not fit the data.
        RunError: files that are absent or damaged; names them.
    """
    train, test, class_names = _opened(choice)
    name = choice.called
    if choice.channels not in (None, train.images.shape[1]):
        raise ConfigError(f"data.channels={choice.channels}, but {name} has {train.images.shape[1]}")
    classes = count_classes(train.labels, test.labels, choice.classes, name)
    train = _limited(train, choice.train_limit, "train")
    test = _limited(test, choice.test_limit, "test")
    size = sum(split.images.shape.numel() for split in (train, test))
    if size <= choice.memory_limit * 2**30:
        train, test = (
            Split(split.images.load(), split.labels) if isinstance(split.images, StoredImages) else split
            for split in (train, test)
        )
    return Loaded(train, test, classes, class_names)


def _opened(choice: DataChoice) -> tuple[Split, Split, list[str] | None]:
    """All samples; those of a ``source`` are stored still."""
    options: dict[str, Any] = {"size": choice.height_and_width, "workers": choice.workers}
    if choice.source == "torchvision":
        if not choice.dataset:
            raise ConfigError("data.dataset is not given: name a class of torchvision, as in data.dataset=CIFAR100")
        assert choice.root is not None
        options |= {"channels": choice.channels, "arguments": choice.arguments}
        return *load_torchvision(choice.dataset, choice.root, **options), None
    if choice.source == "folder":
        return load_folder(choice.root, channels=choice.channels, **options)
    if choice.source == "npz":
        return *load_npz(choice.root, **options), None
    assert choice.name is not None
    assert choice.root is not None
    return *load(choice.name, choice.root, choice.height_and_width), None


def _limited(split: Split, limit: int | None, key: str) -> Split:
    if limit is None:
        return split
    if limit > len(split.labels):
        raise ConfigError(f"data.{key}_limit={limit} exceeds the {len(split.labels)} samples there are")
    return split.select(balanced_subset(split.labels, limit))
