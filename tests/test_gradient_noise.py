"""Gradient noise: signs of the float32 gradient against a float64 network that is made another way."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prs_lightning.attacks import gradient_noise as module
from prs_lightning.attacks.gradient_noise import ReferenceNetwork, gradient_noise, without_ties
from prs_lightning.attacks.network import AttackedNetwork
from prs_lightning.errors import ConfigError
from tests.attacked import Scaled, digits, trained


def by_hand(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """A float64 copy of the network under torch's own cross-entropy, whose margins must stay below 37."""
    signs = []
    for model, moved in ((network, images), (copy.deepcopy(network).double(), images.double())):
        moved = moved.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(moved), labels, reduction="sum"), moved)
        signs.append(gradient.flatten(1).sign())
    wrong = (signs[0] != signs[1]) & (signs[1] != 0)
    return wrong.sum(1) / (signs[1] != 0).sum(1) > 0.1


@pytest.mark.parametrize("factor", [1, 2])
def test_it_is_what_a_float64_copy_says(factor: float) -> None:
    network, (images, labels) = Scaled(trained(), factor).eval(), digits(100)
    found = gradient_noise(network, images, labels)
    assert torch.equal(found, by_hand(network, without_ties(images), labels))
    assert torch.equal(found, gradient_noise(network, images, labels, batch_size=33))
    assert found.any() == (factor == 2)


def test_the_reference_is_the_gradient_up_to_a_factor_per_sample() -> None:
    network, (images, labels) = trained(), digits(50)
    moved = images.double().requires_grad_()
    logits = copy.deepcopy(network).double()(moved)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), moved)
    others = 1 - logits.detach().softmax(1).gather(1, labels[:, None])
    reference = ReferenceNetwork(AttackedNetwork(network, images.device), images.device).gradient(images, labels)
    expected = gradient.flatten(1) / others
    scale = expected.abs().amax(1, keepdim=True)
    torch.testing.assert_close(reference.flatten(1) / scale, expected / scale, rtol=0, atol=1e-6)


def test_it_sees_what_the_zero_gradient_does_not() -> None:
    """Logits x 10: cross-entropy is exactly 0 on most images, and hardly a gradient is."""
    images, labels = digits(100)
    network = Scaled(trained(), 10).eval()
    underflow = F.cross_entropy(network(images), labels, reduction="none") == 0
    zero = AttackedNetwork(network, images.device).gradient(images, labels).largest == 0
    noise = gradient_noise(network, images, labels)
    assert underflow.float().mean() > 0.7
    assert zero.float().mean() < 0.2
    assert (noise == underflow).float().mean() > 0.95


@pytest.mark.parametrize("factor", [1e3, 1e6])
def test_no_scale_is_beyond_the_reference(factor: float) -> None:
    """In float64, too, exp(-margin) is 0 from a margin of 745 on, and 1 - p from 37 on."""
    network, (images, labels) = Scaled(trained(), factor).eval(), digits(60)
    correct = trained()(images).argmax(1) == labels
    assert torch.equal(gradient_noise(network, images, labels), correct)


def test_a_sample_without_any_gradient_is_not_noisy() -> None:
    class Blind(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images.sum((1, 2, 3)) * 0, images.sum((1, 2, 3)) * 0 + 1], dim=1)

    images, labels = digits(10)
    assert not gradient_noise(Blind().eval(), images, labels * 0).any()


def test_a_new_network_on_black_images_has_no_noise() -> None:
    """Its pooling meets ties in the background, and rounding differs between float32 and float64."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(4096, 10),
    ).eval()  # fmt: skip
    images, labels = digits(40)
    assert not gradient_noise(network, images, labels).any()
    moved = without_ties(images)
    assert (moved - images).abs().max() <= 1 / 255
    assert moved.min() >= 0
    assert moved.max() <= 1


def test_no_trace_is_left_in_the_network() -> None:
    network, (images, labels) = trained(batch_norm=True), digits(20)
    state = {name: (tensor.clone(), tensor.dtype) for name, tensor in network.state_dict().items()}
    flags = [(parameter.requires_grad, parameter.grad) for parameter in network.parameters()]
    random = torch.get_rng_state()
    gradient_noise(network, images, labels)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name][0])
        assert tensor.dtype == state[name][1]
    for parameter, (flag, gradient) in zip(network.parameters(), flags, strict=True):
        assert parameter.requires_grad == flag
        assert parameter.grad is gradient
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(each.training for each in network.modules())


class Casting(nn.Module):
    """Computes in float32 whatever it is given."""

    def __init__(self, at_the_end: bool) -> None:
        super().__init__()
        self.network, self.at_the_end = trained(), at_the_end

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).float() if self.at_the_end else self.network(images.float())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_where_there_is_no_float64_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = digits(4)
    with pytest.raises(ConfigError, match="scripted network cannot be handed float64"):
        gradient_noise(torch.jit.trace(trained(), images), images, labels)
    with pytest.raises(ConfigError, match="computes in torch.float32 inside"):
        gradient_noise(Casting(at_the_end=True).eval(), images, labels)
    with pytest.raises(ConfigError, match="cannot compute in float64"):
        gradient_noise(Casting(at_the_end=False).eval(), images, labels)

    def refuse(*_: object, **__: object) -> Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr(module.torch, "zeros", refuse)
    with pytest.raises(ConfigError, match="cpu has no float64"):
        gradient_noise(trained(), images, labels)
