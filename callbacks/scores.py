"""train/..., test/...: loss and accuracy of the training set and of the test set, in eval mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from prs_lightning.callbacks.measuring import Measuring
from prs_lightning.measuring_pass import Batch, Watched
from prs_lightning.regions.layers import Tap


class Scores(Measuring):
    """Logs at the end of an epoch ``train/loss`` (cross-entropy, nats) and ``train/accuracy``; those of a test set too.

    The same pass gives them as all other measures, in eval mode on the epoch's last weights: the loss that a training
    loop prints is of moving weights, and with dropout.
    """

    metrics: dict[str, Metric]

    def start(self, watched: Watched) -> Sequence[Tap]:
        self.metrics = {}
        for split in ("train", "test") if watched.test is not None else ("train",):
            self.metrics[f"{split}/loss"] = MeanMetric().to(watched.device)
            accuracy = MulticlassAccuracy(watched.classes, average="micro")
            self.metrics[f"{split}/accuracy"] = cast(Metric, accuracy).to(watched.device)
        return ()

    def see_logits(self, logits: Tensor, batch: Batch) -> None:
        self.metrics[f"{batch.split}/loss"].update(F.cross_entropy(logits, batch.labels, reduction="none"))
        self.metrics[f"{batch.split}/accuracy"].update(logits, batch.labels)

    def values(self) -> Mapping[str, Tensor]:
        return {name: metric.compute() for name, metric in self.metrics.items()}
