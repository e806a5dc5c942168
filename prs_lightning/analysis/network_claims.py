"""Claims about networks A and B: figures 9 and 6a."""

from __future__ import annotations

import pandas as pd

from prs_lightning.analysis.relations import UNMATCHED
from prs_lightning.analysis.verdict import NOT_MEASURABLE, Claim


def group_claim(groups: pd.DataFrame | None, level: float, matching: str = UNMATCHED) -> Claim:
    return Claim("inclusion" + matching, "9", "", outcome=NOT_MEASURABLE)


def failures_claim(failures: pd.DataFrame | None, level: float) -> Claim:
    return Claim("failures", "6a", "", outcome=NOT_MEASURABLE)
