"""A user's own LightningModules and data, and the numbers of the same network by numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from prs_lightning.callbacks.cosine_similarity import CosineSimilarity
from prs_lightning.callbacks.measuring import Measuring
from prs_lightning.callbacks.regions import Regions
from prs_lightning.callbacks.robustness import Robustness
from prs_lightning.callbacks.scores import Scores
from prs_lightning.callbacks.sparsity import Sparsity

FEATURES, UNITS, CLASSES = 12, (9, 6), 3


class Layers(nn.Module):
    """Three linear layers with fixed weights; a subclass says how they are put together."""

    def __init__(self, features: int = FEATURES, classes: int = CLASSES) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(features, UNITS[0]), nn.Linear(UNITS[0], UNITS[1])
        self.head = nn.Linear(UNITS[1], classes)
        generator = torch.Generator().manual_seed(76)  # every class is predicted
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.8, generator=generator)

    def forward(self, x: Tensor) -> Any:
        return self.head(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


class Module(pl.LightningModule):
    """An ordinary module: its own loss, its own validation step. It does not move, so that its numbers are known."""

    def __init__(self, network: nn.Module, learning_rate: float = 0.0) -> None:
        super().__init__()
        self.network, self.learning_rate = network, learning_rate

    def forward(self, x: Tensor) -> Any:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = sum(parameter.float().square().sum() for parameter in self.parameters() if parameter.requires_grad)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", float(batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)


def samples(count: int, *shape: int, classes: int = CLASSES, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    return TensorDataset(torch.rand(count, *shape, generator=generator), labels)


TRAIN, TEST = samples(61, FEATURES), samples(23, FEATURES, seed=1)


def by_numpy(network: nn.Module, train: TensorDataset = TRAIN, test: TensorDataset = TEST) -> dict[str, float]:
    """The measures of `Layers`, from its weights."""
    weights = {name: value.detach().float().numpy().astype(np.float64) for name, value in network.state_dict().items()}

    def forward(data: TensorDataset) -> tuple[Any, Any, list[Any]]:
        x, relus = data.tensors[0].numpy().reshape(len(data), -1).astype(np.float64), []
        for layer in ("fc1", "fc2"):
            z = x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
            assert np.abs(z).min() > 1e-5, "a sign hangs on rounding: take other weights"
            x = np.maximum(z, 0)
            relus.append(x)
        logits = x @ weights["head.weight"].T + weights["head.bias"]
        if logits.shape[1] == 1:
            logits = np.hstack([np.zeros_like(logits), logits])
        return logits, z, relus

    logits, z, relus = forward(train)
    test_logits, test_z, _ = forward(test)
    regions, test_regions = ([tuple(row) for row in part > 0] for part in (z, test_z))
    found = {
        "train/accuracy": float((logits.argmax(1) == train.tensors[1].numpy()).mean()),
        "test/accuracy": float((test_logits.argmax(1) == test.tensors[1].numpy()).mean()),
        "prs/count": float(len(set(regions))),
        "prs/ratio": len(set(regions)) / len(regions),
        "prs/inclusion_ratio": sum(region in set(regions) for region in test_regions) / len(test_regions),
        "features/sparsity": float(np.mean([(relu == 0).mean() for relu in relus])),
    }
    if len(rows := weights["head.weight"]) > 1:
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        found["weights/cosine_similarity"] = float((rows @ rows.T)[np.triu_indices(len(rows), 1)].mean())
    return found


def all_measures(**given: Any) -> list[Measuring]:
    robust = Robustness(epsilon=0.0, step_size=0.1, steps=2, audit=False, **given)
    return [Scores(), Regions(), Sparsity(), CosineSimilarity(), robust]


def fitted(
    module: pl.LightningModule,
    callbacks: list[Any] | None = None,
    train: Any = None,
    test: Any = TEST,
    fit: Callable[..., Any] | None = None,
    **options: Any,
) -> dict[str, float]:
    """What a Trainer logs of our measures in an epoch with a shuffled loader and a validation loader of other data."""
    loader = DataLoader(TRAIN, batch_size=8, shuffle=True) if train is None else train
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    settings = {"max_epochs": 1, "accelerator": "cpu", "devices": 1} | quiet | options
    trainer = pl.Trainer(callbacks=all_measures(test=test) if callbacks is None else callbacks, **settings)
    validation = DataLoader(samples(16, FEATURES, seed=9), batch_size=8)
    if fit is None:
        trainer.fit(module, loader, validation)
    else:
        fit(trainer, module)
    return {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}
