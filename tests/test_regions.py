"""Regions against a Python set of tuples, exact key arithmetic in Python integers, and a network of one's own."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from prs_lightning import region_counts, region_keys, regions
from prs_lightning.errors import ConfigError, RunError
from prs_lightning.region_keys import (
    collision_bound,
    count_keys,
    find_keys,
    group_keys,
    keys_of_patterns,
    multilinear,
    pack,
    unpack,
)
from prs_lightning.regions import RegionSet, inclusion_ratio, major_regions, measure, prs_ratio, sign_patterns

WIDTHS = (1, 3, 63, 64, 65, 127, 128, 129, 200)
quick = settings(max_examples=40, deadline=None)


def tuples(z: Tensor) -> list[tuple[bool, ...]]:
    """The oracle: signs by Python's own comparison of Python floats."""
    return [tuple(value > 0 for value in row) for row in z.flatten(1).double().tolist()]


@st.composite
def features(draw: st.DrawFn, width: int | None = None) -> Tensor:
    """Few distinct rows, so that regions are shared; zeros of both signs, the smallest positive number, infinities."""
    units = width or draw(st.sampled_from(WIDTHS))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = torch.tensor([-torch.inf, -1.0, -0.0, 0.0, 6e-8, 2.0, torch.inf])
    rows = values[torch.randint(7, (draw(st.integers(1, 12)), units), generator=generator)]
    rows[1:, : units // 2] = rows[0, : units // 2]
    chosen = torch.randint(len(rows), (draw(st.integers(0, 40)),), generator=generator)
    return rows[chosen].to(draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])))


@quick
@given(features())
def test_regions_and_their_populations_are_those_of_a_set_of_tuples(z: Tensor) -> None:
    found = RegionSet.from_features(z)
    oracle = Counter(tuples(z))
    assert len(found) == len(oracle)
    assert sorted(found.populations().tolist()) == sorted(oracle.values())
    assert found.population_of(z).tolist() == [oracle[pattern] for pattern in tuples(z)]
    assert len(z) == 0 or prs_ratio(z) == len(oracle) / len(z)


@quick
@given(st.sampled_from(WIDTHS).flatmap(lambda width: st.tuples(features(width), features(width))))
def test_membership_inclusion_and_union_are_those_of_sets(pair: tuple[Tensor, Tensor]) -> None:
    first, second = pair
    inside = [pattern in set(tuples(first)) for pattern in tuples(second)]
    assert RegionSet.from_features(first).contains(second).tolist() == inside
    if len(second):
        assert inclusion_ratio(first, second) == sum(inside) / len(second)
    both = RegionSet.from_features(first) | RegionSet.from_features(second)
    oracle = Counter(tuples(first)) + Counter(tuples(second))
    assert (len(both), both.samples) == (len(oracle), oracle.total())
    assert sorted(both.populations().tolist()) == sorted(oracle.values())


@pytest.mark.parametrize("many", [2**20, 8])
@quick
@given(z=features(), batch=st.integers(1, 9))
def test_a_stream_of_batches_gives_the_set_of_the_whole(many: int, z: Tensor, batch: int) -> None:
    stream = RegionSet()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(region_counts, "_MERGE_AT", 5)
        patch.setattr(region_counts, "_MANY_KEYS", many)
        for part in z.split(batch):
            stream.add(part)
        assert len(stream | stream) == len(stream)
        assert stream.population_of(z).tolist() == [Counter(tuples(z))[pattern] for pattern in tuples(z)]
        assert (stream | stream).populations().tolist() == [2 * count for count in stream.populations().tolist()]
    assert torch.equal(stream.keys(), RegionSet.from_features(z).keys())
    assert torch.equal(stream.populations(), RegionSet.from_features(z).populations())
    assert stream.keys().nbytes == 16 * len(stream)


def test_zero_is_negative_and_the_smallest_positive_number_is_not() -> None:
    z = torch.tensor([[0.0, -0.0, 1e-45, -1e-45, torch.inf, -torch.inf]])
    assert sign_patterns(z).tolist() == [[False, False, True, False, True, False]]
    # The same region as that of the ReLU's output, where negative and zero are one.
    assert len(RegionSet.from_features(torch.cat([z, z.relu()]))) == 1


