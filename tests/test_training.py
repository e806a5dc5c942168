"""The main job: measuring leaves no trace, a resumed run ends as an uncut one (docs/architecture.md: law 1, law 5)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback
from omegaconf import DictConfig, OmegaConf

import train as train_script
from prs_lightning.errors import ConfigError, RunError
from prs_lightning.models import network_of
from prs_lightning.runs import RunDirectory
from prs_lightning.runs.checkpoints import AtomicCheckpointIO, read_checkpoint
from prs_lightning.sweep import ranges
from prs_lightning.sweep.cli import CONFIG_FOLDER
from tests.conftest import PROJECT, SMALL, given_once
from tests.test_conf import arms_of

NETWORK = "model._target_=tests.networks.SmallNetwork"
MEASURES = ("callbacks.robustness.steps=3", "callbacks.robustness.limit=20", "data.step_size=0.1")


def compose(*overrides: str) -> DictConfig:
    with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        return hydra.compose("train", [*SMALL, *overrides])


def fit(path: Path, *overrides: str, extra: Callback | None = None) -> RunDirectory:
    """Train in this process, as train.py does; ``extra`` is one more callback."""
    cfg, run = compose(NETWORK, *overrides), RunDirectory(path)
    if extra is not None:
        Extra.callback = extra
        OmegaConf.update(cfg, "callbacks.extra", {"_target_": "tests.test_training.Extra.get"}, force_add=True)
    config: Any = OmegaConf.to_container(compose(NETWORK, *overrides), resolve=True)
    train_script.fit(cfg, config, run)
    return run


class Extra:
    """Hands a callback that a test made to the config that instantiates callbacks."""

    callback: Callback

    @classmethod
    def get(cls) -> Callback:
        return cls.callback


def weights(run: RunDirectory) -> dict[str, torch.Tensor]:
    return read_checkpoint(run.last_checkpoint)["state_dict"]


def measures(run: RunDirectory) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in run.rows()]


def assert_same_weights(first: RunDirectory, second: RunDirectory) -> None:
    torch.testing.assert_close(weights(first), weights(second), rtol=0, atol=0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of 4 epochs with all measures."""
    return fit(tmp_path_factory.mktemp("undisturbed"), "epochs=4", *MEASURES)


def test_a_run_directory_is_complete(undisturbed: RunDirectory) -> None:
    assert undisturbed.status == "finished"
    rows = undisturbed.rows()
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["step"] for row in rows] == ["5", "10", "15", "20"]
    for name in (
        "train/loss", "train/accuracy", "test/loss", "test/accuracy", "prs/ratio", "prs/count", "prs/inclusion_ratio",
        "weights/cosine_similarity", "features/sparsity", "robust/pgd3", "robust/pgd3_audited", "robust/masking_gap",
        "robust/zero_gradient", "time/train_s", "time/measure_s",
    ):  # fmt: skip
        assert all(row[name] for row in rows), name
    assert {file.name for file in undisturbed.checkpoints.iterdir()} == {
        *("epoch-001.ckpt", "last.ckpt", "previous.ckpt", "rows.json")
    }
    assert "optimizer_states" not in read_checkpoint(undisturbed.checkpoint(1))


def test_measuring_leaves_no_trace(undisturbed: RunDirectory, tmp_path: Path) -> None:
    unmeasured = fit(tmp_path, "epochs=4", "callbacks=none")
    assert_same_weights(undisturbed, unmeasured)
    assert measures(unmeasured)[-1]["test/accuracy"] == measures(undisturbed)[-1]["test/accuracy"]


def test_validating_the_checkpoint_gives_the_same_numbers_again(undisturbed: RunDirectory) -> None:
    cfg = compose(NETWORK, "epochs=4", *MEASURES)
    each = [instantiate(callback) for name, callback in cfg.callbacks.items() if callback and name != "records"]
    architecture = AtomicCheckpointIO({"_target_": "tests.networks.SmallNetwork"})
    trainer = instantiate(
        cfg.trainer, callbacks=each, logger=False, plugins=[architecture], default_root_dir=str(undisturbed.path)
    )
    data, network = instantiate(cfg.data), network_of(cfg.model)
    trainer.validate(network, data, ckpt_path=undisturbed.last_checkpoint, weights_only=True, verbose=False)
    again = trainer.callback_metrics
    recorded = undisturbed.rows()[-1]
    assert len(again) >= 12
    for name, value in again.items():
        assert value.item() == pytest.approx(float(recorded[name]), rel=1e-6), name


