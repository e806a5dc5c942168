"""Every argument of Lightning's Trainer: honoured, compared with an independent number, or refused in one line."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from torch import nn

import train as train_script
from prs_lightning.data import ImageData, Split
from prs_lightning.errors import ConfigError
from prs_lightning.runs import RunDirectory, limits, options
from prs_lightning.runs.naming import RECORDED
from prs_lightning.schema.trainer import Trainer as Schema
from prs_lightning.schema.values import seconds
from prs_lightning.seeding import keyed_generator, mixed_seed
from prs_lightning.sweep.cli import CONFIG_FOLDER
from tests.conftest import SMALL, digit_data
from tests.networks import PlainNetwork, logits_and_pre_activations
from tests.test_cli import run_here
from tests.test_training import assert_same_weights, compose, fit, measures, weights

PLAIN = "model._target_=tests.networks.PlainNetwork"
UNMEASURED = ("callbacks.regions=null", "callbacks.sparsity=null", "callbacks.robustness=null")
FEW = (PLAIN, "callbacks.robustness=null")
ARGUMENTS = inspect.signature(Trainer.__init__).parameters.keys() - {"self"}


def test_the_table_and_the_config_know_every_argument_of_this_lightning() -> None:
    listed = yaml.safe_load((Path(CONFIG_FOLDER) / "trainer" / "default.yaml").read_text())
    assert Schema.model_fields.keys() == ARGUMENTS, "decide what becomes of it, and prove it here"
    assert listed.keys() - {"_target_"} == ARGUMENTS
    defaults = {name: each.default for name, each in inspect.signature(Trainer.__init__).parameters.items()}
    assert {name: value for name, value in listed.items() if name not in RECORDED} == {
        name: defaults[name] for name in ARGUMENTS - {*RECORDED}
    }


REFUSED = [
    # by the table
    ("trainer.fast_dev_run=true", "data.train_limit"),
    ("trainer.fast_dev_run=2", "data.train_limit"),
    ("trainer.limit_train_batches=0.5", "data.train_limit"),
    ("trainer.limit_train_batches=1", "whole set"),
    ("trainer.limit_val_batches=0", "whole set"),
    ("trainer.limit_test_batches=2", "whole set"),
    ("trainer.limit_predict_batches=0.1", "whole set"),
    ("trainer.overfit_batches=1", "whole set"),
    ("trainer.val_check_interval=0.5", "trainer.check_val_every_n_epoch"),
    ("trainer.check_val_every_n_epoch=0", "1 or more"),
    ("trainer.check_val_every_n_epoch=null", "1 or more"),
    ("trainer.num_sanity_val_steps=2", "expected 0"),
    ("trainer.enable_checkpointing=false", "goes on from"),
    ("trainer.default_root_dir=there", "set run_dir"),
    ("trainer.logger=true", "set logger=csv"),
    ("trainer.callbacks=[]", "set callbacks.<name>"),
    ("trainer.plugins=[]", "by the run"),
    ("trainer.barebones=true", "keep nothing"),
    ("trainer.max_epochs=5", "set epochs"),
    ("trainer.min_epochs=9", "epochs=2"),
    ("trainer.max_steps=0", "1 or more"),
    ("trainer.min_steps=-3", "0 or more"),
    ("trainer.max_time=4", "DD:HH:MM:SS"),
    ("trainer.max_time={hour:1}", "DD:HH:MM:SS"),
    ("trainer.max_time='00:00:00:00'", "more than no time"),
    ("trainer.strategy=foo", "ddp_find_unused_parameters_true"),
    ("trainer.strategy=fsdp", "not known to be right"),
    ("trainer.strategy=ddp_spawn", "not known to be right"),
    ("trainer.precision=17", "bf16-mixed"),
    ("trainer.precision=bf16-true", "bf16-mixed"),
    ("trainer.precision=16-true", "bf16-mixed"),
    ("trainer.precision=transformer-engine", "bf16-mixed"),
    ("trainer.devices=0", "1 or more"),
    ("trainer.devices=[]", "a list of ids"),
    ("trainer.devices=foo", "a list of ids"),
    ("trainer.num_nodes=0", "1 or more"),
    ("trainer.profiler=foo", "advanced"),
    ("trainer.gradient_clip_val=-1", "above 0"),
    ("trainer.gradient_clip_algorithm=value", "without trainer.gradient_clip_val"),
    ("trainer.gradient_clip_algorithm=foo", "norm or value"),
    ("trainer.accumulate_grad_batches=0", "1 or more"),
    ("trainer.accumulate_grad_batches={4:2}", "1 or more"),
    ("trainer.log_every_n_steps=-1", "0 or more"),
    ("trainer.inference_mode=true", "attacks need gradients"),
    ("trainer.use_distributed_sampler=false", "expected true"),
    ("trainer.reload_dataloaders_every_n_epochs=-1", "0 or more"),
    ("trainer.deterministic=maybe", "warn"),
    ("trainer.benchmark=maybe", "true or false"),
    ("trainer.benchmark=true", "trainer.deterministic=false too"),
    ("trainer.detect_anomaly=maybe", "true or false"),
    ("trainer.sync_batchnorm=maybe", "true or false"),
    ("trainer.enable_progress_bar=maybe", "true or false"),
    ("trainer.enable_model_summary=maybe", "true or false"),
    ("trainer.enable_autolog_hparams=maybe", "true or false"),
    ("trainer.model_registry=mine", "uploaded"),
    ("trainer._target_=my.Trainer", "lightning.pytorch.Trainer"),
    ("trainer.max_step=5", "trainer.max_steps"),
    ("+trainer.max_step=5", "trainer.max_steps"),
    ("callbacks.records=null", "kept"),
    # by Lightning, or for this machine
    ("trainer.accelerator=foo", "trainer.accelerator=foo: "),
    ("trainer.accelerator=tpu", "trainer.accelerator=tpu"),
    ("trainer.devices=-1", "trainer.devices=-1: "),
    ("trainer.devices=[5]", "trainer.devices=[5]: "),
    ("trainer.precision=16-mixed", "needs a GPU"),
    ("trainer.num_nodes=2", "NODE_RANK"),
    pytest.param(
        "trainer.accelerator=gpu", "trainer.accelerator=gpu: ",
        marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("override", "says"), REFUSED)
def test_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, override: str, says: str
) -> None:
    for name in options.NODES:
        monkeypatch.delenv(name, raising=False)
    assert run_here(monkeypatch, *SMALL, f"runs={tmp_path}", override) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    name = override.lstrip("+").split("=")[0]
    assert line.startswith("error: ")
    assert name in line or "'max_step'" in line
    assert says in line
    assert not list(tmp_path.rglob("run.json")), "it must be refused before a run directory is made"


def test_every_argument_has_its_proof() -> None:
    """Each is refused above for some value, or among what is honoured below."""
    tried = {str(getattr(each, "values", each)[0]).lstrip("+").partition("=")[0] for each in (*REFUSED, *UNCHANGED)}
    assert {f"trainer.{name}" for name in ARGUMENTS} <= tried


def test_the_environment_changes_no_argument(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PL_TRAINER_LIMIT_TRAIN_BATCHES", "1")
    assert run_here(monkeypatch, *SMALL, f"runs={tmp_path}") == 1


def test_what_only_a_gpu_does_is_refused_on_a_cpu() -> None:
    arguments = {"precision": "32-true", "sync_batchnorm": True, "num_nodes": 1}
    options.check_machine(arguments, device_type="cpu", world_size=1)
    options.check_machine(arguments, device_type="cuda", world_size=2)
    with pytest.raises(ConfigError, match=r"trainer\.sync_batchnorm=true needs GPUs"):
        options.check_machine(arguments, device_type="cpu", world_size=2)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """4 epochs of 5 steps, with nothing but defaults."""
    return fit(tmp_path_factory.mktemp("usual"), "epochs=4", "callbacks.robustness=null")


UNCHANGED = [
    ("trainer.devices=auto",),
    ("trainer.num_nodes=1",),
    ("trainer.precision=32",),
    ("trainer.limit_train_batches=1.0",),
    ("trainer.limit_val_batches=1.0",),
    ("trainer.val_check_interval=1.0",),
    ("trainer.reload_dataloaders_every_n_epochs=1",),
    ("trainer.sync_batchnorm=true",),
    ("trainer.detect_anomaly=true",),
    ("trainer.deterministic=true",),
    ("trainer.deterministic=false",),
    ("trainer.benchmark=true", "trainer.deterministic=false"),
    ("trainer.profiler=simple",),
    ("trainer.profiler=advanced",),
    ("trainer.log_every_n_steps=0",),
    ("trainer.enable_model_summary=true",),
    ("trainer.enable_progress_bar=false",),
    ("trainer.enable_autolog_hparams=false", "logger=csv"),
    ("trainer.min_epochs=2",),
    ("trainer.min_steps=10",),
    ("trainer.max_steps=20",),
    ("trainer.max_steps=1000",),
    ("trainer.max_time={hours:3}",),
    ("trainer.accumulate_grad_batches=1",),
    ("trainer.gradient_clip_val=1e9",),
]
"""What changes how a run is trained or watched, and no number."""


@pytest.mark.parametrize("overrides", UNCHANGED, ids=lambda each: each[0])
def test_honoured_and_changes_no_number(usual: RunDirectory, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    run = fit(tmp_path, "epochs=4", "callbacks.robustness=null", *overrides)
    assert_same_weights(usual, run)
    assert measures(run) == measures(usual)
    assert (run.status, run.record()["reason"]) == ("finished", None)


class Seen(Callback):
    """Keeps what a test wants to know of the trainer while it trains."""

    def __init__(self, look: Callable[[Trainer], Any]) -> None:
        self.look = look

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.seen = self.look(trainer)


@pytest.mark.parametrize(
    ("override", "look"),
    [
        ("trainer.detect_anomaly=true", lambda _: torch.is_anomaly_enabled()),
        ("trainer.deterministic=true", lambda _: not torch.is_deterministic_algorithms_warn_only_enabled()),
        ("trainer.deterministic=false", lambda _: not torch.are_deterministic_algorithms_enabled()),
        ("trainer.enable_model_summary=true", lambda t: any(isinstance(each, ModelSummary) for each in t.callbacks)),
        ("trainer.enable_progress_bar=true", lambda t: t.progress_bar_callback is not None),
        ("trainer.enable_progress_bar=null", lambda t: t.progress_bar_callback is None),  # callbacks.progress=null
    ],
)
def test_is_in_force_while_training(tmp_path: Path, override: str, look: Callable[[Trainer], Any]) -> None:
    seen = Seen(look)
    fit(tmp_path, "epochs=1", *FEW, *UNMEASURED, override, extra=seen)
    assert seen.seen


def test_cudnn_may_choose_its_algorithms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    seen = Seen(lambda _: torch.backends.cudnn.benchmark)
    fit(tmp_path, "epochs=1", *FEW, *UNMEASURED, "trainer.benchmark=true", "trainer.deterministic=false", extra=seen)
    assert seen.seen


def test_no_bar_is_shown_where_none_is_wanted(tmp_path: Path) -> None:
    cfg = compose(
        PLAIN, "callbacks=default", "callbacks.progress={_target_:lightning.pytorch.callbacks.RichProgressBar}"
    )
    for wanted, there in ((None, True), (False, False)):
        cfg.trainer.enable_progress_bar = wanted
        trainer = train_script.make_trainer(
            cfg, {**cfg}, RunDirectory(tmp_path), {"_target_": "tests.networks.PlainNetwork"}
        )
        assert any(isinstance(each, ProgressBar) for each in trainer.callbacks) == there


def test_the_profilers_report_is_in_the_run_directory(tmp_path: Path) -> None:
    fit(tmp_path, "epochs=1", *FEW, *UNMEASURED, "trainer.profiler=simple")
    assert "run_training_batch" in (tmp_path / "profile" / "fit-report.txt").read_text()


def adam_by_hand(digits: Split, epochs: int, clip: Callable[[nn.Module], object]) -> dict[str, torch.Tensor]:
    """What PlainNetwork learns from the first batches, written down anew: order, loss, clipping, Adam."""
    from lightning.pytorch import seed_everything

    seed_everything(0, verbose=False)
    network = PlainNetwork(channels=1, mean=[0.1307], std=[0.3081])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for epoch in range(epochs):
        order = torch.randperm(len(digits.labels), generator=keyed_generator(0, epoch))
        torch.manual_seed(mixed_seed(0, epoch, 0))
        for rows in order.split(20):
            optimizer.zero_grad()
            F.cross_entropy(network(digits.images[rows].float() / 255), digits.labels[rows]).backward()
            clip(network)
            optimizer.step()
    return network.state_dict()


@pytest.fixture(scope="module")
def hundred() -> Split:
    data: ImageData = digit_data(20, 100, 40)
    data.setup()
    assert data.train is not None
    return data.train


CLIPS: dict[str, Callable[[nn.Module], object]] = {
    "trainer.gradient_clip_val=null": lambda network: None,
    "trainer.gradient_clip_val=0.1": lambda network: nn.utils.clip_grad_norm_(network.parameters(), 0.1),
    "trainer.gradient_clip_algorithm=norm": lambda network: nn.utils.clip_grad_norm_(network.parameters(), 0.1),
    "trainer.gradient_clip_algorithm=value": lambda network: nn.utils.clip_grad_value_(network.parameters(), 0.1),
}


@pytest.mark.parametrize("override", CLIPS)
def test_gradients_are_clipped_as_by_hand(tmp_path: Path, hundred: Split, override: str) -> None:
    given = () if "clip_val" in override else ("trainer.gradient_clip_val=0.1",)
    run = fit(tmp_path, *FEW, *UNMEASURED, override, *given)
    expected = adam_by_hand(hundred, 2, CLIPS[override])
    torch.testing.assert_close(weights(run), expected, rtol=1e-5, atol=1e-6)
    if override != "trainer.gradient_clip_val=null":
        with pytest.raises(AssertionError):
            torch.testing.assert_close(weights(run), adam_by_hand(hundred, 2, lambda _: None), rtol=1e-5, atol=1e-6)


def test_gradients_of_two_batches_of_ten_are_those_of_one_of_twenty(tmp_path: Path) -> None:
    one = fit(tmp_path / "one", *FEW)
    two = fit(tmp_path / "two", *FEW, "batch_size=10", "trainer.accumulate_grad_batches=2")
    torch.testing.assert_close(weights(one), weights(two), rtol=1e-4, atol=1e-5)
    assert [row["step"] for row in two.rows()] == [row["step"] for row in one.rows()] == ["5", "10"]


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true", "64-true"])
def test_measures_are_of_float32_whatever_trained(tmp_path: Path, hundred: Split, precision: str) -> None:
    run = fit(tmp_path, PLAIN, "callbacks.robustness.steps=3", f"trainer.precision={precision}")
    exact = fit(tmp_path / "exact", *FEW)
    differs = not torch.equal(weights(run)["final.weight"], weights(exact)["final.weight"])
    assert differs == (precision != "32-true")
    network = PlainNetwork(channels=1, mean=[0.1307], std=[0.3081])
    network.load_state_dict(weights(run))  # to float32
    with torch.no_grad():
        logits, hidden = logits_and_pre_activations(network, hundred.images.float() / 255)
    kept = torch.float64 if precision == "64-true" else torch.float32
    assert {tensor.dtype for tensor in weights(run).values()} == {kept}
    row = run.rows()[-1]
    assert float(row["train/loss"]) == pytest.approx(F.cross_entropy(logits, hundred.labels).item(), rel=1e-5)
    assert float(row["prs/count"]) == len({tuple(signs) for signs in (hidden > 0).tolist()})
    assert 0 <= float(row["robust/pgd3"]) <= float(row["test/accuracy"])


def test_epochs_that_are_not_measured_have_no_measures(usual: RunDirectory, tmp_path: Path) -> None:
    run = fit(tmp_path, "epochs=4", "callbacks.robustness=null", "trainer.check_val_every_n_epoch=2")
    assert_same_weights(usual, run)
    assert [bool(row["train/loss"]) for row in run.rows()] == [False, True, False, True]
    second, other = ({name: value for name, value in measures(each)[1].items() if value} for each in (run, usual))
    assert second == other
    assert {name for name, value in measures(run)[2].items() if value} == {"epoch", "step"}


def test_durations() -> None:
    assert seconds("01:02:03:04") == 86400 + 2 * 3600 + 3 * 60 + 4
    assert limits.Limits().seconds == math.inf
