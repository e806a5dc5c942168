"""What a Trainer trains on and is tested on, and which epochs of it are measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden

from prs_lightning.data.sources import Source, source_of
from prs_lightning.errors import ConfigError


def trained_on(trainer: Trainer, module: LightningModule, given: Any) -> Source:
    """The whole training set, un-augmented, each sample once: ``given`` by hand, or the Trainer's own data.

    Raises:
        ConfigError: what cannot be shown to be that, with what to give instead.
    """
    if given is not None:
        return source_of(given, "train")
    if (source := getattr(trainer.datamodule, "train_source", None)) is not None:  # type: ignore[attr-defined]
        return source()
    _refuse_changed_batches(trainer, module, "train")
    if trainer.overfit_batches:  # type: ignore[attr-defined]
        raise ConfigError(
            f"overfit_batches={trainer.overfit_batches} trains on a part of the data: give train= that part"  # type: ignore[attr-defined]
        )
    loader = trainer.train_dataloader
    if loader is None:
        loader = _made_by(trainer, module, "train_dataloader")
    if loader is None:
        raise ConfigError("there are no training data to measure: give train= a data set or a DataLoader")
    return source_of(loader, "train")


def tested_on(trainer: Trainer, module: LightningModule, given: Any) -> Source | None:
    """The test set: ``given`` by hand, or that of the DataModule or of the module; None where there is none.

    A validation set is not taken for one: a number carries the name of what it was measured on.
    """
    if given is not None:
        return source_of(given, "test")
    if (source := getattr(trainer.datamodule, "test_source", None)) is not None:  # type: ignore[attr-defined]
        return source()
    loader = _made_by(trainer, module, "test_dataloader")
    if isinstance(loader, list | tuple) and len(loader) == 1:
        (loader,) = loader
    if loader is None:
        return None
    _refuse_changed_batches(trainer, module, "test")
    return source_of(loader, "test")


def given(callbacks: Sequence[Any], name: str) -> Any:
    """The ``train`` or ``test`` set that was given by hand to some of the measuring callbacks.

    Raises:
        ConfigError: to two of them different ones.
    """
    sets = [(callback, callback.given[name]) for callback in callbacks if callback.given[name] is not None]
    for callback, data in sets[1:]:
        if data is not sets[0][1]:
            first, other = (type(each).__name__ for each in (sets[0][0], callback))
            raise ConfigError(f"{first} and {other} were given different {name}=: expected the same, or one of them")
    return sets[0][1] if sets else None


@contextmanager
def same_buffers(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Give every process the first one's buffers, which a checkpoint keeps, and its own back at the end.

    Those of batch normalisation differ between processes.

    Raises:
        ConfigError: a strategy that may keep a network in parts, or a callback that keeps an average beside it.
    """
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        kind = type(trainer.strategy).__name__
        raise ConfigError(f"strategy {kind} may keep a network in parts: expected one device, or ddp")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging) and trainer.state.fn == "fit":
            raise ConfigError(
                f"{type(callback).__name__} saves other weights than those that train: measure the average after "
                "training, by trainer.validate of a Trainer with the measures alone"
            )
    buffers = list(module.buffers()) if trainer.world_size > 1 else []
    own = [buffer.clone() for buffer in buffers]
    with torch.no_grad():
        for buffer in buffers:
            shared = buffer.clone(memory_format=torch.contiguous_format)
            torch.distributed.broadcast(shared, src=0)
            buffer.copy_(shared)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in zip(buffers, own, strict=True):
                buffer.copy_(before)


def _made_by(trainer: Trainer, module: LightningModule, method: str) -> Any:
    for owner in (trainer.datamodule, module):  # type: ignore[attr-defined]
        if owner is not None and is_overridden(method, owner):
            return getattr(owner, method)()
    return None


def _refuse_changed_batches(trainer: Trainer, module: LightningModule, name: str) -> None:
    """Refuse hooks that may augment or normalise a batch on its way to the network."""
    for owner in (trainer.datamodule, module):  # type: ignore[attr-defined]
        for hook in ("on_before_batch_transfer", "on_after_batch_transfer", "transfer_batch_to_device"):
            if owner is not None and is_overridden(hook, owner):
                raise ConfigError(
                    f"{type(owner).__name__}.{hook} may change the {name}ing data: give {name}= the data as the "
                    "network is to see them"
                )


def is_trial(trainer: Trainer) -> bool:
    """Whether Lightning only tries the loops out: nothing that is measured then is a number of a network."""
    return bool(trainer.sanity_checking or trainer.fast_dev_run)  # type: ignore[attr-defined]


def epoch_is_whole(trainer: Trainer) -> bool:
    """Whether the epoch that ends went through all its batches: none were left for ``max_steps`` or ``max_time``."""
    progress, batches = trainer.fit_loop.epoch_loop.batch_progress, trainer.num_training_batches
    # Lightning calls a batch the last one, too, after which a hook asked it to skip the rest of the epoch.
    return progress.current.ready >= batches if math.isfinite(batches) else progress.is_last_batch


def epoch_is_measured(trainer: Trainer) -> bool:
    """Whether measures are due at the end of this training epoch: each, or every ``check_val_every_n_epoch``-th.

    An epoch that time cut short is not measured; one that ``max_steps`` ended is, for training ends with it.
    """
    every = trainer.check_val_every_n_epoch or 1
    ended = epoch_is_whole(trainer) or 0 <= trainer.max_steps <= trainer.global_step
    return not is_trial(trainer) and ended and (trainer.current_epoch + 1) % every == 0


def epochs_trained(trainer: Trainer, module: LightningModule) -> int:
    """The epoch, counted from 1, whose weights are measured: under ``trainer.validate`` that of the checkpoint."""
    if trainer.state.fn != "fit" and (loaded := getattr(module, "loaded_epoch", None)) is not None:
        return loaded + 1
    return trainer.current_epoch + 1
