"""The bootstrap of runs within strata, against resampled rows and the closed form of its variance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prs_lightning.analysis.resampling import (
    drawn_runs,
    estimate,
    fishers_z,
    partial_correlations,
    rank_covariances,
    resampled_slopes,
    strata_of,
)
from prs_lightning.analysis.statistics import MINIMUM_RUNS, partial_spearman

STRATA = np.repeat(np.arange(4), 5)


@given(st.lists(st.sampled_from([64, 128, 512, 2048]), min_size=2, max_size=12))
def test_no_stratum_has_one_run_and_only_neighbours_are_joined(batch_sizes: list[int]) -> None:
    given_sizes = np.array(batch_sizes)
    strata = strata_of(given_sizes)
    assert np.bincount(strata).min() >= 2
    order = np.argsort(given_sizes, kind="stable")
    assert (np.diff(strata[order]) >= 0).all()
    if np.unique(given_sizes, return_counts=True)[1].min() >= 2:
        assert len(np.unique(strata)) == len(np.unique(given_sizes))


@pytest.mark.parametrize("sizes", [(2, 2, 2), (5, 5, 5, 5), (2, 3, 7)])
def test_the_variance_of_a_mean_is_that_of_stratified_sampling(sizes: tuple[int, ...]) -> None:
    """Sum of (n_h / n)^2 s_h^2 / n_h (Cochran 1977, eq. 5.9): drawing all n_h would halve it for two runs each."""
    rng = np.random.default_rng(0)
    strata = np.repeat(np.arange(len(sizes)), sizes)
    values = rng.normal(size=len(strata)) + 10 * strata
    weights = drawn_runs(strata, draws=200_000, rng=rng)
    means = weights @ values / len(strata)
    expected = sum((n / len(strata)) ** 2 * values[strata == h].var(ddof=1) / n for h, n in enumerate(sizes))
    np.testing.assert_allclose(weights.sum(axis=1), len(strata))
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)
    assert means.var() == pytest.approx(expected, rel=0.02)


def test_each_draw_equals_the_formula_on_the_resampled_rows() -> None:
    """Counts of whole runs for weights: rows that are copied."""
    rng = np.random.default_rng(5)
    runs = np.repeat(np.arange(12), rng.integers(3, 7, 12))
    x = (rng.normal(size=12)[runs] + rng.normal(size=len(runs))).round(1)
    y = (0.5 * x + rng.normal(size=len(runs))).round(1)
    controls = [rng.normal(size=len(runs)).round(1), x.round()]
    counts = rng.multinomial(12, np.full(12, 1 / 12), size=40)
    covariances = rank_covariances([x, y, *controls], runs, counts.astype(float))
    spearmans, partials = partial_correlations(covariances[:, :2, :2]), partial_correlations(covariances)
    slopes = resampled_slopes(x, y, runs, counts.astype(float))
    for draw, count in enumerate(counts):
        rows = np.concatenate([np.flatnonzero(runs == run) for run in range(12) for _ in range(count[run])])
        assert slopes[draw] == pytest.approx(stats.linregress(x[rows], y[rows]).slope)
        assert spearmans[draw] == pytest.approx(stats.spearmanr(x[rows], y[rows])[0])
        assert partials[draw] == pytest.approx(partial_spearman(x[rows], y[rows], [each[rows] for each in controls]))


def test_weights_of_all_runs_scale_nothing() -> None:
    rng = np.random.default_rng(0)
    runs, x, y = np.repeat(np.arange(6), 3), rng.random(18).round(1), rng.random(18)
    one, other = (rank_covariances([x, y], runs, np.full((1, 6), weight)) for weight in (1.0, 1.25))
    np.testing.assert_allclose(partial_correlations(one), partial_correlations(other))
    assert partial_correlations(one)[0] == pytest.approx(stats.spearmanr(x, y)[0])


def test_a_constant_side_has_no_value() -> None:
    runs = np.repeat(np.arange(3), 2)
    x, y = np.array([0.0, 0, 0, 0, 1, 2]), np.arange(6.0)
    covariances = rank_covariances([x, y], runs, np.array([[1.0, 1, 0], [1, 1, 1]]))
    assert np.isnan(partial_correlations(covariances)).tolist() == [True, False]
    assert np.isnan(resampled_slopes(x, y, runs, np.array([[1.0, 1, 0]]))).all()


def test_an_estimate_has_the_variance_of_its_draws_whatever_an_outlier_does() -> None:
    draws = np.random.default_rng(0).normal(3, 0.5, size=100_000)
    draws[:10] = 1e9
    found = estimate(3.0, draws, STRATA)
    assert (found.value, found.freedom) == (3.0, 16)
    assert found.variance == pytest.approx(0.25, rel=0.02)
    low, high = found.interval(0.9)
    half = stats.t.ppf(0.95, 16) * 0.5
    assert (low, high) == pytest.approx((3 - half, 3 + half), rel=0.02)


@pytest.mark.parametrize(
    ("strata", "empty"),
    [(np.zeros(MINIMUM_RUNS - 1, int), 0), (np.array([0, 0, 1, 1, 2]), 0), (STRATA, 0.06)],
)
def test_few_runs_or_empty_draws_leave_an_estimate_without_an_interval(strata: np.ndarray, empty: float) -> None:
    draws = np.linspace(0, 1, 100)
    known = estimate(0.5, draws, np.repeat([0, 1], 4))
    assert known.known
    draws[: int(empty * 100)] = np.nan
    found = estimate(0.5, draws, strata)
    assert found.value == 0.5
    assert np.isnan(found.interval(0.95)).all()
    assert np.isnan(found.p)


def test_each_control_costs_a_run() -> None:
    draws = np.linspace(0, 1, 100)
    assert estimate(0.5, draws, STRATA, 5).freedom == 11
    assert fishers_z(0.9, np.full(100, 0.9), STRATA, 120, 5).variance == pytest.approx(1 / 112)
    assert not estimate(0.5, draws, STRATA[:10], 6).known  # 10 runs less 2 strata and 6 controls
    assert estimate(0.5, draws, STRATA[:10], 5).known


def test_a_perfect_correlation_is_no_surer_than_that_of_independent_models() -> None:
    found = fishers_z(1.0, np.ones(100), STRATA, 120)
    assert np.tanh(found.value) == pytest.approx(0.999)
    assert found.variance == pytest.approx(1 / 117)  # Fisher 1921: 1 / (n - 3)


def test_the_interval_covers_the_population_as_often_as_it_says() -> None:
    """20 runs in 4 strata, 6 models each, batch size moves both sides: Spearman of a very large study is the truth."""
    shift = np.array([-1.5, -0.5, 0.5, 1.5])

    def study(rng: np.random.Generator, seeds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        strata = np.repeat(np.arange(4), seeds)
        runs = np.repeat(np.arange(4 * seeds), 6)
        level = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=4 * seeds) + shift[strata][:, None]
        x, y = (level[runs] + 0.5 * rng.normal(size=(len(runs), 2))).T
        return x, y, runs, strata

    x, y, _, _ = study(np.random.default_rng(1), 20_000)
    truth = stats.spearmanr(x, y)[0]
    covered = 0
    for trial in range(200):
        rng = np.random.default_rng([2, trial])
        x, y, runs, strata = study(rng, 5)
        draws = partial_correlations(rank_covariances([x, y], runs, drawn_runs(strata, draws=300, rng=rng)))
        low, high = np.tanh(fishers_z(partial_spearman(x, y), draws, strata, len(x)).interval(0.95))
        covered += low <= truth <= high
    assert 0.91 <= covered / 200 <= 0.99
