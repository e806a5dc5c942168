"""Estimates against scipy, statsmodels and plain resampling, and the table on planted effects."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from prs_lightning.analysis.panels import COLUMNS, panel_statistics
from prs_lightning.analysis.relations import Relation
from prs_lightning.analysis.selection import select
from prs_lightning.analysis.statistics import (
    MINIMUM_RUNS,
    between_interval,
    cluster_bootstrap,
    cluster_robust_p,
    holm,
    interval,
    mixed_model,
    ols,
    partial_spearman,
    spearman,
    spearman_of_each,
)
from prs_lightning.analysis.table import read_runs
from prs_lightning.measures import DEAD_UNITS, PRS_RATIO, ROBUST_ACCURACY
from tests.synthetic_runs import write_grid

Panel = tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]
FIGURE_4 = Relation("4", ROBUST_ACCURACY)


@pytest.fixture(scope="module")
def panel() -> Panel:
    """12 runs of 3 to 6 models: an effect of 0.5 between runs, 0.2 within; ties; three controls."""
    rng = np.random.default_rng(5)
    runs = np.repeat(np.arange(12), rng.integers(3, 7, 12))
    mean = rng.normal(size=12)[runs]
    inside = 0.5 * rng.normal(size=len(runs))
    x = (mean + inside).round(1)
    y = 0.5 * mean + 0.2 * inside + 0.3 * rng.normal(size=12)[runs] + 0.1 * rng.normal(size=len(runs))
    controls = [mean.round(), rng.normal(size=len(runs)).round(1), rng.normal(size=len(runs))]
    return x, y.round(2), runs, controls


def test_ols_equals_statsmodels(panel: Panel) -> None:
    x, y, _, _ = panel
    fit = sm.OLS(y, sm.add_constant(x)).fit()
    expected = [fit.params[1], fit.params[0], fit.rsquared, fit.pvalues[1]]
    np.testing.assert_allclose(ols(x, y), expected, rtol=1e-9)


def test_clustered_p_equals_the_sandwich_formula(panel: Panel) -> None:
    x, y, runs, _ = panel
    design = np.column_stack([np.ones_like(x), x])
    bread = np.linalg.inv(design.T @ design)
    coefficients = bread @ design.T @ y
    scores = design * (y - design @ coefficients)[:, None]
    sums = np.stack([scores[runs == run].sum(axis=0) for run in range(12)])
    factor = 12 / 11 * (len(x) - 1) / (len(x) - 2)
    error = np.sqrt((bread @ (factor * sums.T @ sums) @ bread)[1, 1])
    expected = 2 * stats.t.sf(abs(coefficients[1] / error), 11)
    assert cluster_robust_p(x, y, runs) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=30))
@settings(max_examples=50, deadline=None)
def test_spearman_equals_scipy_with_ties(points: list[tuple[int, int]]) -> None:
    x, y = np.array(points, dtype=float).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of a constant side and gives NaN, as ours does
        expected = stats.spearmanr(x, y)[0]
    np.testing.assert_allclose(spearman(x, y), expected, atol=1e-12)


def test_partial_spearman_equals_regression_on_ranks(panel: Panel) -> None:
    x, y, _, controls = panel
    ranks = [stats.rankdata(column) for column in (x, y, *controls)]
    # The coefficient of x in the regression of y on everything has the same t and p as the partial correlation.
    fit = sm.OLS(ranks[1], sm.add_constant(np.column_stack([ranks[0], *ranks[2:]]))).fit()
    rho, p = partial_spearman(x, y, [*controls, np.ones_like(x)])
    t = fit.tvalues[1]
    assert rho == pytest.approx(t / np.sqrt(t**2 + fit.df_resid), rel=1e-9)
    assert p == pytest.approx(fit.pvalues[1], rel=1e-7)


def test_partial_spearman_without_a_degree_of_freedom_has_no_value(panel: Panel) -> None:
    x, y, _, controls = panel
    assert np.isnan(partial_spearman(x[:4], y[:4], [column[:4] for column in (x, *controls)])).all()
    assert np.isnan(partial_spearman(x, y, [2 * x])).all()
    assert partial_spearman(x, y, [])[0] == pytest.approx(spearman(x, y))


def test_mixed_model_equals_statsmodels_in_plain_units(panel: Panel) -> None:
    x, y, runs, _ = panel
    frame = pd.DataFrame({"x": x, "y": y, "run": runs})
    frame["mean"] = frame.groupby("run")["x"].transform("mean")
    frame["inside"] = frame["x"] - frame["mean"]
    expected = smf.mixedlm("y ~ inside + mean", frame, groups=frame["run"]).fit(reml=True)
    fit, _ = mixed_model(x, y, runs)
    assert fit["within_slope"] == pytest.approx(expected.params["inside"], rel=1e-4)
    assert fit["between_slope"] == pytest.approx(expected.params["mean"], rel=1e-4)
    assert fit["within_p"] == pytest.approx(2 * stats.t.sf(abs(expected.tvalues["inside"]), len(x) - 13), rel=1e-3)
    assert fit["between_p"] == pytest.approx(2 * stats.t.sf(abs(expected.tvalues["mean"]), 10), rel=1e-3)


def test_mixed_model_without_variance_between_runs_is_least_squares() -> None:
    """Intercepts that scatter less than chance: the ratio of variances is exactly 0."""
    rng = np.random.default_rng(0)
    runs, x = np.repeat(np.arange(6), 4), rng.random(24)
    y = 0.3 * x + np.tile([-1.0, 1.0, -1.0, 1.0], 6) * rng.random(24)
    means = pd.Series(x).groupby(runs).transform("mean").to_numpy()
    least = sm.OLS(y, sm.add_constant(np.column_stack([x - means, means]))).fit()
    fit, _ = mixed_model(x, y, runs)
    assert (fit["within_slope"], fit["between_slope"]) == pytest.approx((least.params[1], least.params[2]), rel=1e-6)
    assert fit["between_p"] == pytest.approx(2 * stats.t.sf(abs(least.tvalues[2]), 4), rel=1e-6)


def test_mixed_model_of_a_balanced_panel_has_the_within_slope_of_dummy_variables() -> None:
    rng = np.random.default_rng(1)
    runs = np.repeat(np.arange(8), 5)
    x, y = rng.normal(size=40) + runs, rng.normal(size=40) - runs
    dummies = np.column_stack([x, np.eye(8)[runs]])
    expected = np.linalg.lstsq(dummies, y, rcond=None)[0][0]
    assert mixed_model(x, y, runs)[0]["within_slope"] == pytest.approx(expected, rel=1e-6)


def test_between_interval_equals_statsmodels_on_the_means(panel: Panel) -> None:
    x, y, runs, _ = panel
    means = pd.DataFrame({"x": x, "y": y}).groupby(runs).mean()
    expected = sm.OLS(means["y"], sm.add_constant(means["x"])).fit().conf_int(0.1).loc["x"]
    np.testing.assert_allclose(between_interval(x, y, runs, 0.9), expected, rtol=1e-9)


def test_each_bootstrap_draw_equals_the_formula_on_the_resampled_rows(panel: Panel) -> None:
    x, y, runs, controls = panel
    draws = cluster_bootstrap(x, y, runs, controls, draws=40, seed=3)
    counts = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=40)
    inside = [column - pd.Series(column).groupby(runs).transform("mean").to_numpy() for column in (x, y)]
    for draw, count in enumerate(counts):
        rows = np.concatenate([np.flatnonzero(runs == run) for run in range(12) for _ in range(count[run])])
        expected = {
            "slope": stats.linregress(x[rows], y[rows]).slope,
            "within": inside[0][rows] @ inside[1][rows] / (inside[0][rows] @ inside[0][rows]),
            "spearman": stats.spearmanr(x[rows], y[rows])[0],
            "partial": partial_spearman(x[rows], y[rows], [column[rows] for column in controls])[0],
        }
        for name, value in expected.items():
            assert draws[name][draw] == pytest.approx(value, abs=1e-9), name


def test_the_interval_covers_a_mean_as_often_as_it_says() -> None:
    """Six runs, the mini grid's number, of equal models: a plain percentile interval covers about 83%."""
    rng = np.random.default_rng(0)
    covered, plain = 0, 0
    for trial in range(300):
        x, noise = rng.normal(size=6), rng.normal(size=6)
        runs = np.repeat(np.arange(6), 2)
        inside = np.tile([-1.0, 1.0], 6)
        y = inside * (0.5 + noise)[runs]  # slopes of the runs scatter around 0.5
        draws = cluster_bootstrap(x[runs] + inside, y, runs, draws=400, seed=trial)["within"]
        low, high = interval(draws, 6)
        covered += low <= 0.5 <= high
        plain += np.quantile(draws, 0.025) <= 0.5 <= np.quantile(draws, 0.975)
    assert plain / 300 < 0.89
    assert 0.91 < covered / 300 < 0.985


