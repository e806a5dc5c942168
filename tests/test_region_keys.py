"""The keys of regions: packing by numpy, the published formula in Python integers, collisions, and the sorting."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from prs_lightning import regions
from prs_lightning.errors import RunError
from prs_lightning.regions import keys as region_keys
from prs_lightning.regions import sign_patterns
from prs_lightning.regions.keys import keys_of_words, multilinear, pack, unpack
from prs_lightning.regions.sorting import count_keys, find_keys, group_keys, sort_words
from tests.test_regions import WIDTHS, quick


@pytest.mark.parametrize("units", WIDTHS)
def test_packing_is_that_of_numpy_and_can_be_undone(units: int) -> None:
    patterns = (torch.rand(units, 17) > 0.5).T  # not contiguous
    packed = np.packbits(patterns.numpy(), axis=1, bitorder="little")
    assert pack(patterns).numpy().view(np.uint8)[:, : packed.shape[1]].tolist() == packed.tolist()
    assert torch.equal(unpack(pack(patterns), units), patterns)


@pytest.mark.parametrize("units", WIDTHS)
def test_the_ways_of_cpu_and_gpu_agree_bit_for_bit(units: int) -> None:
    z = torch.randn(33, units)
    assert torch.equal(keys_of_words(pack(sign_patterns(z))), regions.region_keys(z))


@pytest.mark.parametrize("units", [*WIDTHS, 4096])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_and_threads_give_the_keys_of_the_patterns(
    units: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = torch.randn(101, units, dtype=dtype)
    expected = keys_of_words(pack(sign_patterns(z)))
    monkeypatch.setattr(region_keys, "_CACHED", 5 * units)
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
    for row, key in zip(patterns.tolist(), keys_of_words(pack(patterns)).tolist(), strict=True):
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


def test_patterns_that_hardly_differ_have_keys_of_their_own() -> None:
    units = 180
    patterns = torch.zeros(1 + units + units * (units - 1) // 2, units, dtype=torch.bool)
    for row, positive in enumerate(itertools.chain([()], ((d,) for d in range(units)))):
        patterns[row, list(positive)] = True
    for row, pair in enumerate(itertools.combinations(range(units), 2), start=1 + units):
        patterns[row, list(pair)] = True
    keys = keys_of_words(pack(patterns))
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
    assert len(sort_words(keys_of_words(pack(wide))).unique()) == len(patterns)
