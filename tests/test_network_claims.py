"""Claims about networks A and B, against scipy and statsmodels, and worlds in which they must not be supported."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep

from prs_lightning.analysis.network_claims import LEAST, MARGIN, Networks, combined, failures_claim, group_claim
from prs_lightning.analysis.verdict import CONTRADICTED, NEGLIGIBLE, NOT_MEASURABLE, OUTCOMES, SUPPORTED, UNDECIDED

RADII = (0.0, 0.1, 0.2)


def groups(
    differences: dict[str, list[float]],
    *,
    n: int | dict[tuple[str, int, str], int] = 100,
    clean: tuple[float, float] = (1.0, 1.0),
    kept: float = 0.5,
    matching: str = "none",
) -> pd.DataFrame:
    """Figure 9's numbers: of each network and seed by how much the inclusion group keeps more of its clean accuracy."""
    rows = []
    for letter, of_seeds in differences.items():
        for (seed, difference), radius in product(enumerate(of_seeds), RADII):
            for group, accuracy, more in (("inclusion", clean[0], difference), ("exclusion", clean[1], 0.0)):
                share = kept - radius + more if radius else 1.0
                size = n if isinstance(n, int) else n.get((letter, seed, group), 100)
                rows.append((letter, seed, matching, group, radius, accuracy * share, size))
    columns = ["network", "seed", "matching", "group", "epsilon", "robust_accuracy", "n"]
    return pd.DataFrame(rows, columns=columns)


SPREAD = [0.2, 0.25, 0.15, 0.22, 0.18]


def test_of_one_kind_of_network_the_interval_is_students_over_its_seeds() -> None:
    claim = group_claim(groups({"A": [value + 1 for value in SPREAD]}, n=10**6, kept=-0.5), 0.9)
    expected = stats.ttest_1samp([value + 1 for value in SPREAD], 0)
    assert claim.association.effect == pytest.approx(1.2)
    assert (claim.association.low, claim.association.high) == pytest.approx(expected.confidence_interval(0.9))
    assert claim.p == claim.association.p == pytest.approx(expected.pvalue)
    both = group_claim(groups({"A": [value + 1 for value in SPREAD]}, n=10**6, kept=-0.5))
    assert (both.change.low, both.change.high) == pytest.approx(expected.confidence_interval(0.9))  # one-sided tests
    assert (claim.outcome, claim.verdict) == (SUPPORTED, "supported (network A alone)")
    assert claim.data == "5 networks A"


def test_a_and_b_are_two_strata_and_each_has_an_answer_of_its_own() -> None:
    b = [0.5, 0.4, 0.55, 0.45]
    claim = group_claim(groups({"A": SPREAD, "B": b}, n=10**6, kept=0.3))
    within = [np.var(values, ddof=1) / len(values) for values in (SPREAD, b)]
    weights = np.array([5, 4]) / 9  # groups of one size: each network weighs the same
    effect, variance = weights @ [np.mean(SPREAD), np.mean(b)], weights**2 @ within
    freedom = variance**2 / sum((w**2 * v) ** 2 / df for w, v, df in zip(weights, within, (4, 3), strict=True))
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert claim.association.effect == pytest.approx(effect)
    assert (claim.association.low, claim.association.high) == pytest.approx((effect - half, effect + half))
    pooled = stats.ttest_1samp([*SPREAD, *b], 0).confidence_interval()  # as if they were networks of one kind
    assert pooled.high - pooled.low > 1.2 * 2 * half
    assert claim.outcome == SUPPORTED
    low, high = stats.ttest_1samp(SPREAD, 0).confidence_interval()
    assert f"network A: +0.200 ([{low:+.3f}, {high:+.3f}] over 5 seeds)" in claim.note
    assert "network B: +0.475 (seed 0: +0.500 [" in claim.note  # four seeds: what their samples say
    both = combined([(-1.0, stratum(SPREAD)), (1.0, stratum(b))])
    welch = stats.ttest_ind(b, SPREAD, equal_var=False)
    assert both.interval(0.95) == pytest.approx(tuple(welch.confidence_interval()))
    assert (both.p, both.freedom) == pytest.approx((welch.pvalue, welch.df))


