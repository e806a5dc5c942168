"""Figures 17 and 18: what interventions did to PRS ratio and robust accuracy, each run beside its twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from prs_lightning.analysis.arms import SCALED
from prs_lightning.analysis.causes import in_order
from prs_lightning.analysis.contrasts import difference
from prs_lightning.analysis.doses import ABSOLUTE, dose_of
from prs_lightning.analysis.figures import style
from prs_lightning.analysis.figures.registry import Drawing, figure
from prs_lightning.analysis.pairing import COMPARED, Pair, paired
from prs_lightning.analysis.relations import label, plural
from prs_lightning.measures import AUDITED_ACCURACY, PRS_RATIO, ROBUST_ACCURACY
from prs_lightning.runs.naming import NO_ARM

RA = (AUDITED_ACCURACY, ROBUST_ACCURACY)
COLUMNS = [PRS_RATIO, *RA]


def ends(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Both runs of each pair at its end: ``panel, arm, seed``, ``side`` (none or arm), ``epoch``, and ``COLUMNS``."""
    rows = []
    for pair in pairs:
        for side, run, place in zip(("none", "arm"), (pair.none, pair.treated), pair.end or (), strict=False):
            values = dict(zip(COMPARED, run.values[place], strict=True))
            told = {"panel": run.panel, "arm": pair.treated.arm, "seed": run.seed, "side": side}
            rows.append(told | {"epoch": int(run.epochs[place])} | {name: values[name] for name in COLUMNS})
    return pd.DataFrame(rows, columns=["panel", "arm", "seed", "side", "epoch", *COLUMNS])


def look(position: int) -> dict[str, Any]:
    """Colour and marker of the ``position``-th of up to 49 arms; no two are alike."""
    turn = position // len(style.COLOURS)
    return {"color": style.points(position)["color"], "marker": style.points(position + turn)["marker"]}


