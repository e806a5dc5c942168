"""high_prs: pre-activations are drawn to the borders of their units, so that samples of a class differ in sign."""

from __future__ import annotations

from torch import Tensor

from prs_lightning.callbacks.intervening import Seen
from prs_lightning.callbacks.low_prs import LowPRS
from prs_lightning.regions.penalties import border_hinge


class HighPRS(LowPRS):
    """The opposite of :class:`LowPRS` at equal cost: the same hinge and scale, with s the sign that z does not have.

    Each pre-activation is drawn to the border of its unit by a gradient of the size that `LowPRS` has where it is not
    met. Near its border a unit tells apart the samples of one class.

    Args:
        strength, warmup, margin, decay, layer, classes: as of :class:`LowPRS`.
    """

    aim = "high"

    def __init__(
        self,
        *,
        strength: float = 1.0,
        warmup: int = 1,
        margin: float = 0.5,
        decay: float = 0.99,
        layer: str | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__(
            strength=strength, warmup=warmup, margin=margin, decay=decay, layer=layer, classes=classes
        )  # fmt: skip

    def penalty(self, seen: Seen) -> Tensor:
        z = seen.at[self.penultimate]
        return border_hinge(z, scale=self.scale.to(z), margin=self.margin)
