"""Coupled pairs against brute force over all pairs of models, their properties, and planted worlds."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from prs_lightning.analysis.coupled import ALIKE, COLUMNS, coupled_pairs, jackknife
from prs_lightning.measures import COSINE_SIMILARITY, PRS_RATIO, ROBUST_ACCURACY

SETTINGS = ("model", "data", "batch_size", "seed", "epoch", "config.model.learning_rate", "config.model.stem")
OPTIONAL = {"config.model.stem"}
EXCEPT = {
    "seed": {"seed"},
    "batch size": {"batch_size"},
    "epoch": {"epoch"},
    "architecture": {"model", "config.model.stem"},
}
DIFFERS = {"seed": "seed", "batch size": "batch_size", "epoch": "epoch", "architecture": "model"}


def grid(
    *, models: int = 2, data: int = 2, batches: int = 2, seeds: int = 3, epochs: int = 2, rng: np.random.Generator
) -> pd.DataFrame:
    """Models of a whole grid with unrelated measures; ResNets alone have a stem."""
    rows = [
        {
            "run": f"{d}-{m}-{b}-{s}", "model": f"net{m}", "data": f"data{d}", "batch_size": 64.0 * 2**b, "seed": s,
            "epoch": e + 1, "config.model.learning_rate": "0.001", "config.model.stem": "cifar" if m else None,
        }
        for m, d, b, s, e in product(*map(range, (models, data, batches, seeds, epochs)))
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.assign(**{PRS_RATIO: rng.random(len(frame)), COSINE_SIMILARITY: rng.uniform(-1, 1, len(frame))})


def brute_force(models: pd.DataFrame, y: str, factor: str) -> list[tuple[str, float]]:
    """The environment and the error of each pair, by the words of the definition."""
    found = []
    for (_, one), (_, other) in combinations(models.iterrows(), 2):
        same = [name for name in SETTINGS if name not in EXCEPT[factor]]
        if factor == "epoch":
            same = ["run"]
        if any(one[name] != other[name] and not (pd.isna(one[name]) and name in OPTIONAL) for name in same):
            continue
        if one[DIFFERS[factor]] == other[DIFFERS[factor]] or pd.isna([one["seed"], other["seed"]]).any() > (
            factor == "epoch"
        ):
            continue
        if pd.isna(one[y]) or pd.isna(other[y]) or pd.isna(one[PRS_RATIO]) or pd.isna(other[PRS_RATIO]):
            continue
        lower, higher = sorted((one, other), key=lambda model: model[PRS_RATIO])
        error = 0.5 if lower[PRS_RATIO] == higher[PRS_RATIO] or lower[y] == higher[y] else float(lower[y] < higher[y])
        place = one["data"] if factor == "architecture" else f"{one['model']}, {one['data']}"
        found.append((place, error))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_sign_errors_equal_brute_force_over_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    models = grid(rng=rng).round(1)  # ties
    again = models[models["run"] == "1-0-1-0"].assign(run="again")  # the same seed twice is no pair of seeds
    models = pd.concat([models, again.assign(**{COSINE_SIMILARITY: 0.5})], ignore_index=True)
    models = models.mask(rng.random(models.shape) < 0.05 * models.columns.isin([PRS_RATIO, COSINE_SIMILARITY]))
    models.loc[models["run"] == "0-1-0-1", "seed"] = np.nan
    models.loc[models["run"].isin(["0-0-0-0", "1-1-1-2"]), "config.model.learning_rate"] = "0.01"
    table = coupled_pairs(models.sample(frac=1, random_state=seed)).set_index("factor")
    for factor in ALIKE:
        pairs = pd.DataFrame(brute_force(models, COSINE_SIMILARITY, factor), columns=["place", "error"])
        row, places = table.loc[factor], pairs.groupby("place")["error"].mean()
        assert (row["pairs"], row["tied"]) == (len(pairs), pytest.approx((pairs["error"] == 0.5).mean()))
        assert row["sign_error"] == pytest.approx(pairs["error"].mean())
        assert row["worst_sign_error"] == pytest.approx(places.max())
        assert places[row["worst_environment"]] == pytest.approx(places.max())
        assert row["worst_pairs"] == (pairs["place"] == row["worst_environment"]).sum()
    assert table["worst"].sum() == 1
    assert table["sign_error"].idxmax() == table["worst"].idxmax()


@given(st.integers(0, 10**6), st.sampled_from(["seed", "epoch"]))
@settings(max_examples=8, deadline=None)
def test_a_sign_error_hangs_on_order_alone_and_turns_with_y(seed: int, factor: str) -> None:
    models = grid(models=1, data=1, rng=np.random.default_rng(seed)).round({PRS_RATIO: 1})

    def row(changed: pd.DataFrame) -> pd.Series:
        return coupled_pairs(changed).set_index("factor").loc[factor, ["sign_error", "low", "high"]].astype(float)

    usual = row(models)
    y = models[COSINE_SIMILARITY]
    pd.testing.assert_series_equal(row(models.assign(**{COSINE_SIMILARITY: np.arctan(y)})), usual)
    turned = 1 - row(models.assign(**{COSINE_SIMILARITY: -y}))
    np.testing.assert_allclose(turned[["sign_error", "high", "low"]], usual, atol=1e-12)


def test_where_batch_size_alone_moves_both_it_has_no_error_and_the_seed_is_the_worst() -> None:
    rng = np.random.default_rng(0)
    models = grid(models=1, data=3, batches=4, seeds=12, epochs=3, rng=rng)
    moved = np.log2(models["batch_size"] / 64)
    models[PRS_RATIO] = 0.2 * moved + 0.05 * rng.random(len(models))
    models[ROBUST_ACCURACY] = 0.8 - 0.2 * moved + 0.05 * rng.random(len(models))
    table = coupled_pairs(models[models["epoch"] > 1].drop(columns=COSINE_SIMILARITY)).set_index("factor")
    assert table.loc["batch size", "sign_error"] == 0
    assert table.loc["batch size", "low"] == 0
    assert table.loc["batch size", "high"] == pytest.approx(1 - 0.025 ** (1 / 72))  # exact: 144 runs, 72 pairs of them
    assert table.loc["seed", "sign_error"] == pytest.approx(0.5, abs=0.05)
    assert table.loc["seed", "low"] < 0.5 < table.loc["seed", "high"]
    assert table.index[table["worst"]].tolist() == [table["sign_error"].idxmax()]
    assert table.loc["epoch", "sign_error"] == pytest.approx(0.5, abs=0.1)
    assert table.loc["architecture", ["pairs", "runs"]].tolist() == [0, 0]
    assert np.isnan(table.loc["architecture", "sign_error"])


def test_a_difference_of_one_sample_is_a_tie_and_ties_have_no_interval() -> None:
    models = grid(models=1, data=1, batches=2, seeds=5, epochs=1, rng=np.random.default_rng(0))
    y = pd.Series(np.random.default_rng(1).integers(7, 9, len(models)) / 100)
    table = coupled_pairs(models.drop(columns=COSINE_SIMILARITY).assign(**{ROBUST_ACCURACY: y})).set_index("factor")
    assert table.loc["seed", ["tied", "sign_error", "pairs"]].tolist() == [1, 0.5, 20]
    assert np.isnan(table.loc["seed", "low"])
    y[0] += 0.2
    table = coupled_pairs(models.drop(columns=COSINE_SIMILARITY).assign(**{ROBUST_ACCURACY: y})).set_index("factor")
    assert table.loc["seed", "tied"] == 16 / 20


def test_the_jackknife_of_the_mean_of_runs_is_that_of_a_stratified_sample() -> None:
    rng = np.random.default_rng(3)
    errors, strata = rng.random(20), np.repeat([0, 1], 10)
    runs = np.arange(20)
    low, high = jackknife(errors, runs, runs, strata, 0.9)
    half = stats.t.ppf(0.95, 18) * np.sqrt((errors.reshape(2, 10).var(axis=1, ddof=1) / 10 * 0.5**2).sum())
    assert (low, high) == pytest.approx((errors.mean() - half, errors.mean() + half))


def test_the_jackknife_leaves_each_run_out_with_its_pairs() -> None:
    rng = np.random.default_rng(4)
    strata = np.repeat([0, 1], 4)
    pairs = [pair for pair in combinations(range(8), 2) for _ in range(2) if rng.random() < 0.8]
    errors = rng.random(len(pairs))

    def whole(without: int | None) -> float:
        """The mean over pairs of strata, each weighing as with all runs, of the errors of the runs that are left."""
        value = 0.0
        for one, other in ((0, 0), (0, 1), (1, 1)):
            of = [place for place, pair in enumerate(pairs) if [strata[run] for run in pair] == [one, other]]
            left = [errors[place] for place in of if without not in pairs[place]]
            value += len(of) / len(pairs) * np.mean(left)
        return float(value)

    moved = np.array([whole(run) for run in range(8)]).reshape(2, 4)
    half = stats.t.ppf(0.975, 6) * np.sqrt(3 / 4 * ((moved - moved.mean(axis=1, keepdims=True)) ** 2).sum())
    low, high = jackknife(errors, *np.array(pairs).T, strata, 0.95)
    assert (low, high) == pytest.approx((max(0, whole(None) - half), min(1, whole(None) + half)))


@pytest.mark.parametrize("seeds", [3, 6])
def test_the_interval_covers_a_coin_whatever_the_epochs_have_in_common(seeds: int) -> None:
    inside = 0
    for world in range(16):
        rng = np.random.default_rng(world)
        models = grid(models=1, data=2, batches=2, seeds=seeds, epochs=4, rng=rng)
        of_run = pd.factorize(models["run"])[0]
        noise = 0.1 * rng.random((2, len(models)))
        models[PRS_RATIO], models[COSINE_SIMILARITY] = rng.random((2, of_run.max() + 1))[:, of_run] + noise
        row = coupled_pairs(models).set_index("factor").loc["seed"]
        inside += row["low"] <= 0.5 <= row["high"]
    assert inside >= 14


def test_without_the_prs_ratio_or_a_measure_of_the_claims_there_are_no_pairs() -> None:
    models = grid(rng=np.random.default_rng(0))
    for gone in (PRS_RATIO, COSINE_SIMILARITY):
        table = coupled_pairs(models.drop(columns=gone))
        assert table.empty
        assert list(table.columns) == list(COLUMNS)
