"""label_smoothing: a share of each sample's label is spread over all classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from prs_lightning.callbacks.intervening import Intervention, Seen
from prs_lightning.errors import ConfigError
from prs_lightning.network import logits_of
from prs_lightning.regions.layers import Tap
from prs_lightning.regions.regularisers import smoothing
from prs_lightning.regions.tracing import Ends


class LabelSmoothing(Intervention):
    """Makes a loss of cross-entropy that of smoothed labels, see :func:`smoothing`: torch's own, to rounding.

    Args:
        strength: the share that is spread, in [0, 1].
        warmup: see :class:`Intervention`.
    """

    def __init__(self, *, strength: float = 0.1, warmup: int = 0) -> None:
        super().__init__(strength=strength, warmup=warmup)
        if strength > 1:
            raise ConfigError(f"{type(self).__name__}: strength={strength}: expected a share, between 0 and 1")

    def taps(self, ends: Callable[[], Ends]) -> Sequence[Tap]:
        self.logits = Tap(ends().final)
        return [self.logits]

    def penalty(self, seen: Seen) -> Tensor:
        return smoothing(logits_of(seen.at[self.logits], len(seen.labels)), seen.labels)
