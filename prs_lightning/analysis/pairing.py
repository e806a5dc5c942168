"""Runs of an experiment in pairs: one of an arm and one that was left alone, of the same panel and seed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pandas as pd

from prs_lightning import measures
from prs_lightning.analysis.arms import arm_names
from prs_lightning.analysis.relations import in_words, label, plural
from prs_lightning.analysis.statistics import Array
from prs_lightning.runs.naming import NO_ARM, is_bookkeeping

COMPARED = (
    measures.PRS_RATIO, measures.TEST_ACCURACY, measures.LOGIT_GAP, measures.ROBUST_ACCURACY,
    measures.AUDITED_ACCURACY, measures.TEMPERATURE, measures.DISTANCE,
)  # fmt: skip
"""The measures of the causal section."""


@dataclass(frozen=True)
class Run:
    """A run at the epochs of its grid.

    Attributes:
        name, panel, arm, seed: which it is.
        epochs: (E,), in order.
        values: (E, measures) in the order of ``COMPARED``; NaN where one was not taken.
    """

    name: str
    panel: str
    arm: str
    seed: int
    epochs: Array
    values: Array


@dataclass(frozen=True)
class Pair:
    """A run of an arm and its twin that was left alone."""

    none: Run
    treated: Run

    @property
    def end(self) -> tuple[int, int] | None:
        """The places of the last epoch that both have; None without one."""
        both = np.intersect1d(self.none.epochs, self.treated.epochs)
        if not len(both):
            return None
        first, second = (int(np.flatnonzero(run.epochs == both[-1])[0]) for run in (self.none, self.treated))
        return first, second


def paired(grid: pd.DataFrame) -> tuple[list[Pair], list[str]]:
    """The pairs, sorted by panel, arm and seed, and what is no pair, in words.

    Args:
        grid: a row per run and grid epoch, with ``arm``, ``strength`` and the columns of ``RunTable.rows``.
    """
    grid = grid.assign(arm_name=arm_names(grid)).sort_values(["run", "arm_name", "epoch"], kind="stable")
    first = grid.drop_duplicates(["run", "arm_name"]).reset_index(drop=True)
    first["panel"], messages = panels_of(first)
    found: dict[tuple[str, str, int], list[Run]] = defaultdict(list)
    groups = dict(tuple(grid.groupby(["run", "arm_name"], sort=False)))
    unseeded = first["seed"].isna()
    for run, panel, arm, seed in first.loc[~unseeded, ["run", "panel", "arm_name", "seed"]].to_numpy(object):
        own = groups[run, arm]
        values = own.reindex(columns=[*COMPARED]).to_numpy(float)
        key = (str(panel), str(arm), int(seed))
        found[key].append(Run(str(run), *key, own["epoch"].to_numpy(float), values))
    if unseeded.any():
        messages.append(f"{plural(int(unseeded.sum()), 'run')} without a seed: no pairs")
    alone = {key: runs[0] for key, runs in found.items() if len(runs) == 1}
    for (panel, arm, seed), runs in found.items():
        if len(runs) > 1:
            names = in_words([run.name for run in runs])
            messages.append(f"{panel}: {len(runs)} runs of {arm} with seed {seed} ({names}): none of them is taken")
    pairs, missing = [], defaultdict(list)
    for (panel, arm, seed), run in sorted(alone.items()):
        if arm == NO_ARM:
            continue
        if twin := alone.get((panel, NO_ARM, seed)):
            pairs.append(Pair(twin, run))
        else:
            missing[panel, arm].append(f"{seed}")
    for (panel, arm), seeds in missing.items():
        messages.append(f"{panel}: no run of {NO_ARM} for {arm} with seed{'s' * (len(seeds) > 1)} {in_words(seeds)}")
    return pairs, messages


def panels_of(runs: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Of each run its panel in words, and what keeps runs of one network, data set and batch size apart.

    Runs that differ in anything but seed and intervention (and the width, which is one) are no pairs: they are of
    panels of their own, which say in what they differ.
    """
    keys = [name for name in runs.columns if name.startswith("config.") and _is_setting(name.removeprefix("config."))]
    settings = runs[[*keys, *(["epochs"] if "epochs" in runs else [])]].astype(object)
    settings.columns = [name.removeprefix("config.") for name in settings.columns]
    sizes = runs.groupby(["model", "data"], observed=True)["batch_size"].transform("nunique") > 1
    names = [
        f"{label(str(model))} on {label(str(data))}" + (f", batch size {size:.0f}" if many else "")
        for model, data, size, many in zip(runs["model"], runs["data"], runs["batch_size"], sizes, strict=True)
    ]
    messages = []
    places: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        places[name].append(place)
    for name, inside in places.items():
        own = settings.iloc[inside]
        differing = [str(key) for key in own if own[key].nunique(dropna=False) > 1]
        if differing:
            messages.append(f"{name}: the runs differ in {in_words(differing)}: only those that are alike are pairs")
            for place, values in zip(inside, own[differing].itertuples(index=False, name=None), strict=True):
                names[place] += f", {in_words([f'{k}={_short(v)}' for k, v in zip(differing, values, strict=True)])}"
    return names, messages


def _is_setting(key: str) -> bool:
    own = key.rsplit(".", 1)[-1] in ("seed", "batch_size") or key == "model.width" or key.startswith("intervention")
    return not own and not is_bookkeeping(key)


def _short(value: object) -> str:
    return "default" if value is None or value != value else str(value)