def test_another_seed_gives_other_weights(undisturbed: RunDirectory, tmp_path: Path) -> None:
    other = fit(tmp_path, "epochs=4", "callbacks=none", "seed=1")
    assert not torch.equal(weights(undisturbed)["final.weight"], weights(other)["final.weight"])


class Batches(Callback):
    """The weights before training, and the images and labels of each batch that is trained on."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.weights = {name: each.clone() for name, each in pl_module.state_dict().items()}
        self.batches: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batches += [each.clone() for each in batch]


def test_runs_of_a_seed_begin_with_the_same_weights_and_see_the_same_batches_in_all_arms(tmp_path: Path) -> None:
    found = []
    for index, lines in enumerate(ranges.arms(arms_of("causal_mini"), ())):
        found.append(Batches())
        fit(tmp_path / str(index), "callbacks=none", "data.train_limit=100", *lines, extra=found[-1])
    assert len(found) == 6
    assert len(found[0].batches) >= 2 * 2 * 2
    for each in found[1:]:
        torch.testing.assert_close(each.weights, found[0].weights, rtol=0, atol=0)
        torch.testing.assert_close(each.batches, found[0].batches, rtol=0, atol=0)
    trained = [weights(RunDirectory(tmp_path / str(index)))["final.weight"] for index in range(6)]
    assert not any(torch.equal(each, trained[0]) for each in trained[1:])


class Cut(Callback):
    """Ends the process's work at a hook of the third epoch, as a kill would, or by another exception."""

    def __init__(self, hook: str, exception: BaseException | None = None) -> None:
        def cut(trainer: Any, *_: object, **__: object) -> None:
            if trainer.current_epoch == 2:
                raise exception or KeyboardInterrupt

        setattr(self, hook, cut)


@pytest.mark.parametrize(
    "hook",
    [
        *("on_train_epoch_start", "on_train_batch_end", "on_validation_batch_end", "on_validation_epoch_end"),
        "on_train_epoch_end",  # after the measures, before the record
    ],
)
def test_a_cut_run_ends_as_if_never_interrupted(undisturbed: RunDirectory, tmp_path: Path, hook: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit):
        fit(tmp_path, "epochs=4", *MEASURES, extra=Cut(hook))
    signal.signal(signal.SIGINT, before)  # Lightning ignores it during its shutdown
    assert RunDirectory(tmp_path).status == "interrupted"
    assert len(RunDirectory(tmp_path).rows()) == 2
    resumed = fit(tmp_path, "epochs=4", *MEASURES)
    assert_same_weights(undisturbed, resumed)
    assert measures(resumed) == measures(undisturbed)


class Rates(Callback):
    """The learning rate with which each step was taken, and a cut in the third epoch."""

    def __init__(self, cut: bool = False) -> None:
        self.cut, self.seen = cut, list[float]()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])
        if self.cut and len(self.seen) == 13:
            raise KeyboardInterrupt


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_learning_rate_falls_to_0_step_by_step_and_a_cut_run_ends_as_an_uncut_one(
    tmp_path: Path, schedule: str
) -> None:
    given, before = ("epochs=4", "callbacks=none", f"model.schedule={schedule}"), signal.getsignal(signal.SIGINT)
    rates = Rates()
    uncut = fit(tmp_path / "uncut", *given, extra=rates)
    done = torch.arange(20, dtype=torch.float64) / 20
    share = 1 - done if schedule == "linear" else (1 + torch.cos(torch.pi * done)) / 2
    assert rates.seen == pytest.approx((1e-3 * share).tolist())
    with pytest.raises(SystemExit):
        fit(tmp_path / "cut", *given, extra=Rates(cut=True))
    signal.signal(signal.SIGINT, before)
    again = Rates()
    assert_same_weights(uncut, fit(tmp_path / "cut", *given, extra=again))
    assert again.seen == rates.seen[10:]


def test_a_schedule_follows_the_steps_of_the_run(tmp_path: Path) -> None:
    rates = Rates()
    fit(tmp_path, "epochs=4", "callbacks=none", "model.schedule=linear", "trainer.max_steps=10", extra=rates)
    assert rates.seen == pytest.approx([1e-3 * (1 - step / 10) for step in range(10)])


