"""Studies of new runs: what they keep of the real ones, what is planted, and the rule against that of the analysis."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from scipy import stats

from analyze import analyze
from prs_lightning.analysis.answers import relation_claim
from prs_lightning.analysis.panels import panel_statistics
from prs_lightning.analysis.power import COLUMNS, Pilot, Rule, check, pilots_of, power, power_table, study
from prs_lightning.analysis.relations import Relation
from prs_lightning.analysis.verdict import SUPPORTED, judged
from prs_lightning.errors import RunError
from prs_lightning.measures import COSINE_SIMILARITY, PRS_RATIO, ROBUST_ACCURACY
from prs_lightning.sweep.cli import CONFIG_FOLDER
from tests.synthetic_runs import write_grid

CLAIM = "low PRS ratio → high cosine similarity of the final layer's weights"
RELATION = Relation("8", COSINE_SIMILARITY)
EPOCHS = np.array([10.0, 20.0, 40.0])


def runs(panels: int = 2, seeds: int = 4, seed: int = 0) -> pd.DataFrame:
    """Real runs: batch size and epoch move both measures, runs and noise do apart from each other."""
    rng, rows = np.random.default_rng(seed), []
    for panel in range(panels):
        for batch, batch_size in enumerate((64, 512)):
            for run in range(seeds):
                x, y = 0.1 * rng.standard_normal(2)[:, None] + 0.1 * rng.standard_normal((2, len(EPOCHS)))
                for epoch, one, other in zip(EPOCHS, x, y, strict=True):
                    rows.append({
                        "run": f"{panel}-{batch_size}-{run}", "model": "cnn6", "data": f"data{panel}",
                        "batch_size": batch_size, "seed": run, "epoch": epoch,
                        PRS_RATIO: 0.4 + 0.1 * batch - 0.002 * epoch + 0.3 * one,
                        COSINE_SIMILARITY: 0.5 - 0.2 * batch + 0.004 * epoch + other,
                    })  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def pilots() -> list[Pilot]:
    return pilots_of(runs(), COSINE_SIMILARITY)


def test_a_study_keeps_means_variances_and_courses_and_has_the_planted_correlation(pilots: list[Pilot]) -> None:
    real, new = runs(), study(pilots[0], 3000, 0.5, np.random.default_rng(1))
    real = real[real["data"] == pilots[0].data]
    frame = pd.DataFrame({"run": new.runs, "batch_size": new.batch_sizes, "epoch": new.epochs, PRS_RATIO: new.x})
    frame[COSINE_SIMILARITY] = new.y
    assert frame["run"].nunique() == 6000
    for name in (PRS_RATIO, COSINE_SIMILARITY):
        cells = real.groupby(["batch_size", "epoch"])[name].mean()
        pd.testing.assert_series_equal(
            frame.groupby(["batch_size", "epoch"])[name].mean(), cells, atol=0.01, check_index_type=False
        )
        # The courses of new runs about their level are real ones, of which there are four, n / (n - 1) as variable.
        old, made = (table.pivot_table(name, ["batch_size", "run"], "epoch") for table in (real, frame))
        apart = old - old.groupby("batch_size").transform("mean")
        level = apart.mean(axis=1)
        courses = apart.sub(level, axis=0) * np.sqrt(4 / 3)
        variances = level.groupby("batch_size").var(), (courses**2).mean(axis=1).groupby("batch_size").mean()
        share = variances[0].sum() / (variances[0] + variances[1]).sum()  # of the variance, between runs: of both sizes
        for batch_size in (64, 512):
            between, within = (each[batch_size] for each in variances)
            new_apart = made.loc[batch_size] - old.loc[batch_size].mean()
            assert new_apart.mean(axis=1).var() == pytest.approx(share * (between + within), rel=0.1)
            new_courses = new_apart.sub(new_apart.mean(axis=1), axis=0).to_numpy()
            expected = courses.loc[batch_size].to_numpy() * np.sqrt((1 - share) * (between + within) / within)
            nearest = np.abs(new_courses[:, None] - expected).max(axis=2).min(axis=1)
            assert nearest.max() < 1e-4  # a share is rounded to its samples
    levels = frame.groupby(["batch_size", "run"])[[PRS_RATIO, COSINE_SIMILARITY]].mean()
    for batch_size in (64, 512):
        assert stats.spearmanr(levels.loc[batch_size]).statistic == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize(
    ("effect", "seeds", "claims", "shift"), [(0.6, 8, 3, 0.0), (0.0, 8, 3, 0.0), (0.6, 20, 3, 0.0), (0.9, 12, 15, 0.2)]
)
def test_the_rule_is_that_of_the_analysis(effect: float, seeds: int, claims: int, shift: float) -> None:
    models = runs()
    models[COSINE_SIMILARITY] += shift * (models["batch_size"] == 512)  # 0.2: batch size moves x alone
    pilots = pilots_of(models, COSINE_SIMILARITY)
    rule, alike, decided = Rule(CLAIM, RELATION, claims, 0.95), 0, 0
    for number in range(7):
        found, _ = rule.decides(pilots, seeds, effect, np.random.default_rng(number))
        rng = np.random.default_rng(number)  # the same studies, in the same order
        frames = []
        for pilot in pilots:
            new = study(pilot, seeds, effect, rng)
            columns = {"run": [f"{pilot.data}-{run}" for run in new.runs], "batch_size": new.batch_sizes}
            columns |= {"epoch": new.epochs, "seed": new.seeds, PRS_RATIO: new.x, COSINE_SIMILARITY: new.y}
            frames.append(pd.DataFrame(columns).assign(model=pilot.model, data=pilot.data))
        whole = panel_statistics(pd.concat(frames, ignore_index=True), [RELATION], draws=300)
        claim = relation_claim(CLAIM, RELATION, whole)
        expected = judged(replace(claim, p_holm=min(1.0, claims * claim.p))).outcome == SUPPORTED
        alike, decided = alike + (expected == found), decided + expected
    assert alike >= 6  # a p near its bound may fall on either side: permutations and draws are others
    assert (decided > 0) == (effect > 0)


def plan(models: pd.DataFrame, **changed: object) -> pd.DataFrame:
    arguments = {"effect": 0.7, "seeds": [3, 12], "simulations": 30, "target": 0.8, "claims": 2} | changed
    return power(models, **arguments)  # type: ignore[arg-type]


def test_above_sixty_runs_the_null_is_as_wide_as_that_of_permutations(pilots: list[Pilot]) -> None:
    rule = Rule(CLAIM, RELATION, 1, 0.95)
    found = [rule.decides(pilots, 16, 0.0, np.random.default_rng(number))[1] for number in range(120)]
    assert 0 < np.mean(found) < 0.12  # a half of 5% in each of the two answers


def test_many_seeds_find_what_is_planted_and_none_finds_what_is_not() -> None:
    found = plan(runs(), seeds=[12, 3])
    assert list(found.columns) == list(COLUMNS)
    assert found[["effect", "seeds", "runs"]].to_numpy().tolist() == [[0.7, 3, 12], [0.7, 12, 48], [0, 12, 48]]
    few, many, none = found.to_dict("records")
    assert few["share"] < 0.5 < 0.8 <= many["share"]
    assert none["share"] <= 0.1
    assert [few["enough"], many["enough"], none["enough"]] == [False, True, False]
    assert few["low"] <= few["share"] < few["high"]
    assert all(row["share"] <= row["fixed"] for row in (few, many, none))
    (shown,) = power_table(found).to_dict("records")
    assert shown == {
        "claim": CLAIM, "3 seeds": f"{few['share']:.0%}", "12 seeds": f"{many['share']:.0%}",
        "enough": "12", "at fixed batch size and epoch": f"{many['fixed']:.0%}",
        "with no effect": f"{none['share']:.0%}",
    }  # fmt: skip


def test_a_weaker_effect_needs_more_seeds_and_one_against_the_claim_is_found_as_such() -> None:
    models = runs()
    numbers = [6, 12]
    tried = {effect: plan(models, effect=effect, seeds=numbers, simulations=12) for effect in (0.85, 0.3)}
    enough = {effect: found.loc[found["enough"], "seeds"].tolist() for effect, found in tried.items()}
    assert enough[0.85] in ([6], [12])
    assert enough[0.3] == []
    assert power_table(tried[0.3])["enough"].tolist() == ["more than 12"]
    turned = models.assign(**{COSINE_SIMILARITY: -models[COSINE_SIMILARITY]})
    assert plan(turned, effect=-0.85, seeds=[12], simulations=12)["share"].iloc[0] >= 0.8


def test_a_plan_hangs_on_its_seed_alone() -> None:
    models = runs(seeds=2)
    models.loc[3, COSINE_SIMILARITY] = np.nan
    arguments = {"seeds": [6], "simulations": 10, "effect": 0.6}
    first = plan(models, **arguments)
    shuffled = models.sample(frac=1, random_state=0)[sorted(models.columns)]
    for one, other in zip(*(pilots_of(each, COSINE_SIMILARITY) for each in (models, shuffled)), strict=True):
        for stratum, same in zip(one.strata, other.strata, strict=True):
            np.testing.assert_array_equal(stratum.y.courses, same.y.courses)
    pd.testing.assert_frame_equal(plan(shuffled, **arguments), first)
    others = [plan(models, seed=seed, **arguments)["fixed"].tolist() for seed in (1, 2, 3)]
    assert any(other != first["fixed"].tolist() for other in others)


def test_a_measure_that_tells_nothing_apart_is_not_planned_and_lines_tell_of_the_progress() -> None:
    models, told = runs(), []
    models[ROBUST_ACCURACY] = 0.0
    found = plan(models, seeds=[3], simulations=2, progress=told.append)
    assert found["claim"].tolist()[1:] == [CLAIM] * 2
    assert found.iloc[0].drop(["claim", "y", "enough"]).isna().all()
    assert power_table(found)["enough"].tolist() == ["not measurable", "more than 3"]
    assert len(told) == 1
    assert told[0].startswith(f"plan: {CLAIM}: 3 seeds decide in ")


def test_runs_without_a_second_seed_are_refused_in_one_line() -> None:
    models = runs()
    with pytest.raises(RunError, match="two runs that differ in the seed alone") as told:
        check(models[models["seed"] == 0])
    assert "\n" not in str(told.value)
    check(models)
    assert pilots_of(models[models["seed"] == 0], COSINE_SIMILARITY) == []


def test_analyze_writes_pairs_and_plan_and_says_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_grid(tmp_path, batch_sizes=(64, 2048), seeds=range(2), epochs=4, grid=(2, 4))
    plain = [f"runs={tmp_path}", "wandb.mode=disabled", "bootstrap.draws=100", "figures=none", "plan=true"]
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = compose("analyze", [*plain, "power.seeds=[3]", "power.simulations=10"])
        alone = compose("analyze", [*plain, "thresholds.mnist=1"])
    analyze(config)
    said = capsys.readouterr().out
    assert "3 seeds decide in" in said
    assert "correlate by 0.5" in said
    pairs, found = (pd.read_csv(tmp_path / "report" / f"{name}.csv") for name in ("coupled", "power"))
    assert pairs.loc[pairs["factor"] == "seed", "pairs"].tolist() == [4] * 7
    assert set(found["seeds"]) == {3}
    assert {"Pairs of models that differ in one thing", "How many seeds would decide"} <= {
        line.removeprefix("## ") for line in (tmp_path / "report" / "report.md").read_text().splitlines()
    }
    with pytest.raises(RunError, match="plan=true needs two runs"):
        analyze(alone)
