"""What interventions say of the claim, and the verdict on it: a function of that and nothing else (docs/causal.md)."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

CAUSAL, MASKING, NEITHER, UNDECIDED, FAILED = "causal", "masking", "neither", "undecided", "the instrument failed"
VERDICTS = (CAUSAL, MASKING, NEITHER, UNDECIDED, FAILED)

FOLLOWS, ALONE, NOTHING, OPEN, NOT_MOVED = (
    "robustness follows", "cross-entropy alone", "nothing follows", "open", "not moved"
)  # fmt: skip
SHOWS = (FOLLOWS, ALONE, NOTHING, OPEN, NOT_MOVED)


@dataclass(frozen=True)
class Arm:
    """An arm beside ``none``.

    Attributes:
        name: as in tables, ``low_prs 5`` or ``low_prs 1 + logit_penalty 0.01``; ``scaled x1000``: the negative control.
        aim: ``"low"``, ``"high"``, ``"positive"``, ``"negative"`` (the controls), or ``""``.
        shows: one of ``SHOWS``; of an arm without aim empty; of a control what the rule reads in it.
        why: in words.
    """

    name: str
    aim: str = ""
    shows: str = ""
    why: str = ""


@dataclass(frozen=True)
class Causes:
    """The causal section.

    Attributes:
        verdict: one of ``VERDICTS``, and ``reason`` in words.
        arms: in the order of the tables.
        contrasts: a row per arm, ``at`` (``"end"`` or ``"matched"``), measure and panel (``"all"``: together):
            ``arm, at, measure, panel, effect, low, high`` (interval), ``low90, high90`` (of two one-sided tests),
            ``p, p_holm, pairs, none, treated`` (means of both sides), ``note`` (why there is none; epochs of a match).
        mediation: rows of each arm: ``arm, effect`` (``total``, ``direct``, ``through the gap``, ``share through the
            gap``), ``value, low, high, p``.
        doses: a row per intervention and measure: ``intervention, measure, slope, low, high, p, p_holm, pairs, doses``.
        factorial: a row per measure and factor: ``measure, factor, slope, low, high, p, runs``.
        messages: what was left out, and why.
    """

    verdict: str
    reason: str
    arms: tuple[Arm, ...]
    contrasts: pd.DataFrame
    mediation: pd.DataFrame
    doses: pd.DataFrame
    factorial: pd.DataFrame
    messages: tuple[str, ...] = ()
