"""The batch-size factorial: batch size, number of steps and learning rate side by side in one least-squares fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from statsmodels.regression.linear_model import OLS

from prs_lightning.analysis.pairing import COMPARED
from prs_lightning.analysis.statistics import is_constant, residual
from prs_lightning.measures import PRS_RATIO
from prs_lightning.runs.naming import NO_ARM

FACTORS = ("batch size", "steps", "learning rate")
FACTORIAL_COLUMNS = ("measure", "factor", "slope", "low", "high", "p", "runs")
MINIMUM_SEEDS = 3
PARTED = 10
"""The largest variance inflation of factors that can be told apart (Marquardt 1970), within panels and seeds."""
ROUNDING = 1e-12
"""A sum of squares that is no larger is 0: a factor that does not vary within panels and seeds."""


def factors_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns ``FACTORS`` on a logarithmic scale to base 2, so that a slope is of a doubling.

    Steps are those that were recorded, else epochs times batches: training samples are the regions that were counted
    over their ratio. A learning rate that no config says is NaN.
    """
    numbers = {
        name: pd.to_numeric(rows[name].astype(object), errors="coerce")
        if name in rows
        else pd.Series(np.nan, rows.index)
        for name in ("batch_size", "step", "prs/count", PRS_RATIO, "config.model.learning_rate")
    }
    samples = (numbers["prs/count"] / numbers[PRS_RATIO]).round()
    reckoned = np.ceil(samples / numbers["batch_size"]) * rows["epoch"]
    values = numbers["batch_size"], numbers["step"].fillna(reckoned), numbers["config.model.learning_rate"]
    return pd.DataFrame({name: np.log2(value.where(value > 0)) for name, value in zip(FACTORS, values, strict=True)})


def factorial_table(rows: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """``FACTORIAL_COLUMNS``, of the last epochs of the runs that were left alone; empty where nothing can be parted.

    Runs that did not reach the end of their plan do not count: where they ended, nobody set. A constant for each panel
    (network and data set) and seed; errors are clustered by seed, with Student's t of seeds - 1 degrees of freedom.
    Factors that do not vary are left out, but batch size must and one more.
    """
    empty = pd.DataFrame(columns=[*FACTORIAL_COLUMNS])
    alone = rows[rows["arm"] == NO_ARM] if "arm" in rows else rows
    ends = alone.sort_values("epoch", kind="stable").drop_duplicates("run", keep="last").reset_index(drop=True)
    if "epochs" in ends:
        ends = ends[ends["epoch"] == ends["epochs"]].reset_index(drop=True)
    if ends.empty or "batch_size" not in ends:
        return empty
    known = pd.concat([ends, factors_of(ends)], axis=1)
    given = [name for name in FACTORS if known[name].notna().any()]
    known = known.dropna(subset=[*given, "seed"])
    given = [name for name in given if not is_constant(known[name].to_numpy(float))]
    if len(given) < 2 or given[0] != FACTORS[0]:
        return empty
    found: list[dict[str, Any]] = []
    for measure in COMPARED:
        if measure in known:
            found += _fitted(known.dropna(subset=[measure]), measure, given, level)
    return pd.DataFrame(found, columns=[*FACTORIAL_COLUMNS])


def _fitted(known: pd.DataFrame, measure: str, given: list[str], level: float) -> list[dict[str, Any]]:
    groups = pd.factorize(pd.Series([*zip(known["model"], known["data"], known["seed"], strict=True)], dtype=object))[0]
    seeds = pd.factorize(known["seed"])[0]
    if len({*seeds}) < MINIMUM_SEEDS or is_constant(known[measure].to_numpy(float)):
        return []
    constants = (groups[:, None] == np.unique(groups)).astype(float)
    design = np.column_stack([known[given].to_numpy(float), constants])
    inside = (known[given] - known[given].groupby(groups).transform("mean")).to_numpy(float)
    left = [residual(each, *np.delete(inside, place, axis=1).T) for place, each in enumerate(inside.T)]
    if len(design) <= design.shape[1] or any(
        own @ own <= max(each @ each / PARTED, ROUNDING) for own, each in zip(left, inside.T, strict=True)
    ):
        return []  # as where equal epochs alone were run: steps are batch size over again, but for the last batch
    fit = OLS(known[measure].to_numpy(float), design).fit(cov_type="cluster", cov_kwds={"groups": seeds}, use_t=True)
    ends = fit.conf_int(1 - level)
    return [
        {
            "measure": measure, "factor": factor, "slope": float(fit.params[place]), "low": float(ends[place, 0]),
            "high": float(ends[place, 1]), "p": float(fit.pvalues[place]), "runs": len(design),
        }
        for place, factor in enumerate(given)
    ]  # fmt: skip
