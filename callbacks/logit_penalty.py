"""logit_penalty: strength times the squared norm of the logits is added to the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from prs_lightning.callbacks.intervening import Intervention, Seen
from prs_lightning.regions.layers import Tap
from prs_lightning.regions.tracing import Ends


class LogitPenalty(Intervention):
    """Adds ``strength`` * mean over samples of ||z||^2, z the logits ("logit squeezing", Kannan et al. 2018)."""

    def taps(self, ends: Callable[[], Ends]) -> Sequence[Tap]:
        self.logits = Tap(ends().final)
        return [self.logits]

    def penalty(self, seen: Seen) -> Tensor:
        return seen.at[self.logits].square().sum(1).mean()
