"""What the measuring callbacks share: the first of them leads one pass for all at the end of each epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from prs_lightning.bars import measuring_bar
from prs_lightning.data.sources import Source
from prs_lightning.data.trainers import epoch_is_measured, tested_on, trained_on
from prs_lightning.errors import ConfigError
from prs_lightning.measuring import log_measure
from prs_lightning.measuring_pass import Observer, Watched, as_measured, look_at, measuring_pass
from prs_lightning.network import MeasuredNetwork


class Measuring(pl.Callback, Observer):
    """A callback that measures after training epochs, and under ``trainer.validate``.

    Args:
        train: the training set to measure, un-augmented: a data set, a DataLoader or (inputs, labels); None: the
            Trainer's own, if it can be shown to be that.
        test: the test set, likewise; None: that of the DataModule or of the module, if there is one.
    """

    seconds = 0.0
    """How long the last pass of all measures took; of the leader."""
    sources: tuple[Source, Source | None] | None = None

    def __init__(self, *, train: Any = None, test: Any = None) -> None:
        self.given = {"train": train, "test": test}

    def values(self) -> Mapping[str, Tensor]:
        """What the pass has shown, by the names of the measures."""
        return {}

    def measured(self, trainer: pl.Trainer, pl_module: pl.LightningModule, watched: Watched) -> None:
        """Log what was found; called after the pass."""
        for name, value in self.values().items():
            log_measure(pl_module, name, value.float())

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse before training what could not be measured after it."""
        if self is leader(trainer):
            self.sources = None
            with watching(self, trainer, pl_module) as watched:
                for callback in all_measuring(trainer):
                    callback.start(watched)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self is leader(trainer) and epoch_is_measured(trainer):
            measure(self, trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self is leader(trainer) and trainer.state.fn == "validate":
            measure(self, trainer, pl_module)


def all_measuring(trainer: pl.Trainer) -> list[Measuring]:
    """The measuring callbacks of a Trainer, in their order."""
    return [callback for callback in trainer.callbacks if isinstance(callback, Measuring)]  # type: ignore[attr-defined]


def leader(trainer: pl.Trainer) -> Measuring:
    return all_measuring(trainer)[0]


def given(callbacks: list[Measuring], name: str) -> Any:
    """The set that was given by hand to some of the callbacks."""
    sets = [(callback, callback.given[name]) for callback in callbacks if callback.given[name] is not None]
    for callback, data in sets[1:]:
        if data is not sets[0][1]:
            first, other = (type(each).__name__ for each in (sets[0][0], callback))
            raise ConfigError(f"{first} and {other} were given different {name}=: expected the same, or one of them")
    return sets[0][1] if sets else None


@contextmanager
def watching(first: Measuring, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[Watched]:
    """The network as it is measured, with its data.

    Raises:
        ConfigError: data that are not shown to be whole and un-augmented, a network that cannot be measured.
    """
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        kind = type(trainer.strategy).__name__
        raise ConfigError(f"strategy {kind} may keep a network in parts: expected one device, or ddp")
    callbacks, device = all_measuring(trainer), pl_module.device
    with as_measured(pl_module, device):
        network = MeasuredNetwork(pl_module, device)
        network.weights |= same_buffers(trainer, network)
        if first.sources is None or trainer.reload_dataloaders_every_n_epochs:  # type: ignore[attr-defined]
            train = trained_on(trainer, pl_module, given(callbacks, "train"))
            first.sources = train, tested_on(trainer, pl_module, given(callbacks, "test"))
        yield look_at(network, *first.sources, device)


def measure(first: Measuring, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """One pass over the data of a Trainer for all its measuring callbacks."""
    start, callbacks = now(pl_module.device), all_measuring(trainer)
    with watching(first, trainer, pl_module) as watched:
        bar = partial(measuring_bar, trainer.progress_bar_callback)
        measuring_pass(watched, callbacks, rank=trainer.global_rank, world=trainer.world_size, bar=bar)
        for callback in callbacks:
            callback.measured(trainer, pl_module, watched)
    first.seconds = now(pl_module.device) - start


def same_buffers(trainer: pl.Trainer, network: MeasuredNetwork) -> dict[str, Tensor]:
    """The first process's buffers, which a checkpoint keeps: those of batch normalisation differ between processes."""
    if trainer.world_size == 1:
        return {}
    found = {}
    for name, buffer in network.model.named_buffers():
        found[name] = network.weights.get(name, buffer).clone()
        torch.distributed.broadcast(found[name], src=0)
    return found


def now(device: torch.device) -> float:
    """The clock, after all that the device was given is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
