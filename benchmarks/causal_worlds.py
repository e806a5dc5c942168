"""How often the causal section errs on simulated experiments of which the truth is known (tests/causal_worlds.py).

python -m benchmarks.causal_worlds   # a quarter of an hour on two cores
"""

from __future__ import annotations

import argparse
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness import table, write_section
from benchmarks.worlds import PROCESSES, exact
from prs_lightning.analysis.causal import compared
from prs_lightning.analysis.causes import VERDICTS, judged, judged_arm
from prs_lightning.analysis.pairing import paired
from prs_lightning.analysis.relations import MARGINS
from tests.causal_worlds import WORLDS

SECTION = "Causes on worlds of which the truth is known"
TOLERANCES, LEVEL = (0.02, 0.1), 0.95
USUAL = {"seeds": 5, "panels": 2, "noise": 0.03, "distance_noise": 0.003}
DESIGNS = ((5, 1), (5, 2), (10, 2))
"""Seeds and panels."""
NOISES = (0.02, 0.03, 0.04)
POWER = ("causal", "causal, small", "masked", "null")
"""Worlds in which there is something to be found."""
HARD = ("accuracy", "at the margin", "course")
"""Worlds that an earlier form of the rule got wrong."""


def verdict(number: int, name: str, plan: Mapping[str, Any]) -> str:
    """The verdict on experiment ``number`` of a world."""
    rows, scaled = WORLDS[name].make(np.random.default_rng([number, zlib.crc32(name.encode())]), **plan)
    pairs, _ = paired(pd.concat([rows, scaled], ignore_index=True))
    contrasts = compared(pairs, MARGINS, TOLERANCES, LEVEL)
    return judged([judged_arm(arm, contrasts) for arm in contrasts.arms], contrasts)[0]


def verdicts(pool: ProcessPoolExecutor, name: str, plan: Mapping[str, Any], number: int) -> Counter[str]:
    """How often each verdict was reached."""
    found = Counter(pool.map(partial(verdict, name=name, plan={**USUAL, **plan}), range(number), chunksize=5))
    print(name, dict(plan), dict(found), flush=True)
    return found


def times(found: Counter[str], among: Sequence[str]) -> int:
    """How often it was one of these."""
    return sum(found[each] for each in among)


def told(found: Counter[str], number: int) -> str:
    """The verdicts in words, the most frequent first."""
    return "; ".join(f"{word} {count / number:.2f}" for word, count in found.most_common() if word in VERDICTS)


def main() -> None:
    """Write the section of docs/benchmarks.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--worlds", type=int, default=200, help="simulated experiments of each world")
    parser.add_argument("--designs", type=int, default=100, help="of each design and noise")
    parser.add_argument("--only", nargs="*", default=[*WORLDS], help="names of worlds")
    chosen = parser.parse_args()
    number, few = chosen.worlds, chosen.designs
    with ProcessPoolExecutor(PROCESSES) as pool:
        every = {name: verdicts(pool, name, {}, number) for name in chosen.only}
        designs = {
            (name, seeds, panels, noise): verdicts(
                pool, name, {"seeds": seeds, "panels": panels, "noise": noise, "distance_noise": noise / 10}, few
            )
            for name in (*POWER, *HARD)
            if name in chosen.only
            for seeds, panels in DESIGNS
            for noise in NOISES
        }
    lines = [
        [
            name, WORLDS[name].planted, told(found, number), exact(times(found, WORLDS[name].right), number),
            " or ".join(WORLDS[name].right),
            exact(times(found, WORLDS[name].wrong), number),
        ]
        for name, found in every.items()
    ]  # fmt: skip
    of_designs = [
        [
            name, f"{seeds} x {panels}",
            *(told(designs[name, seeds, panels, noise], few) for noise in NOISES),
        ]
        for name in (*POWER, *HARD) if name in chosen.only
        for seeds, panels in DESIGNS
    ]  # fmt: skip
    wrong = sum(times(found, WORLDS[name].wrong) for name, found in every.items() if WORLDS[name].wrong)
    asked = sum(number for name in every if WORLDS[name].wrong)
    text = (
        f"{number} experiments of each world: none, low_prs 1 and 5, high_prs 1, low_prs 5 with logit_penalty, and "
        "adversarial, 5 seeds on 2 data sets, ten grid epochs, 500 test images. A paired difference of audited RA has "
        "a deviation of 0.03, of the distance 0.003. *Wrong* is *causal* or *masking* where it is not true; the target "
        "is at most 0.05 in each world. *Undecided* is never wrong, and right where it says so below. Shares stand "
        f"with exact 95% intervals. Wrong in all worlds together: {exact(wrong, asked)} of {asked:,}."
    )
    head = ("world", "what was planted", "the verdict", "right", "which is", "wrong")
    further = f"What an experiment of another size or noise finds ({few} of each); the distance deviates by a tenth."
    names = ("world", "seeds x panels", *(f"deviation {noise}" for noise in NOISES))
    body = f"{text}\n\n{table(head, lines)}\n\n{further}\n\n{table(names, of_designs)}"
    if chosen.only == [*WORLDS]:
        write_section(
            SECTION, body, command="python -m benchmarks.causal_worlds", packages=("numpy", "scipy", "statsmodels")
        )
    else:
        print(body)


if __name__ == "__main__":
    main()
