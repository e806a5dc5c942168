"""Networks whose layers can be made narrower or wider than the paper's."""

from __future__ import annotations

from typing import Any

from prs_lightning.errors import ConfigError
from prs_lightning.models.base import ImageClassifier


class ScaledClassifier(ImageClassifier):
    """A network with a width of its penultimate layer, and a factor of all other layers', MobileNet's width multiplier.

    Args:
        width: penultimate units; None: ``WIDTH``.
        width_multiplier: of the channels of convolutions and of the other hidden units; rounded, at least 1.
        arguments: those of :class:`ImageClassifier`.

    Raises:
        ConfigError: a width below 1, or a factor that is not positive.
    """

    WIDTH: int
    """The paper's number of penultimate units."""

    def __init__(self, *, width: int | None = None, width_multiplier: float = 1.0, **arguments: Any) -> None:
        if width is not None and width < 1:
            raise ConfigError(f"model.width={width}: expected 1 or more, or null for {self.WIDTH}")
        if not width_multiplier > 0:
            raise ConfigError(f"model.width_multiplier={width_multiplier}: expected a number above 0")
        self.width, self.width_multiplier = width or self.WIDTH, width_multiplier
        super().__init__(**arguments)
        self.hparams.update(width=width, width_multiplier=width_multiplier)

    def scaled(self, units: int) -> int:
        """What becomes of a layer of so many units, or channels."""
        return max(1, round(units * self.width_multiplier))
