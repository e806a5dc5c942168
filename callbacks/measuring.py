"""What the measuring callbacks share: the first of them leads one pass for all at the end of each epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from prs_lightning.bars import measuring_bar
from prs_lightning.data.sources import Source
from prs_lightning.data.trainers import epoch_is_measured, given, same_buffers, tested_on, trained_on
from prs_lightning.measuring import log_measure, now
from prs_lightning.measuring_pass import Observer, Watched, look_at, measuring_pass, try_out
from prs_lightning.network import MeasuredNetwork, as_measured
from prs_lightning.shortage import naming_the_batch


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
        if self is all_measuring(trainer)[0]:
            self.sources = None
            with self._watching(trainer, pl_module) as watched:
                try_out(watched, all_measuring(trainer))
            rank_zero_info(str(watched))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if epoch_is_measured(trainer):
            self._lead(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._lead(trainer, pl_module)

    @contextmanager
    def _watching(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[Watched]:
        device = pl_module.device
        with as_measured(pl_module, device), same_buffers(trainer, pl_module):
            network = MeasuredNetwork(pl_module, device)
            if self.sources is None or trainer.reload_dataloaders_every_n_epochs:  # type: ignore[attr-defined]
                train, test = (given(all_measuring(trainer), name) for name in ("train", "test"))
                self.sources = trained_on(trainer, pl_module, train), tested_on(trainer, pl_module, test)
            yield look_at(network, *self.sources, device)

    def _lead(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One pass over the data for all measuring callbacks, led by the first."""
        callbacks, start = all_measuring(trainer), now(pl_module.device)
        if self is not callbacks[0]:
            return
        with self._watching(trainer, pl_module) as watched:
            bar = partial(measuring_bar, trainer.progress_bar_callback)
            with naming_the_batch("measuring", watched.train.batch_key, watched.train.batch_size):
                measuring_pass(watched, callbacks, rank=trainer.global_rank, world=trainer.world_size, bar=bar)
            for callback in callbacks:
                callback.measured(trainer, pl_module, watched)
        self.seconds = now(pl_module.device) - start


def finite(values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Those of the values that are numbers: what cannot be measured is an empty cell, not NaN."""
    return {name: value for name, value in values.items() if bool(value.isfinite())}


def all_measuring(trainer: pl.Trainer) -> list[Measuring]:
    """The measuring callbacks of a Trainer, in their order."""
    return [callback for callback in trainer.callbacks if isinstance(callback, Measuring)]  # type: ignore[attr-defined]
