"""Any network from config alone: wrapped, trained and measured as the networks of the study, or refused in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
import torchvision

from prs_lightning.attacks import pgd
from prs_lightning.callbacks.cosine_similarity import CosineSimilarity
from prs_lightning.callbacks.records import Records
from prs_lightning.callbacks.regions import Regions
from prs_lightning.callbacks.robustness import Robustness
from prs_lightning.callbacks.scores import Scores
from prs_lightning.callbacks.sparsity import Sparsity
from prs_lightning.data import ImageData, to_unit_range
from prs_lightning.errors import ConfigError, RunError
from prs_lightning.models import CNN6, Wrapped, check_network, network_of
from prs_lightning.runs import RunDirectory
from prs_lightning.runs.checkpoints import AtomicCheckpointIO, load_network
from tests import any_networks
from tests.conftest import PROJECT, SMALL, digit_data
from tests.test_training import Cut, assert_same_weights, fit

NAME = "my_package.nets.Convolutional"
SHARED = {"channels": 1, "classes": 10, "mean": [0.13], "std": [0.31], "seed": 0, "learning_rate": 1e-3}


def config(name: str, **keys: Any) -> dict[str, Any]:
    target = name if "." in name else f"tests.any_networks.{name}"
    return {"_target_": target, **SHARED, **keys}


def fitted(network: pl.LightningModule, data: ImageData, *callbacks: pl.Callback, epochs: int = 1) -> dict[str, float]:
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=[*callbacks], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(network, data)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def checked(model: dict[str, Any], *, channels: int = 1, classes: int = 10, side: int = 32) -> pl.LightningModule:
    network = network_of(model)
    check_network(network, torch.rand(2, channels, side, side), classes=classes, data="some")
    return network


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_wrapped_network_is_trained_by_adam_on_cross_entropy_of_normalised_images() -> None:
    data = digit_data(train_limit=60, test_limit=20)
    torch.manual_seed(0)
    wrapped = network_of(config("Convolutional"))
    assert isinstance(wrapped, Wrapped)
    torch.manual_seed(0)
    by_hand = any_networks.Convolutional(1, 10)
    fitted(wrapped, data, epochs=2)
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-3)
    batches = data.train_dataloader()
    for epoch in range(2):
        batches.set_epoch(epoch)
        for images, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(by_hand((images - 0.13) / 0.31), labels).backward()
            optimizer.step()
    for name, tensor in by_hand.state_dict().items():
        torch.testing.assert_close(wrapped.network.get_parameter(name).data, tensor, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_its_measures_are_those_of_its_layers_by_hand() -> None:
    data = digit_data(train_limit=60, test_limit=20)
    network = network_of(config("Convolutional"))
    found = fitted(network, data, Scores(), Regions(), Sparsity(), CosineSimilarity())
    inner = network.network
    train, _ = data.train, data.test
    with torch.no_grad():
        maps = inner.maps((to_unit_range(train.images) - 0.13) / 0.31)
        z = inner.hidden(maps.relu().flatten(1))
        logits = inner.head(z.relu())
    patterns = {tuple(row) for row in (z > 0).tolist()}
    assert found["prs/count"] == len(patterns)
    zeros = [float((each <= 0).double().mean()) for each in (maps, z)]
    assert found["features/sparsity"] == pytest.approx(sum(zeros) / 2, abs=1e-6)
    assert found["train/loss"] == pytest.approx(float(F.cross_entropy(logits, train.labels)), rel=1e-5)
    rows = F.normalize(inner.head.weight.detach().double())
    pairs = [float(rows[i] @ rows[j]) for i in range(10) for j in range(i + 1, 10)]
    assert found["weights/cosine_similarity"] == pytest.approx(sum(pairs) / 45, abs=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_without_a_relu_there_is_no_sparsity_and_batches_and_dropout_are_as_in_evaluation() -> None:
    data = digit_data(train_limit=60, test_limit=20)
    network = network_of(config("with_options"))
    found = fitted(network, data, Scores(), Regions(), Sparsity())
    assert "features/sparsity" not in found
    layers = network.network.layers.eval()
    with torch.no_grad():
        normalised = (to_unit_range(data.train.images) - 0.13) / 0.31
        z, logits = layers[:3](normalised), layers(normalised)
    assert found["prs/count"] == len({tuple(row) for row in (z > 0).tolist()})
    assert found["train/accuracy"] == pytest.approx(float((logits.argmax(1) == data.train.labels).float().mean()))


def test_one_output_is_trained_as_by_binary_cross_entropy() -> None:
    network = network_of(config("OneOutput", classes=2))
    images, labels = torch.rand(6, 1, 32, 32), torch.tensor([0, 1, 1, 0, 1, 0])
    check_network(network, images, classes=2, data="some")
    network.log = lambda *given, **keys: None  # type: ignore[method-assign]
    network.first_bad_step = torch.tensor(-1)
    network._trainer = type("Trainer", (), {"is_last_batch": False})()  # type: ignore[assignment]
    loss = network.training_step((images, labels), 1)
    expected = F.binary_cross_entropy_with_logits(network(images)[:, 0], labels.float())
    torch.testing.assert_close(loss, expected)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_loss_that_two_classes_do_not_have_is_refused_before_training() -> None:
    data = digit_data(train_limit=60, test_limit=20)
    data.setup()
    for split in (data.train, data.test):
        split.labels.remainder_(2)
    network = network_of(config("OneOutput", classes=2))
    attacks = Robustness(epsilon=0.1, grid_epochs=[50], grid_attacks=["dlr"])
    with pytest.raises(ConfigError, match="grid_attacks.dlr: .* needs 3 classes .* grid_attacks.dlr=null"):
        fitted(network, data, attacks)


def test_sizes_are_handed_over_where_the_signature_has_them() -> None:
    assert network_of(config("Convolutional", width=7)).network.hidden.out_features == 7
    assert network_of(config("Convolutional", num_classes=3, classes=3)).network.head.out_features == 3
    assert network_of(config("torchvision.models.resnet18", classes=4)).network.fc.out_features == 4
    for name in ("torchvision.models.resnet50", "torchvision.models.mobilenet_v3_small"):
        checked(config(name, channels=3, mean=[0.5] * 3, std=[0.2] * 3), channels=3)
    assert isinstance(network_of(config("prs_lightning.models.CNN6")), CNN6)


def test_a_network_that_takes_mean_and_std_normalises_alone() -> None:
    network = network_of(config("Normalising"))
    images = torch.rand(3, 1, 32, 32)
    torch.testing.assert_close(network(images), network.network.layers((images - 0.13) / 0.31))


def test_pretrained_weights_come_from_the_cache_and_are_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT.url.rsplit("/", 1)[1]
    state = torchvision.models.mobilenet_v3_small().state_dict()
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / file)
    model = config("torchvision.models.mobilenet_v3_small", weights="DEFAULT", channels=3, classes=1000)
    network = checked(model, channels=3)
    torch.testing.assert_close(network.network.classifier[3].weight.data, state["classifier.3.weight"])
    (tmp_path / "checkpoints" / file).unlink()

    def offline(*given: object, **keys: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(ConfigError, match=r"no network \(pretrained weights are kept in .*checkpoints\)"):
        network_of(model)
    with pytest.raises(ConfigError, match="'num_classes' expected value 1000 but got 10"):
        network_of(model | {"classes": 10})


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (config("nosuch.Net"), "no package nosuch: pip install nosuch"),
        (config("timm.models.no_such_network"), "timm"),
        (config("tests.any_networks.Convolutionel"), "has no Convolutionel: did you mean Convolutional"),
        (config("tests.nosuch.Net"), "tests has no nosuch"),
        (config("Convolutional", depth=3), "unexpected keyword argument 'depth'; it was given .*depth=3"),
        (config("torchvision.transforms.ToPILImage"), "expected a torch module's class|gives a ToPILImage"),
        (config("no_network"), "gives a int: expected a torch module"),
        (config("Scripted"), "scripted"),
        (config("Probabilities"), "probabilities"),
        (config("Double"), r"Double cannot take images of 1 x 32 x 32 pixels \(.*dtype"),
        (config("Gelu", classes=5), "Gelu gives 10 logits, but model.classes=5"),
        (config("OneOutput"), "OneOutput gives 2 logits, but model.classes=10"),
        (config("torchvision.models.resnet18"), "expects 3 channels, they have 1; .*channels are not repeated"),
        (config("torchvision.models.alexnet"), "expects 3 channels"),
        (config("torchvision.models.resnet18", weights="NOPE"), "NOPE"),
        (config("os.system"), "expected a torch module's class"),
        (config("torch.os.system"), "expected a torch module's class"),
        (config("builtins.exec"), "expected a torch module's class"),
        (config("collections.OrderedDict"), "expected a torch module's class"),
        ({**config("x"), "_target_": "__import__('os')"}, "expected a dotted name"),
        ({**config("x"), "_target_": "lonely"}, "expected a dotted name"),
    ],
    ids=lambda given: given["_target_"] if isinstance(given, dict) else "",
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_what_cannot_work_is_refused_in_one_line(model: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        checked(model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "side", "words"),
    [
        (
            "torchvision.models.alexnet",
            32,
            "cannot take images of 3 x 32 x 32 pixels .*too small.*: give another data.size",
        ),
        ("torchvision.models.vit_b_32", 32, "Wrong image height"),
        ("Gelu", 28, "cannot be multiplied"),
    ],
)
def test_images_of_the_wrong_size_are_refused(name: str, side: int, words: str) -> None:
    channels = 1 if name == "Gelu" else 3
    with pytest.raises(ConfigError, match=words):
        checked(config(name, channels=channels, mean=[0.5], std=[0.5]), channels=channels, side=side)


def test_labels_beyond_the_logits_are_refused() -> None:
    with pytest.raises(ConfigError, match="Own gives 10 logits, but some has labels up to 11"):
        checked(config("Own"), classes=12)
    with pytest.raises(ConfigError, match="model.classes=10, but some has labels up to 11"):
        checked(config("prs_lightning.models.CNN6"), classes=12)


def test_checking_leaves_no_trace() -> None:
    network = network_of(config("Gelu")).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    check_network(network, torch.rand(2, 1, 32, 32, generator=torch.Generator()), classes=10, data="some")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in network.modules())
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


def test_a_network_that_flattens_by_view_is_attacked_as_one_that_reshapes() -> None:
    torch.manual_seed(0)
    viewing = any_networks.Convolutional(1, 10).eval()
    reshaping = any_networks.Reshaping(1, 10).eval()
    reshaping.load_state_dict(viewing.state_dict())
    images = torch.rand(6, 1, 32, 32)
    labels = viewing(images).argmax(1)
    one, other = (pgd(network, images, labels, epsilon=0.1, steps=5) for network in (viewing, reshaping))
    assert torch.equal(one.correct_after, other.correct_after)
    assert not one.correct_after.all()
    torch.testing.assert_close(one.adversarial, other.adversarial, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_module_with_a_training_step_trains_itself_and_its_own_logs_are_no_measures(tmp_path: Path) -> None:
    data = digit_data(train_limit=60, test_limit=20)
    torch.manual_seed(0)
    network = network_of(config("Own", rate=0.5))
    assert isinstance(network, any_networks.Own)
    start = [parameter.detach().clone() for parameter in network.parameters()]
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, callbacks=[Scores(), Records()], logger=False, check_val_every_n_epoch=2,
        default_root_dir=str(tmp_path), enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(network, data)
    batches, layers = data.train_dataloader(), any_networks.Own(10).layers
    with torch.no_grad():
        for parameter, value in zip(layers.parameters(), start, strict=True):
            parameter.copy_(value)
    for epoch in range(2):
        batches.set_epoch(epoch)
        for images, labels in batches:
            gradients = torch.autograd.grad(F.cross_entropy(layers(images), labels), list(layers.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(layers.parameters(), gradients, strict=True):
                    parameter -= 0.5 * gradient
    for trained, expected in zip(network.layers.parameters(), layers.parameters(), strict=True):
        torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-6)
    first, second = RunDirectory(tmp_path).rows()
    assert first["train/loss"] == ""  # nothing was measured there, though the module logs 123 by that name
    expected_loss = F.cross_entropy(layers(to_unit_range(data.train.images)), data.train.labels)
    assert float(second["train/loss"]) == pytest.approx(float(expected_loss), rel=1e-4)
    assert float(second["mine/validated"]) == 20


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_cut_run_of_a_users_module_ends_as_if_never_interrupted(tmp_path: Path) -> None:
    settings = ("model._target_=tests.any_networks.Dropping", "epochs=4", "callbacks=none")
    whole = fit(tmp_path / "whole", *settings)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit):
        fit(tmp_path / "cut", *settings, extra=Cut("on_train_batch_end"))
    signal.signal(signal.SIGINT, before)  # Lightning ignores it during its shutdown
    assert_same_weights(whole, fit(tmp_path / "cut", *settings))


@pytest.mark.parametrize(
    "model", [config("Convolutional", width=5), config("Own"), config("prs_lightning.models.CNN6")], ids=str
)
def test_a_checkpoint_says_how_to_build_its_network_again(model: dict[str, Any], tmp_path: Path) -> None:
    network = network_of(model).eval()
    path = RunDirectory(tmp_path).checkpoint(1)
    AtomicCheckpointIO(model).save_checkpoint({"state_dict": network.state_dict()}, path)
    loaded = load_network(path)
    images = torch.rand(3, 1, 32, 32)
    assert torch.equal(loaded(images), network(images))
    assert not loaded.training
    with pytest.raises(RunError, match="holds a .*, expected a VGG16"):
        load_network(path, "VGG16")


def test_a_checkpoint_whose_code_is_not_there_or_is_no_network_is_refused(tmp_path: Path) -> None:
    path, touched = RunDirectory(tmp_path).checkpoint(1), tmp_path / "touched"
    AtomicCheckpointIO(config("gone.Net")).save_checkpoint({"state_dict": {}}, path)
    with pytest.raises(RunError, match="epoch-001.ckpt holds a gone.Net: .*no package gone"):
        load_network(path)
    for name in ("os.system", "torch.os.system", "subprocess.check_output"):
        AtomicCheckpointIO({"_target_": name, "command": f"touch {touched}"}).save_checkpoint({"state_dict": {}}, path)
        with pytest.raises(RunError, match="expected a torch module's class"):
            load_network(path)
    assert not touched.exists()


@pytest.mark.parametrize("sweep", [False, True], ids=["one run", "a sweep"])
def test_the_folder_of_the_command_is_on_the_path(tmp_path: Path, sweep: bool) -> None:
    """A module that lies there is found by a run and by the jobs of a sweep, and a resumed command finds it done."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "nets.py").write_text((PROJECT / "tests" / "any_networks.py").read_text())
    overrides = [each for each in SMALL if not each.startswith("epochs")]
    command = [
        sys.executable, str(PROJECT / "train.py"), *overrides, "epochs=1", f"model._target_={NAME}",
        "callbacks.robustness.steps=2", "callbacks.robustness.limit=10", "runs=runs", *(["-m"] if sweep else []),
    ]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = tmp_path.rglob("run.json")
    run = RunDirectory(record.parent)
    assert run.status == "finished"
    assert run.path.name.startswith("mnist5k-convolutional-bs20-seed0-")
    assert run.config()["model"]["_target_"] == NAME
    assert float(run.rows()[0]["prs/count"]) >= 1
