"""The causal section against scipy and statsmodels, by hand, and on experiments of which the truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.multitest import multipletests

from prs_lightning.analysis import causal
from prs_lightning.analysis.causal import causal_study
from prs_lightning.analysis.causes import (
    ALONE,
    CAUSAL,
    FAILED,
    FOLLOWS,
    MASKING,
    NEITHER,
    NOT_MOVED,
    NOTHING,
    OPEN,
    UNDECIDED,
    Arm,
    Causes,
    Contrasts,
    judged,
    judged_arm,
)
from prs_lightning.analysis.contrasts import END, MATCHED, TOGETHER, difference
from prs_lightning.analysis.doses import dose_table
from prs_lightning.analysis.factorial import factorial_table
from prs_lightning.analysis.matching import matched_epochs
from prs_lightning.analysis.mediation import mediated, mediation_table
from prs_lightning.analysis.pairing import COMPARED, Pair, Run, paired
from prs_lightning.analysis.relations import MARGINS
from prs_lightning.measures import (
    AUDITED_ACCURACY,
    DISTANCE,
    LOGIT_GAP,
    PRS_RATIO,
    ROBUST_ACCURACY,
    TEST_ACCURACY,
)
from tests.causal_worlds import WORLDS, World, experiment

STRONG, HIGH, ADVERSARIAL, SCALED = "low_prs 5", "high_prs 1", "adversarial 1", "scaled x1000"


def study(rows: pd.DataFrame, scaled: pd.DataFrame | None = None, **options: Any) -> Causes:
    found = causal_study(rows, scaled=scaled, **options)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def masked() -> tuple[pd.DataFrame, pd.DataFrame]:
    return WORLDS["masked"].make(np.random.default_rng(1))


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    """Mediation is slow, and has a test of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(causal, "mediation_table", partial(mediation_table, draws=3))
        yield


@pytest.fixture(scope="module")
def found(masked: tuple[pd.DataFrame, pd.DataFrame]) -> Causes:
    return study(*masked)


def row_of(causes: Causes, arm: str, at: str, measure: str, panel: str = TOGETHER) -> pd.Series:
    table = causes.contrasts
    return table[
        (table["arm"] == arm) & (table["at"] == at) & (table["measure"] == measure) & (table["panel"] == panel)
    ].iloc[0]


def ends(rows: pd.DataFrame, data: str, arm: str, strength: object, measure: str) -> np.ndarray:
    """Of a data set's runs of an arm, in the order of their seeds."""
    chosen = rows[(rows["data"] == data) & (rows["arm"] == arm) & (rows["strength"] == strength)]
    return chosen[chosen["epoch"] == chosen["epoch"].max()].sort_values("seed")[measure].to_numpy(float)


@pytest.mark.parametrize("measure", [PRS_RATIO, AUDITED_ACCURACY, DISTANCE, LOGIT_GAP])
def test_a_panel_is_the_paired_t_test_of_scipy_and_two_are_welchs(
    masked: tuple[pd.DataFrame, pd.DataFrame], found: Causes, measure: str
) -> None:
    differences = {}
    for name, data in {"CNN-6 on MNIST-5k": "mnist5k", "CNN-6 on F-MNIST": "fashion_mnist"}.items():
        sides = [ends(masked[0], data, *arm, measure) for arm in (("low_prs", 5.0), ("none", 0.0))]
        theirs = stats.ttest_rel(*sides)
        ours = row_of(found, STRONG, END, measure, name)
        assert ours[["effect", "p", "pairs"]].tolist() == pytest.approx(
            [sides[0].mean() - sides[1].mean(), theirs.pvalue, 5]
        )
        assert ours[["low", "high"]].tolist() == pytest.approx([*theirs.confidence_interval()])
        assert ours[["low90", "high90"]].tolist() == pytest.approx([*theirs.confidence_interval(0.9)])
        assert ours[["none", "treated"]].tolist() == pytest.approx([sides[1].mean(), sides[0].mean()])
        differences[name] = sides[0] - sides[1]
    one, other = differences.values()
    welch = stats.ttest_ind(one, -other, equal_var=False)
    ours = row_of(found, STRONG, END, measure)
    assert ours[["effect", "p"]].tolist() == pytest.approx([(one.mean() + other.mean()) / 2, welch.pvalue])
    assert ours[["low", "high"]].tolist() == pytest.approx([end / 2 for end in welch.confidence_interval()])


