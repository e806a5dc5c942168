"""A folder of images: ``train/`` and ``test/`` (or ``val/``), each with a folder of images per class."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prs_lightning.data.pixels import Pixels
from prs_lightning.data.splits import Split
from prs_lightning.data.stored import StoredImages
from prs_lightning.errors import ConfigError, RunError, in_one_line

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class FolderImages:
    """Reads the image of a number: of a file of ``paths``, as ``pixels`` says."""

    paths: tuple[Path, ...]
    pixels: Pixels

    def __call__(self, number: int) -> Tensor:
        path = self.paths[number]
        with _opened(path) as image:
            return self.pixels.of(image, str(path))


def load_folder(
    root: str | Path | None, *, channels: int | None, size: tuple[int, int] | None, workers: int | None = None
) -> tuple[Split, Split, list[str]]:
    """Training and test images, which stay in their files, and the names of the classes in the order of their numbers.

    Raises:
        RunError: a folder or images that are missing, a class of the test set that the training set does not have.
    """
    if root is None:
        raise ConfigError("data.root is not given: name the folder of the images, as in data.root=pets")
    root = Path(root)
    if not root.is_dir():
        raise RunError(f"data.root={root} is no folder: expected one with train/ and test/ (or val/)")
    train = root / "train"
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), root / "test")
    for folder in (train, test):
        if not folder.is_dir():
            raise RunError(f"{folder} is missing: expected train/ and test/ (or val/), each with a folder per class")
    classes = _classes(train)
    if unknown := sorted(set(_classes(test)) - set(classes)):
        raise RunError(f"{test / unknown[0]} is a class that {train} does not have: expected {', '.join(classes[:9])}")
    found = [_files(folder, classes) for folder in (train, test)]
    paths, numbers = found[0]
    for number, name in enumerate(classes):
        if number not in numbers:
            raise RunError(f"{train / name} has no image: expected files that end in {', '.join(EXTENSIONS)}")
    if not found[1][0]:
        raise RunError(f"{test} has no image: expected files that end in {', '.join(EXTENSIONS)}")
    with _opened(paths[0]) as image:
        pixels = Pixels.like(image, str(paths[0]), channels, size)
    splits = []
    for paths, numbers in found:
        images = StoredImages(
            FolderImages(tuple(paths), pixels), torch.arange(len(paths)), (pixels.channels, *pixels.size), workers
        )
        splits.append(Split(images, torch.tensor(numbers)))
    return splits[0], splits[1], classes


def _classes(folder: Path) -> list[str]:
    names = sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not names:
        raise RunError(f"{folder} has no folders: expected one per class, with its images")
    return names


def _files(folder: Path, classes: list[str]) -> tuple[list[Path], list[int]]:
    """Image files, sorted within their class, and their class numbers. What is no image by its name is told."""
    paths, numbers, others = [], [], []
    for number, name in enumerate(classes):
        within = os.walk(folder / name, followlinks=True)
        for path in sorted(Path(place, file) for place, _, files in within for file in files):
            if path.name.startswith("."):
                continue
            if path.suffix.lower() in EXTENSIONS:
                paths.append(path)
                numbers.append(number)
            else:
                others.append(path)
    if others:
        log.warning("%d files of %s are no images by their names and are left out: %s", len(others), folder, others[0])
    return paths, numbers


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """The image of a file, inside a ``with`` block; whatever fails there is the file's fault."""
    from PIL import Image as Files

    try:
        with Files.open(path) as image:
            yield image
    except RunError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        why = f"{type(error).__name__}: {in_one_line(error) or 'no message'}"
        raise RunError(f"{path} cannot be read as an image ({why}): mend it, or take it out of the folder") from error
