"""What is left at fixed batch size and epoch, against dummy variables and all permutations."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from prs_lightning.analysis.evidence import as_estimate
from prs_lightning.analysis.fixed import (
    between_epochs,
    between_models,
    between_runs,
    blocks_of,
    fixed_slope,
)

Columns = dict[str, np.ndarray]


def study(seed: int = 0, *, strata: int = 3, seeds: int = 4, epochs: int = 5, missing: float = 0.0) -> pd.DataFrame:
    """Models of runs whose levels and epochs are related, and which batch size and epoch move."""
    rng = np.random.default_rng(seed)
    rows = []
    for run in range(strata * seeds):
        level = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]])
        for epoch in range(epochs):
            noise = rng.multivariate_normal([0, 0], [[1, -0.5], [-0.5, 1]])
            x, y = level + 0.7 * noise + 2 * (run // seeds) + epoch
            rows.append({"run": run, "stratum": run // seeds, "epoch": epoch, "x": x, "y": y, "z": rng.normal() + x})
    return pd.DataFrame(rows).sample(frac=1 - missing, random_state=seed)


def blocks(frame: pd.DataFrame, *controls: str) -> list[np.ndarray]:
    columns = [frame[name].to_numpy() for name in ("x", "y", *controls)]
    return blocks_of(columns, *(frame[name].to_numpy() for name in ("stratum", "run", "epoch")))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def scores(frame: pd.DataFrame, name: str) -> pd.Series:
    """Normal scores within strata, less the mean of the cell."""
    strata = frame.groupby("stratum")[name]
    values = pd.Series(stats.norm.ppf(strata.rank() / (strata.transform("size") + 1)), frame.index)
    return values - values.groupby([frame["stratum"], frame["epoch"]]).transform("mean")


@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_between_runs_is_the_correlation_of_mean_scores(missing: float) -> None:
    frame = study(missing=missing)
    means = frame.assign(x=scores(frame, "x"), y=scores(frame, "y")).groupby(["stratum", "run"])[["x", "y"]].mean()
    means -= means.groupby("stratum").transform("mean")
    found = between_runs(blocks(frame), draws=10, rng=rng())
    assert found.value == pytest.approx(np.corrcoef(means["x"], means["y"])[0, 1])
    assert found.freedom == 9


@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_between_epochs_is_the_correlation_of_what_dummies_of_runs_and_cells_leave(missing: float) -> None:
    frame = study(missing=missing)
    cells = frame["stratum"].astype(str) + "@" + frame["epoch"].astype(str)
    dummies = pd.concat([pd.get_dummies(each) for each in ("run " + frame["run"].astype(str), cells)], axis=1)
    design = dummies.to_numpy(float)
    sides = [scores(frame, name) for name in ("x", "y")]
    left = [side - design @ np.linalg.lstsq(design, side)[0] for side in sides]
    found = between_epochs(blocks(frame), draws=10, rng=rng())
    assert found.value == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-6)


def test_all_models_are_the_correlation_of_scores_and_the_scale_of_a_measure_is_none() -> None:
    frame = study(missing=0.1)
    found = between_models(blocks(frame), draws=10, rng=rng())
    assert found.value == pytest.approx(np.corrcoef(scores(frame, "x"), scores(frame, "y"))[0, 1])
    for statistic in (between_runs, between_epochs, between_models):
        plain, logarithm = (
            statistic(blocks(each), draws=10, rng=rng()).value for each in (frame, frame.assign(y=np.exp(frame["y"])))
        )
        assert logarithm == pytest.approx(plain, abs=1e-12)


def test_the_fixed_slope_is_that_of_dummies_of_cells() -> None:
    frame = study(missing=0.1)
    dummies = pd.get_dummies(frame["stratum"].astype(str) + "@" + frame["epoch"].astype(str)).astype(float)
    for controls in ([], ["z"]):
        fit = sm.OLS(frame["y"], pd.concat([frame[["x", *controls]], dummies], axis=1)).fit()
        slope, spread = fixed_slope(blocks(frame, *controls))
        assert slope.value == pytest.approx(fit.params["x"])
    inside = frame["x"] - frame.groupby(["stratum", "epoch"])["x"].transform("mean")
    assert spread == pytest.approx(inside.quantile(0.9) - inside.quantile(0.1))


@pytest.mark.parametrize("statistic", [between_runs, between_epochs, between_models])
def test_variance_and_p_are_those_of_all_permutations_of_whole_runs(statistic) -> None:  # type: ignore[no-untyped-def]
    frame = study(strata=2, seeds=4, epochs=3)
    mine = blocks(frame)
    found = statistic(mine, draws=4000, rng=rng())
    values = []
    for orders in product(permutations(range(4)), repeat=2):
        moved = [np.stack([block[0], block[1][list(order)]]) for block, order in zip(mine, orders, strict=True)]
        values.append(statistic(moved, draws=1, rng=rng()))
    plain = np.array([each.value for each in values])
    assert len(values) == 24**2
    assert plain.mean() == pytest.approx(0, abs=1e-9)
    assert found.plain == pytest.approx(plain.var())
    assert found.variance == found.plain * max(1, found.volatile)
    exact = np.mean(np.abs(plain) * np.sqrt(found.variance / found.plain) >= abs(found.value) - 1e-9)
    assert found.p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4000) + 1e-3)


def test_runs_of_one_seed_are_permuted_alike_in_closed_form() -> None:
    """Of what the fit leaves, as the relation itself is the same in all strata."""
    mine = [np.random.default_rng(stratum).normal(size=(2, 4, 1)) for stratum in range(3)]
    mine = [block - block.mean(axis=1, keepdims=True) for block in mine]
    (x, y) = (np.concatenate([block[side] for block in mine])[:, 0] for side in (0, 1))
    left = y - (x @ y) / (x @ x) * x
    slope, _ = fixed_slope(mine, crossed=True)
    parts_x, parts_left = x.reshape(3, 4), left.reshape(3, 4)
    orders = [list(order) for order in permutations(range(4))]
    alike = [float((parts_x * parts_left[:, order]).sum()) for order in orders]
    of_each = [[float(parts_x[h] @ parts_left[h, order]) for order in orders] for h in range(3)]
    apart = sum(np.var(each) for each in of_each)
    assert slope.alike == pytest.approx(np.var(alike) / apart)


def test_batch_size_changes_no_answer() -> None:
    frame = study()
    moved = frame.assign(x=frame["x"] + 30 * (frame["stratum"] == 1), y=frame["y"] + 5 * frame["stratum"] ** 2)
    for statistic in (between_runs, between_epochs, between_models):
        before, after = (statistic(blocks(each), draws=50, rng=rng()) for each in (frame, moved))
        assert after.value == pytest.approx(before.value, abs=1e-9)
        np.testing.assert_allclose(after.null, before.null, atol=1e-9)


def test_autocorrelated_epochs_do_not_fool_the_permutations() -> None:
    """Independent random walks of 10 epochs: over models as independent, half of the p would be below 0.05."""
    low = {"between runs": 0, "between epochs": 0, "as independent": 0}
    for trial in range(200):
        generator = np.random.default_rng(trial)
        walks = generator.normal(size=(2, 12, 10)).cumsum(axis=2)
        mine = [walks[:, :6], walks[:, 6:]]
        low["between runs"] += between_runs(mine, draws=200, rng=generator).p < 0.05
        low["between epochs"] += between_epochs(mine, draws=200, rng=generator).p < 0.05
        low["as independent"] += stats.spearmanr(walks[0].ravel(), walks[1].ravel())[1] < 0.05
    assert low["as independent"] > 80
    # A binomial of 200 and 0.05 is above 19 once in 200 times.
    assert max(low["between runs"], low["between epochs"]) <= 19


def test_runs_that_are_volatile_on_both_sides_do_not_fool_them_either() -> None:
    """A run's epochs scatter alike in x and in y, without a correlation: plain permutations are too sure."""
    low = {"enlarged": 0, "plain": 0, "interval": 0}
    for trial in range(300):
        generator = np.random.default_rng(trial)
        size = np.exp(generator.normal(size=(1, 20, 1)))
        both = size * generator.normal(size=(2, 20, 6))
        found = between_epochs([both[:, start : start + 5] for start in (0, 5, 10, 15)], draws=200, rng=generator)
        low["enlarged"] += found.p < 0.05
        low["plain"] += (np.abs(found.null) >= abs(found.value)).mean() < 0.05
        estimate = as_estimate(found, correlation=True)
        low["interval"] += not estimate.interval(0.95)[0] <= 0 <= estimate.interval(0.95)[1]
    assert low["plain"] > 22  # scores within strata take away the worst
    assert max(low["enlarged"], low["interval"]) <= 22 < low["plain"]


