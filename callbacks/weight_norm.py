"""weight_norm: no layer's weight may grow beyond a bound."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch

from prs_lightning.callbacks.intervening import Intervention
from prs_lightning.regions.layers import find_layer
from prs_lightning.regions.norms import named_weights
from prs_lightning.regions.regularisers import bounded


class WeightNorm(Intervention):
    """Projects the weight of each layer, after each step, to a Frobenius norm of at most its first one / ``strength``.

    The first one is that before training. Layers are the fully connected and convolutional ones, the final one too;
    biases and normalisations are free.

    Args:
        strength: 1 lets no weight grow, 2 halves each, 0.5 lets it double; 0: no bound.
        warmup: see :class:`Intervention`.
    """

    def __init__(self, *, strength: float = 1.0, warmup: int = 0) -> None:
        super().__init__(strength=strength, warmup=warmup)
        self.norms: dict[str, float] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.norms = {}  # those of a run that goes on are loaded after this

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if not self.norms:
            weights = named_weights(pl_module)
            self.norms = {name: float(weight.double().norm()) for name, weight in weights.items()}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if self.is_on(trainer):
            for name, norm in self.norms.items():
                weight: Any = find_layer(pl_module, name).weight
                with torch.no_grad():
                    weight.copy_(bounded(weight, norm / self.strength))

    def state_dict(self) -> dict[str, Any]:
        return {"norms": self.norms}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.norms = state_dict["norms"]