def test_a_feature_that_is_always_zero_divides_nothing() -> None:
    z = torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.0, 2.0]])
    assert len(RegionSet.from_features(z)) == len(RegionSet.from_features(z[:, 1:])) == 2


def test_images_of_features_count_like_their_flat_rows() -> None:
    z = torch.randn(20, 3, 4, 5)
    assert torch.equal(RegionSet.from_features(z).keys(), RegionSet.from_features(z.flatten(1)).keys())
    assert torch.equal(regions.region_keys(z.to(memory_format=torch.channels_last)), regions.region_keys(z))


def test_bad_features_are_refused() -> None:
    for z in (torch.zeros(3), torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 0), torch.zeros(0, 0)):
        with pytest.raises(ConfigError, match="expected"):
            sign_patterns(z)
    with pytest.raises(RunError, match="NaN"):
        RegionSet.from_features(torch.tensor([[1.0, 2.0], [torch.nan, 1.0]]))
    with pytest.raises(ConfigError, match="3 units met 2"):
        RegionSet.from_features(torch.zeros(1, 3)).add(torch.zeros(1, 2))
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
    assert len(RegionSet.from_features(empty)) == 0
    assert np.isnan(prs_ratio(empty))
    assert inclusion_ratio(empty, some) == 0
    assert np.isnan(inclusion_ratio(some, empty))
    assert RegionSet().contains(some).tolist() == [False, False]
    assert len(RegionSet() | RegionSet()) == 0
    assert major_regions(empty, torch.zeros(0, dtype=torch.int64)) == {}


@pytest.mark.parametrize("units", WIDTHS)
def test_packing_is_that_of_numpy_and_can_be_undone(units: int) -> None:
    patterns = torch.rand(17, units) > 0.5
    packed = np.packbits(patterns.numpy(), axis=1, bitorder="little")
    assert pack(patterns).numpy().view(np.uint8)[:, : packed.shape[1]].tolist() == packed.tolist()
    assert torch.equal(unpack(pack(patterns), units), patterns)


def test_the_ways_of_cpu_and_gpu_agree_bit_for_bit() -> None:
    patterns = torch.rand(33 * 320) > 0.5
    assert torch.equal(region_keys._pack_by_multiplication(patterns), region_keys._pack_by_numpy(patterns))


