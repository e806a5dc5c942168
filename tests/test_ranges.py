"""Integer ranges in the overrides of a sweep."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from prs_lightning.errors import ConfigError
from prs_lightning.sweep.ranges import expand, jobs


def combinations(*overrides: str) -> list[tuple[str, ...]]:
    return jobs(OverridesParser.create().parse_overrides(list(overrides)))


@given(st.integers(-50, 50), st.integers(0, 20))
def test_a_range_is_inclusive_at_both_ends(first: int, length: int) -> None:
    numbers = [int(text) for text in expand(f"{first}..{first + length}")]
    assert numbers == list(range(first, first + length + 1))


@pytest.mark.parametrize(
    "text", ["v1..2", "1..2x", "1...2", "1..", "..2", "1.5..2", "a", "'0..4'", "[0..4]", "1..2..3"]
)
def test_what_only_looks_like_a_range_stays_as_it_is(text: str) -> None:
    assert expand(text) == [text]


def test_ranges_mix_with_commas_and_with_hydras_own_sweeps() -> None:
    assert combinations("seed=0..4,10") == [(f"seed={n}",) for n in (0, 1, 2, 3, 4, 10)]
    assert combinations("seed=7,1..2") == [("seed=7",), ("seed=1",), ("seed=2",)]
    assert combinations("seed=range(0,2)", "batch_size=choice(8,16..17)") == [
        ("seed=0", "batch_size=8"), ("seed=0", "batch_size=16"), ("seed=0", "batch_size=17"),
        ("seed=1", "batch_size=8"), ("seed=1", "batch_size=16"), ("seed=1", "batch_size=17"),
    ]  # fmt: skip


def test_other_values_keep_their_text() -> None:
    assert combinations("name=v1..2", "data.mean=[0.1,0.2]", "sweep='0..4'", "~callbacks.progress", "run=null") == [
        ("name=v1..2", "data.mean=[0.1,0.2]", "sweep='0..4'", "~callbacks.progress", "run=null")
    ]


def test_a_key_given_twice_counts_as_given_last() -> None:
    assert combinations("seed=0..4", "seed=7") == [("seed=7",)]


def test_a_range_that_counts_down_is_refused_with_the_right_one() -> None:
    with pytest.raises(ConfigError, match=r"seed=4\.\.0 counts down.*write seed=0\.\.4"):
        combinations("seed=4..0")


def test_a_sweep_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"x=interval\(0,1\) has no end"):
        combinations("x=interval(0,1)")
