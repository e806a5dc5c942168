"""What interventions do to training: nothing at strength 0, what they are for above it, and the same after a cut."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from prs_lightning.attacks import pgd
from prs_lightning.callbacks import (
    Adversarial,
    HighPRS,
    LabelSmoothing,
    LogitPenalty,
    LowPRS,
    Published,
    WeightNorm,
)
from prs_lightning.data import Split, balanced_subset, to_unit_range
from prs_lightning.regions import prs_ratio
from prs_lightning.regions.logits import logit_gap, median
from prs_lightning.runs import RunDirectory
from prs_lightning.runs.checkpoints import read_checkpoint
from tests.conftest import DIGITS, digit_data
from tests.intervened import QUIET, leaves_no_trace
from tests.networks import PlainNetwork, logits_and_pre_activations
from tests.test_training import MEASURES, Cut, assert_same_weights, fit, measures, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*:FutureWarning")

NAMES = (
    *("adversarial", "high_prs", "label_smoothing", "logit_penalty", "low_prs", "published", "weight_decay"),
    "weight_norm",
)


def chosen(*names: str, **values: float) -> list[str]:
    """Overrides for these interventions, each with these values."""
    own = [f"intervention.{name}.{key}={value}" for name in names for key, value in values.items()]
    return [f"intervention=[{','.join(names)}]", *own]


OPTIONS = (
    *("epochs=3", "grid_epochs=[2]", "callbacks.robustness=null", "callbacks.local_complexity=null"),
    *("trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.1", "trainer.precision=bf16-mixed"),
)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Three epochs without interventions, of a network with dropout and batch normalisation."""
    return fit(tmp_path_factory.mktemp("untouched"), *OPTIONS)


def test_strength_zero_is_no_intervention_to_the_bit(untouched: RunDirectory, tmp_path: Path) -> None:
    run = fit(tmp_path, *OPTIONS, *chosen(*NAMES, strength=0))
    assert_same_weights(untouched, run)
    assert measures(run) == measures(untouched)


def test_a_warm_up_only_looks_on(untouched: RunDirectory, tmp_path: Path) -> None:
    names = [name for name in NAMES if name != "high_prs"]
    run = fit(tmp_path, *OPTIONS, *chosen(*names, warmup=2))
    assert measures(run)[:2] == measures(untouched)[:2]
    looked = read_checkpoint(run.checkpoint(2))["state_dict"]
    torch.testing.assert_close(read_checkpoint(untouched.checkpoint(2))["state_dict"], looked, rtol=0, atol=0)
    assert not torch.equal(weights(untouched)["hidden.weight"], weights(run)["hidden.weight"])


ALL = chosen(*(name for name in NAMES if name != "high_prs"), warmup=1)
"""All at once, from the second epoch on, but the one that contradicts."""
UNMEASURED = ("epochs=4", "callbacks=none")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return fit(tmp_path_factory.mktemp("whole"), *UNMEASURED, *ALL)


def states(run: RunDirectory) -> dict[str, Any]:
    return read_checkpoint(run.last_checkpoint)["callbacks"]


def test_a_cut_run_ends_as_if_never_interrupted(whole: RunDirectory, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit):
        fit(tmp_path, *UNMEASURED, *ALL, extra=Cut("on_train_batch_end"))
    signal.signal(signal.SIGINT, before)  # Lightning ignores it during its shutdown
    assert len(RunDirectory(tmp_path).rows()) == 2
    resumed = fit(tmp_path, *UNMEASURED, *ALL)
    assert_same_weights(whole, resumed)
    for name in ("LowPRS", "Published", "WeightNorm"):
        torch.testing.assert_close(states(resumed)[name], states(whole)[name], rtol=0, atol=0)


def test_measuring_leaves_no_trace_among_interventions(whole: RunDirectory, tmp_path: Path) -> None:
    assert_same_weights(whole, fit(tmp_path, "epochs=4", "grid_epochs=[]", *MEASURES, *ALL))


