"""How often the scoreboard errs on simulated studies of which the truth is known (tests/worlds.py).

python -m benchmarks.worlds --before CHECKOUT   # git worktree add CHECKOUT 74f1f1f; an hour on two cores
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.harness import table, write_section
from prs_lightning.analysis.claims import RELATION_CLAIMS, scoreboard
from prs_lightning.analysis.panels import panel_statistics
from prs_lightning.analysis.relations import Relation
from prs_lightning.measures import PRS_RATIO, ROBUST_ACCURACY
from tests.worlds import CENTRES, CONFOUNDED, EFFECT, HALF, LINEAR, NULL, RA_CLAIM, SUPPORTED, WORLDS, World, grid

HERE = Path(__file__).parent.parent
SECTION = "Verdicts on worlds of which the truth is known"
PROCESSES = 2
AT_ONCE = 20
"""So many studies of a world are kept together."""
RELATIONS = {claim: Relation(figure, y) for claim, figure, y in RELATION_CLAIMS if y in CENTRES}
"""The five relation claims, of which a world plants each on its own."""

LINEAR_WORLDS: dict[str, dict[str, Any]] = {
    "no effect": {},
    "Spearman 0.5 in each cell": {"between": HALF, "within": HALF},
    "the same, and batch size": {"between": HALF, "within": HALF, "batch": LINEAR},
    "the same, and panels vary": {"vary": 0.3, "batch": LINEAR},
}
"""Worlds whose association is known: that of one huge study. ``vary``: deviation between panels on Fisher's z."""
NUMBERS_OF_PANELS = (9, 3, 2, 1)

Told = dict[str, dict[str, Any]]


def linear(rng: np.random.Generator, panels: int, vary: float = 0.0, **plan: Any) -> Any:
    """Models of a linear world."""
    if vary:
        rho = np.tanh(np.arctanh(HALF) + vary * rng.standard_normal(panels))
        plan |= {"between": rho, "within": rho}
    return grid(rng, panels=panels, **plan)


def covered(plan: str, panels: int) -> str:
    """The name of a linear world of so many panels."""
    return f"{plan}, {panels} panels"


WORLDS_OF_INTERVALS = {
    covered(name, panels): World(name, partial(linear, panels=panels, **plan), (), "interval")
    for name, plan in LINEAR_WORLDS.items()
    for panels in NUMBERS_OF_PANELS
}
EVERY_WORLD = WORLDS | WORLDS_OF_INTERVALS


def judged(name: str, number: int, draws: int) -> Told:
    """What the scoreboard says of the claims in simulated study ``number`` of a world."""
    world = EVERY_WORLD[name]
    models = world.make(np.random.default_rng([number, zlib.crc32(name.encode())]))
    asked = RELATIONS if world.family else dict.fromkeys((RA_CLAIM, world.claim))
    relations = [relation for claim, relation in RELATIONS.items() if claim in asked]
    statistics = panel_statistics(models, relations, draws=draws, seed=number)
    return {claim.claim: told(claim) for claim in scoreboard(statistics, models) if claim.claim in asked}


def told(claim: Any) -> dict[str, Any]:
    """A claim as plain values; one of 74f1f1f has a single answer."""
    kept: dict[str, Any] = {"verdict": claim.verdict}
    for name in ("association", "between_runs", "between_epochs"):
        answer = getattr(claim, name, claim if name == "association" else None)
        if answer is not None:
            kept[name] = [answer.effect, answer.low, answer.high, getattr(answer, "p", np.nan)]
    kept["panels"] = [[each.association.low, each.association.high] for each in getattr(claim, "panels", ())]
    return kept


def studies(names: Sequence[str], starts: Sequence[int], draws: int) -> Iterator[tuple[str, int, list[Told]]]:
    """What is said of ``AT_ONCE`` studies of each world from each start on."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        for start in starts:
            for name in names:
                numbers = range(start, start + AT_ONCE)
                yield name, start, list(pool.map(partial(judged, name, draws=draws), numbers, chunksize=5))


ASK = """
import json, sys
checkout, here, names, starts, draws = sys.argv[1:]
sys.path.insert(0, checkout)
import prs_lightning
sys.path.insert(0, here)
from benchmarks.worlds import studies
for found in studies(json.loads(names), json.loads(starts), int(draws)):
    print(json.dumps(found), flush=True)
