"""Batches of a split, sliced out where it lies in memory, or read by its workers; no global random state is used."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from prs_lightning.data.splits import Split
from prs_lightning.seeding import keyed_generator


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
        yield from self.split.batches([rows[self.rank :: self.world] for rows in order.split(self.batch_size)])


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
        # A slice is a view; an empty one keeps the number of batches equal when a shard is very small.
        yield from self.split.batches(
            [slice(int(rows[0]), int(rows[-1]) + 1, self.world) if len(rows) else slice(0) for rows in self.batches]
        )
