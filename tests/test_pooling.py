"""Panels together: the equations of random effects, and what two panels and one are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from prs_lightning.analysis.pooling import Estimate, pooled

EFFECTS = (0.9, 0.2, 0.5, 0.6, -0.1)
VARIANCES = (0.02, 0.03, 0.01, 0.05, 0.02)
PANELS = [Estimate(effect, variance, 16) for effect, variance in zip(EFFECTS, VARIANCES, strict=True)]


def test_the_summary_solves_the_equations_of_paule_and_mandel() -> None:
    y, v = np.array(EFFECTS), np.array(VARIANCES)

    def excess(tau2: float) -> float:
        weights = 1 / (v + tau2)
        return float(weights @ (y - weights @ y / weights.sum()) ** 2) - 4

    tau2 = optimize.brentq(excess, 0, 10)
    weights = 1 / (v + tau2)
    mean = weights @ y / weights.sum()
    hartung_knapp = weights @ (y - mean) ** 2 / weights.sum() / 4
    variance = max(1 / weights.sum(), hartung_knapp)
    found = pooled(PANELS)
    assert found.summary.value == pytest.approx(mean, rel=1e-4)
    assert found.summary.variance == pytest.approx(variance, rel=1e-4)
    assert found.summary.freedom == 4
    half = stats.t.ppf(0.975, 3) * np.sqrt(tau2 + variance)
    assert (found.new_low, found.new_high) == pytest.approx((mean - half, mean + half), rel=1e-4)
    fixed = (y / v).sum() / (1 / v).sum()
    q = ((y - fixed) ** 2 / v).sum()
    assert found.q_p == pytest.approx(stats.chi2.sf(q, 4))
    assert found.i2 == pytest.approx(1 - 4 / q)
    low, high = found.summary.interval(0.95)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 4, mean, np.sqrt(variance)), rel=1e-4)
    t = mean / np.sqrt(variance)
    assert found.summary.p == pytest.approx(2 * stats.t.sf(t, 4), rel=1e-3)


def test_panels_that_are_too_much_alike_are_no_surer_than_their_noise() -> None:
    """Hartung and Knapp's error of equal effects is 0."""
    found = pooled([Estimate(0.5, 0.04, 16)] * 9)
    assert found.summary.variance == pytest.approx(0.04 / 9)
    assert (found.i2, found.q_p) == (0, 1)


def test_without_each_panel_is_the_summary_of_the_others() -> None:
    found = pooled(PANELS)
    assert len(found.without) == 5
    for place, summary in enumerate(found.without):
        assert summary == pooled([*PANELS[:place], *PANELS[place + 1 :]]).summary


def test_few_panels_are_their_mean_and_one_is_itself() -> None:
    one, other = Estimate(0.2, 0.01, 10), Estimate(0.6, 0.04, 20)
    both = pooled([one, other])
    assert (both.summary.value, both.summary.variance) == pytest.approx((0.4, 0.05 / 4))
    assert both.summary.freedom == pytest.approx(0.05**2 / (0.01**2 / 10 + 0.04**2 / 20))  # Satterthwaite 1946
    assert both.q_p == pytest.approx(stats.chi2.sf(0.4**2 / 0.05, 1))
    assert both.without == ()
    assert np.isnan([both.new_low, both.new_high]).all()
    three = pooled([one, other, one])
    assert (three.summary.value, three.summary.variance) == pytest.approx((1 / 3, 0.06 / 9))
    assert np.isnan(three.new_low)
    alone = pooled([one, Estimate(0.9)])
    assert alone.summary == one
    assert np.isnan([alone.q_p, alone.i2]).all()
    assert not pooled([]).summary.known


@given(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(0.001, 1)), min_size=1, max_size=9),
    st.floats(0.5, 0.99),
)
def test_the_summary_lies_among_the_panels_and_turns_with_their_sign(
    panels: list[tuple[float, float]], level: float
) -> None:
    given_panels = [Estimate(value, variance, 10) for value, variance in panels]
    found = pooled(given_panels, level)
    values = [value for value, _ in panels]
    assert min(values) - 1e-9 <= found.summary.value <= max(values) + 1e-9
    low, high = found.summary.interval(level)
    assert low <= found.summary.value <= high
    turned = pooled([Estimate(-each.value, each.variance, 10) for each in given_panels], level).summary
    assert turned.value == pytest.approx(-found.summary.value, abs=1e-6)
    assert turned.variance == pytest.approx(found.summary.variance, rel=1e-4)
