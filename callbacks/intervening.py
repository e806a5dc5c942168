"""What interventions share: the first of them leads a training step in which all change the batch and the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import lightning.pytorch as pl

from prs_lightning.errors import ConfigError, at_least
from prs_lightning.training_step import Interferer, Seen, intervened

__all__ = ["Intervention", "Seen"]


class Intervention(pl.Callback, Interferer):
    """A callback that interferes with training, whatever the module's ``training_step`` is.

    It works in the very forward pass of the step, so under DDP its gradients are averaged as all others. With
    strength 0 nothing is touched: the weights are those of a training without it, to the bit.

    Args:
        strength: 0 or more.
        warmup: epochs in which it only looks on.

    Raises:
        ConfigError: a value that cannot be; when training begins, a module that steps its optimizers itself, a warm-up
            that never ends, or interventions of which one undoes what the other does.
    """

    aim = ""
    """Where it takes the PRS ratio: ``low``, ``high``, or nowhere in particular."""

    def __init__(self, *, strength: float, warmup: int = 0) -> None:
        if not (isinstance(strength, int | float) and 0 <= strength < math.inf):
            raise ConfigError(f"{type(self).__name__}: strength={strength}: expected a finite number, 0 or more")
        at_least(f"{type(self).__name__}: warmup", warmup, 0)
        self.strength, self.warmup = strength, warmup

    def is_on(self, trainer: pl.Trainer) -> bool:
        """Whether it acts in this epoch."""
        return self.strength > 0 and trainer.current_epoch >= self.warmup

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        interventions = [each for each in all_interventions(trainer) if each.strength > 0]
        if not interventions or self is not interventions[0]:
            return
        refuse(interventions, trainer, pl_module)
        self.own_step = pl_module.__dict__.get("training_step")
        pl_module.__dict__["training_step"] = intervened(interventions, trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._leave(pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._leave(pl_module)

    def _leave(self, pl_module: pl.LightningModule) -> None:
        """Give the module its own step back."""
        if "own_step" in self.__dict__:
            del pl_module.__dict__["training_step"]
            if (own := self.__dict__.pop("own_step")) is not None:  # as of a module that was compiled
                pl_module.__dict__["training_step"] = own


def all_interventions(trainer: pl.Trainer) -> list[Intervention]:
    """The interventions of a Trainer, in their order."""
    return [each for each in trainer.callbacks if isinstance(each, Intervention)]  # type: ignore[attr-defined]


def refuse(interventions: Sequence[Intervention], trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Raise ConfigError for what cannot be trained among these interventions, or not as they say."""
    if not module.automatic_optimization:
        name = type(module).__name__
        raise ConfigError(f"{name} steps its optimizers itself: an intervention needs automatic_optimization=True")
    aims = {each.aim: type(each).__name__ for each in interventions if each.aim}
    if len(aims) > 1:
        raise ConfigError(f"{' and '.join(aims.values())} contradict each other: expected one of them")
    for each in interventions:
        if 0 <= (trainer.max_epochs or -1) <= each.warmup:
            what = f"{type(each).__name__}: warmup={each.warmup} of {trainer.max_epochs} epochs"
            raise ConfigError(f"{what}: it would never act; give a shorter warm-up, or strength 0")
