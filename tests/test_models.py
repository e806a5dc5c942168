"""Networks: parameter counts, shapes, normalisation inside, pre-activations and logits of one pass."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from prs_lightning.analysis.figures.inference import outputs
from prs_lightning.errors import ConfigError
from prs_lightning.models import CNN6, VGG16, ImageClassifier, ResNet18
from tests.networks import logits_and_pre_activations


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_cnn6_has_the_parameters_of_the_paper() -> None:
    assert parameters(CNN6()) == 943_306


def test_vgg16_has_torchvisions_convolutions_and_the_small_classifier() -> None:
    convolutions = parameters(torchvision.models.vgg16(weights=None).features)
    linear = sum(inputs * outputs + outputs for inputs, outputs in [(512, 4096), (4096, 4096), (4096, 10)])
    assert parameters(VGG16()) == convolutions + linear


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
