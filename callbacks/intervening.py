"""What interventions share: the first of them leads a training step in which all change the batch and the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from inspect import unwrap
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from prs_lightning.data.sources import inputs_and_labels
from prs_lightning.errors import ConfigError, at_least
from prs_lightning.network import MeasuredNetwork, as_measured, for_network, unwrapped
from prs_lightning.regions.layers import Tap, tapping
from prs_lightning.regions.tracing import Ends, find_ends


@dataclass(frozen=True)
class Seen:
    """What a training step showed: ``labels`` (N,), and ``at`` a tap what passed there, (N, D), with its graph."""

    labels: Tensor
    at: Mapping[Tap, Tensor]


class Intervention(pl.Callback):
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

    def taps(self, ends: Callable[[], Ends]) -> Sequence[Tap]:
        """Where it looks; ``ends()`` finds the final and the penultimate layer."""
        return ()

    def changed(self, trainer: pl.Trainer, module: pl.LightningModule, inputs: Tensor, labels: Tensor) -> Tensor:
        """The inputs that are trained on instead; asked only while it is on."""
        return inputs

    def look(self, trainer: pl.Trainer, seen: Seen) -> None:
        """Each step, in the warm-up too."""

    def penalty(self, seen: Seen) -> Tensor | None:
        """What is added to the loss, ``strength`` times; asked only while it is on."""
        return None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        interventions = [each for each in all_interventions(trainer) if each.strength > 0]
        if not interventions or self is not interventions[0]:
            return
        refuse(interventions, trainer, pl_module)
        self.own_step = pl_module.__dict__.get("training_step")
        pl_module.__dict__["training_step"] = _with(interventions, trainer, pl_module)

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


def _with(interventions: Sequence[Intervention], trainer: pl.Trainer, module: pl.LightningModule) -> Callable[..., Any]:
    """The module's training step among interventions."""
    step, taps = module.training_step, None

    @wraps(step)
    def intervened(batch: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal taps
        inputs, labels = _pair(batch)
        if taps is None:
            taps = _taps(interventions, module, inputs)
        acting = [each for each in interventions if each.is_on(trainer)]
        for each in acting:
            inputs = each.changed(trainer, module, inputs, labels)
        if inputs is not batch[0]:
            batch = [inputs, *batch[1:]]
        with _tapped(module, taps) as at:
            output = step(batch, *arguments, **named)
        if output is None:
            return None
        if missing := [str(tap) for tap in taps if tap not in at]:
            raise ConfigError(f"{', '.join(missing)} did not run in a training step: name another layer, layer=...")
        seen = Seen(labels, at)
        with torch.autocast(labels.device.type, enabled=False):
            for each in interventions:
                each.look(trainer, seen)
            terms = [(each.strength, each.penalty(seen)) for each in acting]
            added = [strength * term for strength, term in terms if term is not None]
        return _plus(output, sum(added[1:], added[0])) if added else output

    intervened.__wrapped__ = unwrap(step)  # Lightning asks it which arguments to give
    return intervened


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Inputs and labels, int64 (N,), of a batch, which may hold more."""
    try:
        return inputs_and_labels(batch[:2] if isinstance(batch, tuple | list) else batch, "train")
    except ConfigError as error:
        raise ConfigError(f"{str(error).partition(';')[0]}; an intervention needs them") from error


def _plus(output: Any, added: Tensor) -> Any:
    """What a training step returned, with the term in its loss."""
    if isinstance(output, Tensor):
        return output + added
    if isinstance(output, Mapping) and isinstance(output.get("loss"), Tensor):
        return {**output, "loss": output["loss"] + added}
    raise ConfigError(f"training_step returned a {type(output).__name__}: expected the loss, or a mapping with it")


def _taps(interventions: Sequence[Intervention], module: pl.LightningModule, inputs: Tensor) -> list[Tap]:
    """All places that interventions look at."""

    @cache
    def ends() -> Ends:
        with as_measured(module, module.device):
            return find_ends(MeasuredNetwork(module, module.device), for_network(inputs[:2], module.device))

    found: dict[Tap, None] = {}
    for each in interventions:
        try:
            found |= dict.fromkeys(each.taps(ends))
        except ConfigError as error:
            if "layer=" not in str(error):
                raise
            name, way = type(each).__name__, "give it layer= and classes=" if hasattr(each, "layer") else "leave it out"
            raise ConfigError(f"{name}: {str(error).partition(':')[0]}: {way}") from error
    return list(found)


@contextmanager
def _tapped(module: pl.LightningModule, taps: Sequence[Tap]) -> Iterator[dict[Tap, Tensor]]:
    """What passes at the taps inside a ``with`` block, float32 (N, D)."""
    at: dict[Tap, Tensor] = {}

    def keep(tap: Tap, tensor: Tensor) -> None:
        if tap in at:
            raise ConfigError(f"layer {tap} ran twice in a training step: expected once")
        at[tap] = tensor.flatten(1).float().clone()  # what follows may work in place

    with tapping(unwrapped(module), taps, keep):
        yield at
