"""features/local_complexity: how many boundaries of the penultimate units cross a small ball around a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from prs_lightning.callbacks.measuring import Measuring
from prs_lightning.data import spread_subset
from prs_lightning.data.trainers import epochs_trained
from prs_lightning.errors import at_least
from prs_lightning.measures import LOCAL_COMPLEXITY
from prs_lightning.measuring import log_measure
from prs_lightning.measuring_pass import Batch, Watched
from prs_lightning.network import normalisation
from prs_lightning.regions.layers import Tap
from prs_lightning.regions.local_complexity import Balls, crossings


class LocalComplexity(Measuring):
    """Logs ``features/local_complexity`` at the grid's epochs: in how many penultimate units the points of a small ball
    around a training sample differ in sign, mean over a class-balanced subset; see :func:`crossings`.

    Args:
        grid_epochs: epochs, counted from 1, at which it is measured.
        samples: how many training samples, or all if there are fewer.
        points: points around each, even: half as many random directions, both ways.
        radius: Euclidean, in pixel units of images in [0, 1]; no point is clipped to that range.
        seed: directions follow from (seed, epoch, index of the sample in the training set).
        layer: as of :class:`Regions`.
        mean, std: as of :class:`Robustness`, where the data are normalised.
        train, test: see :class:`Measuring`.
    """

    def __init__(
        self, *, grid_epochs: Sequence[int] = (), samples: int = 500, points: int = 16, radius: float = 0.2,
        seed: int = 0, layer: str | None = None,
        mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
        train: Any = None, test: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(train=train, test=test)
        at_least("callbacks.local_complexity.samples", samples, 1)
        self.grid_epochs, self.samples, self.seed, self.layer = grid_epochs, samples, seed, layer
        self.balls = Balls(points, radius, normalisation(mean, std))

    def start(self, watched: Watched) -> Sequence[Tap]:
        self.labels: list[Tensor] = []
        self.tap = Tap(self.layer) if self.layer is not None else watched.ends.penultimate
        self.balls.images(watched.probe, watched.network.model)
        return [self.tap]

    def see_logits(self, logits: Tensor, batch: Batch) -> None:
        if batch.split == "train":
            self.labels.append(batch.labels)

    def measured(self, trainer: pl.Trainer, pl_module: pl.LightningModule, watched: Watched) -> None:
        epoch = epochs_trained(trainer, pl_module)
        if epoch not in self.grid_epochs:
            return
        rows = spread_subset(self._all_labels(watched), self.samples)
        own = rows[trainer.global_rank :: trainer.world_size]
        total = torch.zeros((), dtype=torch.float64, device=watched.device)
        for part in own.split(max(1, watched.train.batch_size // self.balls.points)):
            inputs = watched.train.gather(part)[0].to(watched.device)
            total += crossings(watched.network.model, self.tap, inputs, part, self.balls, seed=(self.seed, epoch)).sum()
        log_measure(pl_module, LOCAL_COMPLEXITY, trainer.strategy.reduce(total, reduce_op="sum") / len(rows))

    def _all_labels(self, watched: Watched) -> Tensor:
        """Those of the whole training set, of which this process has seen ``[rank::world]``."""
        seen = torch.cat([*self.labels, torch.zeros(0, dtype=torch.int64, device=watched.device)])
        parts = gather_all_tensors(seen) if torch.distributed.is_initialized() else [seen]
        labels = seen.new_empty(len(watched.train))
        for rank, part in enumerate(parts):
            labels[rank :: len(parts)] = part
        return labels
