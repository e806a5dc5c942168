"""What interventions say of the claim, and the verdict on it: a function of that and nothing else (docs/causal.md)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from prs_lightning import measures
from prs_lightning.analysis.arms import SCALED
from prs_lightning.analysis.contrasts import END, MATCHED, TOGETHER
from prs_lightning.analysis.relations import in_words, label, margin_of
from prs_lightning.analysis.shown import change, p_value
from prs_lightning.analysis.verdict import Answer, disagree
from prs_lightning.schema.targets import AIMS

CAUSAL, MASKING, NEITHER, UNDECIDED, FAILED = "causal", "masking", "neither", "undecided", "the instrument failed"
VERDICTS = (CAUSAL, MASKING, NEITHER, UNDECIDED, FAILED)

FOLLOWS, ALONE, NOTHING, OPEN, NOT_MOVED = (
    "robustness follows", "cross-entropy alone", "nothing follows", "open", "not moved"
)  # fmt: skip
SHOWS = (FOLLOWS, ALONE, NOTHING, OPEN, NOT_MOVED)

LOW, HIGH, POSITIVE, NEGATIVE = "low", "high", "positive", "negative"
MOVED = 0.05
"""The least change of the PRS ratio of an arm that is moved."""
REAL = (measures.AUDITED_ACCURACY, measures.DISTANCE)
"""The measures that no vanished gradient moves."""


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
            ``p, p_holm, q_p`` (that panels do not differ), ``pairs, none, treated`` (means of both sides), ``note``
            (why there is none; epochs of a match).
        mediation: rows of each arm: ``arm, effect`` (``total``, ``direct``, ``through the gap``, ``share through the
            gap``), ``value, low, high, p, pairs``.
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


def aim_of(name: str) -> str:
    """What an arm aims at, or which control it is.

    >>> aim_of("low_prs 1 + logit_penalty 0.01"), aim_of("high_prs 1"), aim_of("adversarial 1"), aim_of("width 64")
    ('low', 'high', 'positive', '')
    """
    if name == SCALED:
        return NEGATIVE
    names = {*re.split(r"[ +]+", name)}
    aims = {aim for intervention, aim in AIMS.items() if intervention in names}
    if not aims and "adversarial" in names:
        return POSITIVE
    return aims.pop() if len(aims) == 1 else ""


def in_order(names: Iterable[str]) -> list[str]:
    """Arms as tables have them: those that aim low, high, those that do not aim, and the controls; smaller doses first.

    >>> in_order(["adversarial 1", "low_prs 10", "high_prs 1", "low_prs 5"])
    ['low_prs 5', 'low_prs 10', 'high_prs 1', 'adversarial 1']
    """

    def place(name: str) -> tuple[int, list[str], list[float]]:
        words = name.split()
        strengths = [word for word in words if word[:1].isdigit()]
        aims = (LOW, HIGH, "", POSITIVE, NEGATIVE).index(aim_of(name))
        return aims, [word for word in words if word not in strengths], [float(each) for each in strengths]

    return sorted(names, key=place)


@dataclass(frozen=True)
class Contrasts:
    """The table of contrasts as the rule asks it."""

    table: pd.DataFrame
    margins: Mapping[str, float]
    level: float = 0.95

    @cached_property
    def rows(self) -> dict[tuple[str, str, str], dict[Hashable, Any]]:
        """The rows of all panels together, by arm, ``at`` and measure."""
        rows = self.table[self.table["panel"] == TOGETHER].to_dict("records")
        return {(row["arm"], row["at"], row["measure"]): row for row in rows}

    @cached_property
    def panels(self) -> dict[tuple[str, str], list[tuple[float, float]]]:
        """Effect and p on audited RA of the panels that count, by arm and ``at``."""
        table = self.table[(self.table["panel"] != TOGETHER) & self.table["p"].notna()]
        table = table[table["measure"] == measures.AUDITED_ACCURACY]
        found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        for arm, at, effect, p in table[["arm", "at", "effect", "p"]].itertuples(index=False, name=None):
            found[arm, at].append((effect, p))
        return found

    @property
    def arms(self) -> tuple[str, ...]:
        """In the order of the table."""
        return tuple(self.table["arm"].unique())

    def moves(self, arm: str, at: str, measure: str, way: int) -> bool:
        """Whether it moves up (``way`` 1) or down (-1)."""
        row = self.rows[arm, at, measure]
        return bool(row["p_holm"] < 1 - self.level and way * row["effect"] > 0)

    def still(self, arm: str, measure: str, way: int) -> bool:
        """Whether at the end it is shown not to move that way, by the margin."""
        row = self.rows[arm, END, measure]
        return bool((row["high90"] if way > 0 else -row["low90"]) < margin_of(measure, self.margins))

    def reaches(self, arm: str, at: str, measure: str) -> bool:
        """Whether the effect, as estimated, is its margin at least."""
        return bool(abs(self.rows[arm, at, measure]["effect"]) >= margin_of(measure, self.margins))

    def disagree(self, arm: str, at: str) -> bool:
        """Whether panels disagree on audited RA."""
        q_p = self.rows[arm, at, measures.AUDITED_ACCURACY]["q_p"]
        return disagree(self.panels.get((arm, at), []), q_p, self.level)

    def told(self, arm: str, at: str, measure: str) -> str:
        """A contrast in words."""
        row = self.rows[arm, at, measure]
        if np.isnan(row["p"]):
            return f"{label(measure)} unknown ({row['note']})"
        shown = change(Answer(row["effect"], row["low"], row["high"]))
        return f"{label(measure)} {shown}, p {p_value(row['p_holm'])}"


def way_of(aim: str) -> int:
    """The way in which robustness moves as claimed: down, 1 or -1, for an arm that aims high."""
    return -1 if aim == HIGH else 1


def judged_arm(name: str, contrasts: Contrasts) -> Arm:
    """What an arm shows, by docs/causal.md."""
    aim = aim_of(name)
    arm, way = Arm(name, aim), way_of(aim)
    told = {
        END: "at the end " + "; ".join(contrasts.told(name, END, each) for each in (measures.ROBUST_ACCURACY, *REAL)),
        MATCHED: "at the match "
        + "; ".join(contrasts.told(name, MATCHED, each) for each in (measures.PRS_RATIO, *REAL)),
    }

    def follow(at: str) -> bool:
        return all(contrasts.moves(name, at, measure, way) for measure in REAL)

    def reach(at: str, *names: str) -> bool:
        return all(contrasts.reaches(name, at, measure) for measure in names)

    if aim == "":
        return arm
    if aim == POSITIVE:
        return replace(arm, shows=FOLLOWS if follow(END) else OPEN, why=told[END])
    if aim != NEGATIVE:
        moved = contrasts.rows[name, END, measures.PRS_RATIO]
        if not contrasts.moves(name, END, measures.PRS_RATIO, -way) or abs(moved["effect"]) < MOVED:
            return replace(arm, shows=NOT_MOVED, why=contrasts.told(name, END, measures.PRS_RATIO))
        still_moved = contrasts.moves(name, MATCHED, measures.PRS_RATIO, -way)
        if still_moved and follow(END) and follow(MATCHED) and reach(MATCHED, *REAL):
            return replace(arm, shows=FOLLOWS, why=f"{told[END]}; {told[MATCHED]}")
    if all(contrasts.still(name, measure, way) for measure in REAL):
        if contrasts.still(name, measures.ROBUST_ACCURACY, way):
            return replace(arm, shows=NOTHING, why=told[END])
        cross_entropy = measures.ROBUST_ACCURACY
        if contrasts.moves(name, END, cross_entropy, way) and reach(END, cross_entropy):
            return replace(arm, shows=ALONE, why=told[END])
    return replace(arm, shows=OPEN, why=told[END] if aim == NEGATIVE else f"{told[END]}; {told[MATCHED]}")


def judged(arms: Sequence[Arm], contrasts: Contrasts) -> tuple[str, str]:
    """The verdict and its reason."""
    if control := _controls(arms):
        return control
    aimed = [arm for arm in arms if arm.aim in (LOW, HIGH)]
    moved = [arm for arm in aimed if arm.shows != NOT_MOVED]
    if not aimed:
        return UNDECIDED, "no arm aims at regions"
    if not moved:
        return UNDECIDED, f"no arm moved the PRS ratio as it aims: {_told(aimed)}"
    if disagreeing := [arm for arm in moved if any(contrasts.disagree(arm.name, at) for at in (END, MATCHED))]:
        return UNDECIDED, f"panels disagree on {label(measures.AUDITED_ACCURACY)} in {_names(disagreeing)}"
    against = [arm for arm in aimed if _against(arm, contrasts)]
    but = f", and against the claim audited RA or distance moves in {_names(against)}" if against else ""
    apart = [arm for arm in moved if contrasts.rows[arm.name, MATCHED, measures.PRS_RATIO]["pairs"] == 0]
    no_match = f"; no epochs of equal accuracy and logit gap in {_names(apart)}" if apart else ""
    if follows := [arm for arm in moved if arm.shows == FOLLOWS]:
        lacking = [aim for aim in (LOW, HIGH) if aim not in {arm.aim for arm in follows}]
        told = f"robustness follows in {_names(follows)}"
        if lacking or against:
            return UNDECIDED, f"{told}{f', in no arm that aims {lacking[0]}' if lacking else ''}{but}{no_match}"
        return CAUSAL, f"{told}, at equal accuracy and logit gap too"
    if alone := [arm for arm in moved if arm.shows == ALONE]:
        furthest = max(moved, key=lambda arm: _cross_entropy(arm, contrasts))
        if furthest in alone:
            return MASKING, f"RA under cross-entropy moves alone in {_names(alone)}{but}"
        return UNDECIDED, f"RA under cross-entropy moves alone in {_names(alone)}, but furthest in {_told([furthest])}"
    if unclear := [arm for arm in moved if arm.shows == OPEN]:
        return UNDECIDED, f"open in {_names(unclear)}{but}{no_match}"
    if any(arm.aim == LOW for arm in moved):
        return NEITHER, f"nothing follows in {_names(moved)}{but}"
    return UNDECIDED, f"nothing follows in {_names(moved)}, and no arm that aims low was moved"


def _against(arm: Arm, contrasts: Contrasts) -> bool:
    """Whether what no vanished gradient moves does so against the claim."""
    return any(contrasts.moves(arm.name, at, measure, -way_of(arm.aim)) for at in (END, MATCHED) for measure in REAL)


def _cross_entropy(arm: Arm, contrasts: Contrasts) -> float:
    """How far RA under cross-entropy moves as claimed at the end; where it is not known, no way."""
    effect = way_of(arm.aim) * contrasts.rows[arm.name, END, measures.ROBUST_ACCURACY]["effect"]
    return -np.inf if np.isnan(effect) else float(effect)


def _controls(arms: Sequence[Arm]) -> tuple[str, str] | None:
    """What there is to say instead of a verdict, of the controls; None where both are right."""
    for aim, right in ((POSITIVE, FOLLOWS), (NEGATIVE, ALONE)):
        runs = [arm for arm in arms if arm.aim == aim]
        if not runs:
            return UNDECIDED, f"the {aim} control was not run"
        if not any(arm.shows == right for arm in runs):
            return FAILED, f"the {aim} control came out wrong: {_told(runs)}"
    return None


def _told(arms: Sequence[Arm]) -> str:
    return "; ".join(f"{arm.name} ({arm.why})" for arm in arms)


def _names(arms: Sequence[Arm]) -> str:
    return in_words([arm.name for arm in arms])
