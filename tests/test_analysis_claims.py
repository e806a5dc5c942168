"""The verdicts: the rule, and claims on planted data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prs_lightning.analysis.claims import (
    BEYOND,
    NEGLIGIBLE,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    Claim,
    epochs_claim,
    failures_claim,
    group_claim,
    relation_claim,
    scoreboard,
    verdict,
)
from prs_lightning.analysis.panels import panel_statistics
from prs_lightning.analysis.relations import BEYOND_RIVALS, PAPER_SLOPES
from prs_lightning.analysis.selection import select
from prs_lightning.analysis.table import read_runs
from prs_lightning.measures import AUDITED_ACCURACY, LOGIT_GAP, PRS_RATIO, ROBUST_ACCURACY
from tests.synthetic_runs import write_grid


@given(st.floats(-1, 1), st.floats(0, 1))
def test_the_rule_is_symmetric_and_leaves_nothing_open(low: float, width: float) -> None:
    high = low + width
    decided = verdict(low, high)
    assert (decided == SUPPORTED) == (low > 0)
    assert (decided == NOT_SUPPORTED) == (low <= 0 and (high < 0 or (low >= -NEGLIGIBLE and high <= NEGLIGIBLE)))
    assert decided in (SUPPORTED, NOT_SUPPORTED, UNDECIDED)


def board(folder: Path, **arguments: object) -> dict[str, Claim]:
    settings = {"batch_sizes": (64, 128, 512, 2048), "seeds": range(2), "epochs": 24, "grid": (6, 12, 18, 24)}
    write_grid(folder, **(settings | arguments))
    rows = read_runs(folder).rows
    statistics = panel_statistics(select(rows).models, draws=400)
    claims = scoreboard(statistics, rows)
    assert len(claims) == 12
    assert list(pd.DataFrame(claims)["claim"]) == [claim.claim for claim in claims]
    by_figure = {claim.figure: claim for claim in reversed(claims)}  # of several the first, the paper's if there is one
    return {claim.claim: claim for claim in claims} | by_figure


def test_planted_relations_are_supported_and_the_audited_one_is_not(tmp_path: Path) -> None:
    claims = board(tmp_path, data=("mnist", "cifar10"), within=-0.8, between=-0.8, after_audit=-1.0, run_noise=0.02)
    for figure in ("4", "8", "10", "12"):
        assert claims[figure].verdict == SUPPORTED, claims[figure]
        assert 0 < claims[figure].low < claims[figure].effect <= claims[figure].high <= 1
        assert "2 of 2 panels in the claimed direction" in claims[figure].note
    assert claims["4b"].verdict == NOT_SUPPORTED  # its slope was planted upside down
    assert claims["4b"].high < 0
    assert claims["4"].data == "2 panels, 64 models, 16 runs"
    assert claims["4"].paper == "OLS slopes -14.32 to -0.11; 9 of 9 negative"
    assert claims["4b"].paper == "not in the paper"
    assert claims["2b, 5"].verdict == SUPPORTED
    assert claims["9"].verdict == claims["6a"].verdict == UNDECIDED


def test_the_effect_is_the_mean_of_the_panels_spearman(tmp_path: Path) -> None:
    claims = board(tmp_path, data=("mnist", "cifar10"))
    models = select(read_runs(tmp_path).rows).models
    rho = [stats.spearmanr(group["prs/ratio"], group[ROBUST_ACCURACY])[0] for _, group in models.groupby("data")]
    assert claims["4"].effect == pytest.approx(-np.mean(rho))


def test_a_relation_between_runs_only_says_so_in_the_scoreboard(tmp_path: Path) -> None:
    claim = board(tmp_path, within=0.0, between=-0.8, run_noise=0.02, seed=1)["4"]
    assert claim.verdict == SUPPORTED
    assert "the relation is between runs only" in claim.note
    assert "an effect within runs in 0 of 1 panels" in claim.note


def test_few_runs_leave_every_relation_undecided(tmp_path: Path) -> None:
    claims = board(tmp_path, batch_sizes=(64, 2048), seeds=range(1))
    assert {claim.verdict for claim in claims.values()} == {UNDECIDED}
    assert np.isnan(claims["4"].low)
    assert claims["4"].effect > 0


def test_a_measure_that_was_not_taken_is_undecided() -> None:
    rows = pd.DataFrame({"run": ["r"], "epoch": [1], "model": ["m"], "data": ["d"], "prs/ratio": [0.5]})
    claims = scoreboard(panel_statistics(rows, draws=100), rows)
    assert {claim.verdict for claim in claims} == {UNDECIDED}
    assert claims[0].note == "not measured: RA (PGD-20)"


def test_the_claim_of_epochs_needs_both_parts() -> None:
    rng = np.random.default_rng(0)
    epochs = np.tile(np.arange(1, 11), 8)
    rows = pd.DataFrame({"run": np.repeat(list("abcdefgh"), 10), "epoch": epochs})
    falling, rising = -epochs + rng.normal(size=80), epochs + rng.normal(size=80)
    for prs, robust, expected in (
        (falling, rising, SUPPORTED),
        (falling, -rising, NOT_SUPPORTED),
        (-falling, rising, NOT_SUPPORTED),
        (falling, np.nan, UNDECIDED),
    ):
        claim = epochs_claim(rows.assign(**{"prs/ratio": prs, ROBUST_ACCURACY: robust}), 0.95)
        assert claim.verdict == expected
    claim = epochs_claim(rows.assign(**{"prs/ratio": falling, ROBUST_ACCURACY: rising}), 0.95)
    frame = pd.DataFrame({"run": rows["run"], "epoch": epochs, "prs": falling, "ra": rising})
    means = [
        sign * np.mean([stats.spearmanr(run["epoch"], run[name])[0] for _, run in frame.groupby("run")])
        for sign, name in ((-1, "prs"), (1, "ra"))
    ]
    assert claim.effect == pytest.approx(min(means))


def groups(difference: float, seeds: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                "network": "A",
                "seed": seed,
                "matching": "none",
                "group": group,
                "epsilon": epsilon,
                "n": 100,
                "robust_accuracy": accuracy,
            }
            for seed in range(seeds)
            for epsilon in (0.0, 0.1, 0.2)
            for group, accuracy in (
                ("exclusion", 0.5 - epsilon),
                ("inclusion", 0.5 - epsilon + (difference + 0.01 * rng.normal()) * (epsilon > 0)),
            )
        ]
    )


def test_the_claim_of_groups_compares_seeds_at_positive_epsilon() -> None:
    claim = group_claim(groups(0.2), 0.95)
    assert claim.verdict == SUPPORTED
    assert claim.effect == pytest.approx(0.2, abs=0.01)
    assert group_claim(groups(-0.2), 0.95).verdict == NOT_SUPPORTED
    few = group_claim(groups(0.2, seeds=3), 0.95)
    assert (few.verdict, few.effect) == (UNDECIDED, pytest.approx(0.2, abs=0.01))
    lonely = groups(0.2).assign(n=0)
    assert group_claim(lonely, 0.95).verdict == UNDECIDED
    inclusion = groups(0.2).query("group == 'inclusion'")
    assert group_claim(inclusion, 0.95).note == "a group has no samples"


def test_the_claim_at_equal_margin_takes_the_matched_groups_alone() -> None:
    both = pd.concat([groups(0.2), groups(0.0).assign(matching="clean margin")])
    unmatched, matched = group_claim(both, 0.95), group_claim(both, 0.95, "clean margin")
    assert unmatched == group_claim(groups(0.2), 0.95)
    assert (unmatched.claim, unmatched.verdict) == ("inclusion group more robust than exclusion group", SUPPORTED)
    assert (matched.claim, matched.verdict) == ("inclusion group more robust at equal margin", NOT_SUPPORTED)
    assert matched.effect == pytest.approx(0, abs=0.01)
    nobody = group_claim(both.assign(n=0), 0.95, "clean margin")
    assert (nobody.verdict, nobody.note) == (UNDECIDED, "no two samples of the groups are as near in margin")
    assert group_claim(None, 0.95, "clean margin").note == "figure 9 was not made"


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
    return pd.DataFrame(columns | others | {LOGIT_GAP: gap, PRS_RATIO: prs, AUDITED_ACCURACY: audited})


def beyond(models: pd.DataFrame) -> Claim:
    return relation_claim("beyond", BEYOND_RIVALS, panel_statistics(models, [BEYOND_RIVALS], draws=400), 0.95)


def test_what_the_prs_ratio_tells_beyond_its_rivals_is_the_partial_correlation_of_all_ranks() -> None:
    models = rivals(24, by_prs=-1.0, by_gap=0.5)
    claim = beyond(models)
    names = [PRS_RATIO, AUDITED_ACCURACY, *BEYOND_RIVALS.controls, "batch_size", "epoch", "test/accuracy"]
    precision = np.linalg.inv(models[names].rank().corr().to_numpy())
    assert claim.effect == pytest.approx(precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1]))
    assert claim.verdict == SUPPORTED
    assert 0 < claim.low < claim.effect < claim.high <= 1
    assert (claim.paper, claim.data) == ("not in the paper", "1 panel, 144 models, 24 runs")
    for name in ("logit gap", "log norm", "local complexity", "(NC1)", "(NC2)", "batch size, epoch and test accuracy"):
        assert name in claim.measure


def test_a_ratio_that_only_follows_the_logit_gap_predicts_nothing_beyond_it() -> None:
    models = rivals(40, by_prs=0.0, by_gap=1.0)
    assert stats.spearmanr(models[PRS_RATIO], models[AUDITED_ACCURACY])[0] < -0.6
    claim = beyond(models)
    assert claim.verdict != SUPPORTED
    assert abs(claim.effect) < 0.15
    assert claim.low < 0 < claim.high


def test_too_few_runs_for_the_controls_leave_it_undecided() -> None:
    for runs, decided in ((12, False), (13, True)):
        claim = beyond(rivals(runs, by_prs=-1.0, by_gap=0.0))
        assert claim.effect > 0.5
        assert np.isnan(claim.low) != decided
        assert claim.verdict == (SUPPORTED if decided else UNDECIDED)
        few = "interval from 0 panels of 13 runs or more, 5 beside 8 controls"
        assert (few in claim.note) != decided
    models = rivals(24, by_prs=-1.0, by_gap=0.5).drop(columns=BEYOND_RIVALS.controls[1])
    claim = beyond(models)
    assert (claim.verdict, claim.note) == (UNDECIDED, "not measured: log norm")


def test_distance_and_temperature_are_claims_of_their_own(tmp_path: Path) -> None:
    claims = board(tmp_path, within=-0.8, between=-0.8, after_audit=1.0, run_noise=0.02)
    for name in ("larger distance", "high robust accuracy at the best temperature"):
        claim = claims[f"low PRS ratio → {name}"]
        assert (claim.verdict, claim.figure, claim.paper) == (SUPPORTED, "4b", "not in the paper")
        assert claim.data == "1 panel, 32 models, 8 runs"  # those of the grid, where they are measured
    assert claims[BEYOND].figure == "16"
    assert "interval from 0 panels of 13 runs or more" in claims[BEYOND].note


def test_the_claim_of_failures_is_an_exact_binomial_interval() -> None:
    counts = {"success": 50, "failure_with_gradient": 10, "failure_zero_gradient": 40}
    failures = pd.DataFrame([{"network": "B", "outcome": name, "count": count} for name, count in counts.items()])
    misleading = pd.DataFrame([{"network": "A", "outcome": "failure_with_gradient", "count": 500}])
    claim = failures_claim(pd.concat([failures, misleading]), 0.95)
    # Clopper & Pearson 1934: quantiles of beta distributions.
    expected = stats.beta.ppf([0.025, 0.975], [40, 41], [11, 10]) - 0.5
    assert claim.effect == pytest.approx(0.3)
    np.testing.assert_allclose([claim.low, claim.high], expected, rtol=1e-6)
    assert claim.verdict == SUPPORTED
    assert failures_claim(failures.query("outcome == 'success'"), 0.95).verdict == UNDECIDED


def test_the_papers_slopes_are_in_the_order_of_its_text() -> None:
    assert len(PAPER_SLOPES) == 36
    assert PAPER_SLOPES[ROBUST_ACCURACY, "vgg16", "mnist"] == -14.32
    assert PAPER_SLOPES["weights/cosine_similarity", "vgg16", "cifar10"] == 0.28
    assert PAPER_SLOPES["prs/inclusion_ratio", "resnet18", "fashion_mnist"] == -0.65
    assert PAPER_SLOPES["features/sparsity", "cnn6", "cifar10"] == -0.15
