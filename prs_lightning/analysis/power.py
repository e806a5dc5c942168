"""How many seeds decide a claim: new studies are made of the runs that are there, with an effect that is planted.

A new study has S runs of each batch size in each panel. The PRS ratio and y of a run are drawn apart from each other:
the trajectory of a run over the epochs is that of the stratum's mean, and what it lies above or below it (its level,
normal with the variance that the real runs have), and a real run's course about its own level. So the means of strata
and epochs, the share of a panel's variance that lies between runs, and what the epochs of a run have in common are the
real ones, and so is what batch size and epoch make of the association; x and y of a run have nothing else to do with
each other than the correlation of their levels, which is planted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
from scipy import stats

from prs_lightning.analysis import fixed, resampling
from prs_lightning.analysis.answers import relation_claim, together
from prs_lightning.analysis.claims import RELATION_CLAIMS
from prs_lightning.analysis.evidence import PERMUTATIONS, Models, Panel, association
from prs_lightning.analysis.fixed import Permuted
from prs_lightning.analysis.measurable import why_not
from prs_lightning.analysis.panels import COLUMNS as PANEL_COLUMNS
from prs_lightning.analysis.panels import Statistics, samples_behind
from prs_lightning.analysis.relations import DRAWN, Relation
from prs_lightning.analysis.statistics import Array
from prs_lightning.analysis.verdict import CONTRADICTED, SUPPORTED, judged
from prs_lightning.errors import RunError
from prs_lightning.measures import PRS_RATIO

DRAWS = 100
"""Of the bootstrap of each panel of each study: with more the intervals would be steadier, not shorter."""
PERMUTED = 60
"""Up to so many runs are permuted; the sum over more is normal, with the variance that is known in closed form."""
NO_TABLE = pd.DataFrame(columns=list(PANEL_COLUMNS))

COLUMNS = ("claim", "y", "effect", "seeds", "runs", "simulations", "share", "low", "high", "fixed", "enough")
"""The columns of power.csv."""

LAST = ("at fixed batch size and epoch", "with no effect")


@dataclass(frozen=True)
class Side:
    """x or y of the real runs of one batch size at E epochs, as new runs are made of it.

    Attributes:
        mean: (E,).
        spread: standard deviation of the runs' levels.
        courses: (n, E) of each run about its level; NaN where it has no model.
        samples: shares are multiples of 1 / samples; None where it is no share.
    """

    mean: Array
    spread: float
    courses: Array
    samples: int | None

    def new(self, levels: Array, rng: np.random.Generator) -> Array:
        """Runs (S, E) of the given levels (S,), in standard deviations."""
        runs = (
            self.mean + self.spread * levels[:, None] + self.courses[rng.integers(len(self.courses), size=len(levels))]
        )
        return np.round(np.clip(runs, 0, 1) * self.samples) / self.samples if self.samples else runs


@dataclass(frozen=True)
class Stratum:
    """The real runs of one batch size in a panel."""

    batch_size: float
    epochs: Array
    x: Side
    y: Side


@dataclass(frozen=True)
class Pilot:
    """The strata of a panel that counts, those of two real runs or more."""

    model: str
    data: str
    strata: tuple[Stratum, ...]


def pilots_of(models: pd.DataFrame, y: str) -> list[Pilot]:
    """The panels in which y and the PRS ratio are measurable; they stay so, whatever the number of seeds."""
    found = []
    known = models.dropna(subset=[PRS_RATIO, y, "batch_size"]).sort_values(["run", "epoch"])
    for (model, data), group in known.groupby(["model", "data"], observed=True):
        values = {name: group[name].to_numpy(float) for name in (PRS_RATIO, y)}
        samples = [samples_behind(group, name) for name in values]
        if any(
            why_not(each, of, drawn=name in DRAWN) for (name, each), of in zip(values.items(), samples, strict=True)
        ):
            continue
        sizes, epochs = (group[name].to_numpy(float) for name in ("batch_size", "epoch"))
        runs = pd.factorize(group["run"])[0]
        blocks = Models(values[PRS_RATIO], values[y], runs, sizes, epochs).blocks(sizes, epochs)
        x, its_y = (_sides([block[side] for block in blocks], of) for side, of in enumerate(samples))
        strata = [
            Stratum(float(np.nanmax(of_runs)), np.nanmax(of_epochs, axis=0), *sides)
            for (_, _, of_runs, of_epochs), *sides in zip(blocks, x, its_y, strict=True)
        ]
        if strata:
            found.append(Pilot(str(model), str(data), tuple(strata)))
    return found


def _sides(strata: Sequence[Array], samples: int | None) -> list[Side]:
    """Of the real runs of each stratum of a panel (n, E).

    What share of the variance lies between runs is that of all strata together: a few runs of one tell little of it.
    """
    means = [np.nanmean(values, axis=0) for values in strata]
    apart = [values - mean for values, mean in zip(strata, means, strict=True)]
    levels = [np.nanmean(values, axis=1) for values in apart]
    # Runs lie nearer to their own mean than to that of all runs: by n / (n - 1), in variance.
    courses = [
        (values - level[:, None]) * np.sqrt(len(level) / (len(level) - 1))
        for values, level in zip(apart, levels, strict=True)
    ]
    between = np.array([level.var(ddof=1) for level in levels])
    within = np.array([np.nanmean(course**2) for course in courses])
    whole = between + within
    share = between.sum() / max(whole.sum(), 1e-300)
    spreads = np.sqrt(share * whole)
    scales = np.sqrt((1 - share) * whole / np.maximum(within, 1e-300))
    return [
        Side(mean, float(spread), course * scale, samples)
        for mean, spread, course, scale in zip(means, spreads, courses, scales, strict=True)
    ]


def study(pilot: Pilot, seeds: int, effect: float, rng: np.random.Generator) -> Models:
    """A panel of new runs, ``seeds`` of each batch size, whose levels have the Spearman correlation -``effect``."""
    pearson = 2 * np.sin(np.pi * effect / 6)  # of normal levels: Pearson 1907
    x, y, batch_sizes, epochs = [], [], [], []
    for stratum in pilot.strata:
        level = rng.standard_normal(seeds)
        other = -pearson * level + np.sqrt(1 - pearson**2) * rng.standard_normal(seeds)
        x.append(stratum.x.new(level, rng))
        y.append(stratum.y.new(other, rng))
        batch_sizes.append(np.full(x[-1].shape, stratum.batch_size))
        epochs.append(np.broadcast_to(stratum.epochs, x[-1].shape))
    sizes = [part.shape[1] for part in x for _ in range(seeds)]
    flat = [np.concatenate([part.ravel() for part in parts]) for parts in (x, y, batch_sizes, epochs)]
    runs = np.repeat(np.arange(len(sizes)), sizes)
    known = ~np.isnan(flat[0] + flat[1])
    return Models(
        flat[0][known], flat[1][known], np.unique(runs[known], return_inverse=True)[1], flat[2][known], flat[3][known],
        seeds=(runs % seeds)[known].astype(float),
    )  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """A claim, and by what it is judged.

    Attributes:
        claims: on the scoreboard. p is multiplied by their number, as Holm does with the smallest of all: no other
            claim is taken to be supported, so the true rule finds as much or more.
    """

    claim: str
    relation: Relation
    claims: int
    level: float

    def decides(
        self, pilots: Sequence[Pilot], seeds: int, effect: float, rng: np.random.Generator
    ) -> tuple[bool, bool]:
        """What a study of so many seeds finds: the claim *supported* (*contradicted*, if ``effect`` is below 0), and an
        answer at fixed batch size and epoch that would do for it, if the association does."""
        studies = [study(pilot, seeds, effect, rng) for pilot in pilots]
        of_runs, of_epochs = _permuted(fixed.between_runs, studies, rng), [Permuted()] * len(studies)
        if not self._holds(of_runs):  # else the epochs change nothing
            of_epochs = _permuted(fixed.between_epochs, studies, rng)
            if not self._holds(of_epochs):
                return False, False
        panels = [
            Panel(
                pilot.model, pilot.data, len(models.x), int(models.runs.max()) + 1, **_association(models, rng),
                between_runs=runs, between_epochs=epochs,
            )
            for pilot, models, runs, epochs in zip(pilots, studies, of_runs, of_epochs, strict=True)
        ]  # fmt: skip
        statistics = Statistics(NO_TABLE, {self.relation.title: panels})
        found = relation_claim(self.claim, self.relation, statistics, self.level)
        outcome = judged(replace(found, p_holm=min(1.0, found.p * self.claims)), self.level).outcome
        return outcome == (SUPPORTED if effect >= 0 else CONTRADICTED), True

    def _holds(self, panels: Sequence[Permuted]) -> bool:
        """Whether one of the two answers has a p that is small enough."""
        return 2 * together(panels).p * self.claims <= 1 - self.level


def _permuted(answer: Callable[..., Permuted], studies: Sequence[Models], rng: np.random.Generator) -> list[Permuted]:
    """An answer of each study, with its permutations or what stands for them."""
    few = sum(int(each.runs.max()) + 1 for each in studies) <= PERMUTED
    found = [
        answer(models.blocks(), draws=PERMUTATIONS if few else 0, rng=rng, crossed=models.crossed) for models in studies
    ]
    if few:
        return found
    return [replace(each, null=np.sqrt(each.plain) * rng.standard_normal(PERMUTATIONS)) for each in found]


def _association(models: Models, rng: np.random.Generator) -> dict[str, Any]:
    weights = resampling.drawn_runs(models.strata, draws=DRAWS, rng=rng)
    return association(models, weights, resampling.rank_covariances([models.x, models.y], models.runs, weights))


def check(models: pd.DataFrame) -> None:
    """Refuse, before anything is computed, runs of which no study can be made.

    Raises:
        RunError: no two runs of one panel have the same batch size.
    """
    runs = models.groupby(["model", "data", "batch_size"], observed=True)["run"].nunique()
    if runs.empty or runs.max() < 2:
        raise RunError(
            "plan=true needs two runs that differ in the seed alone, and there are none among the candidate models: "
            "train further seeds, or leave it out"
        )


def power(
    models: pd.DataFrame,
    *,
    effect: float,
    seeds: Sequence[int],
    simulations: int,
    target: float,
    claims: int,
    seed: int = 0,
    level: float = 0.95,
    progress: Callable[[str], object] = lambda line: None,
) -> pd.DataFrame:
    """How often studies of each number of seeds decide each claim of a relation.

    The numbers are tried from the smallest on, until one reaches ``target``; that one, or the largest, is tried with no
    effect as well, to show how often the rule errs.

    Args:
        models: ``Selection.models``.
        effect: Spearman between the runs of one batch size, positive where it agrees with the claim, in (-1, 1).
        seeds: of each batch size, 2 or more.
        claims: on the scoreboard.
        seed: of the simulations.

    Returns:
        ``COLUMNS``, a row per claim, number of seeds and effect. ``share`` of the simulations that decide, with its
        exact interval; ``fixed``: share in which an answer at fixed batch size and epoch would do, whatever the
        association; ``runs`` of a study; ``enough``: whether the share reaches ``target``. A claim that no panel can
        tell anything of has one row without numbers.
    """
    rows: list[dict[str, Any]] = []
    for claim, figure, y in RELATION_CLAIMS:
        if PRS_RATIO not in models or y not in models or models[[PRS_RATIO, y]].dropna().empty:
            continue
        pilots, rule = pilots_of(models, y), Rule(claim, Relation(figure, y), claims, level)
        tried: list[dict[str, Any]] = [] if pilots else [{}]
        numbers = sorted(seeds) if pilots else []
        for number in numbers:
            tried.append(_tried(rule, pilots, number, effect, simulations, seed))
            tried[-1]["enough"] = tried[-1]["share"] >= target
            share = f"{tried[-1]['share']:.0%} of {simulations} simulations"
            progress(f"plan: {claim}: {number} seeds decide in {share}")
            if tried[-1]["enough"]:
                break
        if numbers and effect:
            tried.append(_tried(rule, pilots, number, 0.0, simulations, seed))
        rows += [{"claim": claim, "y": y, "enough": False} | each for each in tried]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(("seeds", "runs", "simulations"), "Int64"))


def planned(effect: float, target: float) -> str:
    """What the table of a plan shows."""
    return (
        f"How often so many seeds of each batch size decide a claim if runs of one batch size correlate by {effect:g}; "
        f"{target:.0%} is enough"
    )


def _tried(
    rule: Rule, pilots: Sequence[Pilot], seeds: int, effect: float, simulations: int, seed: int
) -> dict[str, Any]:
    key = [seed, crc32(f"{rule.relation.y} {effect}".encode()), seeds]
    found = [rule.decides(pilots, seeds, effect, np.random.default_rng([*key, each])) for each in range(simulations)]
    decided, at_fixed = np.sum(found, axis=0).tolist()
    exact = stats.binomtest(decided, simulations).proportion_ci(rule.level, "exact")
    return {
        "effect": effect, "seeds": seeds, "runs": seeds * sum(len(pilot.strata) for pilot in pilots),
        "simulations": simulations, "share": decided / simulations, "low": float(exact.low), "high": float(exact.high),
        "fixed": at_fixed / simulations,
    }  # fmt: skip


def power_table(found: pd.DataFrame) -> pd.DataFrame:
    """``power`` as it is shown: a row per claim, how often each number of seeds decides, and which is enough.

    The last columns are of the last number tried: how often an answer at fixed batch size and epoch is there, and how
    often the claim is decided where no effect is planted.
    """
    numbers = sorted(found["seeds"].dropna().astype(int).unique())
    rows = []
    for claim, tried in found.groupby("claim", sort=False):
        cells = dict.fromkeys(["claim", *(f"{number} seeds" for number in numbers), "enough", *LAST], "")
        none = tried[tried["effect"] == 0].dropna(subset=["seeds"])
        planted = tried[tried["effect"] != 0] if (tried["effect"] != 0).any() else tried
        last = planted.iloc[-1]
        if pd.isna(last["seeds"]):
            rows.append(cells | {"claim": str(claim), "enough": "not measurable"})
            continue
        cells |= {f"{row['seeds']} seeds": f"{row['share']:.0%}" for row in planted.to_dict("records")}
        enough = f"{last['seeds']}" if last["enough"] else f"more than {last['seeds']}"
        ends = (f"{last['fixed']:.0%}", *(f"{share:.0%}" for share in none["share"].tail(1)))
        rows.append(cells | {"claim": str(claim), "enough": enough} | dict(zip(LAST, ends, strict=False)))
    return pd.DataFrame(rows)