def test_p_values_are_corrected_over_the_arms_of_one_aim(found: Causes) -> None:
    low = [row_of(found, arm.name, END, AUDITED_ACCURACY) for arm in found.arms if arm.aim == "low"]
    theirs = multipletests([row["p"] for row in low], method="holm")[1]
    assert len(low) == 3
    assert [row["p_holm"] for row in low] == pytest.approx(theirs)
    for alone in (HIGH, ADVERSARIAL, SCALED):
        row = row_of(found, alone, END, AUDITED_ACCURACY)
        assert row["p_holm"] == row["p"]


def test_equal_differences_are_no_certainty() -> None:
    none, up = np.full(5, 0.25), np.full(5, 0.252)
    share, other = difference(none, up, 500), difference(none, up)
    assert share.variance == pytest.approx((1 / 500) ** 2 / 6 / 5)
    assert share.interval(0.95)[0] < up[0] - none[0] - 0.0005
    assert 0 < other.variance < 1e-15
    assert difference(none[:2], up[:2]).p != difference(none[:2], up[:2]).p  # NaN: two pairs are too few
    assert difference(none, none).interval(0.95) == pytest.approx((0, 0), abs=1e-7)


def a_few_withstand(values: dict[str, np.ndarray]) -> None:
    """Four of 500 samples, in all arms but adversarial training, which vouches for the measure."""
    values[AUDITED_ACCURACY] = values[AUDITED_ACCURACY].copy()
    values[AUDITED_ACCURACY][:, :-1] = 0.008


def test_what_has_no_room_or_tells_no_networks_apart_is_not_measurable() -> None:
    worlds = {
        "below its margin, 0.02, on both sides": World("", (), plan={"spoil": a_few_withstand}),
        "of the clean accuracy on both sides": WORLDS["RA 1"],
        "within one sample of 0 in 25 of 30 models": WORLDS["RA 0"],
    }
    for where, world in worlds.items():
        rows, scaled = world.make(np.random.default_rng(0))
        causes = study(rows, scaled)
        row = row_of(causes, STRONG, END, AUDITED_ACCURACY, "CNN-6 on MNIST-5k")
        assert np.isnan(row["low90"])
        assert where in row["note"]
        assert row_of(causes, STRONG, END, AUDITED_ACCURACY)["note"] == "no panel counts"
        assert {arm.shows for arm in causes.arms if arm.aim == "low"} == {OPEN}
    still = rows.assign(**{DISTANCE: 0.05})
    assert "0.05 in every model" in row_of(study(still), STRONG, END, DISTANCE, "CNN-6 on F-MNIST")["note"]


