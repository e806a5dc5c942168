"""The causal section, from rows of runs to a verdict: what docs/causal.md says, put together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from prs_lightning.analysis.arms import SCALED
from prs_lightning.analysis.causes import (
    NEGATIVE,
    UNDECIDED,
    Causes,
    Contrasts,
    aim_of,
    in_order,
    judged,
    judged_arm,
)
from prs_lightning.analysis.contrasts import COLUMNS, END, MATCHED, Gate, contrast_table, gates
from prs_lightning.analysis.doses import DOSE_COLUMNS, dose_table
from prs_lightning.analysis.factorial import factorial_table
from prs_lightning.analysis.matching import matched_epochs
from prs_lightning.analysis.mediation import MEDIATION_COLUMNS, mediation_table
from prs_lightning.analysis.pairing import COMPARED, Pair, Run, paired
from prs_lightning.analysis.relations import MARGINS, in_words
from prs_lightning.analysis.selection import on_grid
from prs_lightning.measures import LOGIT_GAP, TEST_ACCURACY
from prs_lightning.runs.naming import NO_ARM


def causal_study(
    rows: pd.DataFrame,
    *,
    grid_epochs: Sequence[int] | None = None,
    scaled: pd.DataFrame | None = None,
    margins: Mapping[str, float] = MARGINS,
    tolerances: tuple[float, float] = (0.02, 0.1),
    level: float = 0.95,
    seed: int = 0,
) -> Causes | None:
    """What interventions say of the claim; None where no run has one and no factorial of batch sizes is there.

    No run is left out for its test accuracy: an intervention that ruins networks has that effect.

    Args:
        rows: ``RunTable.rows``, with ``arm`` and ``strength``.
        grid_epochs: as of `select`.
        scaled: rows of the negative control, in the same columns: the end of each run of ``none``, arm ``SCALED``.
        margins: by kind of measure, as ``MARGINS``.
        tolerances: of test accuracy and of logit gap (a share of the larger), at the match.
        level: of the intervals; ``1 - level`` is that of the tests.
        seed: of the draws of the mediation.
    """
    factorial = factorial_table(rows, level=level)
    if (rows["arm"] == NO_ARM).all():
        none, mediation, doses = (
            pd.DataFrame(columns=[*names]) for names in (COLUMNS, MEDIATION_COLUMNS, DOSE_COLUMNS)
        )
        told = Causes(UNDECIDED, "no run has an intervention", (), none, mediation, doses, factorial)
        return told if len(factorial) else None
    grid = rows[on_grid(rows, grid_epochs)]
    pairs, messages = paired(grid if scaled is None else pd.concat([grid, scaled], ignore_index=True))
    contrasts = compared(pairs, margins, tolerances, level)
    arms = tuple(judged_arm(name, contrasts) for name in contrasts.arms)
    verdict, reason = judged(arms, contrasts)
    mediation = mediation_table(pairs, [arm.name for arm in arms if arm.aim != NEGATIVE], seed=seed, level=level)
    doses = dose_table(pairs, level=level)
    return Causes(verdict, reason, arms, contrasts.table, mediation, doses, factorial, (*messages, *_early(pairs)))


def compared(
    pairs: Sequence[Pair], margins: Mapping[str, float], tolerances: tuple[float, float], level: float
) -> Contrasts:
    """All arms against ``none``, at the end and at the match."""
    names = in_order({pair.treated.arm for pair in pairs})
    match = partial(_match, accuracy_tolerance=tolerances[0], gap_tolerance=tolerances[1])
    table = contrast_table(
        pairs, _gates(pairs), {END: lambda pair: pair.end, MATCHED: match}, {name: aim_of(name) for name in names},
        margins=margins, level=level,
    )  # fmt: skip
    return Contrasts(table, margins, level)


def _match(pair: Pair, **tolerances: float) -> tuple[int, int] | None:
    if pair.treated.arm == SCALED or pair.end is None:
        return None
    columns = [COMPARED.index(TEST_ACCURACY), COMPARED.index(LOGIT_GAP)]
    none, treated = (
        run.values[: end + 1, columns] for run, end in zip((pair.none, pair.treated), pair.end, strict=True)
    )
    return matched_epochs(none, treated, **tolerances)


def _gates(pairs: Sequence[Pair]) -> dict[str, dict[str, Gate]]:
    """Of each panel, of the networks as they were trained."""
    runs: dict[str, dict[tuple[str, str], Run]] = defaultdict(dict)
    for pair in pairs:
        for run in (pair.none, pair.treated):
            if run.arm != SCALED:
                runs[run.panel][run.name, run.arm] = run
    return {panel: gates(own.values()) for panel, own in runs.items()}


def _early(pairs: Sequence[Pair]) -> list[str]:
    """Pairs that end before others of their panel do, as where a run was interrupted."""
    ends: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for pair in pairs:
        if (end := pair.end) is not None:
            ends[pair.none.panel].append((float(pair.none.epochs[end[0]]), f"{pair.treated.name} at epoch"))
    return [
        f"{panel}: compared before the end, {max(own)[0]:.0f}: " + in_words([f"{who} {at:.0f}" for at, who in early])
        for panel, own in ends.items()
        if (early := sorted(each for each in own if each[0] < max(own)[0]))
    ]
