"""The rule: a verdict is a function of what is known of a claim, and of nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prs_lightning.analysis.verdict import (
    CONTRADICTED,
    NEGLIGIBLE,
    NOT_MEASURABLE,
    OUTCOMES,
    SUPPORTED,
    UNDECIDED,
    Answer,
    Claim,
    PanelAnswers,
    claims_table,
    disagree,
    judged,
)

FOUND, NOTHING = Answer(0.5, 0.4, 0.6, 0.001), Answer(0.02, -0.1, 0.14, 0.7)
LARGE, SMALL = Answer(0.2, 0.1, 0.3, 0.001), Answer(0.005, 0.001, 0.009, 0.01)
ALIKE = (PanelAnswers("one", FOUND), PanelAnswers("other", FOUND))
APART = (PanelAnswers("one", FOUND), PanelAnswers("other", Answer(-0.5, -0.6, -0.4, 0.001)))
CLAIM = Claim(
    "low PRS ratio → high RA", "4", "Spearman", association=FOUND, between_runs=FOUND, between_epochs=NOTHING,
    change=LARGE, fixed_change=LARGE, margin=0.02, p=0.002, p_holm=0.01, q_p=0.5, explained_by="batch size",
    panels=ALIKE,
)  # fmt: skip


def reverse(answer: Answer) -> Answer:
    return Answer(-answer.effect, -answer.high, -answer.low, answer.p)


@pytest.mark.parametrize(
    ("changed", "outcome", "verdict"),
    [
        ({}, SUPPORTED, "supported"),
        ({"between_runs": NOTHING, "between_epochs": FOUND}, SUPPORTED, "supported"),
        ({"fixed_change": SMALL}, SUPPORTED, "supported but small"),
        ({"p_holm": 0.051}, UNDECIDED, "undecided after correction for all claims (p 0.002, corrected 0.051)"),
        ({"between_runs": NOTHING}, UNDECIDED, "association only: explained by batch size"),
        ({"between_runs": Answer()}, UNDECIDED, "association only: explained by batch size"),
        (
            {"between_runs": Answer(0.12, -0.05, 0.26, 0.1)},  # more than half of the association may be left
            UNDECIDED,
            "association only: not shown at fixed batch size and epoch",
        ),
        ({"panels": APART, "q_p": 0.01}, UNDECIDED, "panels disagree"),
        (
            {"between_runs": Answer(0.4, -0.1, 0.7, 0.2)},
            UNDECIDED,
            "association only: not shown at fixed batch size and epoch",
        ),
        (
            {"between_runs": Answer(), "between_epochs": Answer()},
            UNDECIDED,
            "association only: not shown at fixed batch size and epoch",
        ),
        (
            {"between_runs": reverse(FOUND)},
            UNDECIDED,
            "association only: the opposite at fixed batch size and epoch",
        ),
        (
            {"between_runs": replace(FOUND, p=0.026)},
            UNDECIDED,
            "association only: not shown at fixed batch size and epoch",
        ),
        ({"between_runs": NOTHING, "change": SMALL, "fixed_change": SMALL}, NEGLIGIBLE, "negligible"),
        ({"between_runs": NOTHING, "change": SMALL}, UNDECIDED, "association only: explained by batch size"),
        (
            {"between_epochs": reverse(FOUND)},
            UNDECIDED,
            "undecided: opposite directions between runs and between epochs",
        ),
        ({"association": NOTHING}, UNDECIDED, "undecided: a relation at fixed batch size and epoch alone"),
        ({"association": NOTHING, "between_runs": NOTHING}, UNDECIDED, "undecided on this data"),
        ({"association": NOTHING, "between_runs": NOTHING, "panels": APART}, UNDECIDED, "undecided on this data"),
        (
            {"association": NOTHING, "between_runs": NOTHING, "panels": APART, "q_p": 0.01},
            UNDECIDED,
            "panels disagree",
        ),
        ({"association": Answer(0.5)}, UNDECIDED, "undecided: too few runs for an interval"),
        ({"outcome": NOT_MEASURABLE, "verdict": "not measured"}, NOT_MEASURABLE, "not measured"),
    ],
)
def test_the_rule(changed: dict[str, object], outcome: str, verdict: str) -> None:
    found = judged(replace(CLAIM, **changed))  # type: ignore[arg-type]
    assert (found.outcome, found.verdict) == (outcome, verdict)


def test_against_the_claim_the_rule_is_its_mirror() -> None:
    names = ("association", "between_runs", "between_epochs", "change", "fixed_change")
    mirrored = replace(CLAIM, **{name: reverse(getattr(CLAIM, name)) for name in names})  # type: ignore[arg-type]
    assert judged(mirrored).outcome == judged(mirrored).verdict == CONTRADICTED
    only = judged(replace(mirrored, between_runs=NOTHING))
    assert only.verdict == "association only, against the claim: explained by batch size"
    assert judged(replace(mirrored, fixed_change=reverse(SMALL))).verdict == "contradicted but small"


@pytest.mark.parametrize(
    ("outcome", "p_holm", "verdict"),
    [
        (SUPPORTED, 0.04, "supported"),
        (CONTRADICTED, 0.04, "contradicted"),
        (SUPPORTED, 0.06, "undecided after correction for all claims (p 0.01, corrected 0.06)"),
        (SUPPORTED, float("nan"), "undecided after correction for all claims (p 0.01, corrected nan)"),
        (NEGLIGIBLE, 1.0, "negligible"),
        (UNDECIDED, 0.01, "undecided"),
    ],
)
def test_a_claim_of_another_form_keeps_its_outcome_if_the_correction_allows_it(
    outcome: str, p_holm: float, verdict: str
) -> None:
    claim = Claim("groups", "9", "", outcome=outcome, verdict=outcome, association=FOUND, p=0.01, p_holm=p_holm)
    assert judged(claim).verdict == verdict


def answers() -> st.SearchStrategy[Answer]:
    parts = st.tuples(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
    return parts.map(lambda part: Answer(part[0], max(-1, part[0] - part[1]), min(1, part[0] + part[1]), part[2]))


@given(answers(), answers(), answers(), answers(), answers(), st.floats(0, 1), st.floats(0, 1))
def test_every_claim_has_an_outcome_and_none_is_supported_against_its_answers(
    association: Answer, between: Answer, epochs: Answer, change: Answer, fixed: Answer, p_holm: float, q_p: float
) -> None:
    found = judged(
        replace(
            CLAIM, association=association, between_runs=between, between_epochs=epochs, change=change,
            fixed_change=fixed, p_holm=p_holm, q_p=q_p,
        )
    )  # fmt: skip
    assert found.outcome in OUTCOMES
    assert found.verdict
    if found.outcome in (SUPPORTED, CONTRADICTED):
        sign = 1 if found.outcome == SUPPORTED else -1
        assert p_holm <= 0.05 + 1e-9
        assert min(sign * association.low, sign * association.high) > 0
        assert max(min(sign * each.low, sign * each.high) for each in (between, epochs)) > 0


def test_panels_disagree_only_if_both_signs_are_sure_and_q_says_so() -> None:
    assert disagree([(0.1, 0.01), (-0.2, 0.01)], 0.01, 0.95)
    assert not disagree([(0.1, 0.01), (-0.2, 0.01)], 0.06, 0.95)
    assert not disagree([(0.1, 0.01), (-0.2, 0.03)], 0.01, 0.95)  # of two panels each p counts twice
    assert not disagree([(0.1, 0.01), (0.2, 0.01), (-0.2, float("nan"))], 0.01, 0.95)
    assert not disagree([(0.1, 0.01), (-0.2, 0.01)], float("nan"), 0.95)


def test_the_table_has_a_column_for_each_number_of_each_answer() -> None:
    table = claims_table([CLAIM, replace(CLAIM, claim="other")])
    assert len(table) == 2
    assert table.loc[0, ["association", "association_low", "association_high", "association_p"]].tolist() == [
        0.5, 0.4, 0.6, 0.001,
    ]  # fmt: skip
    assert {"between_runs_p", "between_epochs_low", "change_high", "fixed_change", "p_holm", "verdict"} <= {
        *table.columns
    }
    assert "panels" not in table
    assert not table.map(lambda cell: isinstance(cell, Answer | tuple)).any().any()
    assert np.isnan(claims_table([Claim("a", "4", "b")])["association"][0])
