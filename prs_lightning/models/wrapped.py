"""Any torch module as a classifier that is trained and measured as the three of the study are."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from prs_lightning.models.base import ImageClassifier


class Wrapped(ImageClassifier):
    """A classifier around ``network``, which takes normalised images and gives logits as ``logits_of`` reads them.

    Args:
        network: any module.
        arguments: those of :class:`ImageClassifier`.
    """

    def __init__(self, network: nn.Module, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.network = network

    def build(self, channels: int, classes: int) -> None:
        """Nothing: the layers are those of ``network``."""

    def setup(self, stage: str) -> None:
        """Keep the layout: with channels last, ``view`` fails in networks that flatten their maps by it."""

    def logits(self, images: Tensor) -> Any:
        return self.network(images)
