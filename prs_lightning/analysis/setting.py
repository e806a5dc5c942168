"""What was measured, in words: networks, data, runs, the attack, and what was left out and why."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import pandas as pd

from prs_lightning.analysis.arms import left_alone, others_in_words
from prs_lightning.analysis.relations import in_words, label, plural, rank
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
    networks, data = (
        in_words([label(name) for name in sorted({*models[column].astype(str)}, key=rank)])
        for column in ("model", "data")
    )
    panels = len(models[["model", "data"]].drop_duplicates())
    settings = [numbers(models[column], column.replace("_", " ")) for column in ("batch_size", "seed")]
    told = "No model counts."
    if panels:
        runs_here = models["run"].nunique()
        told = f"Measured w{'as' if runs_here == 1 else 'ere'} {plural(runs_here, 'run')} of {networks} on {data} "
        told += f"({plural(panels, 'panel')})"
        told += f", with {in_words([*filter(None, settings)])}" if any(settings) else ""
        told += f": {plural(len(models), 'model')} at {numbers(models['epoch'], 'epoch')}."
    alone = left_alone(runs)
    return " ".join(filter(None, [told, _attack(models), _left_out(selection), _unfinished(alone), _interfered(runs)]))


def numbers(values: pd.Series, noun: str) -> str:
    """The different integers of a column, with their noun; nothing if none is known.

    >>> numbers(pd.Series([2048, 64, 64]), "batch size"), numbers(pd.Series([3.0]), "seed")
    ('batch sizes 64 and 2,048', 'seed 3')
    >>> numbers(pd.Series(range(20)), "seed"), numbers(pd.Series([None]), "seed")
    ('20 seeds from 0 to 19', '')
    """
    known = [f"{int(value):,}" for value in sorted({*values.dropna()})]
    if len(known) > NAMED:
        return f"{plural(len(known), noun)} from {known[0]} to {known[-1]}"
    return f"{noun}{'s' * (len(known) > 1)} {in_words(known)}" if known else ""


def _attack(models: pd.DataFrame) -> str:
    """Epsilon on each data set, and on how many images."""
    columns = ("config.callbacks.robustness.epsilon", "config.data.epsilon")
    own = next((column for column in columns if column in models), "")
    if not own or ROBUST_ACCURACY not in models or models[ROBUST_ACCURACY].isna().all():
        return ""
    epsilons = models.loc[models[ROBUST_ACCURACY].notna(), ["data", own]].dropna().drop_duplicates().astype(str)
    where = where_the_same([(in_pixels(epsilon), data) for data, epsilon in epsilons.itertuples(index=False)])
    images = models.get("config.callbacks.robustness.limit", pd.Series(dtype=object)).dropna().unique()
    on = f", on {int(images[0]):,} test images" if len(images) == 1 and str(images[0]).isdigit() else ""
    return f"{label(ROBUST_ACCURACY)} is that within epsilon {where}{on}." if where else ""


def where_the_same(pairs: Iterable[tuple[str, str]]) -> str:
    """Each value with the data sets that have it, given as (value, data set).

    >>> where_the_same([("0.1", "fashion_mnist"), ("0.3", "mnist5k"), ("0.3", "mnist")])
    '0.3 on MNIST and MNIST-5k and 0.1 on F-MNIST'
    """
    found: dict[str, list[str]] = {}
    for value, data in sorted(pairs, key=lambda pair: rank(pair[1])):
        found.setdefault(value, []).append(label(data))
    return in_words([f"{value} on {in_words(data)}" for value, data in found.items()])


def in_pixels(epsilon: object) -> str:
    """A radius as papers print it.

    >>> in_pixels("0.3"), in_pixels("0.03137254901960784"), in_pixels("0"), in_pixels("own")
    ('0.3', '8/255', '0', 'own')
    """
    with suppress(ValueError):
        levels = float(str(epsilon)) * 255
        whole = abs(levels - round(levels)) < 1e-6
        return f"{round(levels)}/255" if whole and levels else f"{levels / 255:.3g}"
    return str(epsilon)


def _left_out(selection: Selection) -> str:
    """How many candidate models do not count, and why."""
    candidates, measured, kept = (int(count) for count in selection.counts["models"].iloc[-3:])
    limits = where_the_same([(f"{limit:g}", data) for data, limit in selection.thresholds.items() if limit])
    why = [
        (candidates - measured, "without a test accuracy"),
        (measured - kept, f"with a test accuracy below the threshold ({limits})"),
    ]
    lost = [f"{count:,} {reason}" for count, reason in why if count]
    return f"Left out of {plural(candidates, 'candidate model')}: {in_words(lost)}." if lost else ""


def _unfinished(runs: pd.DataFrame) -> str:
    """Runs that did not end as configured."""
    others = runs["status"][runs["status"] != "finished"].value_counts()
    if others.empty:
        return ""
    kinds = in_words([f"{count} {status}" for status, count in others.items()])
    return f"Not all runs finished: {kinds} of {len(runs):,}."


def _interfered(runs: pd.DataFrame) -> str:
    """Runs that do not count here as something was done to them."""
    others = others_in_words(runs)
    return f"Not counted here, but in the section on causes: {others}." if others else ""