@pytest.mark.parametrize("units", [*WIDTHS, 4096])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_and_threads_give_the_keys_of_the_patterns(
    units: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = torch.randn(101, units, dtype=dtype)
    expected = keys_of_patterns(sign_patterns(z))
    monkeypatch.setattr(region_keys, "_BLOCK", 5 * units)
    assert torch.equal(regions.region_keys(z), expected)
    monkeypatch.setattr(region_keys, "_WORTH_A_THREAD", 10 * units)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(regions.region_keys(z), expected)
    z[77, units // 2] = torch.nan
    with pytest.raises(RunError, match="NaN"):
        regions.region_keys(z)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("units", WIDTHS)
def test_a_gpu_gives_the_keys_of_the_cpu(units: int) -> None:
    z = torch.randn(100, units)
    assert torch.equal(regions.region_keys(z.cuda()).cpu(), regions.region_keys(z))


def test_keys_of_wide_layers_are_the_published_formula_in_exact_integers() -> None:
    """Fixed for good: equal patterns must have equal keys in every process and on every day."""
    patterns = torch.rand(5, 150) > 0.5
    stream = hashlib.shake_128(b"prs-lightning region keys, version 1").digest(4 * 8 * 25)
    numbers = [int.from_bytes(stream[i : i + 4], "little") % 2**23 for i in range(0, len(stream), 4)]
    for row, key in zip(patterns.tolist(), keys_of_patterns(patterns).tolist(), strict=True):
        bits = sum(bit << place for place, bit in enumerate(row))
        halves = [1, *(bits >> 8 * i & 255 for i in range(24))]
        parts = [sum(numbers[8 * i + p] * half for i, half in enumerate(halves)) % 2**23 >> 7 for p in range(8)]
        words = [sum(part << 16 * i for i, part in enumerate(parts[start : start + 4])) for start in (0, 4)]
        assert [word % 2**64 for word in key] == words


@pytest.mark.parametrize("differing", [[0], [31], [32, 95], list(range(160))])
def test_two_patterns_collide_as_often_as_the_bound_says(differing: list[int]) -> None:
    """Under random keys a column's topmost 4 bits agree with probability 2^-4, and two columns' with 2^-8."""
    patterns = (torch.rand(1, 160, generator=torch.Generator().manual_seed(0)) > 0.5).repeat(2, 1)
    patterns[1, differing] ^= True
    draws = np.random.default_rng(0).integers(0, 2**23, (25, 20_000)).astype(float)
    one, other = multilinear(pack(patterns), torch.from_numpy(draws)) >> 12
    agree = (one == other).numpy()
    for hits, trials, chance in ((agree, 20_000, 1 / 16), (agree[::2] & agree[1::2], 10_000, 1 / 256)):
        assert scipy.stats.binomtest(int(hits.sum()), trials, chance).pvalue > 1e-3


def test_collision_bound_is_the_number_of_pairs_times_the_chance_of_one() -> None:
    for samples in (2, 60_000, 10_000_000):
        pairs = Fraction(samples * (samples - 1), 2)
        assert pairs / 2**128 < Fraction(collision_bound(samples)) <= 3 * pairs / 2**128


def test_patterns_that_hardly_differ_have_keys_of_their_own() -> None:
    units = 180
    patterns = torch.zeros(1 + units + units * (units - 1) // 2, units, dtype=torch.bool)
    for row, positive in enumerate(itertools.chain([()], ((d,) for d in range(units)))):
        patterns[row, list(positive)] = True
    for row, pair in enumerate(itertools.combinations(range(units), 2), start=1 + units):
        patterns[row, list(pair)] = True
    keys = keys_of_patterns(patterns)
    assert len(count_keys(keys)[0]) == len(patterns)
    assert [len(keys[:, word].unique()) for word in (0, 1)] == [len(patterns)] * 2


def sort_word(first: int, second: int) -> int:
    """What keys are sorted by, in Python's own integers; signed, of 64 bits."""
    golden = 0x9E3779B97F4A7C15

    def signed(number: int) -> int:
        return (number + 2**63) % 2**64 - 2**63

    mixed = signed(second * golden)
    return signed(first + (mixed ^ (mixed >> 32)) * golden)


def key_order(key: tuple[int, int]) -> tuple[int, int, int]:
    return sort_word(*key), *key


@st.composite
def tied_keys(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Keys of which many agree in what they are sorted by, although they differ."""
    pairs = draw(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), max_size=30))
    return [((tie - sort_word(0, second) + 2**63) % 2**64 - 2**63, second) for tie, second in pairs]


small_keys = st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), max_size=30) | tied_keys()


@quick
@given(small_keys, small_keys)
def test_keys_that_tie_are_told_apart(pairs: list[tuple[int, int]], wanted: list[tuple[int, int]]) -> None:
    keys, others = (torch.tensor(rows, dtype=torch.int64).reshape(-1, 2) for rows in (pairs, wanted))
    found, counts = count_keys(keys)
    oracle = Counter(pairs)
    expected = sorted(oracle, key=key_order)
    assert [tuple(key) for key in found.tolist()] == expected
    assert counts.tolist() == [oracle[key] for key in expected]
    assert count_keys(found, counts * 3)[1].tolist() == [3 * oracle[key] for key in expected]
    known, places = group_keys(keys)
    assert torch.equal(known[places], keys)
    assert find_keys(found, others).tolist() == [expected.index(key) if key in oracle else -1 for key in wanted]


def test_patterns_that_differ_in_the_last_units_of_both_words_do_not_tie() -> None:
    """The sum of both words alone would be the same, and every count would take the slow way."""
    patterns = torch.tensor(list(itertools.product([False, True], repeat=12)))
    wide = torch.zeros(len(patterns), 128, dtype=torch.bool)
    wide[:, 58:64], wide[:, 122:] = patterns[:, :6], patterns[:, 6:]
    assert len(region_keys.sort_words(keys_of_patterns(wide)).unique()) == len(patterns)


@quick
@given(features())
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
