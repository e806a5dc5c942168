"""features/sparsity: the ratio of zeros of every ReLU output over the training set, mean over the layers."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prs_lightning.measuring import log_measure
from prs_lightning.regions.sparsity import Sparsity as SparsityMetric


class Sparsity(pl.Callback):
    """Logs ``features/sparsity``, in [0, 1], after each validation loop over (training set, test set).

    A ReLU module that is called several times in one forward pass counts as several outputs, in the order of calls.
    """

    def __init__(self) -> None:
        self.metric = SparsityMetric()
        self.handles: list[RemovableHandle] = []
        self.calls: int | None = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.metric.to(pl_module.device).reset()
        modules = [module for module in pl_module.modules() if isinstance(module, nn.ReLU)]
        self.handles = [module.register_forward_hook(self._count) for module in modules]

    def _count(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if self.calls is not None:
            self.metric.update(output, layer=self.calls)
            self.calls += 1

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.calls = 0 if dataloader_idx == 0 else None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.handles:
            return
        self._remove_hooks()
        log_measure(pl_module, "features/sparsity", self.metric.compute().float())
        self.metric.reset()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._remove_hooks()

    def _remove_hooks(self) -> None:
        self.calls = None
        while self.handles:
            self.handles.pop().remove()
