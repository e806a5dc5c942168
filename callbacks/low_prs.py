"""low_prs: each class's samples are pushed to the sign pattern that most of them have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from prs_lightning.callbacks.intervening import Intervention, Seen
from prs_lightning.errors import ConfigError
from prs_lightning.regions.layers import Tap
from prs_lightning.regions.penalties import PatternCounts, pattern_hinge
from prs_lightning.regions.tracing import Ends


class LowPRS(Intervention):
    """Adds ``strength`` * mean over samples and units of max(0, margin - s z / scale).

    z are the penultimate pre-activations, not what comes out of the ReLU: a unit that is dead for a sample has a
    gradient too. s is the majority sign of the sample's class over the training set, from counts in which older batches
    fade. The scale, the mean of abs z when the warm-up ends, is a constant from then on: the term is met by signs, and
    what larger logits would give it is bounded by the margin.

    Args:
        strength, warmup: see :class:`Intervention`.
        margin: how far beyond 0 each z shall lie, in units of the scale.
        decay: what the counts of a batch are worth one batch later.
        pattern: ``moving`` with training, or ``fixed`` when the warm-up ends.
        layer, classes: whose output are the penultimate pre-activations, and how many classes there are; None: found.

    Raises:
        ConfigError: values that cannot be.
    """

    aim = "low"

    def __init__(
        self,
        *,
        strength: float = 1.0,
        warmup: int = 1,
        margin: float = 0.5,
        decay: float = 0.99,
        pattern: str = "moving",
        layer: str | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__(strength=strength, warmup=warmup)
        if pattern not in ("moving", "fixed") or (pattern == "fixed" and warmup == 0):
            raise ConfigError(f"pattern={pattern}, warmup={warmup}: expected moving, or fixed after 1 epoch or more")
        if not (margin >= 0 and 0 < decay < 1):
            raise ConfigError(f"margin={margin}, decay={decay}: expected 0 or more, and between 0 and 1")
        if (layer is None) != (classes is None):
            raise ConfigError(f"layer={layer}, classes={classes}: expected both, or neither")
        self.margin, self.decay, self.pattern = margin, decay, pattern
        self.layer, self.classes = layer, classes

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.counts = self.scale = torch.empty(0)  # those of a run that goes on are loaded after this

    def taps(self, ends: Callable[[], Ends]) -> Sequence[Tap]:
        if self.layer is not None:
            self.penultimate = Tap(self.layer)
            return [self.penultimate]
        found = ends()
        self.penultimate, self.logits = found.penultimate, Tap(found.final)
        return [self.penultimate, self.logits]

    def look(self, trainer: pl.Trainer, seen: Seen) -> None:
        warming = not len(self.counts) or trainer.current_epoch < self.warmup
        if not warming and self.pattern == "fixed":
            return
        classes = self.classes or max(2, seen.at[self.logits].shape[1])
        batch = PatternCounts.of(seen.at[self.penultimate], seen.labels, classes).packed()
        batch = trainer.strategy.reduce(batch, reduce_op="sum")  # the same patterns on all processes
        before = self.counts.to(batch) if len(self.counts) else torch.zeros_like(batch)
        counts = PatternCounts.unpacked(before).then(PatternCounts.unpacked(batch), self.decay)
        self.counts = counts.packed()
        if warming:
            self.scale = counts.scale()

    def penalty(self, seen: Seen) -> Tensor:
        z = seen.at[self.penultimate]
        signs = PatternCounts.unpacked(self.counts.to(z)).majority()[seen.labels]
        return pattern_hinge(z, signs, scale=self.scale.to(z), margin=self.margin)

    def state_dict(self) -> dict[str, Any]:
        return {"counts": self.counts, "scale": self.scale}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counts, self.scale = state_dict["counts"], state_dict["scale"]
