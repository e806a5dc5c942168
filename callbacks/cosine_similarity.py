"""weights/cosine_similarity: how alike the class rows of the final layer's weight are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from prs_lightning.callbacks.measuring import Measuring
from prs_lightning.errors import ConfigError
from prs_lightning.measuring_pass import Watched
from prs_lightning.regions.cosine_similarity import cosine_matrix, cosine_similarity
from prs_lightning.regions.layers import Tap, find_layer

PIXELS = 24
"""Width of one cell of the picture."""


def matrix_picture(matrix: Tensor) -> Tensor:
    """A matrix (K, K) in [-1, 1] as an image, uint8 (K * PIXELS, K * PIXELS, 3): blue -1, white 0, red 1."""
    values = matrix.detach().cpu().float().clamp(-1, 1)
    fade = 1 - values.abs()
    channels = [torch.where(values < 0, fade, 1), fade, torch.where(values > 0, fade, 1)]
    cells = (torch.stack(channels, dim=-1) * 255).round().to(torch.uint8)
    return cells.repeat_interleave(PIXELS, dim=0).repeat_interleave(PIXELS, dim=1)


class CosineSimilarity(Measuring):
    """Logs ``weights/cosine_similarity``, in [-1, 1], and the matrix as an image to loggers that take images.

    Args:
        layer: whose weight it is, one row a class; None: the last linear layer, found by running the network.
        train, test: see :class:`Measuring`.
    """

    def __init__(self, *, layer: str | None = None, train: Any = None, test: Any = None) -> None:
        super().__init__(train=train, test=test)
        self.layer = layer

    def start(self, watched: Watched) -> Sequence[Tap]:
        name = self.layer if self.layer is not None else watched.ends.final
        weight = getattr(find_layer(watched.network.model, name), "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim < 2 or len(weight) < 2:
            shape = "no weight" if weight is None else f"a weight {tuple(weight.shape)}"
            raise ConfigError(
                f"layer {name!r} has {shape}: expected two rows or more to compare, one for each "
                "class; leave it out, callbacks.cosine_similarity=null"
            )
        self.weight = weight.detach().flatten(1)
        return ()

    def values(self) -> Mapping[str, Tensor]:
        return {"weights/cosine_similarity": cosine_similarity(self.weight)}

    def measured(self, trainer: pl.Trainer, pl_module: pl.LightningModule, watched: Watched) -> None:
        super().measured(trainer, pl_module, watched)
        self._log_picture(trainer, self.weight)

    @rank_zero_only
    def _log_picture(self, trainer: pl.Trainer, weight: Tensor) -> None:
        caption = f"epoch {trainer.current_epoch + 1}: cosines of the classes' weights, blue -1, white 0, red 1"
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                images = [matrix_picture(cosine_matrix(weight)).numpy()]
                logger.log_image("weights/cosine_matrix", images, step=trainer.global_step - 1, caption=[caption])
