"""On a GPU, the numbers of a CPU: attacks, regions, whole runs. Skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prs_lightning.attacks import bim, fgsm, pgd, robust_accuracy
from prs_lightning.attacks.distance import distances
from prs_lightning.data import Split, StoredImages, TrainingBatches, load, to_unit_range
from prs_lightning.measuring import float32
from prs_lightning.regions import measure
from prs_lightning.sweep.launcher import visible_gpus
from tests.attacked import Scaled, digits, trained
from tests.conftest import RunTrain, digit_data
from tests.foreign import Layers, Module, by_numpy, fitted
from tests.networks import PlainNetwork, SmallNetwork, logits_and_pre_activations
from tests.test_interventions_processes import trained as intervened
from tests.test_training import MEASURES, assert_same_weights, fit, measures, weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ON_GPU = "trainer.accelerator=gpu"


def moved(batch_norm: bool = False) -> tuple[torch.nn.Module, Tensor, Tensor]:
    images, labels = digits(400)
    return trained(batch_norm).to("cuda"), images.to("cuda"), labels.to("cuda")


@pytest.fixture(autouse=True)
def back_on_the_cpu() -> Iterator[None]:
    """The cached networks are those that other tests attack on the CPU."""
    yield
    for batch_norm in (False, True):
        trained(batch_norm).to("cpu")


@pytest.mark.parametrize("workers", [0, 2])
def test_stored_images_reach_the_gpu_as_those_in_memory_lie_there(workers: int) -> None:
    memory = Split(*load("digits", "data")[0]).to(torch.device("cuda"))
    on_cpu = memory.images.cpu()
    stored = StoredImages(on_cpu.__getitem__, torch.arange(len(on_cpu)), on_cpu.shape[1:], workers)
    batches = (TrainingBatches(split, 64, seed=0) for split in (memory, Split(stored, memory.labels)))
    for one, other in zip(*batches, strict=True):
        assert other[0].is_cuda
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("early_exit", [True, False])
def test_attacks_find_what_they_find_on_a_cpu(batch_norm: bool, precision: str, early_exit: bool) -> None:
    options = {"epsilon": 0.1, "step_size": 0.02, "steps": 10, "early_exit": early_exit}
    images, labels = digits(400)
    on_cpu = pgd(trained(batch_norm), images, labels, **options)
    network, images, labels = moved(batch_norm)
    found = pgd(network, images, labels, precision=precision, **options)
    assert found.correct_after.device.type == "cuda"
    assert (found.correct_after.cpu() != on_cpu.correct_after).sum() <= 4
    assert torch.equal(found.correct_before.cpu(), on_cpu.correct_before)
    assert found.adversarial is not None
    assert (found.adversarial - images).abs().max() <= 0.1 + 1e-6
    assert found.adversarial.min() >= 0
    assert found.adversarial.max() <= 1
    with torch.no_grad(), float32(images.device):  # other batches than the attack's: the last bits differ
        fooled = network(found.adversarial).argmax(1) != labels
    gone, stood = ~found.correct_after & found.correct_before, found.correct_after
    assert (~fooled)[gone].sum() <= 2
    assert early_exit or fooled[stood].sum() <= 2


def test_every_attack_runs_and_zero_gradients_are_seen() -> None:
    network, images, labels = moved()
    blind = Scaled(network, 1e6).eval()
    options = {"epsilon": 0.1, "step_size": 0.02}
    assert pgd(blind, images, labels, **options).zero_gradient_clean.double().mean() > 0.5
    assert robust_accuracy(blind, images, labels, partial(pgd, **options)) > 0.5
    assert robust_accuracy(blind, images, labels, partial(pgd, loss="dlr", **options)) < 0.5
    for attack in (fgsm, bim):
        weak = robust_accuracy(network, images, labels, partial(attack, **options))
        assert weak >= robust_accuracy(network, images, labels, partial(pgd, loss="margin", **options)) - 0.02


@pytest.mark.parametrize("more", [{"norm": "l2", "epsilon": 1.0, "step_size": 0.2}, {"targets": 3, "loss": "margin"},
                                  {"loss": "top_two_cross_entropy"}, {"temperature": 100.0}])  # fmt: skip
def test_norms_targets_and_temperatures_find_what_they_find_on_a_cpu(more: dict[str, object]) -> None:
    options = {"epsilon": 0.1, "step_size": 0.02, "steps": 10} | more
    on_cpu = pgd(trained(), *digits(400), **options)
    network, images, labels = moved()
    found = pgd(network, images, labels, **options)
    assert (found.correct_after.cpu() != on_cpu.correct_after).sum() <= 6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_distances_are_those_of_a_cpu(norm: str) -> None:
    on_cpu = distances(trained(), *digits(400), norm=norm)
    network, images, labels = moved()
    found = distances(network, images, labels, norm=norm)
    assert found.distance.device.type == "cuda"
    assert torch.equal(found.correct.cpu(), on_cpu.correct)
    assert found.median == pytest.approx(on_cpu.median, rel=0.01)
    assert found.adversarial is not None
    with torch.no_grad(), float32(images.device):
        fooled = network(found.adversarial).argmax(1) != labels
    assert (~fooled)[found.distance.isfinite()].sum() <= 4  # other batches than its own: the last bits differ


def test_shortened_floats_of_the_training_do_not_touch_a_measure() -> None:
    """TensorFloat-32 keeps 10 of 23 bits: with it, signs near zero flip."""
    network, _, _ = moved()  # trained: an untrained one puts all images into a few regions, far from their bounds
    train, _ = load("mnist5k", "data")
    batches = list(to_unit_range(train.images).to("cuda").split(500))
    exact = measure(network, batches, layer="7")
    older = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        again = measure(network, batches, layer="7")
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = older
    assert torch.equal(again.keys(), exact.keys())
    on_cpu = measure(network.to("cpu"), [batch.cpu() for batch in batches], layer="7")
    assert len(exact) == pytest.approx(len(on_cpu), rel=0.02)


def test_a_run_measures_without_a_trace_and_goes_on(tmp_path: Path) -> None:
    run = fit(tmp_path / "measured", ON_GPU, "epochs=3", *MEASURES)
    assert run.status == "finished"
    assert_same_weights(run, fit(tmp_path / "unmeasured", ON_GPU, "epochs=3", "callbacks=none"))
    assert measures(fit(tmp_path / "again", ON_GPU, "epochs=3", *MEASURES)) == measures(run)


class Undropped(SmallNetwork):
    """Without dropout: a GPU draws other masks than a CPU."""

    def build(self, channels: int, classes: int) -> None:
        super().build(channels, classes)
        self.convolutions = torch.nn.Sequential(
            *(each for each in self.convolutions if not isinstance(each, torch.nn.Dropout))
        )


def test_a_run_is_near_that_of_a_cpu(tmp_path: Path) -> None:
    network = f"model._target_={Undropped.__module__}.{Undropped.__name__}"
    (row,) = measures(fit(tmp_path / "gpu", network, ON_GPU, "epochs=1", *MEASURES))
    (other,) = measures(fit(tmp_path / "cpu", network, "epochs=1", *MEASURES))
    assert row.keys() == other.keys()
    for name, value in other.items():
        if value and name.split("/")[0] in ("test", "prs", "weights", "features", "robust"):
            assert float(row[name]) == pytest.approx(float(value), rel=0.1, abs=0.1), name


def test_interventions_train_what_they_train_on_a_cpu() -> None:
    on_cpu, on_gpu = intervened(), intervened(accelerator="gpu", devices=1)
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-2, atol=1e-3, equal_nan=True, check_device=False)


def test_mixed_precision_trains_and_is_measured_in_float32(tmp_path: Path) -> None:
    (row,) = fit(tmp_path, ON_GPU, "epochs=1", "trainer.precision=bf16-mixed", *MEASURES).rows()
    assert 0 < float(row["prs/ratio"]) <= 1


def test_a_sweep_gives_each_job_a_gpu_of_its_own(run_train: RunTrain, tmp_path: Path) -> None:
    assert visible_gpus()
    run_train("sweep=two", "seed=0,1", ON_GPU, "epochs=1", "-m")
    assert len(list((tmp_path / "runs" / "two").glob("*/metrics.csv"))) == 2


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_measures_are_of_float32_whatever_trained(tmp_path: Path, precision: str) -> None:
    plain = ("model._target_=tests.networks.PlainNetwork", "callbacks.robustness=null", ON_GPU)
    run = fit(tmp_path / precision, *plain, f"trainer.precision={precision}")
    exact = fit(tmp_path / "exact", *plain)
    assert not torch.equal(weights(run)["final.weight"], weights(exact)["final.weight"])
    network = PlainNetwork(channels=1, mean=[0.1307], std=[0.3081])
    network.load_state_dict(weights(run))
    data = digit_data(20, 100, 40)
    data.setup()
    assert data.train is not None
    with torch.no_grad():
        logits, hidden = logits_and_pre_activations(network, to_unit_range(data.train.images))
    row = run.rows()[-1]
    loss = torch.nn.functional.cross_entropy(logits, data.train.labels).item()
    assert float(row["train/loss"]) == pytest.approx(loss, rel=1e-4)
    assert abs(float(row["prs/count"]) - len({tuple(signs) for signs in (hidden > 0).tolist()})) <= 2


@pytest.mark.parametrize("matmul", ["highest", "medium"])
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:The number of training batches")
def test_a_module_of_ones_own_gives_the_numbers_of_numpy(matmul: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(matmul)
    try:
        found = fitted(Module(Layers()), accelerator="gpu")
        assert torch.get_float32_matmul_precision() == matmul
    finally:
        torch.set_float32_matmul_precision(before)
    for name, value in by_numpy(Layers()).items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
