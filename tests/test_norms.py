"""Spectral norms against numpy's singular values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as torch_spectral_norm

from prs_lightning.errors import ConfigError
from prs_lightning.models import CNN6
from prs_lightning.regions.norms import log_norms, spectral_norm, weight_matrix

MATRICES = {
    "small": torch.randn(20, 300, generator=torch.Generator().manual_seed(0)),
    "tall": torch.randn(300, 20, generator=torch.Generator().manual_seed(1)),
    "iterated": torch.randn(150, 400, generator=torch.Generator().manual_seed(2)),
    "a rank of one": torch.outer(torch.arange(1.0, 201), torch.linspace(-1, 1, 100)),
    "equal singular values": torch.eye(100),
    "a vector that ones do not meet": torch.outer(torch.tensor([1.0, -1.0] * 50), torch.tensor([1.0, -1.0] * 60)),
    "enormous": 1e30 * torch.randn(100, 100, generator=torch.Generator().manual_seed(3)),
    "tiny": 1e-30 * torch.randn(100, 100, generator=torch.Generator().manual_seed(3)),
    "zero": torch.zeros(100, 200),
    "half": torch.randn(100, 100, generator=torch.Generator().manual_seed(4)).bfloat16(),
}


@pytest.mark.parametrize("kind", MATRICES)
def test_the_norm_is_the_largest_singular_value(kind: str) -> None:
    matrix = MATRICES[kind]
    expected = np.linalg.svd(matrix.double().numpy(), compute_uv=False)[0]
    assert spectral_norm(matrix) == pytest.approx(expected, rel=1e-6)
    assert spectral_norm(matrix) == spectral_norm(matrix.clone())


def test_what_is_not_finite_has_no_norm() -> None:
    assert math.isnan(spectral_norm(torch.tensor([[1.0, torch.inf]])))
    assert math.isnan(spectral_norm(torch.full((100, 100), torch.nan)))


@pytest.mark.parametrize("layer", [nn.Conv2d(6, 4, 3, groups=2), nn.ConvTranspose2d(4, 6, 3), nn.Linear(5, 7)])
def test_the_matrix_of_a_layer_is_the_one_that_torch_normalises(layer: nn.Module) -> None:
    with torch.no_grad():
        expected = spectral_norm(weight_matrix(layer))
        weight: Tensor = layer.weight.clone()  # type: ignore[operator,union-attr]
        normalised = torch_spectral_norm(layer, n_power_iterations=200).eval().weight
    torch.testing.assert_close(normalised, weight / expected, rtol=1e-4, atol=1e-6)


def test_the_sum_is_over_every_layer_once() -> None:
    network = CNN6(channels=1)
    found = log_norms(network)
    assert list(found) == [name for name, each in network.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    total = sum(
        np.log10(np.linalg.norm(parameter.detach().double().flatten(1).numpy(), 2))
        for parameter in network.parameters()
        if parameter.ndim > 1
    )
    assert sum(found.values()) == pytest.approx(total, abs=1e-5)
    shared = nn.Linear(3, 3)
    assert list(log_norms(nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(3, 2)))) == ["0", "3"]


def test_zero_lazy_and_missing_weights() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    nn.init.zeros_(network[1].weight)
    assert log_norms(network)["1"] == -math.inf
    with pytest.raises(ConfigError, match=r"layer '0': LazyLinear has no weight yet.*callbacks.weight_norms=null"):
        log_norms(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(ConfigError, match="Flatten has no fully connected or convolutional layer"):
        log_norms(nn.Flatten())