def test_rows_beyond_the_checkpoint_are_written_anew(undisturbed: RunDirectory, tmp_path: Path) -> None:
    """A kill between the row and the checkpoint of an epoch, and a damaged last checkpoint."""
    run = fit(tmp_path, "epochs=4", *MEASURES)
    run.last_checkpoint.write_bytes(run.last_checkpoint.read_bytes()[:1000])
    run.update_record(status="running")
    fit(tmp_path, "epochs=4", *MEASURES)
    assert_same_weights(undisturbed, run)
    assert measures(run) == measures(undisturbed)


def test_a_run_killed_at_any_moment_goes_on(undisturbed: RunDirectory, tmp_path: Path) -> None:
    """SIGKILL of the real command, at moments spread over the run."""
    command = [
        sys.executable, "train.py", *given_once(*SMALL, NETWORK, "epochs=4", *MEASURES, f"run_dir={tmp_path / 'run'}"),
    ]  # fmt: skip
    run = RunDirectory(tmp_path / "run")
    for rows in (1, 3):
        process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(run.rows()) < rows and process.poll() is None:
            time.sleep(0.02)
        time.sleep(0.05 * rows)
        process.kill()
        process.wait()
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    assert run.status == "finished"
    assert_same_weights(undisturbed, run)
    assert measures(run) == measures(undisturbed)


def test_a_loss_that_is_not_finite_fails_the_run_and_keeps_its_rows(tmp_path: Path) -> None:
    class Poison(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.current_epoch == 1 and batch_idx == 3:
                batch[0].fill_(torch.nan)

    with pytest.raises(RunError, match="the loss is not finite at epoch 2, step 3"):
        fit(tmp_path, *MEASURES, extra=Poison())
    run = RunDirectory(tmp_path)
    assert run.status == "failed"
    assert "epoch 2, step 3" in run.record()["reason"]
    assert [row["epoch"] for row in run.rows()] == ["1"]


def test_the_robust_accuracy_can_run_at_some_epochs_only(tmp_path: Path) -> None:
    run = fit(tmp_path / "every", "epochs=3", "callbacks.robustness.every=2", "grid_epochs=[]", *MEASURES)
    assert [bool(row["robust/pgd3"]) for row in run.rows()] == [False, True, False]
    run = fit(tmp_path / "listed", "epochs=3", "callbacks.robustness.epochs=[1,3]", "grid_epochs=[]", *MEASURES)
    assert [bool(row["robust/pgd3"]) for row in run.rows()] == [True, False, True]
    run = fit(tmp_path / "grid", "epochs=3", "callbacks.robustness.every=9", "grid_epochs=[2]", *MEASURES)
    assert [bool(row["robust/pgd3"] and row["robust/pgd100"]) for row in run.rows()] == [False, True, False]


def test_each_measure_can_be_switched_off(tmp_path: Path) -> None:
    off = ("regions", "sparsity", "robustness", "local_complexity", "logits", "collapse", "weight_norms")
    row = fit(tmp_path, "epochs=1", *(f"callbacks.{name}=null" for name in off)).rows()[0]
    assert "weights/cosine_similarity" in row
    groups = ("prs/", "features/", "robust/", "logits/", "collapse/", "weights/log_norm")
    assert not {name for name in row if name.startswith(groups)}


def test_labels_without_an_output_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model.classes=5, but mnist5k has labels up to 9"):
        fit(tmp_path, *MEASURES, "model.classes=5")


def test_epochs_that_are_not_measured_leave_their_cells_empty(undisturbed: RunDirectory, tmp_path: Path) -> None:
    run = fit(tmp_path, "epochs=4", *MEASURES, "trainer.check_val_every_n_epoch=2")
    assert [row["epoch"] for row in run.rows()] == ["1", "2", "3", "4"]
    for row, full in zip(run.rows(), undisturbed.rows(), strict=True):
        for name in (name for name in row if "/" in name and not name.startswith("time/")):
            assert row[name] == (full[name] if int(row["epoch"]) % 2 == 0 else ""), name
        assert (float(row["time/measure_s"]) > 0) == (int(row["epoch"]) % 2 == 0)
    assert_same_weights(undisturbed, run)
