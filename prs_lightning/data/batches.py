"""Batches of a split, sliced out where it lies in memory, or read by its workers; no global random state is used."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn

from prs_lightning.data.splits import Split, to_unit_range
from prs_lightning.seeding import keyed_generator


class TrainingBatches:
    """Shuffled batches of (images float32 in [0, 1], labels), this process's share of each global batch.

    The order follows from (seed, epoch) alone. With more than one process each takes every ``world``-th sample of the
    global batch; so that all shares are equal, the last batch of an epoch loses up to ``world - 1`` samples.
    Lightning calls ``sampler.set_epoch`` before each epoch; the sampler is this object.

    Args:
        batch_size: of the global batch.
        seed: of the order.
        rank, world: this process and how many there are.
        merge_single: add a last batch of one sample per process to the batch before it; see ``refuses_one``.
    """

    def __init__(
        self, split: Split, batch_size: int, *, seed: int, rank: int = 0, world: int = 1, merge_single: bool = False
    ) -> None:
        self.split, self.batch_size, self.seed, self.rank, self.world = split, batch_size, seed, rank, world
        self.epoch = 0
        self.usable = len(split.labels) - len(split.labels) % batch_size % world
        self.sampler = self
        whole = self.usable - (batch_size if merge_single and self.usable % batch_size == world else 0)
        self.ends = [*range(batch_size, whole, batch_size), self.usable] if self.usable else []

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = keyed_generator(self.seed, self.epoch)
        order = torch.randperm(len(self.split.labels), generator=generator)[: self.usable]
        order = order.to(self.split.labels.device)
        groups = [order[start:end][self.rank :: self.world] for start, end in pairwise([0, *self.ends])]
        yield from self.split.batches(groups)


def refuses_one(network: nn.Module, split: Split) -> bool:
    """Whether a network cannot be trained on a batch of one sample, as batch norm over 1 x 1 features cannot."""
    dtype = next((parameter.dtype for parameter in network.parameters()), torch.float32)
    image = to_unit_range(split.images[:1]).to(dtype)
    with torch.no_grad(), torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
        try:
            deepcopy(network).train()(image)
        except Exception as error:
            return isinstance(error, ValueError) and "more than 1 value per channel" in str(error)
    return False


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
