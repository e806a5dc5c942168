"""Figures 17 and 18: what interventions did to PRS ratio and robust accuracy, each run beside its twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from prs_lightning.analysis.causal import in_order
from prs_lightning.analysis.contrasts import difference
from prs_lightning.analysis.figures import style
from prs_lightning.analysis.figures.registry import Drawing, figure
from prs_lightning.analysis.pairing import COMPARED, Pair, paired
from prs_lightning.analysis.relations import label, plural
from prs_lightning.measures import AUDITED_ACCURACY, PRS_RATIO, ROBUST_ACCURACY
from prs_lightning.runs.naming import NO_ARM

RA = {AUDITED_ACCURACY: "full", ROBUST_ACCURACY: "none"}
"""Both robust accuracies, and how their markers are filled."""
COLUMNS = ["panel", "arm", "seed", "epoch", PRS_RATIO, ROBUST_ACCURACY, AUDITED_ACCURACY]


def ends(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Both runs of each pair at its end, two rows: ``pair``, ``side`` (0: left alone), then ``COLUMNS``."""
    rows = []
    for number, pair in enumerate(pairs):
        if pair.end is None:
            continue
        for side, (run, place) in enumerate(zip((pair.none, pair.treated), pair.end, strict=True)):
            values = dict(zip(COMPARED, run.values[place], strict=True))
            told = {"panel": run.panel, "arm": pair.treated.arm, "seed": run.seed, "epoch": int(run.epochs[place])}
            rows.append({"pair": number, "side": side} | told | {name: values[name] for name in COLUMNS[4:]})
    return pd.DataFrame(rows, columns=["pair", "side", *COLUMNS])


def look(position: int) -> dict[str, Any]:
    """Colour and marker of the ``position``-th of up to 49 arms; no two are alike."""
    turn = position // len(style.COLOURS)
    return {"color": style.points(position)["color"], "marker": style.points(position + turn)["marker"]}
