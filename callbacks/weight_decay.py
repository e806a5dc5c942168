"""weight_decay: decoupled, whatever the module's optimizer is."""

from __future__ import annotations

import lightning.pytorch as pl
import torch

from prs_lightning.callbacks.intervening import Intervention
from prs_lightning.regions.regularisers import decay_weights


class WeightDecay(Intervention):
    """Shrinks all parameters right before each step of the optimizer, see :func:`decay_weights`.

    A network that is trained by Adam gets the very weights that AdamW with ``weight_decay=strength`` gives.

    Args:
        strength: times the learning rate, a schedule's too: what each step takes away.
        warmup: see :class:`Intervention`.
    """

    def __init__(self, *, strength: float = 0.01, warmup: int = 0) -> None:
        super().__init__(strength=strength, warmup=warmup)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self.is_on(trainer):
            decay_weights(optimizer, self.strength)
