"""Networks: parameter counts, shapes, normalisation inside, pre-activations and logits of one pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from prs_lightning.analysis.figures.inference import outputs
from prs_lightning.errors import ConfigError
from prs_lightning.models import CNN6, VGG16, ImageClassifier, ResNet18, network_of
from prs_lightning.runs.checkpoints import AtomicCheckpointIO, load_network
from tests.networks import logits_and_pre_activations


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def test_cnn6_has_the_parameters_of_the_paper() -> None:
    assert parameters(CNN6()) == 943_306


def test_vgg16_has_torchvisions_convolutions_and_the_small_classifier() -> None:
    convolutions = parameters(torchvision.models.vgg16(weights=None).features)
    assert parameters(VGG16()) == convolutions + linear(512, 4096) + linear(4096, 4096) + linear(4096, 10)


def test_a_width_is_that_of_the_penultimate_layer_alone() -> None:
    by_hand = parameters(CNN6()) - linear(512, 128) - linear(128, 10) + linear(512, 24) + linear(24, 10)
    assert parameters(CNN6(width=24)) == by_hand
    narrow = VGG16(width=8, width_multiplier=1 / 64)
    assert logits_and_pre_activations(narrow.eval(), torch.rand(2, 3, 32, 32))[1].shape == (2, 8)
    assert narrow.hidden[-1].in_features == 64


def test_a_width_multiplier_is_of_all_other_layers() -> None:
    network = CNN6(channels=1, width_multiplier=0.25)
    widths = [layer.out_channels for layer in network.convolutions if isinstance(layer, nn.Conv2d)]
    assert widths == [8, 16, 32, 32, 16, 16]
    assert [layer.out_features for layer in network.hidden if isinstance(layer, nn.Linear)] == [128, 128]
    thin = VGG16(width_multiplier=1e-6)
    assert {layer.out_channels for layer in thin.convolutions if isinstance(layer, nn.Conv2d)} == {1}


@pytest.mark.parametrize(("architecture", "width"), [(CNN6, 128), (VGG16, 4096)])
def test_the_usual_widths_change_no_weight(architecture: type[ImageClassifier], width: int) -> None:
    states = []
    for arguments in ({}, {"width": width, "width_multiplier": 1.0}):
        torch.manual_seed(1)
        states.append(architecture(**arguments).state_dict())
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_a_checkpoint_builds_a_network_of_its_widths_again(tmp_path: Path) -> None:
    model = {"_target_": "prs_lightning.models.CNN6", "channels": 1, "width": 24, "width_multiplier": 0.25}
    network = network_of(model).eval()
    path, images = tmp_path / "a.ckpt", torch.rand(2, 1, 32, 32)
    AtomicCheckpointIO(model).save_checkpoint({"state_dict": network.state_dict()}, path)
    assert torch.equal(load_network(path)(images), network(images))


@pytest.mark.parametrize(
    "arguments", [{"width": 0}, {"width_multiplier": 0.0}, {"width_multiplier": -1.0}, {"schedule": "step"}]
)
def test_widths_and_schedules_that_cannot_be_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"model.{next(iter(arguments))}=\S+( is unknown)?: expected "):
        CNN6(**arguments)


def test_resnet18_has_torchvisions_parameters() -> None:
    assert parameters(ResNet18()) == parameters(torchvision.models.resnet18(num_classes=10))


def test_the_cifar_stem_is_a_3x3_convolution_and_ends_at_4x4() -> None:
    assert parameters(ResNet18(stem="cifar")) == parameters(ResNet18()) - 64 * 3 * (49 - 9)
    ends = {}
    for stem in ("imagenet", "cifar"):
        network = ResNet18(stem=stem).eval()
        network.convolutions.layer4.register_forward_hook(lambda *call, stem=stem: ends.update({stem: call[2].shape}))
        network(torch.rand(2, 3, 32, 32))
    assert (ends["imagenet"][2:], ends["cifar"][2:]) == ((1, 1), (4, 4))


@pytest.mark.parametrize(("architecture", "width"), [(CNN6, 128), (VGG16, 4096), (ResNet18, 512)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_traced_pre_activations_are_those_of_the_layers_by_hand(
    architecture: type[ImageClassifier], width: int, channels: int
) -> None:
    network = architecture(channels=channels, classes=7).eval()
    images = torch.rand(3, channels, 32, 32)
    with torch.no_grad():
        logits, pre_activations = logits_and_pre_activations(network, images)
        torch.testing.assert_close(network(images), logits)
    assert pre_activations.shape == (3, width)
    assert logits.shape == (3, 7)
    for traced, by_hand in zip(outputs(network, images), (logits, pre_activations), strict=True):
        torch.testing.assert_close(traced, by_hand)


def test_the_penultimate_pre_activations_of_cnn6_and_vgg16_are_before_the_relu() -> None:
    for architecture in (CNN6, VGG16):
        pre_activations = outputs(architecture().eval(), torch.rand(8, 3, 32, 32))[1]
        assert (pre_activations < 0).any()


def test_normalisation_is_inside() -> None:
    plain, normalising = CNN6(channels=1).eval(), CNN6(channels=1, mean=[0.3], std=[0.2]).eval()
    normalising.load_state_dict(plain.state_dict())
    images = torch.rand(4, 1, 32, 32)
    torch.testing.assert_close(normalising(images), plain((images - 0.3) / 0.2))


def test_relu_follows_every_layer_but_the_last() -> None:
    assert sum(isinstance(module, nn.ReLU) for module in CNN6().modules()) == 8
    assert sum(isinstance(module, nn.ReLU) for module in VGG16().modules()) == 15


@pytest.mark.parametrize(
    "bad",
    [{"classes": 0}, {"channels": 0}, {"learning_rate": 0.0}, {"mean": [0.1, 0.2]}, {"std": [0.0]}],
    ids=str,
)
def test_bad_sizes_are_refused(bad: dict) -> None:
    with pytest.raises(ConfigError, match="model"):
        CNN6(**bad)
    with pytest.raises(ConfigError, match="stem='vgg'"):
        ResNet18(stem="vgg")
