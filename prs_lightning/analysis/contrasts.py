"""Arms against the runs that were left alone, in pairs of one panel and seed: the rule is that of docs/causal.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from prs_lightning import measures
from prs_lightning.analysis.measurable import why_not
from prs_lightning.analysis.pairing import COMPARED, Pair, Run
from prs_lightning.analysis.panels import samples_behind
from prs_lightning.analysis.pooling import Estimate, pooled, put_together
from prs_lightning.analysis.relations import DRAWN, margin_of, plural
from prs_lightning.analysis.statistics import NAN, Array, holm

END, MATCHED, TOGETHER = "end", "matched", "all"
MINIMUM_PAIRS = 3
"""Of fewer pairs a panel has no interval worth the name."""
COLUMNS = (
    "arm", "at", "measure", "panel", "effect", "low", "high", "low90", "high90", "p", "p_holm", "q_p", "pairs", "none",
    "treated", "note",
)  # fmt: skip

Places = Callable[[Pair], tuple[int, int] | None]
"""Which epochs of a pair are compared: the place of each run's."""


@dataclass(frozen=True)
class Gate:
    """What the networks of one panel, at their ends, say of a measure.

    Attributes:
        why_not: why it tells none of them apart; empty if it does.
        samples: it is a share of so many; None for other measures.
    """

    why_not: str = ""
    samples: int | None = None


def gates(runs: Iterable[Run]) -> dict[str, Gate]:
    """The gate of each measure, of the ends of all runs of a panel, whatever their arms."""
    ends = pd.DataFrame([run.values[-1] for run in runs], columns=[*COMPARED])
    found = {}
    for name in COMPARED:
        known = ends[name].dropna().to_numpy(float)
        samples = samples_behind(ends, name) if len(known) else None
        found[name] = Gate(why_not(known, samples, drawn=name in DRAWN), samples)
    return found


def difference(none: Array, treated: Array, samples: int | None = None) -> Estimate:
    """The mean of paired differences, treated minus none, on Student's t; unknown below ``MINIMUM_PAIRS``.

    Differences that are equal are no certainty: their variance is no less than rounding both sides leaves, to one
    sample of a share (uniform: a sixth of the square of one), to float32 of another measure.

    >>> difference(np.array([0.25, 0.5, 0.5]), np.array([0.5, 1.0, 1.25])).value
    0.5
    """
    apart = treated - none
    if len(apart) < MINIMUM_PAIRS:
        return Estimate(float(apart.mean()) if len(apart) else NAN)
    least = 1 / samples if samples else float(np.spacing(np.float32(np.abs([none, treated]).max() or 1)))
    variance = max(float(apart.var(ddof=1)), least**2 / 6)
    return Estimate(float(apart.mean()), variance / len(apart), len(apart) - 1)


def no_room(none: Array, treated: Array, name: str, margin: float, ceiling: float) -> str:
    """Why a measure cannot move by its margin: both means lie within it of an end of the range; empty if it can.

    Args:
        ceiling: the largest mean that it can have; of robust accuracies, the clean one.
    """
    means = float(none.mean()), float(treated.mean())
    if max(means) < margin:
        return f"below its margin, {margin:g}, on both sides: no room to move"
    if name.startswith("robust/") and name != measures.DISTANCE and min(means) > ceiling - margin:
        return f"within its margin, {margin:g}, of the clean accuracy on both sides: no room to move"
    return ""