def test_the_interval_refuses_few_runs_and_empty_draws() -> None:
    draws = np.linspace(0, 1, 100)
    assert np.isnan(interval(draws, MINIMUM_RUNS - 1)).all()
    assert not np.isnan(interval(draws, MINIMUM_RUNS)).any()
    draws[:6] = np.nan
    assert np.isnan(interval(draws, 20)).all()
    low, high = interval(np.random.default_rng(0).normal(size=100_000), 10_000)
    np.testing.assert_allclose([low, high], [-1.96, 1.96], atol=0.03)  # many runs: the plain percentiles


@example([0.01, 0.04, 0.03, 0.5])
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=4, deadline=None)  # multipletests collects garbage at each call
def test_holm_equals_statsmodels_and_passes_over_nan(p_values: list[float]) -> None:
    p = np.array(p_values)
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-15)
    with_nan = np.insert(p, len(p) // 2, np.nan)
    corrected = holm(with_nan)
    assert np.isnan(corrected[len(p) // 2])
    np.testing.assert_array_equal(np.delete(corrected, len(p) // 2), holm(p))


def planted(folder: Path, **arguments: object) -> pd.Series:
    """The panel of figure 4 of 12 runs with planted effects."""
    settings = {"batch_sizes": (64, 128, 512, 2048), "seeds": range(3), "epochs": 30, "grid": tuple(range(3, 31, 3))}
    write_grid(folder, **(settings | arguments))
    models = select(read_runs(folder).rows).models
    table = panel_statistics(models, [FIGURE_4], draws=500).table
    assert list(table.columns) == list(COLUMNS)
    return table.iloc[0]


def test_a_within_run_effect_is_found_within_runs(tmp_path: Path) -> None:
    row = planted(tmp_path, within=-0.8, between=0.0, run_noise=0.03, seed=1)
    assert (row["n_models"], row["n_runs"], row["one_per_run_n"]) == (120, 12, 12)
    assert row["within_low"] < -0.8 < row["within_high"] < 0
    assert row["within_p_holm"] < 1e-6
    assert row["between_p"] > 0.05
    assert row["reading"] == "within runs only: no effect between runs was found"
    assert row["paper_slope"] == -0.30


def test_a_purely_between_run_effect_is_called_so_although_the_ols_p_is_tiny(tmp_path: Path) -> None:
    row = planted(tmp_path, within=0.0, between=-0.8, run_noise=0.02, seed=1)
    assert row["ols_p"] < 1e-20
    assert row["within_low"] < 0 < row["within_high"]
    assert row["within_p"] > 0.05
    assert row["between_p"] < 1e-6
    assert row["between_low"] < -0.8 < row["between_high"]
    assert row["reading"] == "between runs only: no effect within a run was found"


def test_no_effect_is_called_none_even_where_models_as_independent_would_see_one(tmp_path: Path) -> None:
    """Runs differ in RA for reasons of their own: over 120 models OLS finds p < 0.05 in this draw of the noise."""
    row = planted(tmp_path, within=0.0, between=0.0, run_noise=0.08, seed=8)
    assert row["ols_p"] < 0.05 < row["cluster_p"]
    assert row["slope_low"] < 0 < row["slope_high"]
    assert row["reading"] == "no effect was found within or between runs, although the OLS p is small"


def models_of(runs: int, models: int, **columns: object) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    index = np.repeat(np.arange(runs), models)
    frame = {
        "run": [f"r{run}" for run in index], "model": "cnn6", "data": "mnist", "batch_size": 64 * 2**index,
        "epoch": np.tile(np.arange(models) + 1, runs), "test/accuracy": rng.random(len(index)),
        PRS_RATIO: rng.random(len(index)), ROBUST_ACCURACY: rng.random(len(index)),
    }  # fmt: skip
    return pd.DataFrame(frame | columns)


@pytest.mark.parametrize(
    ("models", "note"),
    [
        (models_of(1, 8), "1 run: no interval below 5 runs"),
        (models_of(6, 4, **{PRS_RATIO: 0.5}), "PRS ratio is constant (0.5): no slope, no correlation"),
        (models_of(6, 4, **{ROBUST_ACCURACY: 0.0}), "RA (PGD-20) is constant (0): no slope, no correlation"),
        (models_of(2, 1), "2 models: too few"),
        (models_of(6, 1), "mixed model: x does not vary within the runs"),
        (models_of(6, 4, **{ROBUST_ACCURACY: np.nan}), "not measured: RA (PGD-20)"),
        (models_of(6, 4).drop(columns=ROBUST_ACCURACY), "not measured: RA (PGD-20)"),
        (models_of(6, 4).iloc[:0], "not measured: PRS ratio, RA (PGD-20)"),
    ],
)
def test_degenerate_panels_say_so(models: pd.DataFrame, note: str) -> None:
    row = panel_statistics(models, [FIGURE_4], draws=100).table.iloc[0]
    assert note in row["note"]
    assert row["reading"] == ""


def test_a_constant_control_is_left_out_and_a_relation_is_not_measured_without_its_own() -> None:
    models = models_of(6, 4, batch_size=128, **{DEAD_UNITS: np.arange(24.0)})
    relation = Relation("15", ROBUST_ACCURACY, controls=(DEAD_UNITS,))
    row = panel_statistics(models, [relation], draws=100).table.iloc[0]
    assert row["controls"] == "batch size, epoch, test accuracy, dead units"
    columns = [models[name].to_numpy(float) for name in ("epoch", "test/accuracy", DEAD_UNITS)]
    expected = partial_spearman(models[PRS_RATIO].to_numpy(), models[ROBUST_ACCURACY].to_numpy(), columns)
    assert (row["partial_spearman"], row["partial_p"]) == pytest.approx(expected)
    some = models.assign(**{DEAD_UNITS: models[DEAD_UNITS].where(models["epoch"] > 1)})
    row = panel_statistics(some, [relation], draws=100).table.iloc[0]
    assert row["n_models"] == some[DEAD_UNITS].notna().sum() < len(models)
    assert row["controls"].endswith("dead units")
    models[DEAD_UNITS] = np.nan
    row = panel_statistics(models, [relation], draws=100).table.iloc[0]
    assert (row["n_models"], row["note"]) == (0, "not measured: dead units")


def test_holm_corrects_over_the_panels_of_one_relation() -> None:
    parts = [models_of(6, 4).assign(data=name) for name in ("mnist", "cifar10", "fashion_mnist")]
    models = pd.concat(parts, ignore_index=True)
    models.loc[models["data"] == "cifar10", ROBUST_ACCURACY] = -models[PRS_RATIO]
    table = panel_statistics(models, [FIGURE_4], draws=100).table
    np.testing.assert_allclose(table["ols_p_holm"], holm(table["ols_p"].to_numpy()))
    assert (table["ols_p_holm"] > table["ols_p"]).sum() == 3


@given(st.integers(0, 10_000), st.integers(3, 40), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_spearman_of_each_run_is_that_of_the_run_alone_to_the_bit(seed: int, length: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    runs = np.concatenate([np.repeat(np.arange(5), length), np.repeat(5, 2), np.repeat(6, length + 1)])
    x, y = rng.random(len(runs)), rng.random(len(runs)).round(digits)
    y[:length] = 0.5
    order = rng.permutation(len(runs))
    x, y, runs = x[order], y[order], runs[order]
    alone = [spearman(x[runs == run], y[runs == run]) for run in range(7)]
    np.testing.assert_array_equal(spearman_of_each(x, y, runs), alone)


def test_relations_that_share_ranks_have_the_draws_of_each_alone(tmp_path: Path) -> None:
    """Models without a measure leave a relation to draws of its own."""
    write_grid(tmp_path, batch_sizes=(64, 2048), seeds=range(3), epochs=4, grid=(2, 4))
    models = select(read_runs(tmp_path).rows).models
    models.loc[models.index[:3], DEAD_UNITS] = np.nan
    relations = [
        FIGURE_4,
        Relation("7b", DEAD_UNITS),
        Relation("4b", "robust/pgd20_audited"),
        Relation("4", ROBUST_ACCURACY),
    ]
    together = panel_statistics(models, relations, draws=120, seed=4)
    for relation in relations:
        alone = panel_statistics(models, [relation], draws=120, seed=4)
        columns = [name for name in COLUMNS if not name.endswith("_holm")]
        chosen = together.table[together.table["relation"] == relation.title]
        pd.testing.assert_frame_equal(
            chosen[columns].iloc[:1].reset_index(drop=True), alone.table[columns], check_exact=True
        )
        for (_, there), (_, expected) in zip(together.draws[relation.title], alone.draws[relation.title], strict=False):
            np.testing.assert_array_equal(there, expected)


def test_a_relation_with_controls_keeps_the_draws_of_the_partial_correlation() -> None:
    models = models_of(6, 4, batch_size=128, **{DEAD_UNITS: np.random.default_rng(1).random(24)})
    relation = Relation("15", ROBUST_ACCURACY, controls=(DEAD_UNITS,))
    ((runs, draws),) = panel_statistics(models, [relation, FIGURE_4], draws=100).draws[relation.title]
    columns = [models[name].to_numpy(float) for name in ("epoch", "test/accuracy", DEAD_UNITS)]
    codes = pd.factorize(models["run"])[0]
    expected = cluster_bootstrap(
        models[PRS_RATIO].to_numpy(), models[ROBUST_ACCURACY].to_numpy(), codes, columns, draws=100
    )
    assert runs == 6
    np.testing.assert_allclose(draws, expected["partial"], atol=1e-9)
