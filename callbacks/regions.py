"""prs/...: the populated regions of the training set, and the share of test samples that they include."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from prs_lightning.metrics import InclusionRatio, PopulatedRegions


class Regions(pl.Callback):
    """Logs ``prs/...`` after each validation loop over (training set, test set)."""

    def __init__(self, *, layers: str | list[str] = "penultimate") -> None:
        self.layers = layers
        self.regions = PopulatedRegions()
        self.inclusion = InclusionRatio()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.regions.to(pl_module.device).reset()
        self.inclusion.to(pl_module.device).reset()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.sanity_checking:
            return
        train = dataloader_idx == 0
        if train:
            self.regions.update(outputs["features"])
        self.inclusion.update(outputs["features"], train=train)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        found = self.regions.compute()
        values = {"ratio": found["ratio"], "count": found["count"], "inclusion_ratio": self.inclusion.compute()}
        for name, value in values.items():
            # The value is the same on all processes already; the maximum of equal values is exactly that value.
            pl_module.log(f"prs/{name}", value.float(), prog_bar=name == "ratio", sync_dist=True, reduce_fx="max")
