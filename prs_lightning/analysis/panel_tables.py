"""The statistics of panels as the report shows them, and where the paper's p-value misleads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from prs_lightning.analysis.panels import SIGNIFICANT
from prs_lightning.analysis.relations import label
from prs_lightning.analysis.shown import NOTHING, change, corrected, interval, number, p_value
from prs_lightning.analysis.verdict import Answer

HEAD = (
    "panel", "models", "runs", "OLS slope, the paper's fit", "its p (Holm)", "paper's slope", "95% interval, runs",
    "clustered p (Holm)", "Spearman", "between runs", "its p (Holm)", "between epochs", "its p (Holm)",
    "at equal test accuracy", "its p (Holm)", "change", "change, fixed",
    "one model per run: slope", "its p", "what it says",
)  # fmt: skip


def panel_tables(statistics: pd.DataFrame) -> dict[str, list[tuple[str, pd.DataFrame]]]:
    """Figure -> its relations, each with a table of cells as they are shown."""
    found: dict[str, list[tuple[str, pd.DataFrame]]] = {}
    for (figure, relation), rows in statistics.groupby(["figure", "relation"], sort=False):
        table = pd.DataFrame([_cells(row) for row in rows.to_dict("records")], columns=list(HEAD))
        found.setdefault(str(figure), []).append((str(relation), table))
    return found


def _cells(row: Mapping[Any, Any]) -> tuple[str, ...]:
    def with_holm(name: str) -> str:
        return corrected(row[name], row[f"{name}_holm"])

    def answer(name: str, of: str = "") -> Answer:
        return Answer(row[name], row[f"{of or name}_low"], row[f"{of or name}_high"])

    measured = bool(row["n_models"])
    told = (f"not measurable: {row['not_measurable']}" if row["not_measurable"] else "", row["reading"], row["note"])
    return (
        f"{label(row['model'])}, {label(row['data'])}" if measured else NOTHING,
        str(row["n_models"]), str(row["n_runs"]), number(row["ols_slope"]), with_holm("ols_p"),
        number(row["paper_slope"]) if measured else NOTHING,
        NOTHING if np.isnan(row["slope_low"]) else f"[{row['slope_low']:.3g}, {row['slope_high']:.3g}]",
        with_holm("cluster_p"), interval(answer("spearman")), interval(answer("between")), with_holm("between_p"),
        interval(answer("within")), with_holm("within_p"),
        interval(answer("partial_spearman", "partial")), with_holm("partial_p"),
        change(answer("change")), change(answer("fixed_change")),
        number(row["one_per_run_slope"]), p_value(row["one_per_run_p"]), "; ".join(filter(None, told)),
    )  # fmt: skip


def misleading_panels(table: pd.DataFrame) -> list[str]:
    """Panels whose OLS p is small although no effect between the epochs of a run was found, in words."""
    small = table[(table["ols_p"] < SIGNIFICANT) & table["reading"].str.match("between runs only|no effect")]
    return [
        f"Figure {row['figure']}, {row['relation']}, {label(row['model'])} on {label(row['data'])}: OLS p "
        f"{p_value(row['ols_p'])} over {row['n_models']} models, but {row['n_runs']} runs: "
        f"{row['reading'].split(',')[0]} (between runs: p {p_value(row['between_p'])}, between epochs: p "
        f"{p_value(row['within_p'])})."
        for row in small.to_dict("records")
    ]
