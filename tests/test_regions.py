"""Regions against a Python set of tuples, and a network of one's own."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from prs_lightning import regions
from prs_lightning.errors import ConfigError, RunError
from prs_lightning.regions import (
    RegionSet,
    inclusion_ratio,
    major_regions,
    measure,
    prs_ratio,
    region_set,
    sign_patterns,
)

WIDTHS = (1, 3, 63, 64, 65, 127, 128, 129, 200)
quick = settings(max_examples=40, deadline=None)


def tuples(z: Tensor) -> list[tuple[bool, ...]]:
    """The oracle: signs by Python's own comparison of Python floats."""
    return [tuple(value > 0 for value in row) for row in z.flatten(1).double().tolist()]


@st.composite
def pre_activations(draw: st.DrawFn, width: int | None = None) -> Tensor:
    """Few distinct rows, so that regions are shared; zeros of both signs, the smallest positive number, infinities."""
    units = width or draw(st.sampled_from(WIDTHS))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = torch.tensor([-torch.inf, -1.0, -0.0, 0.0, 6e-8, 2.0, torch.inf])
    rows = values[torch.randint(7, (draw(st.integers(1, 12)), units), generator=generator)]
    rows[1:, : units // 2] = rows[0, : units // 2]
    chosen = torch.randint(len(rows), (draw(st.integers(0, 40)),), generator=generator)
    return rows[chosen].to(draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])))


@quick
@given(pre_activations())
def test_regions_and_their_populations_are_those_of_a_set_of_tuples(z: Tensor) -> None:
    found = RegionSet.from_pre_activations(z)
    oracle = Counter(tuples(z))
    assert len(found) == len(oracle)
    assert sorted(found.populations().tolist()) == sorted(oracle.values())
    assert found.population_of(z).tolist() == [oracle[pattern] for pattern in tuples(z)]
    assert len(z) == 0 or prs_ratio(z) == len(oracle) / len(z)


@quick
@given(st.sampled_from(WIDTHS).flatmap(lambda width: st.tuples(pre_activations(width), pre_activations(width))))
def test_membership_inclusion_and_union_are_those_of_sets(pair: tuple[Tensor, Tensor]) -> None:
    first, second = pair
    inside = [pattern in set(tuples(first)) for pattern in tuples(second)]
    assert RegionSet.from_pre_activations(first).contains(second).tolist() == inside
    if len(second):
        assert inclusion_ratio(first, second) == sum(inside) / len(second)
    both = RegionSet.from_pre_activations(first) | RegionSet.from_pre_activations(second)
    oracle = Counter(tuples(first)) + Counter(tuples(second))
    assert (len(both), both.samples) == (len(oracle), oracle.total())
    assert sorted(both.populations().tolist()) == sorted(oracle.values())


@pytest.mark.parametrize("many", [2**20, 8])
@quick
@given(z=pre_activations(), batch=st.integers(1, 9))
def test_a_stream_of_batches_gives_the_set_of_the_whole(many: int, z: Tensor, batch: int) -> None:
    stream = RegionSet()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(region_set, "_MERGE_AT", 5)
        patch.setattr(region_set, "_MANY_KEYS", many)
        for part in z.split(batch):
            stream.add(part)
        assert len(stream | stream) == len(stream)
        assert stream.population_of(z).tolist() == [Counter(tuples(z))[pattern] for pattern in tuples(z)]
        assert (stream | stream).populations().tolist() == [2 * count for count in stream.populations().tolist()]
    assert torch.equal(stream.keys(), RegionSet.from_pre_activations(z).keys())
    assert torch.equal(stream.populations(), RegionSet.from_pre_activations(z).populations())
    assert stream.keys().nbytes == 16 * len(stream)


def test_zero_is_negative_and_the_smallest_positive_number_is_not() -> None:
    z = torch.tensor([[0.0, -0.0, 1e-45, -1e-45, torch.inf, -torch.inf]])
    assert sign_patterns(z).tolist() == [[False, False, True, False, True, False]]
    # The same region as that of the ReLU's output, where negative and zero are one.
    assert len(RegionSet.from_pre_activations(torch.cat([z, z.relu()]))) == 1


def test_a_feature_that_is_always_zero_divides_nothing() -> None:
    z = torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.0, 2.0]])
    assert len(RegionSet.from_pre_activations(z)) == len(RegionSet.from_pre_activations(z[:, 1:])) == 2


def test_images_of_features_count_like_their_flat_rows() -> None:
    z = torch.randn(20, 3, 4, 5)
    assert torch.equal(RegionSet.from_pre_activations(z).keys(), RegionSet.from_pre_activations(z.flatten(1)).keys())
    assert torch.equal(regions.region_keys(z.to(memory_format=torch.channels_last)), regions.region_keys(z))


