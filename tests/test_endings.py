"""How a run ends: in full, early for a reason that is recorded, or interrupted (docs/architecture.md, law 10)."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from prs_lightning.errors import ConfigError, Interrupted
from prs_lightning.runs import RunDirectory, limits
from tests.test_trainer_options import FEW
from tests.test_training import Cut, assert_same_weights, fit, measures

STOPPING = (
    "+callbacks.early_stopping._target_=lightning.pytorch.callbacks.EarlyStopping",
    "+callbacks.early_stopping.monitor=train/accuracy", "+callbacks.early_stopping.mode=max",
    "+callbacks.early_stopping.patience=2", "+callbacks.early_stopping.min_delta=1",
)  # fmt: skip
"""Stops after 3 epochs, as no accuracy rises by 1."""


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """4 epochs of 5 steps, with nothing but defaults."""
    return fit(tmp_path_factory.mktemp("usual"), "epochs=4", "callbacks.robustness=null")


def test_a_run_of_steps_ends_with_an_epoch(usual: RunDirectory, tmp_path: Path) -> None:
    run = fit(tmp_path, "epochs=9", "callbacks.robustness=null", "trainer.max_steps=20")
    assert_same_weights(usual, run)
    assert measures(run) == measures(usual)
    assert (run.status, run.record()["reason"]) == ("finished", None)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trainer.max_steps=7", "set it to 5 or 10"),
        ("trainer.max_steps=3", "set it to 5"),
        ("trainer.min_steps=7", "set it to 5 or 10"),
        ("trainer.min_steps=99", "epochs are 20 steps"),
    ],
)
def test_steps_within_an_epoch_are_refused_before_the_first(tmp_path: Path, override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fit(tmp_path, *FEW, "epochs=4", override)
    assert list(tmp_path.iterdir()) == []


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which has 3 steps"):
        fit(tmp_path, *FEW, "epochs=4", "trainer.accumulate_grad_batches=2", "trainer.max_steps=5")


def test_an_early_stop_is_finished_and_says_why(usual: RunDirectory, tmp_path: Path) -> None:
    run = fit(tmp_path, *STOPPING, "epochs=50", "callbacks.robustness=null")
    assert run.status == "finished"
    assert run.record()["reason"].startswith("stopped early after 3 of 50 epochs: Monitored metric train/accuracy")
    assert measures(run) == measures(usual)[:3]


def test_no_early_stop_before_min_epochs(tmp_path: Path) -> None:
    run = fit(tmp_path, *FEW, *STOPPING, "epochs=50", "trainer.min_epochs=5")
    assert (len(run.rows()), run.status) == (5, "finished")


def test_a_resumed_run_stops_where_an_uncut_one_does(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(tmp_path, *FEW, *STOPPING, "epochs=50", extra=Cut("on_train_batch_end", Interrupted("cut")))
    run = fit(tmp_path, *FEW, *STOPPING, "epochs=50")
    assert (len(run.rows()), run.status) == (3, "finished")


@pytest.mark.parametrize("more", [(), ("+callbacks.early_stopping.check_on_train_epoch_end=true",)])
def test_early_stopping_where_nothing_is_measured_is_refused(tmp_path: Path, more: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="check_on_train_epoch_end=true and strict=false"):
        fit(tmp_path, *FEW, *STOPPING, *more, "trainer.check_val_every_n_epoch=2")
    both = ("+callbacks.early_stopping.check_on_train_epoch_end=true", "+callbacks.early_stopping.strict=false")
    run = fit(tmp_path, *FEW, *STOPPING, *both, "epochs=9", "trainer.check_val_every_n_epoch=2")
    assert len(run.rows()) == 6, "the third of the epochs that are measured"


def test_early_stopping_on_what_is_not_measured_is_one_line(tmp_path: Path) -> None:
    others = [each for each in STOPPING if "monitor" not in each]
    with pytest.raises(ConfigError, match=r"`no/such` which is not available.*`train/accuracy`"):
        fit(tmp_path, *FEW, *others, "+callbacks.early_stopping.monitor=no/such", "epochs=2")


def test_averaging_after_the_last_measures_is_refused(tmp_path: Path) -> None:
    target = "lightning.pytorch.callbacks.StochasticWeightAveraging"
    with pytest.raises(ConfigError, match="after the last epoch was measured"):
        fit(tmp_path, *FEW, f"+callbacks.swa._target_={target}", "+callbacks.swa.swa_lrs=0.1")
    assert not any(tmp_path.iterdir())


class Stop(Callback):
    """Asks the trainer to stop: at the end of epoch 2, or within it."""

    def __init__(self, within: bool) -> None:
        self.within = within

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.should_stop |= self.within and trainer.current_epoch == 1 and batch_idx == 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop |= trainer.current_epoch == 1


def test_another_callbacks_stop_is_named(tmp_path: Path) -> None:
    run = fit(tmp_path, *FEW, "epochs=9", extra=Stop(within=False))
    assert (run.status, len(run.rows())) == ("finished", 2)
    assert run.record()["reason"] == "a callback stopped it after 2 of 9 epochs"


def test_an_epoch_that_was_cut_short_has_no_row(usual: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(tmp_path, "epochs=4", "callbacks.robustness=null", extra=Stop(within=True))
    run = RunDirectory(tmp_path)
    assert (run.status, run.record()["reason"]) == ("interrupted", "epoch 2 of 4 was stopped before its end")
    assert len(run.rows()) == 1
    fit(tmp_path, "epochs=4", "callbacks.robustness=null")
    assert_same_weights(usual, run)
    assert measures(run) == measures(usual)


def test_the_time_of_each_session_is_its_own(
    usual: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that goes on by a second whenever one looks: an epoch takes 5, and a session of 8 ends in its second."""
    seconds = iter(range(10**6))
    monkeypatch.setattr(limits.time, "monotonic", lambda: next(seconds))
    run, ends = RunDirectory(tmp_path), []
    while run.status != "finished":
        try:
            fit(tmp_path, "epochs=4", "callbacks.robustness=null", "trainer.max_time='00:00:00:08'")
        except Interrupted:
            ends.append((len(run.rows()), run.status, run.record()["reason"]))
    said = "trainer.max_time=00:00:00:08 is over: {} of 4 epochs are trained"
    assert ends == [(epochs, "interrupted", said.format(epochs)) for epochs in (1, 2, 3)]
    assert_same_weights(usual, run)
    assert measures(run) == measures(usual)
    monkeypatch.setattr(limits.time, "monotonic", lambda: next(seconds))
    with pytest.raises(Interrupted, match="no epoch was finished in this time: give more"):
        fit(tmp_path / "short", *FEW, "epochs=4", "trainer.max_time='00:00:00:02'")


class Kill(Callback):
    """Sends this process a signal in the third epoch."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.current_epoch == 2:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("slurm", [False, True])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"])
def test_a_signal_interrupts_and_the_run_goes_on(
    usual: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, slurm: bool
) -> None:
    if slurm:  # where Lightning would save half an epoch at SIGUSR1, and pass over SIGTERM
        slurms = {"NTASKS": "1", "JOB_ID": "7", "JOB_NAME": "train", "PROCID": "0", "LOCALID": "0", "NODEID": "0",
                  "NODELIST": "here"}  # fmt: skip
        for key, value in slurms.items():
            monkeypatch.setenv(f"SLURM_{key}", value)
    number = getattr(signal, name)
    with pytest.raises(Interrupted):
        fit(tmp_path, "epochs=4", "callbacks.robustness=null", extra=Kill(number))
    assert signal.getsignal(number) == signal.SIG_DFL
    run = RunDirectory(tmp_path)
    assert (run.status, run.record()["reason"], len(run.rows())) == ("interrupted", name, 2)
    assert not list(tmp_path.glob("hpc_*"))
    fit(tmp_path, "epochs=4", "callbacks.robustness=null")
    assert_same_weights(usual, run)
    assert measures(run) == measures(usual)