def stratum(values: list[float], weights: Sequence[float] | None = None, noise: float = 0.0) -> Networks:
    return Networks(np.array(values), np.array(weights or np.ones(len(values))), np.full(len(values), noise))


def test_networks_weigh_as_the_smaller_of_their_groups() -> None:
    sizes = [1000, 400, 100, 60, 20]
    n = {("A", seed, "exclusion"): size for seed, size in enumerate(sizes)} | {
        ("A", seed, "inclusion"): 5000 for seed in range(5)
    }
    claim = group_claim(groups({"A": SPREAD}, n=n))
    assert claim.association.effect == pytest.approx(np.average(SPREAD, weights=sizes))
    fit = sm.WLS(SPREAD, np.ones(5), weights=sizes).fit(cov_type="HC2")
    found = stratum(SPREAD, sizes).mean
    assert (found.value, np.sqrt(found.variance)) == pytest.approx((fit.params[0], fit.bse[0]))
    assert found.freedom == pytest.approx(sum(sizes) ** 2 / sum(size**2 for size in sizes) - 1)
    lonely = group_claim(groups({"A": SPREAD}, n={("A", 0, "exclusion"): 10**5, ("A", 0, "inclusion"): 10**5}))
    assert lonely.verdict == "undecided: describes these networks only"  # one network weighs as much as all


def test_a_small_group_is_left_out_and_named() -> None:
    n = {("A", 2, "exclusion"): LEAST - 1, ("B", 0, "inclusion"): 2, ("B", 1, "inclusion"): 3}
    claim = group_claim(groups({"A": [0.2, 0.2, -9.0, 0.21, 0.2, 0.19], "B": [5.0, 5.0]}, n=n))
    assert claim.association.effect == pytest.approx(0.2)
    assert claim.data == "5 networks A"
    assert "network A, seed 2 left out: a group below 20 samples" in claim.note
    assert "network B, seeds 0 and 1 left out: a group below 20 samples" in claim.note
    nobody = group_claim(groups({"A": SPREAD}, n=LEAST - 1))
    assert (nobody.outcome, nobody.verdict) == (NOT_MEASURABLE, NOT_MEASURABLE)
    assert group_claim(groups({"A": SPREAD}, n=0)).note == "a group has no samples"
    one_group = groups({"A": SPREAD}).query("group == 'inclusion'")
    assert group_claim(one_group).outcome == NOT_MEASURABLE


def test_groups_that_differ_in_clean_accuracy_alone_are_no_support() -> None:
    rng = np.random.default_rng(1)
    for noise, expected in ((0.06, UNDECIDED), (0.002, NEGLIGIBLE)):
        seeds = {letter: rng.normal(0, noise, 5).tolist() for letter in "AB"}
        table = groups(seeds, n=1000, clean=(0.99, 0.9))
        attacked = table[table["epsilon"] > 0].groupby("group")["robust_accuracy"].mean()
        assert attacked["inclusion"] - attacked["exclusion"] > 0.02  # more than nothing, and no robustness
        claim = group_claim(table)
        assert claim.outcome == expected
        assert abs(claim.association.effect) < 2 * noise


def test_few_seeds_describe_their_networks_alone() -> None:
    n = {(letter, seed, "inclusion"): 80 for letter, seed in (("A", 0), ("A", 1), ("B", 0))}
    claim = group_claim(groups({"A": [0.3, 0.2], "B": [0.1]}, n=n))
    assert (claim.outcome, claim.verdict) == (UNDECIDED, "undecided: describes these networks only")
    assert np.isnan([claim.association.low, claim.p]).all()
    low, high = confint_proportions_2indep(0.45 * 80, 80, 0.35 * 100, 100, method="newcomb", compare="diff")
    assert f"network B: +0.100 (seed 0: +0.100 [{low:+.3f}, {high:+.3f}] over its samples)" in claim.note
    assert claim.data == "2 networks A and 1 network B"
    four = group_claim(groups({"A": [0.3, 0.2, 0.3], "B": [0.1]}))  # of B nothing is known beyond itself
    assert four.outcome == UNDECIDED


