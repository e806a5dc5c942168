"""width: the number of penultimate units is what the arm says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import lightning.pytorch as pl

from prs_lightning.callbacks.intervening import Intervention, Seen
from prs_lightning.errors import ConfigError
from prs_lightning.regions.layers import Tap
from prs_lightning.regions.tracing import Ends


class Width(Intervention):
    """Refuses a network of another width, and does nothing else: the config gives the network its width.

    Args:
        strength: the number of penultimate units; 0: any.
        warmup: see :class:`Intervention`.

    Raises:
        ConfigError: at the first step, another number of units.
    """

    def __init__(self, *, strength: int = 32, warmup: int = 0) -> None:
        super().__init__(strength=strength, warmup=warmup)

    def taps(self, ends: Callable[[], Ends]) -> Sequence[Tap]:
        self.penultimate = ends().penultimate
        return [self.penultimate]

    def look(self, trainer: pl.Trainer, seen: Seen) -> None:
        units = seen.at[self.penultimate].shape[1]
        if units != self.strength:
            raise ConfigError(
                f"width.strength={self.strength}, but the penultimate layer, {self.penultimate}, has {units} units: "
                "expected a model that takes its width, as cnn6 and vgg16 do"
            )
