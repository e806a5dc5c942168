"""features/sparsity: the ratio of zeros of every ReLU output over the training set, mean over the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from prs_lightning.callbacks.measuring import Measuring
from prs_lightning.measuring_pass import Batch, Watched
from prs_lightning.regions.layers import Tap
from prs_lightning.regions.sparsity import Sparsity as SparsityMetric


class Sparsity(Measuring):
    """Logs ``features/sparsity``, in [0, 1], at the end of an epoch; nothing for a network without a ReLU.

    Each ReLU that runs in a forward pass is an output, whether of a module or of a function, in the order of calls.
    """

    def __init__(self, *, train: Any = None, test: Any = None) -> None:
        super().__init__(train=train, test=test)
        self.metric = SparsityMetric()

    def start(self, watched: Watched) -> Sequence[Tap]:
        self.metric.to(watched.device).reset()
        return ()

    def see_relu(self, place: int, output: Tensor, batch: Batch) -> None:
        if batch.split == "train":
            self.metric.update(output, layer=place)

    def values(self) -> Mapping[str, Tensor]:
        return {"features/sparsity": self.metric.compute()} if self.metric.update_called else {}