def test_networks_that_disagree_are_no_support() -> None:
    for a, b in ((0.6, -0.2), (-0.2, 0.6)):
        around = np.array([-0.02, -0.01, 0, 0.01, 0.02])
        claim = group_claim(groups({"A": (a + around).tolist(), "B": (b + around).tolist()}, n=10**5))
        assert claim.association.low > 0
        assert (claim.outcome, claim.verdict) == (UNDECIDED, "networks A and B disagree")


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_an_attack_that_leaves_all_or_none_standing_measures_nothing(kept: float) -> None:
    table = groups({"A": [0.0] * 5, "B": SPREAD}, n=1000)
    chosen = (table["network"] == "A") & (table["epsilon"] > 0)
    table.loc[chosen, "robust_accuracy"] = np.where(table.loc[chosen, "seed"] == 2, abs(kept - 0.001), kept)
    claim = group_claim(table)
    assert claim.data == "5 networks B"
    assert "network A, seeds 0, 1, 2, 3 and 4 left out: at every radius both groups stand, or both fall" in claim.note
    silent = group_claim(table[table["network"] == "A"])
    assert (silent.outcome, silent.verdict) == (NOT_MEASURABLE, NOT_MEASURABLE)
    # A radius at which both groups fall dilutes nothing.
    beside = groups({"A": SPREAD}).replace({"epsilon": {0.1: 0.05}})
    gone = beside[beside["epsilon"] == 0.2].assign(epsilon=0.3, robust_accuracy=0.0)
    assert group_claim(pd.concat([beside, gone])).association == group_claim(beside).association


def test_networks_that_agree_to_the_sample_still_have_the_error_of_counting() -> None:
    claim = group_claim(groups({"A": [0.1] * 5}, n=50))
    low, high = claim.association.low, claim.association.high
    assert low < 0 < 0.1 < high
    assert claim.outcome == UNDECIDED
    exact = group_claim(groups({"A": [0.1] * 5}, n=10**6))
    assert exact.association.low == pytest.approx(0.1, abs=0.002)
    small = group_claim(groups({"A": [0.01] * 5}, n=10**6))
    assert (small.outcome, small.verdict) == (SUPPORTED, "supported but small (network A alone)")


def test_the_claim_at_equal_margin_takes_the_matched_groups_alone() -> None:
    both = pd.concat([groups({"A": SPREAD}), groups({"A": [-x for x in SPREAD]}, matching="clean margin")])
    unmatched, matched = group_claim(both), group_claim(both, 0.95, "clean margin")
    assert unmatched == group_claim(groups({"A": SPREAD}))
    assert (unmatched.claim, unmatched.outcome) == ("inclusion group more robust than exclusion group", SUPPORTED)
    assert (matched.claim, matched.outcome) == ("inclusion group more robust at equal margin", CONTRADICTED)
    nobody = group_claim(both.assign(n=0), 0.95, "clean margin")
    assert (nobody.outcome, nobody.note) == (NOT_MEASURABLE, "no two samples of the groups are as near in margin")
    assert group_claim(None, 0.95, "clean margin").note == "figure 9 was not made"


def failures(shares: dict[str, list[float]], failed: int = 200, first: int = 0) -> pd.DataFrame:
    """Figure 6a's numbers: the share of zero gradients among so many failed attacks, for each seed."""
    rows = []
    for letter, of_seeds in shares.items():
        for seed, share in enumerate(of_seeds, start=first if letter == "A" else 0):
            zero = round(share * failed)
            counts = {"success": 500, "failure_with_gradient": failed - zero, "failure_zero_gradient": zero}
            rows += [(letter, seed, outcome, count) for outcome, count in counts.items()]
    return pd.DataFrame(rows, columns=["network", "seed", "outcome", "count"])


A, B = [0.1, 0.2, 0.15, 0.12, 0.18], [0.5, 0.7, 0.6, 0.55, 0.66]


