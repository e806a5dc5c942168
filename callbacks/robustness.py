"""robust/...: robust accuracy of the test set under PGD, after its audit, and under the attacks of the grid."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only

from prs_lightning.attacks.schedule import EpochAttacks
from prs_lightning.attacks.schedule import grid_attacks as entries
from prs_lightning.attacks.targets import Targets
from prs_lightning.attacks.threat_model import ThreatModel
from prs_lightning.bars import attack_bar
from prs_lightning.callbacks.measuring import Measuring
from prs_lightning.data.trainers import epochs_trained
from prs_lightning.errors import ConfigError, at_least
from prs_lightning.measuring import log_measure
from prs_lightning.measuring_pass import Watched
from prs_lightning.network import normalisation
from prs_lightning.regions.layers import Tap
from prs_lightning.shortage import naming_the_batch

log = logging.getLogger(__name__)


class Robustness(Measuring):
    """Logs ``robust/...`` at the end of an epoch; what each number is, see :class:`EpochAttacks`.

    Args:
        seed: random starts follow from (seed, epoch, index of the sample in the test set).
        every: measure at every n-th epoch, counted from 1.
        epochs: measure at these epochs only; overrides ``every``.
        limit: class-balanced subset of the test set; None for all.
        audit: attack the survivors again with a margin loss.
        gradient_noise: of how many of these samples, class-balanced, the gradient is compared with float64; None: none.
        batch_size: images attacked at a time; None: 128. No number depends on it.
        grid_epochs, grid_attacks: at these epochs, also these attacks: see ``prs_lightning.attacks.schedule``.
        mean, std: per channel, where the data are normalised: attacks then work on the images in [0, 1] behind
            them, and epsilon and step size are in pixel units all the same. None: the network takes images in [0, 1].
        train, test: see :class:`Measuring`.
        epsilon, threat: step_size, steps, early_exit, precision and so on: see :class:`ThreatModel`.
    """

    def __init__(
        self,
        *,
        epsilon: float,
        seed: int = 0,
        every: int = 1,
        epochs: Sequence[int] | None = None,
        limit: int | None = None,
        audit: bool = True,
        gradient_noise: int | None = 100,
        batch_size: int | None = None,
        grid_epochs: Sequence[int] = (),
        grid_attacks: Mapping[str, Any] | Sequence[str] = (),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        train: Any = None,
        test: Any = None,
        **threat: Any,
    ) -> None:
        super().__init__(train=train, test=test)
        self.normalisation = normalisation(mean, std)
        at_least("callbacks.robustness.every", every, 1)
        self.every, self.epochs, self.grid_epochs = every, epochs, grid_epochs
        model = ThreatModel(epsilon=epsilon, **threat)
        grid, size = entries(grid_attacks, model), batch_size or 128
        self.attacks = EpochAttacks(model, seed, limit, audit, grid, size, gradient_noise)
        self.targets: Any = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        warning = self.attacks.warning()
        if warning and trainer.is_global_zero:
            log.warning(warning)

    def start(self, watched: Watched) -> Sequence[Tap]:
        if watched.test is None:
            raise ConfigError("there is no test set to attack: give Robustness test= a data set or a DataLoader")
        if self.grid_epochs:
            self.attacks.refuse_few_classes(watched.classes)
        attacked, seen = (watched.network.model, watched.test), self.targets
        if seen is None or (seen.model, seen.source) != attacked:
            self.targets = Targets(*attacked, watched.device, self.normalisation)
            self.targets.refuse_without_gradient()
            self.measuring = self.attacks
            if self.attacks.gradient_noise and (reason := self.targets.without_reference()):
                self.measuring = replace(self.attacks, gradient_noise=None)
                rank_zero_only(log.warning)(f"robust/gradient_noise is not measured: {reason}")
        return ()

    def measured(self, trainer: pl.Trainer, pl_module: pl.LightningModule, watched: Watched) -> None:
        epoch = epochs_trained(trainer, pl_module)
        due = epoch in self.epochs if self.epochs is not None else epoch % self.every == 0
        grid = epoch in self.grid_epochs
        if not (due or grid):
            return
        with naming_the_batch("attacking", "callbacks.robustness.batch_size", self.attacks.batch_size):
            values = self.measuring.measure(
                self.targets,
                epoch,
                grid=grid,
                rank=trainer.global_rank,
                world=trainer.world_size,
                total=partial(trainer.strategy.reduce, reduce_op="sum"),
                bar=partial(attack_bar, trainer.progress_bar_callback),
            )
        for name, value in values.items():
            if math.isfinite(value):  # a distance that was not found for half of the samples is an empty cell
                log_measure(pl_module, f"robust/{name}", value)
