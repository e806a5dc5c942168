"""collapse/...: how small the classes are in the penultimate features, and how equal the angles between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from prs_lightning.callbacks.measuring import Measuring, finite
from prs_lightning.measuring_pass import Batch, Watched
from prs_lightning.regions.collapse import Collapse as CollapseMetric
from prs_lightning.regions.layers import Tap


class Collapse(Measuring):
    """Logs at the end of an epoch ``collapse/nc1``, 0 or more, and ``collapse/nc2``, in [0, 2], of the training set.

    The features are what enters the final layer, behind the activation. Nothing where the classes' means are all equal;
    no nc1 beyond 8192 features.

    Args:
        layer: the final layer, as in ``named_modules()``; None: the last linear layer, found by running the network.
        train, test: see :class:`Measuring`.
    """

    def __init__(self, *, layer: str | None = None, train: Any = None, test: Any = None) -> None:
        super().__init__(train=train, test=test)
        self.layer = layer

    def start(self, watched: Watched) -> Sequence[Tap]:
        self.metric = CollapseMetric(watched.classes).to(watched.device)
        return [Tap(self.layer if self.layer is not None else watched.ends.final, "input")]

    def see_tap(self, tap: Tap, tensor: Tensor, batch: Batch) -> None:
        if batch.split == "train":
            self.metric.update(tensor.flatten(1), batch.labels)

    def values(self) -> Mapping[str, Tensor]:
        return finite({f"collapse/{name}": value for name, value in self.metric.compute().items()})