@figure("17", "What interventions did to PRS ratio and robust accuracy", needs="arms")
def figure_17(rows: pd.DataFrame) -> Drawing:
    """A panel per data set and network: lines from each run of ``none`` to its twins, and the means of the arms."""
    table = ends(paired(rows)[0])
    panels, arms = list(dict.fromkeys(table["panel"])), in_order({*table["arm"]})
    canvas, grid = style.panels(-(-max(len(panels), 1) // 2), min(max(len(panels), 1), 2), height=3.3)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        own = table[table["panel"] == panel]
        for position, arm in enumerate(arms):
            of_arm = own[own["arm"] == arm]
            if len(of_arm):
                _plane(axes, of_arm, arm, **look(position))
        alone = own[own["side"] == "none"].drop_duplicates(["seed", "epoch"])
        _marked(axes, alone, NO_ARM, color=style.BLACK, marker="*", markersize=9, zorder=3)
        axes.set(xlabel=label(PRS_RATIO), ylabel="RA")
        axes.set_title(f"{panel}, {plural(alone['seed'].nunique(), 'seed')}")
        style.ratio_limits(axes, own[PRS_RATIO].to_numpy(float), which="x")
    for name, inside in zip(RA, (style.GREY, "white"), strict=True):
        grid[0, 0].plot([], [], "o", color=style.GREY, markerfacecolor=inside, label=label(name))
    if not panels:
        style.say(grid[0, 0], "no run of an arm has a twin that was left alone")
    style.legend(canvas)
    caption = (
        f"Each thin line leads from a run that was left alone to the run of the same seed with an intervention, "
        f"at the last grid epoch of both; large markers are the means over seeds. Filled: {label(AUDITED_ACCURACY)}; "
        f"hollow, on dashed lines: {label(ROBUST_ACCURACY)}. To see: whether arms that were moved to the left, to "
        "fewer regions, rise with their filled markers, and those moved to the right fall. Where the hollow marker "
        f"rises alone, the attack lost its gradient: as in {SCALED}, the same networks with larger logits."
    )
    return caption, canvas, table


def _plane(axes: Axes, pairs: pd.DataFrame, arm: str, **shown: Any) -> None:
    """The lines of one arm, and its means."""
    for _, pair in pairs.groupby("seed"):
        for name, line in zip(RA, ("-", (0, (2, 2))), strict=True):
            axes.plot(pair[PRS_RATIO], pair[name], color=shown["color"], linestyle=line, linewidth=0.5, alpha=0.45)
    _marked(axes, pairs[pairs["side"] == "arm"], arm, **shown)


def _marked(axes: Axes, runs: pd.DataFrame, name: str, **shown: Any) -> None:
    """The means of some runs, filled and hollow."""
    at = runs[COLUMNS].mean()
    options: dict[str, Any] = {"linestyle": "", "markersize": 5.5, "zorder": 4} | shown
    axes.plot(at[PRS_RATIO], at[ROBUST_ACCURACY], markerfacecolor="white", **options)
    axes.plot(at[PRS_RATIO], at[AUDITED_ACCURACY], label=name, markeredgecolor="white", markeredgewidth=0.5, **options)


def doses(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Of each intervention with two strengths or more: every run at its end, and where it stands among the doses.

    Returns:
        ``panel, intervention, dose`` (0: ``none``, where that is one), ``strength, seed, epoch`` and ``COLUMNS``.
    """
    table = ends(pairs)
    single = {arm: dose for arm in table["arm"].unique() if (dose := dose_of(arm))}
    table = table[table["arm"].isin([*single])].copy()
    table["intervention"] = [single[arm][0] for arm in table["arm"]]
    table["strength"] = [single[arm][1] for arm in table["arm"]]
    table = table[~(table["intervention"].isin(ABSOLUTE) & (table["side"] == "none"))]
    table.loc[table["side"] == "none", "strength"] = 0.0
    table = table.drop_duplicates(["panel", "intervention", "strength", "seed"])
    several = table["strength"].where(table["strength"] > 0).groupby(table["intervention"]).transform("nunique") > 1
    table = table[several].reset_index(drop=True)
    table["dose"] = (table.groupby("intervention")["strength"].rank("dense") - 1).astype(int)
    return table[["panel", "intervention", "dose", "strength", "seed", "epoch", *COLUMNS]]


@figure("18", "Dose and response", needs="arms")
def figure_18(rows: pd.DataFrame) -> Drawing:
    """A column per data set and network, a row per intervention at several strengths: both RAs over the dose."""
    table = doses(paired(rows)[0])
    panels, interventions = list(dict.fromkeys(table["panel"])), in_order({*table["intervention"]})
    shape = max(len(interventions), 1), max(len(panels), 1)
    canvas, grid = style.panels(*shape, height=2.1, sharey="col")
    summaries = []
    for line, panel in zip(grid.T, panels, strict=False):
        for axes, intervention in zip(line, interventions, strict=True):
            own = table[(table["panel"] == panel) & (table["intervention"] == intervention)]
            axes.set(xlabel=f"strength of {intervention}", ylabel="RA" if panel == panels[0] else "")
            axes.set_title(panel)
            if own.empty:
                style.say(axes, "not run here")
                continue
            for position, name in enumerate(RA):
                summary = over_doses(own, name)
                _response(axes, own, name, summary, **style.points(position))
                summaries.append(summary.assign(panel=panel, intervention=intervention))
            ticks = own.drop_duplicates("dose").sort_values("dose")
            axes.set_xticks(ticks["dose"], [NO_ARM if not each else f"{each:g}" for each in ticks["strength"]])
        style.ratio_limits(line[0], table.loc[table["panel"] == panel, [*RA]].to_numpy(float).ravel())
    if not panels:
        style.say(grid[0, 0], "no intervention was run at two strengths")
    style.legend(canvas)
    caption = (
        "Each thin line is a seed, each marker the mean over seeds; its bar is the 95% interval of the differences "
        "from the first dose, seed by seed, around that mean. To see: whether RA after the audit follows the dose, or "
        "RA under cross-entropy alone does."
    )
    return caption, canvas, pd.concat([table, *summaries], ignore_index=True)


def over_doses(own: pd.DataFrame, name: str, level: float = 0.95) -> pd.DataFrame:
    """``dose, measure, mean, low, high``: the mean over seeds; the interval is of paired differences from the first."""
    wide = own.pivot_table(name, "seed", "dose")
    rows = []
    for dose in map(int, wide.columns):
        both = wide[[wide.columns[0], dose]].dropna().to_numpy(float).T
        row = {"dose": dose, "measure": name, "mean": both[1].mean(), "low": np.nan, "high": np.nan}
        if dose != wide.columns[0]:
            low, high = difference(*both).interval(level)
            row |= {"low": both[0].mean() + low, "high": both[0].mean() + high}
        rows.append(row)
    return pd.DataFrame(rows, columns=["dose", "measure", "mean", "low", "high"])


def _response(axes: Axes, own: pd.DataFrame, name: str, summary: pd.DataFrame, **shown: Any) -> None:
    """The seeds' lines, and means with intervals."""
    for _, seed in own.sort_values("dose").groupby("seed"):
        axes.plot(seed["dose"], seed[name], color=shown["color"], linewidth=0.5, alpha=0.45)
    sides = (summary["mean"] - summary["low"], summary["high"] - summary["mean"])
    beside = summary["dose"] + (0.03 if name == ROBUST_ACCURACY else -0.03)  # or one would hide the other
    axes.errorbar(beside, summary["mean"], yerr=np.array(sides), label=label(name), capsize=2, markersize=4.5, **shown)
