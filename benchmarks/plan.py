"""Does `plan=true` foretell what larger studies find? On simulated ones of which the truth is known; and what it takes.

python -m benchmarks.plan      # ten minutes on one core
"""

from __future__ import annotations

import time
from dataclasses import replace
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.harness import table, write_section
from prs_lightning.analysis.answers import relation_claim
from prs_lightning.analysis.panels import panel_statistics
from prs_lightning.analysis.power import Rule, pilots_of, power
from prs_lightning.analysis.relations import Relation
from prs_lightning.analysis.selection import select
from prs_lightning.analysis.table import read_runs
from prs_lightning.analysis.verdict import SUPPORTED, judged
from prs_lightning.measures import ROBUST_ACCURACY
from tests.synthetic_runs import write_paper_grid
from tests.worlds import LINEAR, RA_CLAIM, grid

RELATION = Relation("4", ROBUST_ACCURACY)
CLAIMS = 13
STUDIES, PILOTS, SIMULATIONS = 200, 10, 40
PLANS = ((9, 3, 0.5), (9, 5, 0.35), (3, 10, 0.35), (1, 10, 0.5), (1, 20, 0.5))
"""Panels, seeds of each batch size, and Spearman between the runs of one batch size."""
OF_PILOTS = (2, 3, 5)
"""Seeds of the runs that are there."""


def found(panels: int, seeds: int, effect: float) -> float:
    """In how many of real studies the rule says *supported*."""
    decided = 0
    for study in range(STUDIES):
        pearson = 2 * np.sin(np.pi * effect / 6)
        models = grid(np.random.default_rng([0, study]), panels=panels, seeds=seeds, between=pearson, batch=LINEAR)
        claim = relation_claim(RA_CLAIM, RELATION, panel_statistics(models, [RELATION], draws=200, seed=study))
        decided += judged(replace(claim, p_holm=min(1.0, claim.p * CLAIMS))).outcome == SUPPORTED
    return decided / STUDIES


def foretold(panels: int, seeds: int, effect: float, of_pilot: int) -> tuple[float, float]:
    """The mean and the deviation of what plans from smaller studies, without an effect in them, say of that."""
    rule, shares = Rule(RA_CLAIM, RELATION, CLAIMS, 0.95), []
    for pilot in range(PILOTS):
        there = grid(np.random.default_rng([1, pilot]), panels=panels, seeds=of_pilot, batch=LINEAR)
        pilots = pilots_of(there, ROBUST_ACCURACY)
        said = [
            rule.decides(pilots, seeds, effect, np.random.default_rng([pilot, each])) for each in range(SIMULATIONS)
        ]
        shares.append(np.mean([decided for decided, _ in said]))
    return float(np.mean(shares)), float(np.std(shares, ddof=1))


def main() -> None:
    """Write the section of docs/benchmarks.md."""
    rows = []
    for panels, seeds, effect in PLANS:
        told = [foretold(panels, seeds, effect, of_pilot) for of_pilot in OF_PILOTS]
        cells = [f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in told]
        rows.append([panels, seeds, effect, f"{found(panels, seeds, effect):.2f}", *cells])
    head = ["panels", "seeds", "Spearman", "found", *(f"foretold from {number} seeds" for number in OF_PILOTS)]
    with TemporaryDirectory() as folder:
        write_paper_grid(folder)
        models = select(read_runs(folder).rows).models
    began = time.process_time()
    power(models, effect=0.5, seeds=[3, 5, 10, 20], simulations=100, target=0.9, claims=CLAIMS)
    taken = time.process_time() - began
    write_section(
        "Plans of larger studies",
        f"The share of studies in which *low PRS ratio → high robust accuracy* is supported, p times {CLAIMS}: of "
        f"{STUDIES} simulated studies, and as `plan=true` foretells it (mean and deviation over {PILOTS} smaller "
        f"studies, {SIMULATIONS} simulations each).\n\n{table(head, rows)}\n\n"
        f"The plan of the paper's grid, {len(models):,} models and 7 claims, takes {taken:.0f} seconds of one core.",
        command="python -m benchmarks.plan", packages=("numpy", "scipy", "statsmodels"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
