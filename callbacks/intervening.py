"""What interventions share: the first of them leads a training step in which all change the batch and the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from prs_lightning.errors import ConfigError
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
        ConfigError: a value below 0; when training begins, a module that steps its optimizers itself.
    """

    def __init__(self, *, strength: float, warmup: int = 0) -> None:
        for name, value in (("strength", strength), ("warmup", warmup)):
            if not value >= 0:
                raise ConfigError(f"{type(self).__name__}: {name}={value}: expected 0 or more")
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
        if not pl_module.automatic_optimization:
            name = type(pl_module).__name__
            raise ConfigError(f"{name} steps its optimizers itself: an intervention needs automatic_optimization=True")
        self.own_step = pl_module.__dict__.get("training_step")
        pl_module.__dict__["training_step"] = _with(interventions, trainer, pl_module)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if "own_step" in self.__dict__:
            del pl_module.__dict__["training_step"]
            if (own := self.__dict__.pop("own_step")) is not None:  # as of a module that was compiled
                pl_module.__dict__["training_step"] = own


def all_interventions(trainer: pl.Trainer) -> list[Intervention]:
    """The interventions of a Trainer, in their order."""
    return [each for each in trainer.callbacks if isinstance(each, Intervention)]  # type: ignore[attr-defined]


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
        with _tapped(module, taps) as at:
            output = step([inputs, labels, *batch[2:]], *arguments, **named)
        if output is None:
            return None
        if missing := [str(tap) for tap in taps if tap not in at]:
            raise ConfigError(f"{', '.join(missing)} did not run in a training step: name another layer, layer=...")
        seen = Seen(labels, at)
        for each in interventions:
            each.look(trainer, seen)
        terms = [(each.strength, each.penalty(seen)) for each in acting]
        added = [strength * term for strength, term in terms if term is not None]
        return _plus(output, sum(added[1:], added[0])) if added else output

    return intervened


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Inputs and labels of a batch."""
    if not (isinstance(batch, tuple | list) and len(batch) > 1 and all(isinstance(each, Tensor) for each in batch[:2])):
        raise ConfigError(f"a batch is a {type(batch).__name__}: an intervention needs (inputs, labels)")
    return batch[0], batch[1]


def _plus(output: Any, added: Tensor) -> Any:
    """What a training step returned, with the term in its loss."""
    if isinstance(output, Tensor):
        return output + added
    if isinstance(output, Mapping) and isinstance(output.get("loss"), Tensor):
        return {**output, "loss": output["loss"] + added}
    raise ConfigError(f"training_step returned a {type(output).__name__}: expected the loss, or a mapping with it")


def _taps(interventions: Sequence[Intervention], module: pl.LightningModule, inputs: Tensor) -> list[Tap]:
    """All places that interventions look at."""

    def ends() -> Ends:
        with as_measured(module, module.device):
            return find_ends(MeasuredNetwork(module, module.device), for_network(inputs[:2], module.device))

    return list(dict.fromkeys(tap for each in interventions for tap in each.taps(ends)))


@contextmanager
def _tapped(module: pl.LightningModule, taps: Sequence[Tap]) -> Iterator[dict[Tap, Tensor]]:
    """What passes at the taps inside a ``with`` block, float32 (N, D)."""
    at: dict[Tap, Tensor] = {}

    def keep(tap: Tap, tensor: Tensor) -> None:
        if tap in at:
            raise ConfigError(f"layer {tap} ran twice in a training step: expected once")
        at[tap] = tensor.flatten(1).float()

    with tapping(unwrapped(module), taps, keep):
        yield at
