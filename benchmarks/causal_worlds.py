"""How often the causal section errs on simulated experiments of which the truth is known (tests/causal_worlds.py).

python -m benchmarks.causal_worlds   # a quarter of an hour on two cores
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness import table, write_section
from benchmarks.worlds import HERE, PROCESSES, analysis, exact
from prs_lightning.analysis.causal import compared
from prs_lightning.analysis.causes import judged, judged_arm
from prs_lightning.analysis.pairing import paired
from prs_lightning.analysis.relations import MARGINS
from tests.causal_worlds import WORLDS

SECTION = "Causes on worlds of which the truth is known"
TOLERANCES, LEVEL = (0.02, 0.1), 0.95
USUAL = {"seeds": 5, "panels": 2, "noise": 0.03, "distance_noise": 0.003}
FURTHER: tuple[dict[str, float], ...] = (
    {"seeds": 5, "panels": 1}, {"seeds": 10, "panels": 2}, {"noise": 0.02, "distance_noise": 0.002},
    {"noise": 0.04, "distance_noise": 0.004}, {"noise": 0.08, "distance_noise": 0.008},
)  # fmt: skip
"""Other sizes and other noise."""
POWER = ("causal", "causal, small", "masked", "null")
"""Worlds in which there is something to be found."""
KEPT = HERE / "runs" / "causal_worlds.jsonl"
"""What was found so far, so that this can be stopped and taken up again."""


def verdict(number: int, name: str, plan: Mapping[str, Any]) -> str:
    """The verdict on experiment ``number`` of a world."""
    rows, scaled = WORLDS[name].make(np.random.default_rng([number, zlib.crc32(name.encode())]), **plan)
    pairs, _ = paired(pd.concat([rows, scaled], ignore_index=True))
    contrasts = compared(pairs, MARGINS, TOLERANCES, LEVEL)
    return judged([judged_arm(arm, contrasts) for arm in contrasts.arms], contrasts)[0]


def verdicts(pool: ProcessPoolExecutor, name: str, plan: Mapping[str, Any], number: int) -> Counter[str]:
    """How often each verdict was reached."""
    key = [analysis(HERE), name, dict(plan), number]
    kept = [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []
    if known := [each["found"] for each in kept if each["key"] == key]:
        return Counter(known[-1])
    found = Counter(pool.map(partial(verdict, name=name, plan={**USUAL, **plan}), range(number), chunksize=5))
    KEPT.parent.mkdir(exist_ok=True)
    with KEPT.open("a") as file:
        file.write(json.dumps({"key": key, "found": found}) + "\n")
    print(name, dict(plan), dict(found), flush=True)
    return found


def times(found: Counter[str], among: Sequence[str]) -> int:
    """How often it was one of these."""
    return sum(found[each] for each in among)


def told(found: Counter[str], number: int) -> str:
    """The verdicts in words, the most frequent first."""
    return "; ".join(f"{word} {count / number:.2f}" for word, count in found.most_common())


def main() -> None:
    """Write the section of docs/benchmarks.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--worlds", type=int, default=150, help="simulated experiments of each world")
    parser.add_argument("--designs", type=int, default=40, help="of each other size and noise")
    parser.add_argument("--only", nargs="*", default=[*WORLDS], help="names of worlds")
    chosen = parser.parse_args()
    number, few = chosen.worlds, chosen.designs
    others = [(name, plan) for name in POWER if name in chosen.only for plan in FURTHER]
    with ProcessPoolExecutor(PROCESSES) as pool:
        every = {name: verdicts(pool, name, {}, number) for name in chosen.only}
        designs = [(name, plan, verdicts(pool, name, plan, few)) for name, plan in others]
    lines = [
        [
            name, world.planted, told(found, number), " or ".join(world.right),
            exact(times(found, world.right), number), exact(times(found, world.wrong), number),
        ]
        for name, found in every.items()
        for world in (WORLDS[name],)
    ]  # fmt: skip
    of_designs = [
        [name, ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in plan.items()), told(found, few)]
        for name, plan, found in designs
    ]
    wrong = sum(times(found, WORLDS[name].wrong) for name, found in every.items())
    text = (
        f"{number} experiments of each world: none, low_prs 1 and 5, high_prs 1, low_prs 5 with logit_penalty, and "
        "adversarial, 5 seeds on 2 data sets, ten grid epochs, 500 test images. A paired difference of audited RA has "
        "a deviation of 0.03, of the distance 0.003. *Wrong* is *causal* or *masking* where it is not true; the target "
        "is at most 0.05 in each world. *Undecided* is never wrong, and right where it says so. Shares stand with "
        f"exact 95% intervals. Wrong in all worlds together: {exact(wrong, number * len(every))}."
    )
    head = ("world", "what was planted", "the verdict", "right is", "right", "wrong")
    further = f"What an experiment of another size or noise finds ({few} of each):"
    tables = f"{table(head, lines)}\n\n{further}\n\n{table(('world', 'what is other', 'the verdict'), of_designs)}"
    body = f"{text}\n\n{tables}"
    if chosen.only == [*WORLDS]:
        write_section(
            SECTION, body, command="python -m benchmarks.causal_worlds", packages=("numpy", "scipy", "statsmodels")
        )
    else:
        print(body)


if __name__ == "__main__":
    main()
