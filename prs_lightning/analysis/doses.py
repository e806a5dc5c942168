"""Dose and response: of an intervention at several strengths, how a measure moves from one dose to the next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from prs_lightning.analysis.contrasts import MINIMUM_PAIRS
from prs_lightning.analysis.pairing import COMPARED, Pair, Run
from prs_lightning.analysis.pooling import Estimate, pooled
from prs_lightning.analysis.statistics import Array, holm

DOSE_COLUMNS = ("intervention", "measure", "slope", "low", "high", "p", "p_holm", "pairs", "doses")
ABSOLUTE = ("width",)
"""Interventions whose strength is no departure from ``none``: that is no dose of theirs."""


def dose_of(arm: str) -> tuple[str, float] | None:
    """The intervention of an arm of a single one, and its strength; None of any other arm.

    >>> dose_of("low_prs 1e-05"), dose_of("low_prs 1 + logit_penalty 0.01"), dose_of("scaled x1000")
    (('low_prs', 1e-05), None, None)
    """
    intervention, _, strength = arm.partition(" ")
    with suppress(ValueError):
        return intervention, float(strength)
    return None


def slopes(values: Array) -> Array:
    """Of least squares on the number of the dose, 0, 1, 2, ..., in each row of (seeds, doses).

    >>> slopes(np.array([[0.0, 2.0, 4.0], [1.0, 1.0, 1.0]])).tolist()
    [2.0, 0.0]
    """
    doses = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    return values @ doses / (doses @ doses)


def dose_table(pairs: Sequence[Pair], *, level: float = 0.95) -> pd.DataFrame:
    """``DOSE_COLUMNS``: within each seed, of the seeds that have all doses of their panel; Holm over interventions."""
    found: dict[str, dict[tuple[str, int], dict[float, Run]]] = defaultdict(lambda: defaultdict(dict))
    for pair in pairs:
        if single := dose_of(pair.treated.arm):
            intervention, strength = single
            doses = found[intervention][pair.treated.panel, pair.treated.seed]
            doses[strength] = pair.treated
            if intervention not in ABSOLUTE:
                doses[0.0] = pair.none
    rows: list[dict[str, Any]] = []
    for intervention, seeds in sorted(found.items()):
        strengths = sorted({strength for doses in seeds.values() for strength in doses})
        if sum(strength > 0 for strength in strengths) > 1:
            rows += _rows(intervention, strengths, seeds, level)
    table = pd.DataFrame(rows, columns=[*DOSE_COLUMNS])
    for _, group in table.groupby("measure", sort=False):
        table.loc[group.index, "p_holm"] = holm(group["p"].to_numpy(float))
    return table


def _rows(
    intervention: str, strengths: Sequence[float], seeds: dict[tuple[str, int], dict[float, Run]], level: float
) -> list[dict[str, Any]]:
    panels: dict[str, list[Array]] = defaultdict(list)
    for (panel, _), doses in seeds.items():
        runs = [doses[strength] for strength in strengths if strength in doses]
        common = sorted(set.intersection(*({*run.epochs.tolist()} for run in runs)))
        if len(runs) == len(strengths) and common:
            panels[panel].append(np.array([run.values[run.epochs == common[-1]][0] for run in runs]))
    rows = []
    for column, measure in enumerate(COMPARED):
        estimates, counted = [], 0
        for of_seeds in panels.values():
            found = slopes(np.array(of_seeds)[:, :, column])
            found = found[~np.isnan(found)]
            if len(found) >= MINIMUM_PAIRS and (variance := float(found.var(ddof=1)) / len(found)) > 0:
                estimates.append(Estimate(float(found.mean()), variance, len(found) - 1))
                counted += len(found)
        whole = pooled(estimates, level).summary
        low, high = whole.interval(level)
        rows.append({
            "intervention": intervention, "measure": measure, "slope": whole.value, "low": low, "high": high,
            "p": whole.p, "pairs": counted, "doses": ", ".join(f"{strength:g}" for strength in strengths),
        })  # fmt: skip
    return rows
