"""robust/...: robust accuracy of the test set under PGD, after its audit, and under the attacks of the grid."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl

from prs_lightning.attacks.schedule import EpochAttacks, attack_bar
from prs_lightning.attacks.schedule import grid_attacks as entries
from prs_lightning.attacks.threat_model import ThreatModel
from prs_lightning.errors import at_least
from prs_lightning.measuring import log_measure

log = logging.getLogger(__name__)


class Robustness(pl.Callback):
    """Logs ``robust/...`` after the validation loop; what each number is, see :class:`EpochAttacks`.

    Args:
        seed: random starts follow from (seed, epoch, index of the sample in the test set).
        every: measure at every n-th epoch, counted from 1.
        epochs: measure at these epochs only; overrides ``every``.
        limit: class-balanced subset of the test set; None for all.
        audit: attack the survivors again with a margin loss.
        grid_epochs, grid_attacks: at these epochs, also these attacks: see ``prs_lightning.attacks.schedule``.
        epsilon, step_size, threat: steps, early_exit, precision and so on: see :class:`ThreatModel`.
    """

    def __init__(
        self,
        *,
        epsilon: float,
        step_size: float,
        seed: int = 0,
        every: int = 1,
        epochs: Sequence[int] | None = None,
        limit: int | None = None,
        audit: bool = True,
        grid_epochs: Sequence[int] = (),
        grid_attacks: Mapping[str, Any] | Sequence[str] = (),
        **threat: Any,
    ) -> None:
        at_least("callbacks.robustness.every", every, 1)
        if limit is not None:
            at_least("callbacks.robustness.limit", limit, 1)
        self.every, self.epochs, self.grid_epochs = every, epochs, grid_epochs
        model = ThreatModel(epsilon=epsilon, step_size=step_size, **threat)
        self.attacks = EpochAttacks(model, seed, limit, audit, entries(grid_attacks, model))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        warning = self.attacks.warning()
        if warning and trainer.is_global_zero:
            log.warning(warning)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = getattr(pl_module, "epochs_trained", trainer.current_epoch + 1)
        due = epoch in self.epochs if self.epochs is not None else epoch % self.every == 0
        grid = epoch in self.grid_epochs
        if trainer.sanity_checking or not (due or grid):
            return
        values = self.attacks.measure(
            pl_module,
            trainer.datamodule.test,  # type: ignore[attr-defined]
            epoch,
            grid=grid,
            rank=trainer.global_rank,
            world=trainer.world_size,
            total=partial(trainer.strategy.reduce, reduce_op="sum"),
            bar=partial(attack_bar, trainer.progress_bar_callback),
        )
        for name, value in values.items():
            log_measure(pl_module, f"robust/{name}", value)
