"""The gate: can these values tell networks apart?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prs_lightning.analysis.measurable import AT_THE_EDGE, edge_of, samples_of, why_not


@given(st.integers(20, 60_000), st.integers(0, 1000))
def test_the_number_of_samples_is_found_from_shares_that_lie_next_to_each_other(samples: int, seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, samples, 50)
    assert samples_of(np.append(counts, counts[0] + 1) / samples) == samples


def values(*parts: tuple[float, int]) -> np.ndarray:
    return np.concatenate([np.full(count, value) for value, count in parts])


@pytest.mark.parametrize(
    ("shares", "samples", "reason"),
    [
        (np.zeros(120), 100, "0 in every model"),
        (np.full(9, 0.25), 100, "0.25 in every model"),
        (values((0, 102), (1e-4, 8), (2e-4, 6), (3e-4, 4)), 10000, "within one sample of 0 in 110 of 120 models"),
        (values((1, 100), (0.9999, 10), (0.9, 5), (0.8, 5)), 10000, "within one sample of 1 in 110 of 120 models"),
        (values((0, 30), (0.25, 30), (0.5, 30), (0.75, 30)), 4, "3 different values above one sample of 4"),
        (
            np.random.default_rng(0).binomial(200, 0.5, 60) / 200,
            200,
            "differs by no more than counting 200 samples does",
        ),
        (np.array([0.1, 0.2, 1.7]), 100, "is no share of samples in every model (0.1 to 1.7)"),
        (np.array([]), 100, "no model"),
    ],
)
def test_what_tells_no_networks_apart_says_why(shares: np.ndarray, samples: int, reason: str) -> None:
    assert why_not(shares, samples) == reason


def test_a_few_networks_that_differ_widely_are_measurable() -> None:
    """A quarter of the networks keep their accuracy: the commonest shape of the paper's claim."""
    rng = np.random.default_rng(0)
    shares = np.concatenate([np.zeros(90), rng.integers(5000, 9000, 30) / 10_000])
    assert why_not(shares, 10_000) == ""
    assert np.isnan(edge_of(shares, 10_000)[0])


def test_binomial_noise_alone_is_let_through_as_often_as_the_test_says() -> None:
    rng = np.random.default_rng(1)
    through = [why_not(rng.binomial(500, 0.3, 40) / 500, 500) == "" for _ in range(400)]
    assert 0.02 < np.mean(through) < 0.09
    wide = [why_not(rng.binomial(500, rng.beta(20, 40, 40)) / 500, 500) == "" for _ in range(50)]
    assert all(wide)


def test_a_count_of_the_whole_training_set_has_no_error() -> None:
    shares = np.random.default_rng(0).binomial(200, 0.5, 60) / 200
    assert why_not(shares, 200, drawn=False) == ""


def test_other_measures_need_only_vary() -> None:
    assert why_not(np.array([1.5, -3, 2])) == ""
    assert why_not(values((0.1, 9), (0.2, 1))) == "0.1 in 9 of 10 models"
    assert why_not(np.full(5, 7.0)) == "7 in every model"


def test_the_bound_of_no_survivor_is_exact() -> None:
    shares = values((0, 58), (1e-4, 2))
    edge, bound = edge_of(shares, 10_000)
    # One of 10,000: Clopper & Pearson 1934.
    assert (edge, bound) == (0, pytest.approx(stats.beta.ppf(0.975, 2, 9999)))
    assert edge_of(np.ones(5), 100)[0] == 1
    assert AT_THE_EDGE > 0.75
