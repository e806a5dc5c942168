"""Estimates against scipy, statsmodels and plain resampling, and the table on planted effects."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from prs_lightning.analysis.figures.scatter import points
from prs_lightning.analysis.panels import COLUMNS, panel_statistics
from prs_lightning.analysis.relations import Relation
from prs_lightning.analysis.selection import select
from prs_lightning.analysis.statistics import (
    cluster_robust_p,
    held_fixed,
    holm,
    ols,
    partial_spearman,
    trends,
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
    np.testing.assert_allclose(partial_spearman(x, y), expected, atol=1e-12)


def test_partial_spearman_equals_regression_on_ranks(panel: Panel) -> None:
    x, y, _, controls = panel
    ranks = [stats.rankdata(column) for column in (x, y, *controls)]
    # The coefficient of x in the regression of y on everything has the same t as the partial correlation.
    fit = sm.OLS(ranks[1], sm.add_constant(np.column_stack([ranks[0], *ranks[2:]]))).fit()
    t = fit.tvalues[1]
    rho = partial_spearman(x, y, [*controls, np.ones_like(x)])
    assert rho == pytest.approx(t / np.sqrt(t**2 + fit.df_resid), rel=1e-9)


def test_partial_spearman_without_a_degree_of_freedom_has_no_value(panel: Panel) -> None:
    x, y, _, controls = panel
    assert np.isnan(partial_spearman(x[:4], y[:4], [column[:4] for column in (x, *controls)]))
    assert np.isnan(partial_spearman(x, y, [2 * x]))
    assert np.isnan(partial_spearman(x, np.ones_like(y)))


@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_trends_are_spearman_of_each_run_and_0_where_nothing_changes(seed: int, length: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    runs = np.concatenate([np.repeat(np.arange(5), length), np.repeat(5, 2), np.repeat(6, length + 1), [7]])
    times, values = rng.random(len(runs)), rng.random(len(runs)).round(digits)
    values[:length] = 0.5
    order = rng.permutation(len(runs))
    times, values, runs = times[order], values[order], runs[order]
    found = trends(values, times, runs)
    assert np.isnan(found[7])
    for run in range(7):
        mine = runs == run
        varies = len(np.unique(values[mine])) > 1
        expected = stats.spearmanr(times[mine], values[mine])[0] if varies else 0.0
        assert found[run] == pytest.approx(expected, abs=1e-12)


def test_what_is_held_fixed_is_taken_out_of_the_ranks(panel: Panel) -> None:
    x, y, _, _ = panel
    groups = np.arange(len(x)) % 4
    dummies = [(groups == group).astype(float) for group in range(1, 4)]
    assert held_fixed(x, y, groups) == pytest.approx(partial_spearman(x, y, dummies), rel=1e-9)
    assert np.isnan(held_fixed(groups.astype(float), y, groups))


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
    """The panel of figure 4 of 20 runs with planted effects."""
    settings = {"batch_sizes": (64, 128, 512, 2048), "seeds": range(5), "epochs": 30, "grid": tuple(range(3, 31, 3))}
    write_grid(folder, **(settings | arguments))
    models = select(read_runs(folder).rows).models
    table = panel_statistics(models, [FIGURE_4], draws=500).table
    assert list(table.columns) == list(COLUMNS)
    return table.iloc[0]


def test_an_effect_between_epochs_is_found_within_runs(tmp_path: Path) -> None:
    row = planted(tmp_path, within=-4.0, between=0.0, run_noise=0.1, noise=0.01, seed=1)
    assert (row["n_models"], row["n_runs"], row["one_per_run_n"]) == (200, 20, 20)
    assert row["within_low"] < row["within"] < row["within_high"] < 0
    assert row["within_p_holm"] < 0.01
    assert row["between_p"] > 0.05
    assert row["reading"] == "within runs only: no effect between runs was found"
    assert row["paper_slope"] == -0.30


def test_an_effect_between_runs_of_one_batch_size_is_called_so_although_the_ols_p_is_tiny(tmp_path: Path) -> None:
    row = planted(tmp_path, within=0.0, between=-0.8, run_noise=0.01, seed=1)
    assert row["ols_p"] < 1e-20
    assert row["within_p"] > 0.05
    assert row["between_p"] < 0.01
    assert row["between_low"] < row["between"] < row["between_high"] < 0
    assert row["reading"] == "between runs only: no effect between the epochs of a run was found"


def test_what_batch_size_alone_moves_leaves_no_effect(tmp_path: Path) -> None:
    row = planted(tmp_path, within=0.0, between=0.0, run_noise=0.01, seed=1)
    assert row["between_p"] > 0.05
    models = select(read_runs(tmp_path).rows).models
    models[ROBUST_ACCURACY] -= 0.1 * np.log2(models["batch_size"].astype(float) / 512)
    moved = panel_statistics(models, [FIGURE_4], draws=500).table.iloc[0]
    assert moved["spearman_high"] < -0.5
    assert moved["reading"] == "no effect was found at fixed batch size and epoch, although the OLS p is small"
    for name in ("between", "within", "partial_spearman"):  # nothing at fixed batch size hangs on what it moves
        assert moved[name] == pytest.approx(row[name], abs=1e-9)


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
        (models_of(6, 1), "too few runs of one batch size to compare at fixed batch size"),
        (models_of(6, 4, **{ROBUST_ACCURACY: np.nan}), "not measured: RA (PGD-20)"),
        (models_of(6, 4).drop(columns=ROBUST_ACCURACY), "not measured: RA (PGD-20)"),
        (models_of(6, 4).iloc[:0], "not measured: PRS ratio, RA (PGD-20)"),
    ],
)
def test_degenerate_panels_say_so(models: pd.DataFrame, note: str) -> None:
    row = panel_statistics(models, [FIGURE_4], draws=100).table.iloc[0]
    assert note in row["note"]
    assert row["reading"] == ""


def test_a_relation_with_controls_tells_what_its_figure_draws() -> None:
    rng = np.random.default_rng(1)
    models = models_of(8, 4, batch_size=128, **{DEAD_UNITS: rng.random(32), PRS_RATIO: rng.random(32)})
    models[ROBUST_ACCURACY] = 0.2 + 0.3 * models[DEAD_UNITS] - 0.1 * models[PRS_RATIO] + 0.01 * rng.random(32)
    relation = Relation("15", ROBUST_ACCURACY, controls=(DEAD_UNITS,))
    row = panel_statistics(models, [relation], draws=100).table.iloc[0]
    columns = [models[name].to_numpy(float) for name in (PRS_RATIO, ROBUST_ACCURACY, DEAD_UNITS)]
    joint = sm.OLS(columns[1], sm.add_constant(np.column_stack([columns[0], columns[2]]))).fit()
    assert row["ols_slope"] == pytest.approx(joint.params[1], rel=1e-9)
    assert row["spearman"] == pytest.approx(partial_spearman(columns[0], columns[1], columns[2:]))
    assert row["controls"] == "batch size, epoch, test accuracy, dead units"
    drawn = points(models.assign(seed=0), relation)
    assert drawn["slope"].iloc[0] == pytest.approx(row["ols_slope"], rel=1e-9)
    some = models.assign(**{DEAD_UNITS: models[DEAD_UNITS].where(models["epoch"] > 1)})
    row = panel_statistics(some, [relation], draws=100).table.iloc[0]
    assert row["n_models"] == some[DEAD_UNITS].notna().sum() < len(models)
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


def test_panels_have_draws_of_their_own_and_the_same_in_any_company() -> None:
    models = pd.concat([models_of(8, 4).assign(data=name) for name in ("mnist", "cifar10")], ignore_index=True)
    both, alone = (
        panel_statistics(some, [FIGURE_4], draws=200).table.set_index("data")["spearman_low"]
        for some in (models, models[models["data"] == "mnist"])
    )
    assert both["mnist"] != both["cifar10"]
    assert both["mnist"] == alone["mnist"]


def test_relations_that_share_ranks_have_the_numbers_of_each_alone(tmp_path: Path) -> None:
    """Models without a measure leave a relation to draws of its own."""
    write_grid(tmp_path, batch_sizes=(64, 2048), seeds=range(4), epochs=4, grid=(2, 4))
    models = select(read_runs(tmp_path).rows).models
    models.loc[models.index[:3], DEAD_UNITS] = np.nan
    relations = [
        FIGURE_4,
        Relation("7b", DEAD_UNITS),
        Relation("4b", "robust/pgd20_audited"),
        Relation("15", ROBUST_ACCURACY, controls=(DEAD_UNITS,)),
    ]
    together = panel_statistics(models, relations, draws=120, seed=4)
    for relation in relations:
        alone = panel_statistics(models, [relation], draws=120, seed=4)
        columns = [name for name in COLUMNS if not name.endswith("_holm")]
        chosen = together.table[together.table["relation"] == relation.title]
        pd.testing.assert_frame_equal(chosen[columns].reset_index(drop=True), alone.table[columns], check_exact=True)
