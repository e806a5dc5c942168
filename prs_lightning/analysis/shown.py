"""Numbers and verdicts as a reader sees them: the same in the page, in Markdown and on the console."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from prs_lightning.analysis.relations import label
from prs_lightning.analysis.verdict import (
    CONTRADICTED,
    NEGLIGIBLE,
    NOT_MEASURABLE,
    SUPPORTED,
    UNDECIDED,
    Answer,
    Claim,
)

NOTHING = "–"  # noqa: RUF001  what stands for a number that there is none of

ASSOCIATION_ONLY, PANELS_DISAGREE = "association only", "panels disagree"
VANISHES, NOT_MEASURED = "the robustness vanishes", "not measured"

ANSWERS = (("association", "association"), ("between_runs", "between runs"), ("between_epochs", "between epochs"))
"""Attribute of a claim and of its panels, and its name."""


@dataclass(frozen=True)
class Mark:
    """How a verdict looks: style sheet's class, sign beside the word, colour on a terminal."""

    style: str
    sign: str
    colour: str


MARKS = {
    SUPPORTED: Mark("supported", "✓", "green"),
    CONTRADICTED: Mark("contradicted", "✗", "red"),
    NEGLIGIBLE: Mark("negligible", "≈", "blue"),
    ASSOCIATION_ONLY: Mark("association-only", "◐", "yellow"),
    PANELS_DISAGREE: Mark("panels-disagree", "⇄", "yellow"),
    VANISHES: Mark("vanishes", "↓", "red"),
    UNDECIDED: Mark("undecided", "?", ""),
    NOT_MEASURABLE: Mark("not-measurable", "∅", ""),
    NOT_MEASURED: Mark("not-measured", "·", ""),
}


def kind(claim: Claim) -> str:
    """Which of ``MARKS`` a verdict is: its outcome, or the reason that stands before it.

    >>> kind(Claim("a", "4", "", "undecided", "association only: explained by batch size"))
    'association only'
    """
    reasons = (ASSOCIATION_ONLY, PANELS_DISAGREE, VANISHES, NOT_MEASURED)
    return next((reason for reason in reasons if claim.verdict.startswith(reason)), claim.outcome)


def in_two(verdict: str) -> tuple[str, str]:
    """The words of a verdict, and what stands behind them.

    >>> in_two("association only: explained by batch size"), in_two("supported but small")
    (('association only', 'explained by batch size'), ('supported but small', ''))
    >>> in_two("undecided after correction for all claims (p 0.01, corrected 0.06)")
    ('undecided after correction for all claims', 'p 0.01, corrected 0.06')
    """
    word, *behind = re.split(r": | \(", verdict, maxsplit=1)
    rest = "".join(behind)
    return word, rest.removesuffix(")") if rest.count(")") > rest.count("(") else rest


def number(value: float) -> str:
    """A number with three significant digits.

    >>> number(0.12345), number(-14.32), number(1234567.0), number(float("nan"))
    ('0.123', '-14.3', '1.23e+06', '–')
    """
    return NOTHING if np.isnan(value) else f"{value:.3g}"


def p_value(value: float) -> str:
    """A p-value as papers print it.

    >>> p_value(0.0321), p_value(1e-9), p_value(float("nan"))
    ('0.032', '<0.001', '–')
    """
    return NOTHING if np.isnan(value) else "<0.001" if value < 0.001 else f"{value:.2g}"


def corrected(raw: float, holm: float) -> str:
    """A p-value and what Holm's correction makes of it.

    >>> corrected(0.01, 0.04), corrected(float("nan"), float("nan"))
    ('0.01 (0.04)', '–')
    """
    return NOTHING if np.isnan(raw) else f"{p_value(raw)} ({p_value(holm)})"


def interval(answer: Answer) -> str:
    """A correlation with its interval; of an interval alone, that.

    >>> interval(Answer(0.561, 0.41, 0.68)), interval(Answer(-0.004)), interval(Answer(low=-0.1, high=1))
    ('0.56 [0.41, 0.68]', '0.00', '[-0.10, 1.00]')
    """
    return _between(answer, "{:z.2f}")


def change(answer: Answer) -> str:
    """A change, in the unit of what changes, with its interval.

    >>> change(Answer(0.1234, 0.08, 0.161)), change(Answer(-0.0039, -0.005, 0.0)), change(Answer())
    ('+0.12 [+0.08, +0.16]', '-0.0039 [-0.005, +0]', '–')
    """
    return _between(answer, "{:+z.2g}")


def _between(answer: Answer, form: str) -> str:
    effect = "" if np.isnan(answer.effect) else form.format(answer.effect)
    low, high = form.format(answer.low), form.format(answer.high)
    return f"{effect} [{low}, {high}]".strip() if has_interval(answer) else effect or NOTHING


def has_interval(answer: Answer) -> bool:
    """Whether both ends are known."""
    return not (np.isnan(answer.low) or np.isnan(answer.high))


def is_relation(claim: Claim) -> bool:
    """Whether it has two answers, of panels; claims of another form have an effect of their own unit."""
    return bool(claim.y or claim.panels)


def measure(claim: Claim) -> str:
    """What the changes of a relation are of."""
    return label(claim.y) if claim.y else "the measure"
