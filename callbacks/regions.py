"""prs/...: the populated regions of the training set, and the share of test samples that they include."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn

from prs_lightning.errors import ConfigError
from prs_lightning.measuring import log_measure
from prs_lightning.regions.layers import find_layer, hidden_layers, watching
from prs_lightning.regions.metrics import PopulatedRegions, RegionStatistics


class Regions(pl.Callback):
    """Logs after each validation loop over (training set, test set), in the same pass:

    ``prs/ratio``, ``prs/count``, ``prs/inclusion_ratio``; ``prs/dead_units``, ``prs/always_positive_units`` and
    ``prs/mean_positive_units`` (numbers of units, not shares); ``prs/entropy`` (nats), ``prs/singleton_share``,
    ``prs/purity``, ``prs/hamming_to_major`` (units); and ``prs/ratio/<layer>`` for each further layer.

    Args:
        layers: ``penultimate``, ``all``, or names of further layers as in ``named_modules()``.
    """

    def __init__(self, *, layers: str | list[str] = "penultimate") -> None:
        if isinstance(layers, str) and layers not in ("penultimate", "all"):
            raise ConfigError(f"layers={layers!r}: expected penultimate, all or a list of names")
        self.layers = layers
        self.further: dict[str, PopulatedRegions] = {}
        self.hooks = ExitStack()
        self.counting = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        final = pl_module.final
        assert isinstance(final, nn.Linear)
        self.statistics = RegionStatistics(classes=final.out_features)
        names = hidden_layers(pl_module, final) if self.layers == "all" else self.layers
        self.further = {} if names == "penultimate" else {name: PopulatedRegions() for name in names}
        for name in self.further:
            find_layer(pl_module, name)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for metric in (self.statistics, *self.further.values()):
            metric.to(pl_module.device).reset()
        self.hooks.enter_context(watching(pl_module, list(self.further), self._count))

    def _count(self, name: str, output: Tensor) -> None:
        if self.counting:
            self.further[name].update(output)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.counting = dataloader_idx == 0

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.counting = False
        self.statistics.update(outputs["pre_activations"], batch[1] if dataloader_idx == 0 else None)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.hooks.close()
        if trainer.sanity_checking:
            return
        values = self.statistics.compute()
        values |= {f"ratio/{name}": metric.compute()["ratio"] for name, metric in self.further.items()}
        for name, value in values.items():
            log_measure(pl_module, f"prs/{name}", value.float())

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.hooks.close()