def test_bad_features_are_refused() -> None:
    for z in (torch.zeros(3), torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 0), torch.zeros(0, 0)):
        with pytest.raises(ConfigError, match="expected"):
            sign_patterns(z)
    with pytest.raises(RunError, match="NaN"):
        RegionSet.from_pre_activations(torch.tensor([[1.0, 2.0], [torch.nan, 1.0]]))
    with pytest.raises(ConfigError, match="3 units met 2"):
        RegionSet.from_pre_activations(torch.zeros(1, 3)).add(torch.zeros(1, 2))
    with pytest.raises(ConfigError, match="one label a sample"):
        major_regions(torch.zeros(3, 2), torch.zeros(2))


def test_a_set_can_be_filled_in_and_outside_of_inference_mode() -> None:
    z = torch.randn(30, 5)
    regions_of_both = RegionSet()
    with torch.inference_mode():
        regions_of_both.add(z[:10] + 0)
    regions_of_both.add(z[10:])
    with torch.inference_mode():
        assert len(regions_of_both) == len(set(tuples(z)))
    assert len(regions_of_both.add(z)) == len(set(tuples(z)))


def test_no_samples() -> None:
    empty, some = torch.zeros(0, 5), torch.ones(2, 5)
    assert len(RegionSet.from_pre_activations(empty)) == 0
    assert np.isnan(prs_ratio(empty))
    assert inclusion_ratio(empty, some) == 0
    assert np.isnan(inclusion_ratio(some, empty))
    assert RegionSet().contains(some).tolist() == [False, False]
    assert len(RegionSet() | RegionSet()) == 0
    assert major_regions(empty, torch.zeros(0, dtype=torch.int64)) == {}


@quick
@given(pre_activations())
def test_major_regions_are_those_of_a_counter(z: Tensor) -> None:
    labels = torch.arange(len(z)) % 3
    majors = major_regions(z, labels)
    assert set(majors) == set(labels.tolist())
    for label, major in majors.items():
        members = z[labels == label]
        counts = Counter(tuples(members))
        pattern = tuple(major.pattern.tolist())
        assert major.count == counts[pattern] == max(counts.values())
        of_region = [row for row, signs in zip(members, tuples(members), strict=True) if signs == pattern]
        torch.testing.assert_close(major.mean, torch.stack(of_region).mean(0), equal_nan=True)


class Classifier(nn.Module):
    """Like many a user's network: dropout, an in-place ReLU, a layer that is never run."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 9), nn.Linear(9, 4), nn.Linear(4, 3)
        self.relu, self.dropout, self.unused = nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc3(self.relu(self.fc2(self.dropout(self.relu(self.fc1(images))))))


def test_measuring_ones_own_network_counts_in_eval_mode_and_leaves_no_trace() -> None:
    network, images = Classifier(), torch.randn(50, 6)
    network.fc3.eval()
    modes = [module.training for module in network.modules()]
    loader = DataLoader(TensorDataset(images, torch.zeros(50)), batch_size=7, shuffle=True)
    state = torch.get_rng_state()
    found = measure(network, loader, layer="fc2")
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    with torch.no_grad():
        expected = network.fc2(network.fc1(images).relu())
    assert (len(found), found.samples, found.units) == (len(set(tuples(expected))), 50, 4)


def test_measuring_a_torchvision_network() -> None:
    network = torchvision.models.resnet18(num_classes=3).eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = network.bn1(network.conv1(images))
    assert len(measure(network, [images], layer="bn1")) == len(set(tuples(expected)))
    with pytest.raises(ConfigError, match="layer1.0.relu' ran 2 times"):
        measure(network, [images], layer="layer1.0.relu")


def test_measuring_refuses_what_it_cannot_measure() -> None:
    network = Classifier()
    with pytest.raises(ConfigError, match=r"'fc4' is not in Classifier: did you mean .*fc3"):
        measure(network, [torch.zeros(1, 6)], layer="fc4")
    with pytest.raises(ConfigError, match="ran 0 times"):
        measure(network, [torch.zeros(1, 6)], layer="unused")
    with pytest.raises(ConfigError, match="batch of type dict"):
        measure(network, [{"images": torch.zeros(1, 6)}], layer="fc2")
    with pytest.raises(RunError, match="NaN"):
        measure(network, [torch.full((1, 6), torch.nan)], layer="fc2")
    assert not any(module._forward_hooks for module in network.modules())
    assert network.training
