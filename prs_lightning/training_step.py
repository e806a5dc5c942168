"""A training step that others change: the batch before it, the loss after it, by what passed in its forward pass."""

from __future__ import annotations

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
from prs_lightning.errors import ConfigError
from prs_lightning.network import MeasuredNetwork, as_measured, for_network, unwrapped
from prs_lightning.regions.layers import Tap, tapping
from prs_lightning.regions.tracing import Ends, find_ends


@dataclass(frozen=True)
class Seen:
    """What a training step showed: ``labels`` (N,), and ``at`` a tap what passed there, (N, D), with its graph."""

    labels: Tensor
    at: Mapping[Tap, Tensor]


class Interferer:
    """What interferes with a training step: each method does nothing unless an intervention needs it."""

    strength: float
    """0: it does nothing."""

    def is_on(self, trainer: pl.Trainer) -> bool:
        """Whether it acts in this epoch."""
        return self.strength > 0

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


def intervened(
    interventions: Sequence[Interferer], trainer: pl.Trainer, module: pl.LightningModule
) -> Callable[..., Any]:
    """The module's training step among interventions."""
    step, taps = module.training_step, None

    @wraps(step)
    def among_them(batch: Any, *arguments: Any, **named: Any) -> Any:
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

    among_them.__wrapped__ = unwrap(step)  # Lightning asks it which arguments to give
    return among_them


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


def _taps(interventions: Sequence[Interferer], module: pl.LightningModule, inputs: Tensor) -> list[Tap]:
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
