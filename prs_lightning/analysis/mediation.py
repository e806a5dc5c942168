"""How much of an arm's effect on RA under cross-entropy goes through the logit gap (Imai, Keele & Tingley 2010)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.mediation import Mediation

from prs_lightning.analysis.pairing import COMPARED, Pair
from prs_lightning.analysis.statistics import Array, is_constant
from prs_lightning.measures import LOGIT_GAP, ROBUST_ACCURACY

DRAWS = 500
MINIMUM_PAIRS = 4
"""The outcome has a constant for each pair, the arm and the gap: of fewer, no two degrees of freedom are left."""
MEDIATION_COLUMNS = ("arm", "effect", "value", "low", "high", "p", "pairs")
EFFECTS = {
    "total": "Total effect", "direct": "ADE (average)", "through the gap": "ACME (average)",
    "share through the gap": "Prop. mediated (average)",
}  # fmt: skip
"""Our words and those of statsmodels."""


def drawn_from(seed: int) -> dict[str, Any]:
    """What `Mediation.fit` is to draw from, where it can be told."""
    return {"rng": seed} if "rng" in signature(Mediation.fit).parameters else {}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """numpy's global generator begins with ``seed`` inside, and is as before after: statsmodels below 0.15 takes it."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def mediated(
    gaps: Array, outcomes: Array, *, seed: int, draws: int = DRAWS, level: float = 0.95
) -> list[dict[str, Any]]:
    """The effect of an arm on an outcome: in all, direct, and through the gap; ``effect, value, low, high, p``.

    Least squares of the outcome on arm and gap, and of the gap on the arm, each with a constant for each pair. Values
    are of parameters drawn from their normal distribution, so with few pairs the intervals are too narrow.

    Args:
        gaps, outcomes: (pairs, 2), of the run that was left alone and of the arm's.
    """
    pairs = len(gaps)
    constants = np.kron(np.eye(pairs), np.ones((2, 1)))
    arm = np.tile([0.0, 1.0], pairs)
    names = [*(f"pair{number}" for number in range(pairs)), "arm"]
    design = pd.DataFrame(np.column_stack([constants, arm]), columns=names)
    outcome = OLS(pd.Series(outcomes.ravel(), name="outcome"), design.assign(gap=gaps.ravel()))
    mediator = OLS(pd.Series(gaps.ravel(), name="gap"), design)
    with seeded(seed):
        found = Mediation(outcome, mediator, "arm", "gap").fit("parametric", n_rep=draws, **drawn_from(seed))
    table = found.summary(1 - level)
    names_of = ("value", "low", "high", "p")
    return [
        {"effect": ours} | dict(zip(names_of, map(float, table.loc[theirs]), strict=True))
        for ours, theirs in EFFECTS.items()
    ]


def mediation_table(
    pairs: Sequence[Pair], arms: Sequence[str], *, seed: int, draws: int = DRAWS, level: float = 0.95
) -> pd.DataFrame:
    """``MEDIATION_COLUMNS`` of each of the arms that has enough pairs whose gap and outcome move."""
    columns = [COMPARED.index(name) for name in (LOGIT_GAP, ROBUST_ACCURACY)]
    rows: list[dict[str, Any]] = []
    for arm in arms:
        ends = [
            (pair.none.values[pair.end[0], columns], pair.treated.values[pair.end[1], columns])
            for pair in pairs
            if pair.treated.arm == arm and pair.end is not None
        ]
        values = np.array(ends).reshape(-1, 2, 2)  # pair, side, (gap, outcome)
        values = values[~np.isnan(values).any(axis=(1, 2))]
        apart = values[:, 1] - values[:, 0]
        if len(values) < MINIMUM_PAIRS or any(is_constant(side) for side in apart.T):
            continue
        found = mediated(values[..., 0], values[..., 1], seed=seed, draws=draws, level=level)
        rows += [{"arm": arm, "pairs": len(values)} | row for row in found]
    return pd.DataFrame(rows, columns=[*MEDIATION_COLUMNS])