def test_seeds_that_move_runs_of_all_batch_sizes_alike_are_reckoned_with() -> None:
    """Half of a run's level is of its seed, in x and in y, without a correlation between the two."""
    low = {"crossed": 0, "as independent": 0, "without effect": 0}
    for trial in range(300):
        generator = np.random.default_rng(trial)
        seeds, own = generator.normal(size=(2, 1, 5)), generator.normal(size=(2, 4, 5))
        levels = (np.sqrt(0.9) * seeds + np.sqrt(0.1) * own)[..., None]
        mine, plain = ([side[:, stratum] for stratum in range(4)] for side in (levels, own[..., None]))
        low["crossed"] += between_runs(mine, draws=200, rng=generator, crossed=True).p < 0.05
        low["as independent"] += between_runs(mine, draws=200, rng=generator).p < 0.05
        low["without effect"] += between_runs(plain, draws=200, rng=generator, crossed=True).p < 0.05
    assert low["as independent"] > 60
    assert low["crossed"] <= 30
    assert 4 <= low["without effect"] <= 25


def test_what_controls_explain_is_taken_out_of_both_sides() -> None:
    generator = np.random.default_rng(3)
    frame = study(strata=4, seeds=6)
    frame["z"] = generator.normal(size=24)[frame["run"]] + 0.2 * generator.normal(size=len(frame))
    frame["x"] = frame["z"] + 0.1 * generator.normal(size=len(frame))
    frame["y"] = -frame["z"] + 0.1 * generator.normal(size=len(frame))
    plain, held = (between_runs(blocks(frame, *names), draws=500, rng=rng()) for names in ([], ["z"]))
    assert plain.value < -0.9
    assert plain.p < 0.01
    assert abs(held.value) < 0.3
    assert held.p > 0.05
    assert held.freedom == plain.freedom - 1
    nothing = between_models(blocks(frame.assign(x=frame["z"]), "z"), draws=10, rng=rng())
    assert np.isnan([nothing.value, nothing.p]).all()


