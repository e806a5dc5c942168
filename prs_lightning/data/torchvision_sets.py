"""Any classification data set of torchvision with the usual constructor: root, train= or split=, and download=."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prs_lightning.data.datasets import leaving_no_folders, verify
from prs_lightning.data.pixels import Pixels
from prs_lightning.data.splits import Split
from prs_lightning.data.stored import StoredImages
from prs_lightning.errors import ConfigError, RunError, in_one_line

SPLITS = {"train": ("train", "trainval", "train-standard"), "test": ("test", "val", "valid")}
"""What torchvision's data sets call them; the first that a data set knows is taken."""
LABELS = ("targets", "labels", "_labels", "y")
PROBED = 16


@dataclass(frozen=True)
class TorchvisionImages:
    """Reads the image of a number of a torchvision data set, as ``pixels`` says."""

    dataset: Any
    pixels: Pixels

    def __call__(self, number: int) -> Tensor:
        return self.pixels.of(_item(self.dataset, number)[0], _name(self.dataset, number))


def load_torchvision(
    class_name: str,
    root: str | Path,
    *,
    arguments: Mapping[str, Any] | None = None,
    channels: int | None,
    size: tuple[int, int] | None,
    workers: int | None = None,
) -> tuple[Split, Split]:
    """The training and the test set of ``torchvision.datasets.<class_name>``, downloaded to ``root`` where it can be.

    Args:
        arguments: more keywords of its constructor.

    Raises:
        ConfigError: a data set that there is not, or that is not one of images with one class number each.
        RunError: files that are absent and cannot be downloaded.
    """
    kind = _class(class_name)
    parameters = _parameters(kind)
    options = {"root": str(root), **(arguments or {})}
    if unknown := sorted(options.keys() - parameters):
        known = ", ".join(sorted(parameters - {"root", "transform", "target_transform", "transforms"}))
        raise ConfigError(f"data.arguments.{unknown[0]}: {class_name} has no such argument, only {known}")
    if not {"train", "split"} & parameters:
        raise ConfigError(
            f"data.dataset={class_name} has no train= or split= that tells its test images: make folders train/ and "
            "test/ of them, and use data=folder"
        )
    if "download" in parameters:
        options["download"] = True
    splits = []
    pixels: Pixels | None = None
    with leaving_no_folders(Path(root)), _one_at_a_time(Path(root)):
        datasets = [_made(kind, split, options, parameters) for split in ("train", "test")]
        verify(class_name, Path(root))
    for dataset in datasets:
        image, _ = _item(dataset, 0)
        pixels = pixels or Pixels.like(image, _name(dataset, 0), channels, size)
        shape = (pixels.channels, *pixels.size)
        images = StoredImages(TorchvisionImages(dataset, pixels), torch.arange(len(dataset)), shape, workers)
        splits.append(Split(images, _labels(dataset)))
    return splits[0], splits[1]


def _class(name: str) -> Any:
    import torchvision

    known = [each for each in torchvision.datasets.__all__ if inspect.isclass(getattr(torchvision.datasets, each))]
    if name not in known:
        lower = {each.lower(): each for each in known}
        near = [lower[each] for each in difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.5)]
        meant = f"did you mean {' or '.join(near)}?" if near else "expected one such as CIFAR100, SVHN or Food101"
        raise ConfigError(f"data.dataset={name} is no data set of torchvision: {meant}")
    return getattr(torchvision.datasets, name)


def _parameters(kind: Any) -> set[str]:
    """Names of the constructor's arguments, of those of its bases too where it hands them on."""
    names: set[str] = set()
    for each in kind.__mro__:
        if "__init__" in vars(each):
            found = inspect.signature(each.__init__).parameters.values()
            names |= {one.name for one in found if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
            if all(one.kind != one.VAR_KEYWORD for one in found):
                break
    return names - {"self"}


def _made(kind: Any, split: str, options: Mapping[str, Any], parameters: set[str]) -> Any:
    name = kind.__name__
    if "train" in parameters:
        choices: Sequence[dict[str, Any]] = [{"train": split == "train"}]
    else:
        choices = [{"split": each} for each in SPLITS[split]]
    refused: Exception | None = None
    for choice in choices:
        try:
            return kind(**options, **choice)
        except (ValueError, TypeError, AssertionError) as error:  # a split that it does not know
            refused = error
        except Exception as error:  # OSError, RuntimeError and ImportError of as many kinds as there are data sets
            raise RunError(
                f"data.dataset={name} is not in {options['root']} and could not be made ready there "
                f"({type(error).__name__}: {in_one_line(error)}): put its files there, or set data.root"
            ) from error
    raise ConfigError(
        f"data.dataset={name} has no {split} set that could be made of {dict(options)} ({in_one_line(refused)})"
    )


def _item(dataset: Any, number: int) -> tuple[Any, int]:
    """(PIL image, class number) of a sample."""
    from PIL import Image

    try:
        item = dataset[number]
    except Exception as error:
        why = f"{type(error).__name__}: {in_one_line(error)}"
        raise RunError(f"{_name(dataset, number)} cannot be read ({why})") from error
    kind = type(dataset).__name__
    if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[0], Image.Image):
        parts = ", ".join(type(part).__name__ for part in item) if isinstance(item, tuple) else type(item).__name__
        raise ConfigError(f"data.dataset={kind} gives ({parts}): expected (image, class number)")
    if (label := _whole(item[1])) is None:
        raise ConfigError(
            f"data.dataset={kind} gives a target of type {type(item[1]).__name__}: expected one class number for each "
            "image, not boxes, masks or several numbers"
        )
    return item[0], label


def _whole(value: Any) -> int | None:
    """A whole number of any library as an int; None if it is none."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    return int(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else None


def _labels(dataset: Any) -> Tensor:
    """The class number of every sample, int64 (N,): from its list of them if it has one, or else by reading each."""
    count = len(dataset)
    probes = torch.linspace(0, count - 1, min(PROBED, count)).long().tolist()
    probed = [_item(dataset, number)[1] for number in probes]
    for attribute in LABELS:
        values = getattr(dataset, attribute, None)
        if not isinstance(values, Sequence | Tensor | np.ndarray) or len(values) != count:
            continue
        if isinstance(values, Sequence) and any(_whole(value) is None for value in values):
            continue
        labels = torch.as_tensor(values)
        if labels.ndim == 1 and not labels.is_floating_point() and labels[probes].tolist() == probed:
            return labels.to(torch.int64)
    return torch.tensor([_item(dataset, number)[1] for number in range(count)])


def _name(dataset: Any, number: int) -> str:
    return f"sample {number} of {type(dataset).__name__} in {dataset.root}"


@contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """Processes of one run that start at once must not download, or unpack, into the same files."""
    from filelock import FileLock

    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / ".download.lock")
        lock.acquire()
    except OSError:  # a folder that cannot be written to: nothing can be downloaded either
        yield
        return
    try:
        yield
    except BaseException:
        if all(each.is_dir() or each == Path(lock.lock_file) for each in root.rglob("*")):  # nothing came of it
            Path(lock.lock_file).unlink(missing_ok=True)
        raise
    finally:
        lock.release()
