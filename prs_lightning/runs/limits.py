"""How a training run may end: whole, stopped early for a reason that is recorded, or interrupted.

Interrupted is what ended before it was trained as configured: by a signal, by ``trainer.max_time``, or in the middle
of an epoch. What was done of the epoch under way is thrown away, and the same command goes on after the last whole one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, StochasticWeightAveraging, Timer

from prs_lightning.data.trainers import epoch_is_whole
from prs_lightning.errors import ConfigError, Interrupted, RunError
from prs_lightning.schema.lines import refuse
from prs_lightning.schema.relations import within_an_epoch
from prs_lightning.schema.values import seconds


class Limits(pl.Callback):
    """Holds training to whole epochs; the first of the callbacks, so that no row is written of a part of one.

    Args:
        max_time: as the Trainer takes it; counted from the start of training, in each session anew.

    Raises:
        ConfigError: ``max_steps`` or ``min_steps`` that lie within an epoch, or beyond the last one.
        Interrupted: the time is up, or something else ended an epoch before its end.
    """

    def __init__(self, max_time: str | Mapping[str, float] | None = None) -> None:
        self.max_time = max_time
        self.seconds = math.inf if max_time is None else seconds(max_time)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began, self.epochs_before = time.monotonic(), trainer.current_epoch
        if not math.isfinite(trainer.num_training_batches):
            return
        epoch = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
        steps = {"max_steps": trainer.max_steps, "min_steps": trainer.min_steps or 0}
        refuse(within_an_epoch(steps, epoch=epoch, epochs=trainer.max_epochs or 0))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._look_at_the_clock(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._look_at_the_clock(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not epoch_is_whole(trainer):
            raise Interrupted(f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs} was stopped before its end")

    def _look_at_the_clock(self, trainer: pl.Trainer) -> None:
        if self.max_time is None:
            return
        if trainer.strategy.broadcast(time.monotonic() - self.began >= self.seconds):
            done = trainer.current_epoch
            none = "" if done > self.epochs_before else "; no epoch was finished in this time: give more"
            progress = f"{done} of {trainer.max_epochs} epochs are trained{none}"
            raise Interrupted(f"trainer.max_time={self.max_time} is over: {progress}")


@contextmanager
def known_monitor() -> Iterator[None]:
    """Show as one line that early stopping looks at what is not measured: only Lightning knows all that is logged."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("Early stopping conditioned on metric"):
            raise
        raise ConfigError(str(error)) from error


def check_stopping(callbacks: Iterable[pl.Callback], every: int) -> None:
    """Refuse callbacks that would look where nothing was measured, or train on after the last measures.

    Args:
        every: ``trainer.check_val_every_n_epoch``.

    Raises:
        ConfigError: says what to set.
    """
    for callback in callbacks:
        if isinstance(callback, StochasticWeightAveraging):
            raise ConfigError(
                "StochasticWeightAveraging changes the weights after the last epoch was measured: leave it out"
            )
        if isinstance(callback, EarlyStopping):
            at_the_end = callback._check_on_train_epoch_end
            if at_the_end is False or (every != 1 and not (at_the_end and not callback.strict)):
                raise ConfigError(
                    f"early stopping on {callback.monitor} with trainer.check_val_every_n_epoch={every}: measures are "
                    "taken at the end of training epochs: set its check_on_train_epoch_end=true and strict=false"
                )


def early_stop(trainer: pl.Trainer, *, epochs: int, steps: int) -> str | None:
    """After ``fit``: why training was stopped early, or None if all that was configured was trained.

    Args:
        epochs: as configured, whatever callbacks made of it.
        steps: as configured; -1 for any number.

    Raises:
        Interrupted: a ``Timer`` among the callbacks stopped it.
        RunError: nobody asked for it.
    """
    progress: Any = trainer.fit_loop.epoch_progress.current
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    trained = progress.processed
    if trained >= epochs or 0 < steps <= trainer.global_step:
        return None
    done = f"after {trained} of {epochs} epochs"
    for callback in callbacks:
        left = callback.time_remaining() if isinstance(callback, Timer) else None
        if left is not None and left <= 0:
            raise Interrupted(f"the timer's time is over {done}")
    if not trainer.should_stop:
        raise RunError(
            f"training ended {done}, and no callback asked for it: a StopIteration that the module, its data or a "
            "callback lets through ends it, and so does a callback that changes the Trainer's max_epochs"
        )
    stops = [each for each in callbacks if isinstance(each, EarlyStopping) and each.stopping_reason_message]
    if not stops:
        return f"a callback stopped it {done}"
    said = str(stops[0].stopping_reason_message).removesuffix(" Signaling Trainer to stop.")
    return f"stopped early {done}: {said}"
