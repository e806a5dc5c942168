"""Which runs were left alone, and which arm of an experiment each of the others belongs to."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from prs_lightning.analysis.relations import in_words, plural
from prs_lightning.runs.naming import NO_ARM

SCALED = "scaled x1000"
"""The arm of the negative control: networks that were left alone, and whose logits were multiplied afterwards."""


def left_alone(table: pd.DataFrame) -> pd.DataFrame:
    """Rows or runs without an intervention: those that correlations, candidate models and networks A and B are of."""
    if "arm" not in table or (table["arm"] == NO_ARM).all():
        return table
    return table[table["arm"] == NO_ARM].reset_index(drop=True)


def arm_names(table: pd.DataFrame) -> pd.Series:
    """Of each row the arm with its strengths, as in tables: ``low_prs 1 + logit_penalty 0.01``, or ``none``."""
    both = table[["arm", "strength"]].astype(str)
    known = {pair: named(*pair) for pair in both.drop_duplicates().itertuples(index=False, name=None)}
    return pd.Series([known[pair] for pair in both.itertuples(index=False, name=None)], table.index, dtype=object)


def named(arm: str, strength: str) -> str:
    """An arm with its strengths.

    >>> named("low_prs+logit_penalty", "1+0.01"), named("low_prs", "5.0"), named("none", "0"), named(SCALED, "0")
    ('low_prs 1 + logit_penalty 0.01', 'low_prs 5', 'none', 'scaled x1000')
    """
    if arm in (NO_ARM, SCALED):
        return arm
    names, strengths = arm.split("+"), strength.split("+")
    if len(names) != len(strengths):
        return f"{arm} {strength}"
    return " + ".join(f"{name} {each.removesuffix('.0')}" for name, each in zip(names, strengths, strict=True))


def others_in_words(runs: pd.DataFrame) -> str:
    """How many runs of which arms do not count among those that were left alone; empty where none.

    >>> table = pd.DataFrame({"arm": ["none", "low_prs", "low_prs"], "strength": ["0", "1", "5"]})
    >>> others_in_words(table)
    '2 runs with an intervention (1 of low_prs 1 and 1 of low_prs 5)'
    """
    others = runs[runs["arm"] != NO_ARM] if "arm" in runs else runs.iloc[:0]
    if others.empty:
        return ""
    counts = [f"{count} of {name}" for name, count in sorted(Counter(arm_names(others)).items())]
    return f"{plural(len(others), 'run')} with an intervention ({in_words(counts)})"
