"""features/sparsity: the ratio of zeros of every ReLU output over the training set, mean over the layers."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn

from prs_lightning.measuring import log_measure
from prs_lightning.regions.layers import watching
from prs_lightning.regions.sparsity import Sparsity as SparsityMetric


class Sparsity(pl.Callback):
    """Logs ``features/sparsity``, in [0, 1], after each validation loop over (training set, test set).

    A ReLU module that is called several times in one forward pass counts as several outputs, in the order of calls.
    """

    def __init__(self) -> None:
        self.metric = SparsityMetric()
        self.hooks = ExitStack()
        self.calls: int | None = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.metric.to(pl_module.device).reset()
        names = [name for name, module in pl_module.named_modules() if isinstance(module, nn.ReLU)]
        self.hooks.enter_context(watching(pl_module, names, self._count))

    def _count(self, name: str, output: Tensor) -> None:
        if self.calls is not None:
            self.metric.update(output, layer=self.calls)
            self.calls += 1

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.calls = 0 if dataloader_idx == 0 else None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.hooks.close()
        if not trainer.sanity_checking and self.metric.update_called:
            log_measure(pl_module, "features/sparsity", self.metric.compute().float())

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.hooks.close()