class Trained:
    """A plain network of 16 penultimate units after some epochs on 300 digits, and what it shows of them."""

    def __init__(self, digits: tuple[Split, Split], *callbacks: pl.Callback, epochs: int = 8) -> None:
        torch.manual_seed(0)
        self.network = PlainNetwork(channels=1, mean=DIGITS["mean"], std=DIGITS["std"], learning_rate=5e-3)
        self.start = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        trainer = pl.Trainer(callbacks=list(callbacks), max_epochs=epochs, accelerator="cpu", **QUIET)
        trainer.fit(self.network, digit_data(batch_size=30, train_limit=300))
        assert leaves_no_trace(self.network)
        self.network.eval()
        self.images, self.labels = images(digits[0], 300)
        with torch.no_grad():
            self.logits, self.z = logits_and_pre_activations(self.network, self.images)

    @property
    def ratio(self) -> float:
        return prs_ratio(self.z)

    @property
    def accuracy(self) -> float:
        return float((self.logits.argmax(1) == self.labels).float().mean())

    @property
    def gap(self) -> float:
        return float(median(logit_gap(self.logits)))

    def robust(self, epsilon: float) -> float:
        return pgd(self.network, self.images[::3], self.labels[::3], epsilon=epsilon, steps=10).robust_accuracy


def images(split: Split, count: int) -> tuple[Tensor, Tensor]:
    rows = balanced_subset(split.labels, count)
    return to_unit_range(split.images[rows]), split.labels[rows]


@pytest.fixture(scope="module")
def plain(digits: tuple[Split, Split]) -> Trained:
    trained = Trained(digits)
    assert trained.accuracy > 0.9
    assert 0.1 < trained.ratio < 0.5
    return trained


def test_each_moves_what_it_is_for(digits: tuple[Split, Split], plain: Trained) -> None:
    low, high = Trained(digits, LowPRS(strength=3)), Trained(digits, HighPRS(strength=3))
    assert low.ratio < plain.ratio / 2
    assert high.ratio > plain.ratio + 0.3
    smaller = Trained(digits, LogitPenalty(strength=0.1))
    assert smaller.logits.norm(dim=1).mean() < plain.logits.norm(dim=1).mean() / 2
    assert Trained(digits, LabelSmoothing(strength=0.3)).gap < plain.gap / 1.5
    robust = Trained(digits, Adversarial(epsilon=0.1, steps=3, warmup=2))
    assert robust.robust(0.1) > plain.robust(0.1) + 0.2
    assert min(each.accuracy for each in (low, high, smaller, robust)) > 0.5


def test_a_bound_is_kept(digits: tuple[Split, Split], plain: Trained) -> None:
    found = Trained(digits, WeightNorm(strength=1.25))
    for name in ("hidden.1.weight", "final.weight"):
        norms = [float(state[name].double().norm()) for state in (found.start, found.network.state_dict())]
        assert norms[1] <= norms[0] / 1.25
        assert float(plain.network.state_dict()[name].norm()) > norms[0]


class Watching(pl.Callback):
    """At the end of each epoch the final layer's weights, and how many steps the optimizer's moments are of."""

    def on_train_start(self, *_: Any) -> None:
        self.final: list[Tensor] = []
        self.steps: list[list[int]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.final.append(torch.cat([each.detach().flatten().clone() for each in pl_module.final.parameters()]))
        self.steps.append([int(each["step"]) for each in trainer.optimizers[0].state.values()])


def test_the_published_one_lowers_the_ratio_and_leaves_the_final_layer(
    digits: tuple[Split, Split], plain: Trained
) -> None:
    watching = Watching()
    found = Trained(digits, watching, Published(strength=3, warmup=3))
    assert found.ratio < plain.ratio / 1.3
    assert len({tuple(each.tolist()) for each in watching.final[:3]}) == 3
    assert all(torch.equal(each, watching.final[2]) for each in watching.final[3:])
    assert watching.steps[2:5] == [[30] * 4, [10] * 2, [20] * 2], "the optimizer begins anew, without the final layer"
    assert (found.network.final.weight - found.start["final.weight"]).abs().max() > 0.05
