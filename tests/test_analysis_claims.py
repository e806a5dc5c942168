"""The scoreboard: claims on planted data, from run directories and from tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from prs_lightning.analysis.answers import relation_claim
from prs_lightning.analysis.claims import BEYOND, epochs_claim, scoreboard
from prs_lightning.analysis.panels import panel_statistics
from prs_lightning.analysis.pooling import Estimate, pooled
from prs_lightning.analysis.relations import BEYOND_RIVALS, PAPER_SLOPES
from prs_lightning.analysis.selection import select
from prs_lightning.analysis.table import read_runs
from prs_lightning.analysis.verdict import (
    CONTRADICTED,
    NOT_MEASURABLE,
    SUPPORTED,
    UNDECIDED,
    Claim,
    claims_table,
    judged,
)
from prs_lightning.measures import AUDITED_ACCURACY, LOGIT_GAP, PRS_RATIO, ROBUST_ACCURACY
from tests.synthetic_runs import write_grid


def board(folder: Path, **arguments: object) -> dict[str, Claim]:
    settings = {"batch_sizes": (64, 128, 512, 2048), "seeds": range(4), "epochs": 24, "grid": (6, 12, 18, 24)}
    write_grid(folder, **(settings | arguments))
    rows = read_runs(folder).rows
    statistics = panel_statistics(select(rows).models, draws=400)
    claims = scoreboard(statistics, rows)
    assert len(claims) == 12
    assert list(claims_table(claims)["claim"]) == [claim.claim for claim in claims]
    by_figure = {claim.figure: claim for claim in reversed(claims)}  # of several the first, the paper's if there is one
    return {claim.claim: claim for claim in claims} | by_figure


def test_planted_relations_are_supported_and_the_audited_one_is_contradicted(tmp_path: Path) -> None:
    strong = {"within": -0.6, "between": -0.6, "after_audit": -0.5, "run_noise": 0.01, "noise": 0.005}
    claims = board(tmp_path, data=("mnist", "cifar10"), **strong)
    for figure in ("4", "8", "10", "12"):
        claim = claims[figure]
        assert claim.outcome == SUPPORTED, claim
        for answer in (claim.association, claim.between_runs):
            assert 0 < answer.low < answer.effect < answer.high <= 1
        assert claim.p < claim.p_holm < 0.05
        assert "2 of 2 panels in the claimed direction" in claim.note
        assert len(claim.panels) == 2
    assert claims["4b"].outcome == CONTRADICTED  # its slope was planted upside down
    assert claims["4b"].association.high < 0
    assert claims["4"].data == "2 panels, 128 models, 32 runs"
    assert claims["4"].paper == "OLS slopes -14.32 to -0.11; 9 of 9 negative"
    assert claims["4b"].paper == "not in the paper"
    assert claims["2b, 5"].outcome == SUPPORTED
    assert claims["9"].outcome == claims["6a"].outcome == NOT_MEASURABLE


def test_the_effect_is_the_summary_of_the_panels_spearman(tmp_path: Path) -> None:
    claims = board(tmp_path, data=("mnist", "cifar10"))
    models = select(read_runs(tmp_path).rows).models
    rho = [stats.spearmanr(group["prs/ratio"], group[ROBUST_ACCURACY])[0] for _, group in models.groupby("data")]
    assert claims["4"].association.effect == pytest.approx(-np.tanh(np.mean(np.arctanh(rho))))


def test_the_change_is_that_over_the_middle_of_the_ratios(tmp_path: Path) -> None:
    claim = board(tmp_path, within=-0.8, between=-0.8, run_noise=0.02)["4"]
    models = select(read_runs(tmp_path).rows).models
    slope = stats.linregress(models["prs/ratio"], models[ROBUST_ACCURACY]).slope
    spread = models["prs/ratio"].quantile(0.9) - models["prs/ratio"].quantile(0.1)
    assert claim.change.effect == pytest.approx(-slope * spread)
    assert claim.change.low < -slope * spread < claim.change.high
    assert 0 < claim.fixed_change.effect < claim.change.effect
    assert claim.margin == 0.02


def test_what_batch_size_alone_moves_is_an_association_only(tmp_path: Path) -> None:
    write_grid(
        tmp_path, seeds=range(4), epochs=24, grid=(6, 12, 18, 24), within=0.0, between=0.0, run_noise=0.03, seed=1
    )
    rows = read_runs(tmp_path).rows
    rows[ROBUST_ACCURACY] = (rows[ROBUST_ACCURACY] - 0.1 * np.log2(rows["batch_size"].astype(float) / 512)).clip(0, 1)
    claim = scoreboard(panel_statistics(select(rows).models, draws=400), rows)[0]
    assert claim.association.low > 0.5
    assert claim.outcome == UNDECIDED
    assert claim.verdict.startswith("association only: ")
    assert claim.explained_by == "batch size"


def test_few_runs_leave_every_relation_undecided(tmp_path: Path) -> None:
    claims = board(tmp_path, batch_sizes=(64, 2048), seeds=range(1))
    assert {claim.outcome for claim in claims.values()} == {UNDECIDED, NOT_MEASURABLE}
    assert claims["4"].verdict == "undecided: too few runs for an interval"
    assert np.isnan([claims["4"].association.low, claims["4"].p_holm]).all()
    assert claims["4"].association.effect > 0
    assert "no interval" in claims["4"].note


def test_a_measure_that_was_not_taken_is_not_measured() -> None:
    rows = pd.DataFrame(
        {"run": ["r"], "epoch": [1], "model": ["m"], "data": ["d"], "batch_size": [64], "prs/ratio": [0.5]}
    )
    claims = scoreboard(panel_statistics(rows, draws=100), rows)
    assert {claim.outcome for claim in claims} == {NOT_MEASURABLE}
    assert (claims[0].verdict, claims[0].note) == ("not measured", "not measured: RA (PGD-20)")


def epochs_table(prs: object, robust: object, *, runs: int = 8, panels: int = 1) -> pd.DataFrame:
    epochs = np.tile(np.arange(1, 11), runs * panels)
    run = np.repeat(np.arange(runs * panels), 10)
    columns = {"run": run.astype(str), "epoch": epochs, "model": "cnn6", "data": (run // runs).astype(str)}
    return pd.DataFrame(columns | {"prs/ratio": prs, ROBUST_ACCURACY: robust})


def moving(sign: float, count: int = 80, seed: int = 0) -> np.ndarray:
    """Shares that rise or fall with epochs, with noise."""
    rng = np.random.default_rng(seed)
    epochs = np.tile(np.arange(1, 11), count // 10)
    return (0.5 + 0.03 * sign * (epochs - 5.5) + 0.05 * rng.normal(size=count)).round(4)


@pytest.mark.parametrize(
    ("prs", "robust", "expected"),
    [
        (-1, 1, SUPPORTED),
        (-1, -1, CONTRADICTED),
        (1, 1, CONTRADICTED),
        (-1, 0, UNDECIDED),
        (-1, None, NOT_MEASURABLE),
        (1, None, CONTRADICTED),
    ],
)
def test_the_claim_of_epochs_needs_both_parts(prs: float, robust: float | None, expected: str) -> None:
    told = np.nan if robust is None else moving(robust, seed=1)
    claim = epochs_claim(epochs_table(moving(prs), told), 0.95)
    assert claim.outcome == expected


def test_the_effect_of_epochs_is_the_mean_trend_of_the_weaker_part() -> None:
    rows = epochs_table(moving(-1), moving(0.6, seed=2))
    claim = epochs_claim(rows, 0.95)
    means = [
        sign * np.mean([stats.spearmanr(run["epoch"], run[name])[0] for _, run in rows.groupby("run")])
        for sign, name in ((-1, "prs/ratio"), (1, ROBUST_ACCURACY))
    ]
    assert claim.association.effect == pytest.approx(min(means))


def test_runs_that_do_not_change_have_a_trend_of_0() -> None:
    robust = moving(1, seed=3)
    robust[:60] = np.repeat([0.1, 0.3, 0.2, 0.4, 0.25, 0.35], 10)
    claim = epochs_claim(epochs_table(moving(-1), robust), 0.95)
    assert 0 < claim.association.effect < 0.3
    assert claim.outcome == UNDECIDED


def test_runs_of_two_epochs_have_a_trend() -> None:
    prs, robust = moving(-1), moving(1, seed=4)
    rows = epochs_table(prs, robust)
    claim = epochs_claim(rows[rows["epoch"].isin([1, 10])], 0.95)
    assert "not measured" not in claim.note
    assert claim.association.effect > 0.7


def test_a_claim_of_epochs_about_an_attack_that_nothing_withstands_is_not_measurable() -> None:
    robust = np.zeros(80)
    robust[:10] = np.linspace(0, 0.3, 10)
    claim = epochs_claim(epochs_table(moving(-1), robust), 0.95)
    assert claim.outcome == NOT_MEASURABLE
    assert "left out: CNN-6 on 0: RA (PGD-20) within one sample of 0 in 72 of 80 models" in claim.note


def test_panels_whose_trends_oppose_each_other_are_named() -> None:
    robust = np.concatenate([moving(sign, seed=place) for place, sign in enumerate((1, 1, -1, -1))])
    claim = epochs_claim(epochs_table(moving(-1, 320), robust, panels=4), 0.95)
    assert claim.outcome == UNDECIDED
    assert "panels disagree" in claim.note


def rivals(runs: int, *, by_prs: float, by_gap: float, seed: int = 0) -> pd.DataFrame:
    """Six models per run; the PRS ratio hangs on the logit gap, audited RA on either."""
    rng = np.random.default_rng(seed)
    run = np.repeat(np.arange(runs), 6)
    gap = rng.normal(size=runs)[run] + 0.5 * rng.normal(size=len(run))
    prs = -gap + 0.7 * rng.normal(size=runs)[run] + 0.4 * rng.normal(size=len(run))
    audited = by_prs * prs + by_gap * gap + 0.1 * rng.normal(size=len(run))
    others = {name: rng.normal(size=len(run)) for name in BEYOND_RIVALS.controls if name != LOGIT_GAP}
    columns = {"run": run.astype(str), "epoch": np.tile(np.arange(1, 7), runs), "batch_size": 2.0 ** (run % 4)}
    columns |= {"model": "cnn6", "data": "mnist", "test/accuracy": rng.normal(size=len(run))}
    shares = {PRS_RATIO: stats.norm.cdf(prs), AUDITED_ACCURACY: stats.norm.cdf(audited)}
    return pd.DataFrame(columns | others | shares | {LOGIT_GAP: gap})


def beyond(models: pd.DataFrame) -> Claim:
    claim = relation_claim("beyond", BEYOND_RIVALS, panel_statistics(models, [BEYOND_RIVALS], draws=400))
    return judged(Claim(**{**vars(claim), "p_holm": claim.p}))


def test_what_the_prs_ratio_tells_beyond_its_rivals_is_the_partial_correlation_of_all_ranks() -> None:
    models = rivals(24, by_prs=-1.0, by_gap=0.5)
    claim = beyond(models)
    names = [PRS_RATIO, AUDITED_ACCURACY, *BEYOND_RIVALS.controls]
    precision = np.linalg.inv(models[names].rank().corr().to_numpy())
    assert claim.association.effect == pytest.approx(precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1]))
    assert claim.outcome == SUPPORTED
    assert 0 < claim.association.low < claim.association.effect < claim.association.high <= 1
    assert (claim.paper, claim.data) == ("not in the paper", "1 panel, 144 models, 24 runs")
    for name in ("logit gap", "log norm", "local complexity", "(NC1)", "(NC2)"):
        assert name in claim.measure


def test_a_ratio_that_only_follows_the_logit_gap_predicts_nothing_beyond_it() -> None:
    models = rivals(40, by_prs=0.0, by_gap=1.0)
    assert stats.spearmanr(models[PRS_RATIO], models[AUDITED_ACCURACY])[0] < -0.6
    claim = beyond(models)
    assert claim.outcome != SUPPORTED
    assert abs(claim.association.effect) < 0.15
    assert claim.association.low < 0 < claim.association.high


def test_too_few_runs_for_the_controls_leave_it_undecided() -> None:
    for runs, decided in ((11, False), (12, True)):  # less 4 batch sizes and 5 controls, three are left of 12
        claim = beyond(rivals(runs, by_prs=-1.0, by_gap=0.0))
        assert claim.association.effect > 0.5
        assert np.isnan(claim.association.low) != decided
        assert ("no interval" in claim.note) != decided
    models = rivals(24, by_prs=-1.0, by_gap=0.5).drop(columns=BEYOND_RIVALS.controls[1])
    assert beyond(models).note == "not measured: log norm"


def test_distance_and_temperature_are_claims_of_their_own(tmp_path: Path) -> None:
    claims = board(tmp_path, within=-1.5, between=-1.5, after_audit=1.0, run_noise=0.02)
    for name in ("larger distance", "high robust accuracy at the best temperature"):
        claim = claims[f"low PRS ratio → {name}"]
        assert (claim.outcome, claim.figure, claim.paper) == (SUPPORTED, "4b", "not in the paper")
        assert claim.data == "1 panel, 64 models, 16 runs"  # those of the grid, where they are measured
    assert claims[BEYOND].figure == "16"


def grid_of(panels: int = 3, seeds: int = 5, *, seed: int = 0) -> pd.DataFrame:
    """Models whose RA hangs on the PRS ratio at fixed batch size and epoch."""
    rng = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product(
        [[f"data{place}" for place in range(panels)], (64, 128, 512, 2048), range(seeds), (50, 100, 150)],
        names=["data", "batch_size", "seed", "epoch"],
    )
    models = index.to_frame(index=False).assign(model="cnn6")
    models["run"] = models["data"] + "-" + models["batch_size"].astype(str) + "-" + models["seed"].astype(str)
    level = dict(zip(models["run"].unique(), rng.normal(size=models["run"].nunique()), strict=True))
    few = models["run"].map(level) + 0.3 * rng.normal(size=len(models))
    models[PRS_RATIO] = (0.5 - 0.1 * few).clip(0.001, 1).round(5)
    models[ROBUST_ACCURACY] = (0.4 + 0.08 * few + 0.02 * rng.normal(size=len(models))).clip(0, 1).round(4)
    models["test/accuracy"] = 0.9
    return models


def first_claim(models: pd.DataFrame) -> Claim:
    return scoreboard(panel_statistics(models, draws=200), models)[0]


def test_a_panel_that_cannot_be_measured_is_named_and_takes_no_other_with_it() -> None:
    models = grid_of()
    whole = first_claim(models)
    assert whole.outcome == SUPPORTED
    robust = models[ROBUST_ACCURACY].where((models["data"] != "data2") | (models["run"] == "data2-64-0"), 0.0)
    one_empty = first_claim(models.assign(**{ROBUST_ACCURACY: robust}))
    assert one_empty.outcome == SUPPORTED
    assert one_empty.data == "2 panels, 120 models, 40 runs"
    assert "left out: CNN-6 on data2: RA (PGD-20) within one sample of 0 in 57 of 60 models" in one_empty.note
    assert [panel.excluded != "" for panel in one_empty.panels] == [False, False, True]
    assert not np.isnan([one_empty.association.low, one_empty.between_runs.low]).any()


def test_effect_and_interval_are_of_the_same_panels() -> None:
    models = grid_of()
    few = models[(models["data"] == "data0") | (models["seed"] == 0)]
    claim = first_claim(few)
    assert claim.data == "1 panel, 60 models, 20 runs"
    assert claim.association.low < claim.association.effect < claim.association.high
    alone = first_claim(models[models["data"] == "data0"])
    assert claim.association == alone.association
    assert "left out: CNN-6 on data1 and CNN-6 on data2: no interval (4 runs)" in claim.note


def test_an_attack_that_is_too_strong_says_which_epsilon_would_do() -> None:
    models = grid_of(1).assign(**{ROBUST_ACCURACY: 0.0, "robust/distance": np.linspace(0.01, 0.03, 60)})
    claim = first_claim(models)
    assert claim.outcome == NOT_MEASURABLE
    assert claim.verdict.startswith("not measurable at this epsilon: too strong an attack")
    assert "CNN-6 on data0: epsilon about 0.02 would do, the median distance" in claim.note
    curve = pd.DataFrame(
        {"network": list("ABABAB"), "split": "test", "attack": "PGD-20", "epsilon": [0.1, 0.1, 0.2, 0.2, 0.3, 0.3],
         "robust_accuracy": [0.8, 0.9, 0.4, 0.6, 0.05, 0.5]}
    )  # fmt: skip
    without = models.drop(columns="robust/distance")
    claim = scoreboard(panel_statistics(without, draws=100), without, curve=curve)[0]
    assert "epsilon 0.2 tells networks A and B apart (figure 3)" in claim.note
    ceiling = first_claim(models.assign(**{ROBUST_ACCURACY: 1.0}))
    assert "too weak an attack" in ceiling.verdict


def test_robustness_that_vanishes_under_the_audit_is_called_so_with_an_exact_bound() -> None:
    models = grid_of(2).assign(**{AUDITED_ACCURACY: 0.0})
    models.loc[3, AUDITED_ACCURACY] = 0.0001
    (claim,) = [
        each
        for each in scoreboard(panel_statistics(models, draws=100), models)
        if each.claim.endswith("after the audit")
    ]
    assert (claim.outcome, claim.verdict) == (NOT_MEASURABLE, "the robustness vanishes under the audit")
    bound = stats.beta.ppf(0.975, 2, 9999)
    assert f"no network keeps more than {bound:.2g} of the test samples (exact bound, CNN-6 on data0)" in claim.note


def test_five_claims_of_nothing_are_corrected_together() -> None:
    models = grid_of()
    claims = scoreboard(panel_statistics(models, draws=200), models)
    p = np.array([claim.p for claim in claims])
    assert np.isfinite(p).sum() >= 1
    known = [claim for claim in claims if not np.isnan(claim.p)]
    assert min(claim.p_holm for claim in known) == pytest.approx(min(1, min(p[~np.isnan(p)]) * len(known)))


def test_the_permuted_answer_of_panels_is_their_summary() -> None:
    claim = first_claim(grid_of())
    effects = [panel.between_runs.effect for panel in claim.panels]
    assert min(effects) < claim.between_runs.effect < max(effects)
    estimates = [Estimate(float(np.arctanh(effect)), 0.0625, 16) for effect in effects]
    assert claim.between_runs.effect == pytest.approx(np.tanh(pooled(estimates).summary.value), abs=0.03)


def test_the_papers_slopes_are_in_the_order_of_its_text() -> None:
    assert len(PAPER_SLOPES) == 36
    assert PAPER_SLOPES[ROBUST_ACCURACY, "vgg16", "mnist"] == -14.32
    assert PAPER_SLOPES["weights/cosine_similarity", "vgg16", "cifar10"] == 0.28
    assert PAPER_SLOPES["prs/inclusion_ratio", "resnet18", "fashion_mnist"] == -0.65
    assert PAPER_SLOPES["features/sparsity", "cnn6", "cifar10"] == -0.15