def test_failures_of_b_are_compared_with_those_of_a() -> None:
    claim = failures_claim(failures({"A": A, "B": B}, failed=10_000))
    paired = stats.ttest_rel(B, A)
    assert claim.association.effect == pytest.approx(np.mean(B) - np.mean(A))
    assert (claim.association.low, claim.association.high) == pytest.approx(paired.confidence_interval())
    assert claim.p == pytest.approx(paired.pvalue)
    assert (claim.outcome, claim.data) == (SUPPORTED, "5 pairs of networks of one seed")
    other_seeds = failures_claim(failures({"A": A, "B": B}, failed=10_000, first=3))
    welch = stats.ttest_ind(B, A, equal_var=False)
    assert (other_seeds.association.low, other_seeds.association.high) == pytest.approx(welch.confidence_interval())
    assert other_seeds.data == "5 networks B and 5 networks A"
    # Most of B's failures have a zero gradient; those of A even more.
    for more in (B, [0.56] * 5):
        assert failures_claim(failures({"A": [0.95] * 5, "B": more})).outcome == CONTRADICTED


def test_one_network_of_each_kind_describes_itself_alone() -> None:
    claim = failures_claim(failures({"A": [0.95], "B": [0.56]}))
    assert (claim.outcome, claim.verdict) == (UNDECIDED, "undecided: describes these networks only")
    low, high = confint_proportions_2indep(112, 200, 190, 200, method="newcomb", compare="diff")
    assert claim.note.startswith(f"seed 0 of B and 0 of A: -0.390 [{low:+.3f}, {high:+.3f}] over its samples")
    assert "network B: 0.560 of 200 failed attacks" in claim.note
    assert (claim.association.effect, claim.data) == (pytest.approx(-0.39), "1 network B and 1 network A")
    assert np.isnan(claim.association.low)


def test_failures_need_failed_attacks_on_both() -> None:
    few = failures_claim(failures({"A": A, "B": B}, failed=LEAST - 1))
    assert (few.outcome, few.verdict) == (
        NOT_MEASURABLE, "not measurable: too few failed attacks on networks B and A",
    )  # fmt: skip
    table = failures({"A": A, "B": B})
    table.loc[table["network"].eq("A") & table["outcome"].ne("success"), "count"] = 0
    claim = failures_claim(table)
    assert claim.verdict == "not measurable: too few failed attacks on network A"
    assert "network A: no failed attack" in claim.note
    assert "network A, seeds 0, 1, 2, 3 and 4 left out: fewer than 20 failed attacks" in claim.note
    assert failures_claim(table.query("outcome == 'success'")).outcome == NOT_MEASURABLE
    assert failures_claim(None).outcome == NOT_MEASURABLE


def test_shares_that_are_the_same_for_every_seed_have_the_error_of_counting() -> None:
    whole = failures_claim(failures({"A": [0.0] * 5, "B": [1.0] * 5}, failed=40))
    assert 0.9 < whole.association.low < 1 == whole.association.effect
    assert whole.outcome == SUPPORTED
    alike = failures_claim(failures({"A": [1.0] * 5, "B": [1.0] * 5}, failed=1000))
    assert alike.outcome == NEGLIGIBLE
    assert max(-alike.change.low, alike.change.high) < MARGIN
    few = failures_claim(failures({"A": [1.0] * 5, "B": [1.0] * 5}, failed=20))
    assert few.outcome == UNDECIDED  # equal, but of too few to say so


def test_intervals_cover_what_they_say() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([1000.0, 1000.0, 200.0, 60.0, 30.0])
    covered = []
    for _ in range(500):
        values = rng.normal(0.1, np.sqrt(0.05**2 + 0.25 / sizes), (2, 5))  # between seeds, and by counting
        a, b = (Networks(each, sizes, 0.1 / sizes) for each in values)
        intervals = [
            combined(parts).interval(0.95) for parts in ([(1.0, a)], [(0.4, a), (0.6, b)], [(1.0, b), (-1.0, a)])
        ]
        covered.append([low < true < high for (low, high), true in zip(intervals, (0.1, 0.1, 0.0), strict=True)])
    assert (np.mean(covered, axis=0) > 0.93).all()


def test_every_outcome_is_one_of_the_five() -> None:
    claims = [group_claim(groups({"A": [x] * 5}, n=n)) for x, n in product((-0.3, 0.0, 0.3), (5, 50, 10**6))]
    assert {claim.outcome for claim in claims} == {*OUTCOMES}
