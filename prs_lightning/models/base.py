"""The base of every network: normalisation inside, one forward pass for logits and penultimate pre-activations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from prs_lightning.data.module import ImageData
from prs_lightning.errors import ConfigError, RunError
from prs_lightning.seeding import mixed_seed


class ImageClassifier(LightningModule):
    """A classifier of (N, channels, 32, 32) images in [0, 1] that ends in ``final(activation(pre_activations(x)))``.

    ``network(images)`` gives logits (N, classes); ``network.logits_and_pre_activations(images)`` gives the logits and
    the penultimate pre-activations (N, D) of the same pass. Trained with Adam on cross-entropy (paper, section 4).

    Args:
        channels: channels of the images.
        classes: number of outputs.
        mean, std: per channel, subtracted from and divided into the images inside the network, so that attacks and
            their epsilon work on pixels.
        learning_rate: of Adam.
        seed: of the run. The random state is set from (seed, epoch, rank) at the start of each training epoch,
            so that a resumed run draws the same dropout masks as one that was never interrupted.

    Raises:
        ConfigError: sizes below 1, a learning rate that is not positive, or statistics that do not fit the channels.
        RunError: a loss that is not finite (checked every ``CHECK_EVERY`` steps and at the end of each epoch).
    """

    CHECK_EVERY = 100
    final: nn.Linear
    mean: Tensor
    std: Tensor
    activation: nn.Module

    def __init__(
        self,
        *,
        channels: int = 3,
        classes: int = 10,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        learning_rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if channels < 1 or classes < 1:
            raise ConfigError(f"model: channels={channels} and classes={classes} must be 1 or more")
        if not learning_rate > 0:
            raise ConfigError(f"model.learning_rate={learning_rate} must be positive")
        if len(mean) not in (1, channels) or len(std) != len(mean) or min(std) <= 0:
            raise ConfigError(f"model: mean={list(mean)}, std={list(std)} do not fit {channels} channel(s)")
        # Plain values only, so that a checkpoint loads with weights_only=True.
        self.hparams.update(
            channels=channels, classes=classes, mean=list(mean), std=list(std), learning_rate=learning_rate, seed=seed
        )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.loaded_epoch = -1
        self.build(channels, classes)

    @abstractmethod
    def build(self, channels: int, classes: int) -> None:
        """Make the layers, among them ``activation`` and ``final``."""

    @abstractmethod
    def pre_activations(self, images: Tensor) -> Tensor:
        """Penultimate pre-activations (N, D) of images that are normalised already."""

    def logits_and_pre_activations(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, classes) and penultimate pre-activations (N, D) of images (N, C, 32, 32) in [0, 1]."""
        pre_activations = self.pre_activations((images - self.mean) / self.std)
        return self.final(self.activation(pre_activations)), pre_activations

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, 32, 32) in [0, 1]."""
        return self.logits_and_pre_activations(images)[0]

    def setup(self, stage: str) -> None:
        """On a CPU, keep convolutions channels-last: about 1.5 times as fast there."""
        if self.trainer.strategy.root_device.type == "cpu":
            self.to(memory_format=torch.channels_last)

    def check_outputs(self, data: ImageData) -> None:
        """Refuse data with more classes than outputs (ConfigError)."""
        if data.classes > self.final.out_features:
            raise ConfigError(
                f"model.classes={self.final.out_features}, but {data.data_name} has labels up to {data.classes - 1}"
            )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["learning_rate"])

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(mixed_seed(self.hparams["seed"], self.current_epoch, self.global_rank))
        self.first_bad_step = torch.full((), -1, device=self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["architecture"] = type(self).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.loaded_epoch = checkpoint["epoch"]
