"""Arrays of a NumPy file: images and labels of the training and the test set."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prs_lightning.data.pixels import resized
from prs_lightning.data.splits import Split
from prs_lightning.data.stored import StoredImages
from prs_lightning.errors import ConfigError, RunError, in_one_line

NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),  # Keras
    ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
)
MOST_CHANNELS = 4


@dataclass(frozen=True)
class ArrayImages:
    """Gives the image of a number, of uint8 ``images`` (N, C, H, W), in a size."""

    images: Tensor
    size: tuple[int, int] | None

    def __call__(self, number: int) -> Tensor:
        return resized(self.images[number], self.size)


def load_npz(
    path: str | Path | None, *, size: tuple[int, int] | None, workers: int | None = None
) -> tuple[Split, Split]:
    """Training and test images of ``x_train, y_train, x_test, y_test`` (or ``train_images, train_labels`` and so on).

    Images are uint8, (N, H, W), (N, H, W, C) or (N, C, H, W) of up to ``MOST_CHANNELS`` channels; labels whole
    numbers, (N,) or (N, 1). Nothing is unpickled.

    Raises:
        RunError: a file that is absent or no such file; names the array and what was expected of it.
    """
    if path is None:
        raise ConfigError("data.root is not given: name the file of the arrays, as in data.root=pets.npz")
    path = Path(path)
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise RunError(f"data.root={path} holds one array: expected an .npz of {', '.join(NAMES[0])}")
            names = next((names for names in NAMES if set(names) <= set(file.files)), None)
            if names is None:
                there = ", ".join(file.files) or "nothing"
                expected = " or ".join(", ".join(names) for names in NAMES)
                raise RunError(f"data.root={path} holds {there}: expected {expected}")
            arrays = {name: file[name] for name in names}
    except FileNotFoundError:
        raise RunError(f"data.root={path} does not exist: expected an .npz of {', '.join(NAMES[0])}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"data.root={path} cannot be read as an .npz of plain arrays ({in_one_line(error)})") from error
    splits = []
    for images_name, labels_name in (names[:2], names[2:]):
        images = _images(arrays[images_name], f"{images_name} of {path}")
        labels = _labels(arrays[labels_name], f"{labels_name} of {path}", len(images))
        image_shape = (images.shape[1], *(size or images.shape[2:]))
        stored = StoredImages(ArrayImages(images, size), torch.arange(len(images)), image_shape, workers)
        splits.append(Split(stored, labels))
    first, second = (split.images.shape[1:] for split in splits)
    if first != second:
        raise RunError(
            f"{names[0]} of {path} has images {tuple(first)}, {names[2]} {tuple(second)}: expected equal channels and "
            "sizes; give data.size, to which all are resized"
        )
    return splits[0], splits[1]


def _images(array: np.ndarray[Any, Any], name: str) -> Tensor:
    shape = f"{array.shape}, {array.dtype}"
    if array.dtype != np.uint8:
        raise RunError(f"{name} is {shape}: expected uint8 pixels of 0 to 255; scale, round and save them as such")
    if array.ndim not in (3, 4) or not array.size:
        raise RunError(f"{name} is {shape}: expected images (N, H, W) or (N, H, W, C), one or more")
    images = torch.from_numpy(array)
    if array.ndim == 3:
        return images.unsqueeze(1)
    last, first = array.shape[3] <= MOST_CHANNELS, array.shape[1] <= MOST_CHANNELS
    if last == first:
        raise RunError(f"{name} is {shape}: expected 1 to {MOST_CHANNELS} channels on the last axis, or on the second")
    return images.permute(0, 3, 1, 2) if last else images


def _labels(array: np.ndarray[Any, Any], name: str, count: int) -> Tensor:
    shape = f"{array.shape}, {array.dtype}"
    if array.shape not in ((count,), (count, 1)) or array.dtype.kind not in "iu":
        raise RunError(f"{name} is {shape}: expected a whole class number for each of the {count} images")
    return torch.from_numpy(array.reshape(-1).astype(np.int64))
