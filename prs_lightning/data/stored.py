"""Images that stay where they are stored: read when they are asked for, many at a time by worker processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prs_lightning.errors import ConfigError, RunError

MOST_WORKERS = 8
PER_WORKER = 500
"""Images that are worth starting a process for."""


class StoredImages:
    """uint8 images (N, C, H, W) that indexing reads, where a tensor of them would not fit.

    Args:
        read: gives the image of a number, uint8 (C, H, W), the same one whenever it is asked; raises RunError for an
            image that cannot be read.
        rows: numbers of the images, int64 (N,).
        image_shape: (C, H, W).
        workers: processes that read; None: one per core, at most ``MOST_WORKERS``.
    """

    def __init__(
        self, read: Callable[[int], Tensor], rows: Tensor, image_shape: Sequence[int], workers: int | None = None
    ) -> None:
        self.read, self.rows, self.image_shape, self.workers = read, rows, tuple(image_shape), workers

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), *self.image_shape))

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """uint8 images (n, C, H, W), read by this process."""
        images = [self.read(number) for number in self.rows[_on_host(rows)].tolist()]
        return torch.stack(images) if images else torch.empty((0, *self.image_shape), dtype=torch.uint8)

    def select(self, rows: Tensor) -> StoredImages:
        """Some of the images, stored as they are."""
        return StoredImages(self.read, self.rows[_on_host(rows)], self.image_shape, self.workers)

    def batches(self, groups: Sequence[Tensor | slice], *, pin_memory: bool = False) -> Iterator[Tensor]:
        """The images of each group of rows, in order, read ahead by the workers."""
        workers = self.workers
        if workers is None:
            workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, MOST_WORKERS)
            workers = workers if len(self) >= PER_WORKER else 0
        loader = DataLoader(
            _Reader(self),
            batch_size=None,
            sampler=[_on_host(group) for group in groups],
            num_workers=min(workers, len(groups)),
            pin_memory=pin_memory,
            generator=torch.Generator(),  # to iterate a DataLoader draws a seed, from the global one if it has none
        )
        for images in loader:
            if isinstance(images, str):
                raise RunError(images)
            yield images

    def split(self, size: int) -> Iterator[Tensor]:
        """All images, ``size`` at a time, as ``Tensor.split`` gives them."""
        return self.batches([slice(start, start + size) for start in range(0, len(self), size)])

    def load(self) -> Tensor:
        """All images in memory."""
        images = torch.empty(self.shape, dtype=torch.uint8)
        for target, batch in zip(images.split(256), self.split(256), strict=True):
            target.copy_(batch)
        return images


class _Reader(Dataset[Tensor | str]):
    """What the workers run: an error comes back as its message, for torch would put a traceback around it."""

    def __init__(self, images: StoredImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor | slice) -> Tensor | str:
        try:
            return self.images[rows]
        except (ConfigError, RunError) as error:
            return str(error)


def _on_host(rows: Tensor | slice) -> Tensor | slice:
    return rows.cpu() if isinstance(rows, Tensor) else rows
