"""The base of every network that is trained here: normalisation inside, Adam on cross-entropy, seeds by the epoch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from prs_lightning.errors import ConfigError, RunError
from prs_lightning.network import logits_of
from prs_lightning.seeding import mixed_seed

SCHEDULES = ("constant", "linear", "cosine")


class ImageClassifier(LightningModule):
    """A classifier: ``network(images)`` gives the logits (N, classes) of images (N, channels, H, W) in [0, 1].

    Trained with Adam on cross-entropy (paper, section 4). Which layers it has says a subclass, in ``build`` and
    ``logits``.

    Args:
        channels: channels of the images.
        classes: number of outputs.
        mean, std: per channel, subtracted from and divided into the images inside the network, so that attacks and
            their epsilon work on pixels.
        learning_rate: of Adam.
        seed: of the run. The random state is set from (seed, epoch, rank) at the start of each training epoch,
            so that a resumed run draws the same dropout masks as one that was never interrupted.
        schedule: of the learning rate: ``constant``, or ``linear`` or ``cosine``, by which it falls to 0 over all
            steps of the run.

    Raises:
        ConfigError: sizes below 1, a learning rate that is not positive, an unknown schedule, or statistics that do
            not fit the channels.
        RunError: a loss that is not finite (checked every ``CHECK_EVERY`` steps and at the end of each epoch).
    """

    CHECK_EVERY = 100
    VALIDATES = False
    """Whether ``validation_step`` wants batches."""
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        channels: int = 3,
        classes: int = 10,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        learning_rate: float = 1e-3,
        seed: int = 0,
        schedule: str = "constant",
    ) -> None:
        super().__init__()
        if channels < 1 or classes < 1:
            raise ConfigError(f"model: channels={channels} and classes={classes} must be 1 or more")
        if not learning_rate > 0:
            raise ConfigError(f"model.learning_rate={learning_rate} must be positive")
        if schedule not in SCHEDULES:
            raise ConfigError(f"model.schedule={schedule} is unknown: expected one of {', '.join(SCHEDULES)}")
        if len(mean) not in (1, channels) or len(std) != len(mean) or min(std) <= 0:
            raise ConfigError(f"model: mean={list(mean)}, std={list(std)} do not fit {channels} channel(s)")
        # Plain values only, so that a checkpoint loads with weights_only=True.
        self.hparams.update(
            channels=channels, classes=classes, mean=list(mean), std=list(std), learning_rate=learning_rate, seed=seed,
            schedule=schedule,
        )  # fmt: skip
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.loaded_epoch = -1
        self.build(channels, classes)

    @abstractmethod
    def build(self, channels: int, classes: int) -> None:
        """Make the layers."""

    @abstractmethod
    def logits(self, images: Tensor) -> Any:
        """Logits (N, classes) of images that are normalised already, or what else ``logits_of`` reads."""

    def forward(self, images: Tensor) -> Any:
        """Logits (N, classes) of images (N, channels, H, W) in [0, 1]."""
        return self.logits((images - self.mean) / self.std)

    def setup(self, stage: str) -> None:
        """On a CPU, keep convolutions channels-last: about 1.5 times as fast there."""
        if self.trainer.strategy.root_device.type == "cpu":
            self.to(memory_format=torch.channels_last)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams["learning_rate"])
        if self.hparams["schedule"] == "constant":
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        if self.hparams["schedule"] == "linear":
            scheduler: Any = LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)
        else:
            scheduler = CosineAnnealingLR(optimizer, T_max=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(mixed_seed(self.hparams["seed"], self.current_epoch, self.global_rank))
        self.first_bad_step = torch.full((), -1, device=self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(logits_of(self(images), len(images)), labels)
        # Kept on the device: asking the host at every step would stall a GPU.
        bad = (self.first_bad_step < 0) & ~loss.detach().isfinite()
        self.first_bad_step = torch.where(bad, batch_index, self.first_bad_step)
        if batch_index % self.CHECK_EVERY == 0 or self.trainer.is_last_batch:  # before anything is measured
            self.refuse_bad_loss()
        self.log("loss", loss, prog_bar=True, logger=False)
        return loss

    def refuse_bad_loss(self) -> None:
        """Raise on every process if any process has met a loss that is not finite."""
        step = int(self.trainer.strategy.reduce(self.first_bad_step.float(), reduce_op="max"))
        if step >= 0:
            raise RunError(
                f"the loss is not finite at epoch {self.current_epoch + 1}, step {step}: "
                f"learning_rate={self.hparams['learning_rate']} may be too high"
            )

    def validation_step(self, batch: object, batch_index: int) -> None:
        """Nothing: measures are taken by callbacks, from a pass of their own."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.loaded_epoch = checkpoint["epoch"]
