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
    NEGLIGIBLE,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    Claim,
    epochs_claim,
    failures_claim,
    group_claim,
    scoreboard,
    verdict,
)
from prs_lightning.analysis.panels import panel_statistics
from prs_lightning.analysis.relations import PAPER_SLOPES
from prs_lightning.analysis.selection import select
from prs_lightning.analysis.table import read_runs
from prs_lightning.measures import ROBUST_ACCURACY
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
    assert len(claims) == 8
    assert list(pd.DataFrame(claims)["claim"]) == [claim.claim for claim in claims]
    return {claim.figure: claim for claim in claims}


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
            {"network": "A", "seed": seed, "group": group, "epsilon": epsilon, "n": 100, "robust_accuracy": accuracy}
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