def test_few_pairs_have_no_interval(masked: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    rows = masked[0]
    causes = study(rows[(rows["seed"] < 2) | (rows["data"] == "mnist5k")])
    row = row_of(causes, STRONG, END, PRS_RATIO, "CNN-6 on F-MNIST")
    assert np.isnan(row["p"])
    assert row["note"] == "2 pairs: no interval below 3"
    assert row_of(causes, STRONG, END, PRS_RATIO)[["pairs", "note"]].tolist() == [5, "1 of 2 panels"]


def test_only_runs_that_differ_in_seed_and_intervention_are_pairs(masked: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    rows = masked[0][masked[0]["data"] == "mnist5k"].assign(**{"config.model.learning_rate": "0.001"})
    low = rows["arm"] == "low_prs"
    rows["config.model.width"] = low.map({True: "64", False: None})
    rows["config.intervention.low_prs.strength"] = rows["strength"].where(low)
    rows["config.wandb.mode"] = low.map({True: "online", False: "offline"})
    pairs, messages = paired(rows)
    assert (len(pairs), messages) == (25, [])
    rows.loc[low & (rows["seed"] == 3), "config.model.learning_rate"] = "0.01"
    rows = rows[~((rows["arm"] == "none") & (rows["seed"] == 4))]
    pairs, messages = paired(rows)
    assert len(pairs) == 25 - 2 - 5
    assert (
        messages[0] == "CNN-6 on MNIST-5k: the runs differ in model.learning_rate: only those that are alike are pairs"
    )
    of_none = "CNN-6 on MNIST-5k, model.learning_rate=0.01: no run of none for low_prs 5 with seed 3"
    assert of_none in messages
    assert {pair.none.seed for pair in pairs} == {0, 1, 2, 3}
    assert all(pair.none.seed == pair.treated.seed and pair.none.panel == pair.treated.panel for pair in pairs)


def test_of_several_runs_of_one_arm_and_seed_none_is_taken(masked: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    rows = masked[0][(masked[0]["data"] == "mnist5k")]
    again = rows[(rows["arm"] == "high_prs") & (rows["seed"] == 2)]
    pairs, messages = paired(pd.concat([rows, again.assign(run="again")]))
    assert len(pairs) == 24
    assert len(messages) == 1
    assert "2 runs of high_prs 1 with seed 2 (again and mnist5k-cnn6-high_prs-1.0-seed2): none of them" in messages[0]


def test_batch_sizes_are_panels_and_a_pair_ends_where_both_runs_do(masked: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    rows = masked[0][masked[0]["data"] == "mnist5k"]
    other = rows.assign(batch_size=64, run=rows["run"] + "-64")
    short = (other["arm"] == "high_prs") & (other["seed"] == 0) & (other["epoch"] > 7)
    causes = study(pd.concat([rows, other[~short]]))
    assert {*causes.contrasts["panel"]} == {*(f"CNN-6 on MNIST-5k, batch size {size}" for size in (32, 64)), TOGETHER}
    assert causes.messages == (
        "CNN-6 on MNIST-5k, batch size 64: compared before the end, 12: mnist5k-cnn6-high_prs-1.0-seed0-64 at epoch 7",
    )


def test_the_match_is_that_of_trying_all_pairs() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        none, treated = (
            np.column_stack([rng.uniform(0.8, 0.86, size), rng.uniform(4, 9, size)]) for size in rng.integers(1, 7, 2)
        )
        if rng.random() < 0.2:
            treated[-1] = none[-1]
        if rng.random() < 0.2:
            none[0, 0] = np.nan
        best: tuple[float, int, tuple[int, int] | None] = (np.inf, 0, None)
        for i, j in product(range(len(none)), range(len(treated))):
            if i < len(none) - 1 and j < len(treated) - 1:
                continue
            a = abs(none[i, 0] - treated[j, 0]) / 0.02
            g = abs(none[i, 1] - treated[j, 1]) / (0.1 * max(none[i, 1], treated[j, 1]))
            if a <= 1 and g <= 1 and (max(a, g), -i - j) < best[:2]:
                best = (max(a, g), -i - j, (i, j))
        ours = matched_epochs(none, treated, accuracy_tolerance=0.02, gap_tolerance=0.1)
        assert ours == best[2]
        found += ours is not None
    assert 20 < found < 180
    same = np.column_stack([np.full(3, 0.9), np.full(3, 5.0)])
    assert matched_epochs(same, same, accuracy_tolerance=0, gap_tolerance=0) == (2, 2)
    shares = np.array([[0.92, 5.0]]), np.array([[0.9, 5.0]])  # 0.92 - 0.9 is above 0.02 in floating point
    assert matched_epochs(*shares, accuracy_tolerance=0.02, gap_tolerance=0.1) == (0, 0)


def test_no_outcome_is_looked_at_to_match(masked: tuple[pd.DataFrame, pd.DataFrame], found: Causes) -> None:
    rows = masked[0].copy()
    rng = np.random.default_rng(0)
    for name in (ROBUST_ACCURACY, AUDITED_ACCURACY, DISTANCE):
        rows[name] = rng.permutation(rows[name])
    blind = study(rows, masked[1]).contrasts
    same = found.contrasts[found.contrasts["measure"] == LOGIT_GAP]
    pd.testing.assert_frame_equal(blind[blind["measure"] == LOGIT_GAP], same)
    at = same[(same["at"] == MATCHED) & (same["panel"] == TOGETHER) & (same["arm"] == STRONG)].iloc[0]
    assert abs(at["effect"]) < 0.05 * at["none"] < row_of(found, STRONG, END, LOGIT_GAP)["effect"]
    note = row_of(found, STRONG, MATCHED, LOGIT_GAP, "CNN-6 on MNIST-5k")["note"]
    assert note.startswith("epochs 11 to 12 of none, 5 to 6 of the arm") or "of the arm" in note


def test_mediation_is_the_regression_of_differences() -> None:
    rng = np.random.default_rng(0)
    base, gap = rng.normal(0.5, 0.05, 12), rng.normal(10, 1, 12)
    moved = rng.normal(4, 2, 12)
    change = 0.02 + 0.03 * moved + rng.normal(0, 0.01, 12)
    np.random.seed(5)  # noqa: NPY002
    state = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    found = mediated(np.column_stack([gap, gap + moved]), np.column_stack([base, base + change]), seed=0, draws=300)
    assert (np.random.get_state(legacy=False)["state"]["key"] == state).all()  # noqa: NPY002
    again = mediated(np.column_stack([gap, gap + moved]), np.column_stack([base, base + change]), seed=0, draws=300)
    assert found == again
    values = {row["effect"]: row["value"] for row in found}
    fit = stats.linregress(moved, change)  # of least squares with a constant for each pair, differences remain
    assert values["total"] == pytest.approx(change.mean(), abs=0.005)
    assert values["through the gap"] == pytest.approx(fit.slope * moved.mean(), abs=0.01)
    assert values["direct"] == pytest.approx(fit.intercept, abs=0.01)
    through = next(row for row in found if row["effect"] == "through the gap")
    assert through["low"] < 0.03 * 4 < through["high"]
    assert through["p"] < 0.05


def run_of(arm: str, seed: int, values: np.ndarray, epochs: tuple[int, ...] = (12,)) -> Run:
    return Run(f"{arm}-{seed}", "panel", arm, seed, np.array(epochs, float), values.reshape(len(epochs), -1))


def test_doses_are_slopes_within_seeds() -> None:
    rng = np.random.default_rng(0)
    levels = rng.normal(size=(5, 3, len(COMPARED))) + np.arange(3)[:, None] * 0.5
    pairs = [
        Pair(run_of("none", seed, own[0]), run_of(f"low_prs {strength}", seed, own[dose]))
        for seed, own in enumerate(levels)
        for dose, strength in ((1, "0.5"), (2, "10"))
    ]
    alone = [Pair(run_of("none", 0, levels[0, 0]), run_of("high_prs 1", 0, levels[0, 1]))]
    table = dose_table([*pairs, *alone])
    column = COMPARED.index(AUDITED_ACCURACY)
    slopes = [np.polyfit(range(3), own[:, column], 1)[0] for own in levels]
    theirs = stats.ttest_1samp(slopes, 0)
    ours = table[table["measure"] == AUDITED_ACCURACY].iloc[0]
    assert {*table["intervention"]} == {"low_prs"}
    assert ours[["slope", "p", "p_holm"]].tolist() == pytest.approx([np.mean(slopes), theirs.pvalue, theirs.pvalue])
    assert ours[["low", "high"]].tolist() == pytest.approx([*theirs.confidence_interval()])
    assert ours[["pairs", "doses"]].tolist() == [5, "0, 0.5, 10"]
    lacking = dose_table(pairs[:-1])
    assert lacking["pairs"].unique().tolist() == [4]
    widths = [
        replace(pair, treated=replace(pair.treated, arm=pair.treated.arm.replace("low_prs", "width"))) for pair in pairs
    ]
    assert dose_table(widths)["doses"].unique().tolist() == ["0.5, 10"]


def factorial(seeds: int = 4, **rates: tuple[float, ...]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {
            "run": f"{batch}-{epochs}-{rate}-{seed}", "model": "cnn6", "data": data, "batch_size": batch, "seed": seed,
            "epoch": epochs, "arm": "none", "strength": "0", "prs/count": 500.0, PRS_RATIO: 0.5,
            "config.model.learning_rate": str(rate), AUDITED_ACCURACY: rng.normal(0.4, 0.05) + 0.01 * np.log2(batch),
        }
        for data, seed, batch in product(("mnist", "cifar10"), range(seeds), (16, 64, 300))
        for epochs, rate in product((8, batch // 2), (1e-3, 1e-3 * batch / 16))
    ]  # fmt: skip
    return pd.DataFrame(rows).drop_duplicates("run")


def test_the_factorial_is_that_of_statsmodels() -> None:
    rows = factorial()
    table = factorial_table(rows)
    known = rows.assign(
        y=rows[AUDITED_ACCURACY], b=np.log2(rows["batch_size"]),
        s=np.log2(np.ceil(1000 / rows["batch_size"]) * rows["epoch"]),
        r=np.log2(rows["config.model.learning_rate"].astype(float)), g=rows["data"] + rows["seed"].astype(str),
    )  # fmt: skip
    fit = smf.ols("y ~ b + s + r + C(g)", known).fit(cov_type="cluster", cov_kwds={"groups": known["seed"]}, use_t=True)
    ours = table[table["measure"] == AUDITED_ACCURACY]
    assert ours["factor"].tolist() == ["batch size", "steps", "learning rate"]
    assert ours["slope"].tolist() == pytest.approx(fit.params[["b", "s", "r"]].tolist())
    assert ours["p"].tolist() == pytest.approx(fit.pvalues[["b", "s", "r"]].tolist())
    assert ours[["low", "high"]].to_numpy() == pytest.approx(fit.conf_int().loc[["b", "s", "r"]].to_numpy())
    recorded = factorial_table(rows.assign(step=1000.0))
    assert {*recorded["factor"]} == {"batch size", "learning rate"}


def test_an_ordinary_grid_is_no_factorial() -> None:
    rows = factorial()
    ordinary = rows[(rows["epoch"] == 8) & (rows["config.model.learning_rate"] == "0.001")]
    assert ordinary["batch_size"].nunique() == 3
    assert factorial_table(ordinary).empty  # steps are batch size over again, but for the last batch
    assert factorial_table(rows[rows["seed"] < 2]).empty
    assert causal_study(ordinary) is None
    cut = ordinary.assign(epochs=8.0, epoch=np.where((ordinary["seed"] + ordinary["batch_size"]) % 3 == 0, 3, 8))
    cut["step"] = cut["epoch"] * 10.0
    assert len(factorial_table(cut.drop(columns="epochs")))
    assert factorial_table(cut).empty  # where an interrupted run ended, nobody set
    alone = study(rows)
    assert (alone.arms, alone.contrasts.empty, len(alone.factorial)) == ((), True, 3)
    assert alone.verdict == UNDECIDED


LOW_ARM, OTHER, CONTROLS = Arm(STRONG, "low"), Arm("low_prs 1", "low"), {ADVERSARIAL: FOLLOWS, SCALED: ALONE}


def contrasts(planted: dict[tuple[str, str, str], tuple[float, float]]) -> Contrasts:
    """Effect and half of the 90% interval by arm, ``at`` and measure; two standard errors are that half."""
    names = [STRONG, "low_prs 1", HIGH, ADVERSARIAL, SCALED]
    rows = []
    for arm, at, measure in product(names, (END, MATCHED), COMPARED):
        effect, half = planted.get((arm, at, measure), (0.0, 0.001))
        p = float(2 * stats.norm.sf(2 * abs(effect) / half)) if half else np.nan
        ends = {
            "low": effect - 1.2 * half,
            "high": effect + 1.2 * half,
            "low90": effect - half,
            "high90": effect + half,
        }
        if not half:
            ends = dict.fromkeys(ends, np.nan)
        rows.append({
            "arm": arm, "at": at, "measure": measure, "panel": TOGETHER, "effect": effect, **ends, "p": p, "p_holm": p,
            "q_p": 0.5, "pairs": 10 if half else 0, "none": 0.4, "treated": 0.4 + effect, "note": "",
        })  # fmt: skip
    return Contrasts(pd.DataFrame(rows), MARGINS)


def real(arm: str, robust: float, distance: float, *times: str) -> dict[tuple[str, str, str], tuple[float, float]]:
    of = ((AUDITED_ACCURACY, robust, 0.01), (DISTANCE, distance, 0.001))
    return {(arm, at, measure): (value, half) for at in times for measure, value, half in of}


MOVED = {(STRONG, at, PRS_RATIO): (-0.4, 0.05) for at in (END, MATCHED)}
RAISED = {(HIGH, at, PRS_RATIO): (0.1, 0.02) for at in (END, MATCHED)}
CROSS = {(STRONG, END, ROBUST_ACCURACY): (0.1, 0.01)}
BOTH = (END, MATCHED)


@pytest.mark.parametrize(
    ("arm", "planted", "shows"),
    [
        (STRONG, MOVED | real(STRONG, 0.05, 0.006, *BOTH), FOLLOWS),
        (STRONG, MOVED | real(STRONG, 0.05, 0.006, MATCHED), NOTHING),  # it comes with the epochs of the match
        (STRONG, MOVED | real(STRONG, 0.05, 0.006, END), OPEN),  # it goes with the gap
        (STRONG, MOVED | real(STRONG, 0.05, 0.0, *BOTH), OPEN),
        (STRONG, MOVED | real(STRONG, 0.05, 0.006, *BOTH) | {(STRONG, MATCHED, PRS_RATIO): (-0.1, 0.2)}, OPEN),
        (STRONG, MOVED | real(STRONG, 0.05, 0.006, END) | real(STRONG, 0.05, 0.0035, MATCHED), OPEN),
        (STRONG, MOVED | real(STRONG, 0.05, 0.006, END) | real(STRONG, 0.019, 0.006, MATCHED), OPEN),
        (STRONG, MOVED | CROSS, ALONE),
        (STRONG, MOVED | CROSS | real(STRONG, -0.05, -0.006, END), ALONE),
        (STRONG, MOVED | CROSS | real(STRONG, 0.011, 0, END), OPEN),  # its interval ends beyond the margin
        (STRONG, MOVED | {(STRONG, END, ROBUST_ACCURACY): (0.018, 0.005)}, OPEN),  # by less than its margin, perhaps
        (STRONG, MOVED | {(STRONG, END, ROBUST_ACCURACY): (0.01, 0.005)}, NOTHING),  # it moves, by less than the margin
        (STRONG, MOVED | CROSS | {(STRONG, END, DISTANCE): (0.0, 0.0)}, OPEN),  # not measurable
        (STRONG, MOVED, NOTHING),
        (STRONG, {(STRONG, END, PRS_RATIO): (-0.04, 0.001)}, NOT_MOVED),
        (STRONG, {(STRONG, END, PRS_RATIO): (0.4, 0.001)}, NOT_MOVED),
        (STRONG, {(STRONG, END, PRS_RATIO): (-0.4, 0.9)}, NOT_MOVED),
        (HIGH, RAISED | real(HIGH, -0.05, -0.006, *BOTH), FOLLOWS),
        (HIGH, RAISED | real(HIGH, 0.05, 0.006, *BOTH), NOTHING),
        (HIGH, RAISED | {(HIGH, END, ROBUST_ACCURACY): (-0.1, 0.01)}, ALONE),
        (HIGH, RAISED | {(HIGH, END, ROBUST_ACCURACY): (0.1, 0.01)}, NOTHING),
        (ADVERSARIAL, real(ADVERSARIAL, 0.1, 0.01, END), FOLLOWS),
        (ADVERSARIAL, real(ADVERSARIAL, 0.1, 0.0, END), OPEN),
        (SCALED, {(SCALED, END, ROBUST_ACCURACY): (0.5, 0.01)}, ALONE),
        (SCALED, {}, NOTHING),
        (SCALED, {(SCALED, END, ROBUST_ACCURACY): (0.5, 0.01), (SCALED, END, AUDITED_ACCURACY): (0.1, 0.01)}, OPEN),
    ],
)  # fmt: skip
def test_what_an_arm_shows(arm: str, planted: dict[Any, Any], shows: str) -> None:
    assert judged_arm(arm, contrasts(planted)).shows == shows


def arms(low: str, high: str, other: str = NOT_MOVED, **controls: str) -> list[Arm]:
    of = {STRONG: ("low", low), "low_prs 1": ("low", other), HIGH: ("high", high)}
    of |= {
        ADVERSARIAL: ("positive", controls.get("positive", FOLLOWS)),
        SCALED: ("negative", controls.get("negative", ALONE)),
    }
    return [Arm(name, aim, shows) for name, (aim, shows) in of.items() if shows]


FURTHEST = {("low_prs 1", END, ROBUST_ACCURACY): (0.3, 0.01)}
AGAINST = real(HIGH, 0.05, 0.0, END)


@pytest.mark.parametrize(
    ("known", "planted", "verdict", "reason"),
    [
        (arms(FOLLOWS, FOLLOWS), {}, CAUSAL, "robustness follows in low_prs 5 and high_prs 1, at equal accuracy"),
        (arms(FOLLOWS, FOLLOWS), AGAINST, UNDECIDED, "against the claim audited RA or distance moves in high_prs 1"),
        (arms(FOLLOWS, OPEN), {}, UNDECIDED, "in no arm that aims high"),
        (arms(OPEN, FOLLOWS), {}, UNDECIDED, "in no arm that aims low"),
        (arms(FOLLOWS, ALONE), CROSS, UNDECIDED, "in no arm that aims high"),
        (arms(ALONE, OPEN), CROSS, MASKING, "moves alone in low_prs 5"),
        (arms(ALONE, OPEN, OPEN), CROSS | FURTHEST, UNDECIDED, "furthest in low_prs 1"),
        (arms(ALONE, NOTHING, NOT_MOVED), CROSS | FURTHEST, MASKING, "moves alone in low_prs 5"),
        (arms(NOTHING, NOTHING), {}, NEITHER, "nothing follows in low_prs 5 and high_prs 1"),
        (arms(NOTHING, OPEN), {}, UNDECIDED, "open in high_prs 1"),
        (arms(OPEN, OPEN), {(HIGH, MATCHED, PRS_RATIO): (0.0, 0.0)}, UNDECIDED, "gap in high_prs 1"),
        (arms(NOT_MOVED, NOTHING), {}, UNDECIDED, "no arm that aims low was moved"),
        (arms(NOT_MOVED, NOT_MOVED), {}, UNDECIDED, "no arm moved the PRS ratio"),
        (arms("", "", ""), {}, UNDECIDED, "no arm aims at regions"),
        (arms(FOLLOWS, FOLLOWS, positive=OPEN), {}, FAILED, "the positive control came out wrong"),
        (arms(FOLLOWS, FOLLOWS, negative=NOTHING), {}, FAILED, "the negative control came out wrong"),
        (arms(FOLLOWS, FOLLOWS, positive=""), {}, UNDECIDED, "the positive control was not run"),
        (arms(FOLLOWS, FOLLOWS, negative=""), {}, UNDECIDED, "the negative control was not run"),
    ],
)  # fmt: skip
def test_the_verdict(known: list[Arm], planted: dict[Any, Any], verdict: str, reason: str) -> None:
    found = judged(known, contrasts(planted))
    assert found[0] == verdict
    assert reason in found[1]


def test_panels_that_disagree_have_no_verdict() -> None:
    table = contrasts(CROSS).table
    own = {"arm": STRONG, "at": MATCHED, "measure": AUDITED_ACCURACY}
    panels = pd.DataFrame([own | {"panel": side, "effect": way, "p": 0.001} for side, way in (("a", 0.1), ("b", -0.1))])
    here = (table["arm"] == STRONG) & (table["at"] == MATCHED) & (table["measure"] == AUDITED_ACCURACY)
    differ = Contrasts(pd.concat([table.assign(q_p=table["q_p"].where(~here, 0.001)), panels]), MARGINS)
    assert judged(arms(ALONE, OPEN), differ)[0] == UNDECIDED
    assert "panels disagree on RA after the audit in low_prs 5" in judged(arms(ALONE, OPEN), differ)[1]
    assert judged(arms(ALONE, OPEN), Contrasts(pd.concat([table, panels]), MARGINS))[0] == MASKING


@pytest.mark.parametrize("name", WORLDS)
def test_planted_worlds(name: str) -> None:
    """One experiment each, of less noise than the benchmark's, so that the right verdict is certain."""
    rows, scaled = WORLDS[name].make(np.random.default_rng(7), seeds=6, noise=0.008, distance_noise=0.0008)
    causes = study(rows, scaled)
    assert causes.verdict in WORLDS[name].right, causes.reason
    decided = {"causal": CAUSAL, "masked": MASKING, "null": NEITHER}
    assert causes.verdict == decided.get(name, causes.verdict)


def test_worlds_are_what_they_say() -> None:
    rows, scaled = experiment(np.random.default_rng(0), seeds=200, panels=1)
    last = rows[rows["epoch"] == 12].pivot_table(index="seed", columns=["arm", "strength"], values=[*COMPARED])
    both = [
        last.xs(arm, axis=1, level=(1, 2))[[*COMPARED]].to_numpy(float) for arm in (("low_prs", 5.0), ("none", 0.0))
    ]
    apart = dict(zip(COMPARED, (both[0] - both[1]).T, strict=True))
    assert apart[AUDITED_ACCURACY].mean() == pytest.approx(0, abs=0.007)
    assert apart[AUDITED_ACCURACY].std() == pytest.approx(0.03, rel=0.15)
    assert apart[DISTANCE].std() == pytest.approx(0.003, rel=0.15)
    assert apart[ROBUST_ACCURACY].mean() > 0.1
    assert apart[PRS_RATIO].mean() == pytest.approx(-0.6, abs=0.01)
    assert np.allclose(rows[AUDITED_ACCURACY] * 500, np.round(rows[AUDITED_ACCURACY] * 500))
    assert (scaled[AUDITED_ACCURACY].to_numpy() == ends(rows, "mnist5k", "none", 0.0, AUDITED_ACCURACY)).all()
    warm, _ = experiment(np.random.default_rng(0), warmup=4)
    early = warm[warm["epoch"] <= 4].groupby(["data", "seed", "epoch"])[[*COMPARED]].nunique()
    assert (early == 1).all(axis=None)
    assert all(one < other for one, other in pairwise(rows.loc[rows["run"] == rows["run"][0], TEST_ACCURACY][:3]))
