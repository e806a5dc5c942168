"""published: the regulariser of the paper's authors (ICDM 2025), as their public code has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from prs_lightning.callbacks.intervening import Intervention, Seen
from prs_lightning.errors import ConfigError
from prs_lightning.regions.keys import region_keys
from prs_lightning.regions.layers import Tap, find_layer
from prs_lightning.regions.regularisers import major_sums, pull_to_mean, pull_to_signs
from prs_lightning.regions.tracing import Ends


class Published(Intervention):
    """Adds ``strength`` (``mean_weight`` :func:`pull_to_mean` + ``sign_weight`` :func:`pull_to_signs`) to the loss.

    a are the features behind the penultimate ReLU, and mu their mean over the samples in the class's major region in
    the epoch before (of the versions of that code the one that looks for it in each epoch; but dropout comes later).
    When the warm-up ends the optimizer forgets its moments, and from then on the final layer is frozen: its gradients
    are dropped after each backward pass, so that no optimizer moves it, by old moments neither.

    What is known to be wrong with it, and kept: tanh is 1 at infinity alone, so active units, and the logits with them,
    are pushed there; a unit that is dead for a sample (a = 0) has no gradient, so that none is ever switched on;
    and the patterns of an epoch are those of weights that moved meanwhile, in train mode.

    The features of an epoch are kept, 4 bytes each: 31 MB for 60,000 samples of 128 units.

    Args:
        strength: of both terms.
        warmup: epochs of the loss alone, 1 or more.
        mean_weight, sign_weight: ``lambda_mrv`` and ``lambda_hamming`` there.
    """

    aim = "low"

    def __init__(
        self, *, strength: float = 1.0, warmup: int = 50, mean_weight: float = 0.8, sign_weight: float = 1.0
    ) -> None:
        super().__init__(strength=strength, warmup=warmup)
        if warmup < 1 or min(mean_weight, sign_weight) < 0:
            given = f"warmup={warmup}, mean_weight={mean_weight}, sign_weight={sign_weight}"
            raise ConfigError(f"Published: {given}: expected 1 or more (the patterns are the last epoch's), 0 or more")
        self.weights = mean_weight, sign_weight

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.means = torch.empty(0)  # those of a run that goes on are loaded after this

    def is_on(self, trainer: pl.Trainer) -> bool:
        return super().is_on(trainer) and len(self.means) > 0

    def taps(self, ends: Callable[[], Ends]) -> Sequence[Tap]:
        found = ends()
        self.penultimate, self.logits = found.penultimate, Tap(found.final)
        return [self.penultimate, self.logits]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []
        if self.is_on(trainer) and trainer.current_epoch == self.warmup:
            for optimizer in trainer.optimizers:
                optimizer.state.clear()

    def look(self, trainer: pl.Trainer, seen: Seen) -> None:
        if trainer.current_epoch >= self.warmup - 1:
            self.seen.append((seen.at[self.penultimate].detach(), seen.labels))
            self.classes = max(2, seen.at[self.logits].shape[1])

    def penalty(self, seen: Seen) -> Tensor:
        features, means = seen.at[self.penultimate].relu(), self.means.to(seen.labels.device)[seen.labels]
        return self.weights[0] * pull_to_mean(features, means) + self.weights[1] * pull_to_signs(features, means)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.is_on(trainer):
            for parameter in find_layer(pl_module, self.logits.name).parameters():
                parameter.grad = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.seen:
            return
        z, labels = (torch.cat(parts) for parts in zip(*self.seen, strict=True))
        self.seen = []
        regions = torch.cat([region_keys(z), labels.unsqueeze(1)], 1)
        regions_of_all = torch.cat(gather_all_tensors(regions)) if trainer.world_size > 1 else regions
        sums = major_sums(z.relu(), regions, regions_of_all, self.classes)
        sums = trainer.strategy.reduce(sums, reduce_op="sum")
        self.means = sums[:, :-1] / sums[:, -1:].clamp_min(1)

    def state_dict(self) -> dict[str, Any]:
        return {"means": self.means}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.means = state_dict["means"]
