"""logits/...: how far apart the test set's two largest logits are, and how often its cross-entropy underflows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from prs_lightning.callbacks.measuring import Measuring, finite
from prs_lightning.measuring_pass import Batch, Watched
from prs_lightning.regions.layers import Tap
from prs_lightning.regions.logits import LogitScale


class Logits(Measuring):
    """Logs at the end of an epoch ``logits/gap``, in logits, and ``logits/loss_underflow``, in [0, 1].

    Both of the test set, so nothing where there is none; no gap where no test sample is classified correctly.
    """

    def start(self, watched: Watched) -> Sequence[Tap]:
        self.metric, self.tested = LogitScale().to(watched.device), watched.test is not None
        return ()

    def see_logits(self, logits: Tensor, batch: Batch) -> None:
        if batch.split == "test":
            self.metric.update(logits, batch.labels)

    def values(self) -> Mapping[str, Tensor]:
        return finite({f"logits/{name}": value for name, value in self.metric.compute().items()}) if self.tested else {}
