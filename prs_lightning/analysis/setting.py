"""What was measured, in words: networks, data, runs, the attack, and what was left out and why."""

from __future__ import annotations

from contextlib import suppress

import pandas as pd

from prs_lightning.analysis.relations import in_words, label, plural
from prs_lightning.analysis.selection import Selection
from prs_lightning.measures import ROBUST_ACCURACY

NAMED = 6
"""So many numbers are named; of more, how many there are and from where to where."""


def what_was_measured(selection: Selection, runs: pd.DataFrame) -> str:
    """A paragraph; what is not known, as of networks that were trained elsewhere, is left out.

    Args:
        runs: ``RunTable.runs``.
    """
    models = selection.models
    networks, data = ([label(name) for name in dict.fromkeys(models[column])] for column in ("model", "data"))
    panels = len(models[["model", "data"]].drop_duplicates())
    settings = [numbers(models[column], column.replace("_", " ")) for column in ("batch_size", "seed")]
    told = "No model counts."
    if panels:
        told = f"Measured were {plural(models['run'].nunique(), 'run')} of {in_words(networks)} on {in_words(data)} "
        told += f"({plural(panels, 'panel')})"
        told += f", with {in_words([*filter(None, settings)])}" if any(settings) else ""
        told += f": {plural(len(models), 'model')} at {numbers(models['epoch'], 'epoch')}."
    return " ".join(filter(None, [told, _attack(models), _left_out(selection), _unfinished(runs)]))


def numbers(values: pd.Series, noun: str) -> str:
    """The different integers of a column, with their noun; nothing if none is known.

    >>> numbers(pd.Series([2048, 64, 64]), "batch size"), numbers(pd.Series([3.0]), "seed"), numbers(pd.Series([None]), "seed")
    ('batch sizes 64 and 2,048', 'seed 3', '')
    >>> numbers(pd.Series(range(20)), "seed")
    '20 seeds from 0 to 19'
    """
    known = [f"{int(value):,}" for value in sorted({*values.dropna()})]
    if len(known) > NAMED:
        return f"{plural(len(known), noun)} from {known[0]} to {known[-1]}"
    return f"{noun}{'s' * (len(known) > 1)} {in_words(known)}" if known else ""


def _attack(models: pd.DataFrame) -> str:
    """Epsilon on each data set, and on how many images."""
    if ROBUST_ACCURACY not in models or models[ROBUST_ACCURACY].isna().all():
        return ""
    own, of_data = "config.callbacks.robustness.epsilon", "config.data.epsilon"
    if not {own, of_data} & {*models.columns}:
        return ""
    models = models[models[ROBUST_ACCURACY].notna()]
    epsilons = models[own if own in models else of_data].astype(object)
    where = [
        f"{' or '.join(map(in_pixels, group.dropna().unique()))} on {label(str(data))}"
        for data, group in epsilons.groupby(models["data"], sort=False)
        if group.notna().any()
    ]
    images = models.get("config.callbacks.robustness.limit", pd.Series(dtype=object)).dropna().unique()
    on = f", on {int(images[0]):,} test images" if len(images) == 1 and str(images[0]).isdigit() else ""
    return f"{label(ROBUST_ACCURACY)} is that within epsilon {in_words(where)}{on}." if where else ""


def in_pixels(epsilon: object) -> str:
    """A radius as papers print it.

    >>> in_pixels("0.3"), in_pixels("0.03137254901960784"), in_pixels("own")
    ('0.3', '8/255', 'own')
    """
    with suppress(ValueError):
        levels = float(str(epsilon)) * 255
        whole = abs(levels - round(levels)) < 1e-6
        return f"{round(levels)}/255" if whole and levels else f"{levels / 255:.3g}"
    return str(epsilon)


def _left_out(selection: Selection) -> str:
    """How many candidate models do not count, and why."""
    candidates, measured, kept = (int(count) for count in selection.counts["models"].iloc[1:4])
    limits = [f"{limit:g} on {label(data)}" for data, limit in selection.thresholds.items() if limit]
    why = [
        (candidates - measured, "without a test accuracy"),
        (measured - kept, f"with a test accuracy below the threshold ({in_words(limits)})"),
    ]
    lost = [f"{count:,} {reason}" for count, reason in why if count]
    return f"Of {plural(candidates, 'candidate model')} were left out {in_words(lost)}." if lost else ""


def _unfinished(runs: pd.DataFrame) -> str:
    """Runs that did not end as configured."""
    others = runs["status"][runs["status"] != "finished"].value_counts()
    if others.empty:
        return ""
    kinds = in_words([f"{count} {status}" for status, count in others.items()])
    return f"Not all runs finished: {kinds} of {len(runs):,}."
