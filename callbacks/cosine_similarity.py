"""weights/cosine_similarity: how alike the class rows of the final layer's weight are."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from prs_lightning.measuring import log_measure
from prs_lightning.regions.cosine_similarity import cosine_matrix, cosine_similarity

PIXELS = 24
"""Width of one cell of the picture."""


def matrix_picture(matrix: Tensor) -> Tensor:
    """A matrix (K, K) in [-1, 1] as an image, uint8 (K * PIXELS, K * PIXELS, 3): blue -1, white 0, red 1."""
    values = matrix.detach().cpu().float().clamp(-1, 1)
    fade = 1 - values.abs()
    channels = [torch.where(values < 0, fade, 1), fade, torch.where(values > 0, fade, 1)]
    cells = (torch.stack(channels, dim=-1) * 255).round().to(torch.uint8)
    return cells.repeat_interleave(PIXELS, dim=0).repeat_interleave(PIXELS, dim=1)


class CosineSimilarity(pl.Callback):
    """Logs ``weights/cosine_similarity``, in [-1, 1], and the matrix as an image to loggers that take images."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        final = pl_module.final
        assert isinstance(final, nn.Linear)
        weight = final.weight
        log_measure(pl_module, "weights/cosine_similarity", cosine_similarity(weight).float())
        self._log_picture(trainer, weight)

    @rank_zero_only
    def _log_picture(self, trainer: pl.Trainer, weight: Tensor) -> None:
        caption = f"epoch {trainer.current_epoch + 1}: cosines of the classes' weights, blue -1, white 0, red 1"
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                images = [matrix_picture(cosine_matrix(weight)).numpy()]
                logger.log_image("weights/cosine_matrix", images, step=trainer.global_step - 1, caption=[caption])