def contrast_table(
    pairs: Sequence[Pair],
    panel_gates: Mapping[str, Mapping[str, Gate]],
    places: Mapping[str, Places],
    families: Mapping[str, str],
    *,
    margins: Mapping[str, float],
    level: float,
) -> pd.DataFrame:
    """A row per arm, ``at``, measure and panel, and one of all panels: ``COLUMNS``.

    Args:
        panel_gates: panel -> measure -> gate.
        places: ``at`` -> which epochs of a pair are compared; pairs without any are left out.
        families: arm -> those with which its p-values are corrected.
    """
    rows: list[dict[str, Any]] = []
    of_arms: dict[str, dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        of_arms[pair.treated.arm][pair.treated.panel].append(pair)
    for arm in families:
        for at, where in places.items():
            sides = {panel: _values(own, where) for panel, own in of_arms[arm].items()}
            for column, name in enumerate(COMPARED):
                rows += [
                    {"arm": arm, "at": at, "measure": name} | row
                    for row in _rows(sides, column, panel_gates, margin=_margin(name, margins), level=level)
                ]
    table = pd.DataFrame(rows, columns=[*COLUMNS])
    together = table["panel"] == TOGETHER
    family = table["arm"].map(dict(families))
    for _, group in table[together].groupby([family[together], "at", "measure"], sort=False):
        table.loc[group.index, "p_holm"] = holm(group["p"].to_numpy(float))
    return table


def _margin(name: str, margins: Mapping[str, float]) -> float:
    """Of a share or of the distance; other measures have none."""
    return NAN if name in (measures.PRS_RATIO, measures.LOGIT_GAP) else margin_of(name, margins)


Sides = tuple[Array, Array, Array, Array]
"""Values of both sides, (pairs, measures), and their epochs, (pairs,)."""


def _values(pairs: Sequence[Pair], where: Places) -> Sides:
    found = [(pair, places) for pair in pairs if (places := where(pair)) is not None]
    none = [(pair.none.values[first], pair.none.epochs[first]) for pair, (first, _) in found]
    treated = [(pair.treated.values[second], pair.treated.epochs[second]) for pair, (_, second) in found]
    values = [np.array([row for row, _ in side]).reshape(-1, len(COMPARED)) for side in (none, treated)]
    epochs = [np.array([epoch for _, epoch in side]) for side in (none, treated)]
    return values[0], values[1], epochs[0], epochs[1]


def _rows(
    sides: Mapping[str, Sides],
    column: int,
    panel_gates: Mapping[str, Mapping[str, Gate]],
    *,
    margin: float,
    level: float,
) -> list[dict[str, Any]]:
    """The rows of one arm, time and measure."""
    name, rows = COMPARED[column], []
    estimates: list[Estimate] = []
    counted: list[tuple[Array, Array]] = []
    for panel, (none, treated, first, second) in sides.items():
        known = ~np.isnan(none[:, column] + treated[:, column])
        one, other = none[known, column], treated[known, column]
        gate = panel_gates[panel][name]
        found = difference(one, other, gate.samples)
        why = gate.why_not or (no_room(one, other, name, margin, _ceiling(none, treated)) if len(one) else "")
        if why:
            found, why = Estimate(found.value), f"not measurable: {why}"
        elif not found.known:
            why = f"{plural(len(one), 'pair')}: no interval below {MINIMUM_PAIRS}"
        else:
            estimates.append(found)
            counted.append((one, other))
        row = _row(panel, found, one, other, level)
        rows.append(row | {"note": "; ".join(filter(None, [why, _epochs(first[known], second[known])]))})
    whole = pooled(estimates, level)
    means = [np.array([each[side].mean() for each in counted]) for side in (0, 1)]
    together = _row(TOGETHER, whole.summary, means[0], means[1], level)
    note = plural(len(sides), "panel")
    if len(counted) < len(sides):
        note = f"{len(counted)} of {note}" if counted else "no panel counts"
    note += put_together(len(counted)) if sides else ": no pairs"
    return [*rows, together | {"pairs": sum(len(one) for one, _ in counted), "q_p": whole.q_p, "note": note}]


def _ceiling(none: Array, treated: Array) -> float:
    """The clean accuracy of both sides."""
    return float(np.concatenate([none, treated])[:, COMPARED.index(measures.TEST_ACCURACY)].mean())


def _row(panel: str, found: Estimate, none: Array, treated: Array, level: float) -> dict[str, Any]:
    low, high = found.interval(level)
    low90, high90 = found.interval(2 * level - 1)
    means = {"none": float(none.mean()), "treated": float(treated.mean())} if len(none) else {}
    return {
        "panel": panel, "effect": found.value, "low": low, "high": high, "low90": low90, "high90": high90,
        "p": found.p, "p_holm": NAN, "q_p": NAN, "pairs": len(none), "none": NAN, "treated": NAN,
    } | means  # fmt: skip


def _epochs(first: Array, second: Array) -> str:
    """The epochs of both sides, where they are not the same."""
    if not len(first) or (first == second).all():
        return ""
    spans = [" to ".join(f"{epoch:.0f}" for epoch in sorted({min(each), max(each)})) for each in (first, second)]
    return f"epochs {spans[0]} of none, {spans[1]} of the arm"
