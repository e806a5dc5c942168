"""adversarial: training on the images that our own attack makes of each batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from prs_lightning.attacks import pgd
from prs_lightning.attacks.threat_model import ThreatModel
from prs_lightning.callbacks.intervening import Intervention
from prs_lightning.measuring import evaluating
from prs_lightning.network import PixelNetwork, normalisation
from prs_lightning.seeding import keyed_generator


class Adversarial(Intervention):
    """PGD training (Madry et al. 2018): a batch is attacked in eval mode, and the network trained on what comes out.

    Args:
        strength: radius of the ball, as a share of ``epsilon``.
        warmup: see :class:`Intervention`.
        epsilon: in pixel units.
        steps: of the attack.
        step_size: None: 2.5 radii over the number of steps, as there.
        seed: random starts follow from (seed, epoch, step, process).
        mean, std: per channel, where the data are normalised: see :class:`Robustness`.
        threat: more of a :class:`ThreatModel`. Samples are attacked to the last step, misclassified or not.
    """

    def __init__(
        self,
        *,
        epsilon: float,
        strength: float = 1.0,
        warmup: int = 0,
        steps: int = 7,
        step_size: float | None = None,
        seed: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **threat: Any,
    ) -> None:
        super().__init__(strength=strength, warmup=warmup)
        self.seed, self.normalisation = seed, normalisation(mean, std)
        radius = strength * epsilon
        self.threat = {"early_exit": False, "epsilon": radius, "steps": steps} | threat
        self.threat["step_size"] = 2.5 * radius / max(1, steps) if step_size is None else step_size
        ThreatModel(**self.threat)  # refuses what cannot be

    def changed(self, trainer: pl.Trainer, module: pl.LightningModule, inputs: Tensor, labels: Tensor) -> Tensor:
        generator = keyed_generator(self.seed, trainer.current_epoch, trainer.global_step, trainer.global_rank)
        with evaluating(module):
            pixels = PixelNetwork(module, *self.normalisation) if self.normalisation else None
            images = inputs if pixels is None else pixels.pixels(inputs)
            everyone = torch.ones_like(labels, dtype=torch.bool)  # else who is misclassified already would stay clean
            found = pgd(
                pixels or module, images, labels, generator=generator, among=everyone, batch_size=len(images),
                diagnose=False, **self.threat,
            ).adversarial  # fmt: skip
        assert found is not None
        return (found if pixels is None else pixels.inputs(found)).to(inputs)
