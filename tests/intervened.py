"""Small trainings for interventions to interfere with, and modules that do by hand what an intervention adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

FEATURES, UNITS, CLASSES = 12, 6, 3
QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def planted(count: int = 48, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Samples around a centre for each class, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(CLASSES, FEATURES, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % CLASSES
    return (centres[labels] + 0.15 * torch.randn(count, FEATURES, generator=generator)).clamp(0, 1), labels


class Own(pl.LightningModule):
    """A user's module whose step returns a mapping, takes no batch index, and adds what ``extra`` says.

    Args:
        optimizer: made of the parameters.
        extra: (pre-activations, logits, labels) -> what its own loss is increased by.
        tail: between the hidden layer and the final one.
        outputs: 1 for a binary network.
    """

    def __init__(
        self, optimizer: Any = torch.optim.SGD, extra: Any = None, tail: nn.Module | None = None, outputs: int = CLASSES
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.first, self.second = nn.Linear(FEATURES, 9), nn.Linear(9, UNITS)
            self.tail, self.head = tail or nn.ReLU(), nn.Linear(UNITS, outputs)
            for layer in (self.first, self.second, self.head):  # so that units of either sign are there
                nn.init.normal_(layer.weight, std=0.6)
        self.optimizer, self.extra = optimizer, extra

    def hidden(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tail(self.hidden(x)))

    def training_step(self, batch: Any) -> dict[str, Tensor]:
        inputs, labels = batch
        logits = self(inputs)
        if logits.shape[1] == 1:
            loss = F.binary_cross_entropy_with_logits(logits, labels)
        else:
            loss = F.cross_entropy(logits, labels)
        if self.extra is not None:
            loss = loss + self.extra(self.hidden(inputs).float(), logits.float(), labels)
        return {"loss": loss, "logits": logits.detach()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.parameters(), lr=0.1)


def fitted(
    module: pl.LightningModule, callbacks: Sequence[pl.Callback], data: Any = None, batch_size: int = 16, **options: Any
) -> Any:
    """The module after three epochs of three batches, in order."""
    loader = DataLoader(TensorDataset(*(planted() if data is None else data)), batch_size=batch_size)
    trainer = pl.Trainer(callbacks=list(callbacks), **({"max_epochs": 3, "accelerator": "cpu"} | QUIET | options))
    trainer.fit(module, loader)
    return module


def leaves_no_trace(module: nn.Module) -> bool:
    """Whether no hook and no step of another is left in a module."""
    hooks = any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())
    return not hooks and "training_step" not in vars(module)