"""
"""Runs with the analysis of ``checkout`` and the worlds of this one."""


def ask(checkout: Path, names: Sequence[str], number: int, draws: int, kept: Path) -> dict[str, list[Told]]:
    """World -> what the analysis of that checkout says of its studies; ``kept`` grows as they are made."""
    key, starts = [analysis(checkout), draws], range(0, number, AT_ONCE)
    found = read(kept, key)
    if missing := [start for start in starts if any((name, start) not in found for name in names)]:
        lacking = [name for name in names if any((name, start) not in found for start in missing)]
        command = [sys.executable, "-c", ASK, str(checkout.absolute()), str(HERE)]
        command += [json.dumps(lacking), json.dumps(missing), str(draws)]
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.open("a") as file, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                name, start, said = json.loads(line)
                file.write(json.dumps([key, name, start, said]) + "\n")
                file.flush()
                print(f"{checkout}: {name}, {start + len(said)} studies", flush=True)
        assert process.returncode == 0, checkout
        found = read(kept, key)
    return {name: [told for start in starts for told in found[name, start]] for name in names}


def read(kept: Path, key: list[Any]) -> dict[tuple[str, int], list[Told]]:
    """(World, start) -> what was said so far under this key."""
    lines = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    return {(name, start): said for of, name, start, said in lines if of == key}


def analysis(checkout: Path) -> str:
    """The short name of what git keeps of the analysis."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD:prs_lightning/analysis"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def exact(count: int, number: int) -> str:
    """A share with its interval (Clopper & Pearson 1934)."""
    interval = stats.binomtest(count, number).proportion_ci(method="exact")
    return f"{count / number:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def supported(claim: dict[str, Any]) -> bool:
    """Whether it is supported, small or not."""
    return str(claim["verdict"]).startswith(SUPPORTED)


HEAD = (
    "world", "what was planted", "studies", "the verdict", "right", "before: *supported*", "*supported* wrongly",
    "any of five wrongly", "runs: p < 0.05", "epochs: p < 0.05", "target",
)  # fmt: skip


def row(name: str, said: Sequence[Told], before: Sequence[Told]) -> list[str]:
    """A line of the table of worlds."""
    world, number = WORLDS[name], len(said)
    claims = [each[world.claim] for each in said]
    verdicts = Counter(re.sub(r" \(p .*|;.*", "", claim["verdict"]) for claim in claims)
    right = sum(any(word in claim["verdict"] for word in world.right) for claim in claims)
    wrong = sum(map(supported, claims)) if world.supported_is_false else 0
    anywhere = sum(any(map(supported, each.values())) for each in said) if world.family else 0
    target = ""
    if world.kind == EFFECT and not world.supported_is_false:
        target = f"right at least 0.90: {'met' if right >= 0.9 * number else '**missed**'}"
    elif world.supported_is_false:
        most = max(wrong, anywhere)
        target = f"wrong at most 0.05: {'met' if most <= 0.05 * number else '**missed**'}"
    found = [
        np.mean([claim.get(answer, [1])[-1] < 0.05 for claim in claims])
        for answer in ("between_runs", "between_epochs")
    ]
    return [
        name, world.planted, str(number),
        "; ".join(f"{word} {count / number:.2f}" for word, count in verdicts.most_common(4)),
        exact(right, number), f"{np.mean([supported(each[world.claim]) for each in before]):.2f}" if before else "",
        exact(wrong, number) if world.supported_is_false else "", exact(anywhere, number) if world.family else "",
        *(f"{share:.2f}" for share in found), target,
    ]  # fmt: skip


def altogether(said: dict[str, list[Told]]) -> str:
    """The error rate over all worlds in which *supported* is wrong, in words."""
    kinds = {
        kind: [name for name in said if name in WORLDS and WORLDS[name].kind == kind] for kind in (NULL, CONFOUNDED)
    }
    words = []
    for kind, names in kinds.items():
        claims = [told[WORLDS[name].claim] for name in names for told in said[name]]
        if claims:
            words.append(f"{exact(sum(map(supported, claims)), len(claims))} of {len(claims)} {kind} studies")
    families = [told for name in said if name in WORLDS and WORLDS[name].family for told in said[name]]
    if families:
        wrong = sum(any(map(supported, told.values())) for told in families)
        words.append(f"{exact(wrong, len(families))} of {len(families)} in which all five relation claims are judged")
    return f"*Supported* wrongly, of all worlds together: {', '.join(words)}."


