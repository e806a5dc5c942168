"""Writes the run directory: a row of metrics.csv, the grid's weights and the resume checkpoint, each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from prs_lightning.callbacks.measuring import all_measuring
from prs_lightning.data.trainers import epoch_is_measured, epoch_is_whole
from prs_lightning.measures import COLUMNS
from prs_lightning.measuring import now, shortest, taken_measures
from prs_lightning.runs import RunDirectory
from prs_lightning.runs.checkpoints import keep_previous
from prs_lightning.runs.mending import rows_to_go_on_from
from prs_lightning.runs.rows import as_text
from prs_lightning.seeding import mixed_seed


class Records(Checkpoint):
    """Keeps the run directory ``trainer.default_root_dir``.

    Lightning calls a ``Checkpoint`` after all other callbacks, so the row holds every measure of its epoch. The
    resume checkpoint is written last: whatever moment a run is killed at, what it finds is an epoch that is whole.

    Args:
        grid_epochs: epochs, counted from 1, whose weights are kept.
    """

    def __init__(self, *, grid_epochs: Sequence[int] = ()) -> None:
        self.grid_epochs = set(grid_epochs)
        self.times: dict[str, float] = {}
        self.rows: list[dict[str, Any]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.run, self.rows = RunDirectory(trainer.default_root_dir), []

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["rows"] = as_text(self.rows)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Rows beyond the checkpoint that a resumed run goes on from are written again by it.
        if trainer.state.fn == TrainerFn.FITTING:
            self.rows = [{**row} for row in rows_to_go_on_from(self.run, checkpoint)]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning keeps the last value of each metric; a measure that is not taken this epoch must stay empty.
        trainer.callback_metrics.clear()
        taken_measures(pl_module)
        if (seed := getattr(trainer.datamodule, "seed", None)) is not None:  # type: ignore[attr-defined]
            # A run that goes on draws what it would have drawn; the networks of the study see to that themselves.
            torch.manual_seed(mixed_seed(seed, trainer.current_epoch, trainer.global_rank))
        self.start = now(pl_module.device)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not epoch_is_whole(trainer):
            return
        seconds = now(pl_module.device) - self.start
        measuring = all_measuring(trainer) if epoch_is_measured(trainer) else []
        measured = measuring[0].seconds if measuring else 0.0
        self.times = {"time/train_s": seconds - measured, "time/measure_s": measured}
        for logger in trainer.loggers:
            logger.log_metrics(self.times, step=trainer.global_step - 1)  # the step of Lightning's own metrics
        epoch = trainer.current_epoch + 1
        # What a module of the user's logs under the name of a measure is none.
        taken = {*taken_measures(pl_module), *trainer.callback_metrics.keys() - COLUMNS}
        measures = {name: value for name, value in trainer.callback_metrics.items() if "/" in name and name in taken}
        row = {"epoch": epoch, "step": trainer.global_step} | {name: shortest(v) for name, v in measures.items()}
        self.rows.append(row | {name: f"{seconds:.3f}" for name, seconds in self.times.items()})
        if trainer.is_global_zero:
            self.run.write_rows(self.rows)
        if epoch in self.grid_epochs:
            trainer.save_checkpoint(self.run.checkpoint(epoch), weights_only=True)
        if trainer.is_global_zero:
            keep_previous(self.run)
        trainer.save_checkpoint(self.run.last_checkpoint)