def test_what_five_controls_explain_leaves_as_many_false_answers_as_it_says() -> None:
    """Permuted residuals have too small products: of 16 degrees 5 are gone with the controls."""
    low = 0
    for trial in range(300):
        generator = np.random.default_rng(trial)
        controls = generator.normal(size=(5, 20, 6)) + generator.normal(size=(5, 20, 1))
        x, y = controls.sum(axis=0) + generator.normal(size=(2, 20, 1)) + 0.3 * generator.normal(size=(2, 20, 6))
        mine = np.stack([x, y, *controls])
        parts = [mine[:, start : start + 5] for start in (0, 5, 10, 15)]
        low += between_runs(parts, draws=200, rng=generator).p < 0.05
    assert 4 <= low <= 27


def test_where_there_is_nothing_to_compare_there_is_no_answer() -> None:
    frame = study(seeds=1)
    assert blocks(frame) == []
    for statistic in (between_runs, between_epochs, between_models):
        assert np.isnan(statistic([], draws=10, rng=rng()).value)
    one_epoch = blocks(study(epochs=1))
    assert np.isnan(between_epochs(one_epoch, draws=10, rng=rng()).p)
    assert not np.isnan(between_runs(one_epoch, draws=10, rng=rng()).p)
    constant = study()
    constant["x"] = constant["stratum"] * 0.1 + constant["epoch"] * 0.3
    for statistic in (between_runs, between_epochs, between_models):
        assert np.isnan(statistic(blocks(constant), draws=10, rng=rng()).value)
    equal = study()
    equal["x"] = equal.groupby(["stratum", "epoch"])["x"].transform("first")  # runs that differ in nothing
    for statistic in (between_runs, between_epochs, between_models):
        found = statistic(blocks(equal), draws=10, rng=rng())
        assert np.isnan([found.value, found.p]).all()
        assert not as_estimate(found).known
    slope, spread = fixed_slope([])
    assert np.isnan([slope.value, spread]).all()