def truth(plan: str) -> float:
    """The association of a panel of 4,000 runs, positive where it agrees with the claim; mean on Fisher's z."""
    found = []
    for number in range(20):
        models = linear(np.random.default_rng(number), panels=1, seeds=1000, **LINEAR_WORLDS[plan])
        found.append(np.arctanh(-stats.spearmanr(models[PRS_RATIO], models[ROBUST_ACCURACY])[0]))
    return float(np.tanh(np.mean(found)))


def covering(intervals: np.ndarray, value: float) -> list[str]:
    """Share of the intervals that hold the value, and their median width."""
    known = intervals[~np.isnan(intervals).any(axis=1)]
    if not len(known):
        return ["no interval", ""]
    inside = int(((known[:, 0] <= value) & (value <= known[:, 1])).sum())
    return [exact(inside, len(known)), f"{np.median(known[:, 1] - known[:, 0]):.2f}"]


def interval_rows(said: dict[str, list[Told]], before: dict[str, list[Told]]) -> Iterator[list[str]]:
    """Lines of the table of intervals."""
    for plan in LINEAR_WORLDS:
        value = truth(plan)
        for panels in NUMBERS_OF_PANELS:
            if (name := covered(plan, panels)) in said:
                pooled, old = (
                    np.array([each[RA_CLAIM]["association"][:3] for each in of.get(name, ())], dtype=float).reshape(
                        -1, 3
                    )
                    for of in (said, before)
                )
                single = np.array([pair for each in said[name] for pair in each[RA_CLAIM]["panels"]], dtype=float)
                own = covering(single.reshape(-1, 2), value) if "vary" not in LINEAR_WORLDS[plan] else ["", ""]
                bias = f"{np.nanmean(pooled[:, 0]) - value:+.3f}"
                was = covering(old[:, 1:], value) if len(old) else ["", ""]
                yield [plan, f"{value:.2f}", str(panels), bias, *covering(pooled[:, 1:], value), *was, *own]


INTERVAL_HEAD = (
    "world", "association", "panels", "bias", "pooled interval holds it", "width", "before", "width", "a panel's does",
    "width",
)  # fmt: skip


def main() -> None:
    """Write the section of docs/benchmarks.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--worlds", type=int, default=200, help="simulated studies of each world")
    parser.add_argument("--draws", type=int, default=200, help="bootstrap draws of each; an analysis takes 2,000")
    parser.add_argument("--only", nargs="*", default=[*EVERY_WORLD], help="names of worlds")
    parser.add_argument("--before", type=Path, help="a checkout to compare with, in 60 studies of each")
    parser.add_argument("--kept", type=Path, default=HERE / "runs" / "worlds.jsonl", help="what was said so far")
    chosen = parser.parse_args()
    before: dict[str, list[Told]] = {}
    if chosen.before:
        before = ask(chosen.before, chosen.only, min(3 * AT_ONCE, chosen.worlds), chosen.draws, chosen.kept)
    said = ask(HERE, chosen.only, chosen.worlds, chosen.draws, chosen.kept)
    worlds = [row(name, said[name], before.get(name, ())) for name in said if name in WORLDS]
    text = (
        "Studies of 9 panels, 4 batch sizes, 5 seeds and 6 epochs, unless said otherwise; "
        f"{chosen.draws} bootstrap draws instead of 2,000. *any of five*: of the paper's relations and audited RA, "
        "after Holm's correction. Shares stand with exact 95% intervals; *before* is 74f1f1f, in 60 studies. The "
        "target is at most 0.05 *supported* wrongly, and at least 0.90 right where an effect is there. Below five "
        "panels an interval is of these panels alone, which need not hold what panels that vary have in the mean."
    )
    intervals = table(INTERVAL_HEAD, [*interval_rows(said, before)])
    body = f"{text} {altogether(said)}\n\n{table(HEAD, worlds)}\n\n{intervals}"
    if chosen.only == [*EVERY_WORLD]:
        write_section(
            SECTION, body, command="python -m benchmarks.worlds --before CHECKOUT",
            packages=("numpy", "scipy", "statsmodels"),
        )  # fmt: skip
    else:
        print(body)


if __name__ == "__main__":
    main()
