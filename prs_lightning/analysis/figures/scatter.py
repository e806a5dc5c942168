"""Figures 4, 4b, 8, 10, 12, 14 and 15: one point per candidate model, one regression line per data set."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from prs_lightning.analysis.figures import style
from prs_lightning.analysis.figures.registry import Drawing, figure
from prs_lightning.analysis.relations import RELATIONS, Relation, label, plural, rank
from prs_lightning.analysis.statistics import ols, residual
from prs_lightning.measures import MASKING_GAP, find

IDENTITY = ["model", "data", "run", "epoch", "batch_size", "seed"]
COLUMNS = ["panel", *IDENTITY, "x", "y", "slope", "intercept", "n_models", "n_runs"]


def points(models: pd.DataFrame, relation: Relation) -> pd.DataFrame:
    """The points of a panel with the line of their model and data set; empty where a column was not measured."""
    measured = set(relation.columns) <= set(models.columns)
    known = models.dropna(subset=relation.columns) if measured else models.iloc[:0]
    drawn, panel = [], " against ".join(reversed(relation.axes))
    for _, group in known.groupby(["model", "data"], sort=False, observed=True):
        x, y, *fixed = (group[name].to_numpy(dtype=float) for name in relation.columns)
        if fixed:
            x, y = residual(x, *fixed), residual(y, *fixed)
        slope, intercept, *_ = ols(x, y)
        numbers: dict[str, Any] = {"x": x, "y": y, "slope": slope, "intercept": intercept}
        numbers |= {"panel": panel, "n_models": len(group), "n_runs": group["run"].nunique()}
        drawn.append(group[IDENTITY].assign(**numbers)[COLUMNS])
    return pd.concat(drawn, ignore_index=True) if drawn else pd.DataFrame(columns=COLUMNS)


def _draw(axes: Axes, chosen: pd.DataFrame, data: list[str]) -> None:
    lines, counts = [], []
    for position, name in enumerate(data):
        group = chosen[chosen["data"] == name]
        if group.empty:
            continue
        first, x, look = group.iloc[0], group["x"].to_numpy(float), style.points(position)
        axes.scatter(x, group["y"], s=9, alpha=0.55, linewidths=0, label=label(name), **look)
        if np.isfinite(first["slope"]):
            line, ends = f"slope {first['slope']:.3g}", np.array([x.min(), x.max()])
            axes.plot(ends, first["intercept"] + first["slope"] * ends, color=look["color"], linewidth=1.4)
        else:
            line = "too few models for a line" if len(x) < 3 else "no line, x is constant"
        lines.append(f"{label(name)}: {line}")
        counts.append(f", n = {len(group)} ({plural(int(first['n_runs']), 'run')})")
    title = axes.get_title()
    if len(counts) > 1 and len({*counts}) == 1:  # said once
        title, counts = f"{title}{counts[0]} each", [""] * len(lines)
    axes.set_title("\n".join([title, *(line + count for line, count in zip(lines, counts, strict=True))]))


def scatter(models: pd.DataFrame, to_see: str, *figures: str, one_scale: bool = False) -> Drawing:
    """The relations of ``figures`` for every architecture in ``models``: a row per relation, a column per architecture.

    With one architecture the panels stand side by side, up to three in a row; four stand two by two. ``one_scale``
    gives all panels of shares the same y axis.
    """
    wanted = [relation for relation in RELATIONS if relation.figure in figures]
    architectures = sorted(models["model"].astype(str).unique(), key=rank) or ["no network"]
    data = sorted(models["data"].astype(str).unique(), key=rank)
    alone = len(architectures) == 1
    columns = 2 if len(wanted) == 4 else min(len(wanted), 3)
    shape = (-(-len(wanted) // columns), columns) if alone else (len(wanted), len(architectures))
    tables = [points(models, relation) for relation in wanted]
    # A row of panels that only say why they are empty takes less of the page.
    wide = columns if alone else 1
    lines = [tables[start : start + wide] for start in range(0, len(tables), wide)]
    small = not alone or len(lines) > 1
    heights = [0.45 if small and all(table.empty for table in line) else 1.0 for line in lines]
    canvas, grid = style.panels(*shape, height=2.25 * sum(heights) / len(heights), height_ratios=heights)
    together = pd.concat(tables, ignore_index=True)
    shares = [table["y"] for relation, table in zip(wanted, tables, strict=True) if _is_share(relation.y)]
    shown = product(zip(wanted, tables, strict=True), architectures)
    for axes, ((relation, found), architecture) in zip(grid.flat, shown, strict=False):
        chosen = found[found["model"] == architecture]
        axes.set(title=label(architecture), xlabel=relation.axes[0], ylabel=relation.axes[1])
        if chosen.empty:
            axes.set(xlabel="", ylabel="")  # what is said names the measure, and the panel may be lower than its name
            style.say(axes, _why_empty(models, relation))
            continue
        _draw(axes, chosen, data)
        scale = pd.concat(shares) if one_scale and shares else chosen["y"]
        for which, name, values in (("x", relation.x, chosen["x"]), ("y", relation.y, scale)):
            if _is_share(name) and not relation.controls:
                style.ratio_limits(axes, values.to_numpy(float), which=which)
        if chosen["run"].nunique() == 1:
            style.note(axes, "one run only")
    style.legend(canvas)
    return LINES + to_see, canvas, together


def _is_share(name: str) -> bool:
    """Whether it lies in [0, 1]; the masking gap is a difference of shares, and seen best at its own scale."""
    measure = find(name)
    return measure is not None and measure.unit == "share" and name != MASKING_GAP


def _why_empty(models: pd.DataFrame, relation: Relation) -> str:
    if models.empty:
        return "no model passed the selection"
    absent = [name for name in relation.columns if name not in models or models[name].isna().all()]
    if absent:
        return f"{' and '.join(label(name) for name in absent)}: not measured in these runs"
    return "not measured for this network"


LINES = (
    "Each point is one model (a run at an epoch of the grid), each line the least-squares fit of one data set; points "
    "of one run are not independent, so read the slopes with the intervals of the statistics. "
)


@figure("4", "RA against PRS ratio", needs="models")
def figure_4(models: pd.DataFrame) -> Drawing:
    """PRS ratio against RA."""
    to_see = (
        "To see: the paper says that a lower PRS ratio goes with a higher RA, that is lines that fall from left to "
        "right."
    )
    return scatter(models, to_see, "4")


@figure("4b", "RA after the audit against PRS ratio", needs="models")
def figure_4b(models: pd.DataFrame) -> Drawing:
    """RA after the audit against PRS ratio, beside figure 4."""
    to_see = (
        "RA under PGD-20 with cross-entropy (as in figure 4), after the survivors were attacked again with the margin "
        "loss (the audit) or with the scale-free DLR loss, and under AutoAttack. To see: whether lines that fall under "
        "cross-entropy still fall when saturated gradients no longer hide the decision boundary; if they turn flat, "
        "the relation was one of masking. RA at any temperature is the least under cross-entropy of logits / T, which "
        "changes no prediction; the distance to the decision boundary is a number that no attack's budget limits."
    )
    return scatter(models, to_see, "4", "4b", one_scale=True)


@figure("8", "Cosine similarity of the final layer's weights against PRS ratio", needs="models")
def figure_8(models: pd.DataFrame) -> Drawing:
    """PRS ratio against the cosine similarity of the final layer's weights."""
    to_see = (
        "To see: whether a lower PRS ratio goes with a higher mean cosine similarity of the final layer's weight "
        "vectors."
    )
    return scatter(models, to_see, "8")


@figure("10", "Inclusion ratio against PRS ratio", needs="models")
def figure_10(models: pd.DataFrame) -> Drawing:
    """PRS ratio against the inclusion ratio."""
    to_see = "To see: whether test samples fall into the training set's regions more often where these are few."
    return scatter(models, to_see, "10")


@figure("12", "Sparsity against PRS ratio", needs="models")
def figure_12(models: pd.DataFrame) -> Drawing:
    """PRS ratio against the sparsity of the features."""
    to_see = (
        "Sparsity is the share of zeros in the ReLU outputs over the training set, mean over layers. To see: "
        "whether networks with few populated regions have sparser features."
    )
    return scatter(models, to_see, "12")


@figure("14", "Masking gap and zero-gradient share against PRS ratio", needs="models")
def figure_14(models: pd.DataFrame) -> Drawing:
    """Masking gap and zero-gradient share against the PRS ratio."""
    to_see = (
        "The masking gap is RA under cross-entropy minus RA after the audit; the zero-gradient share counts samples "
        "whose loss gradient is exactly 0, which no sign step can move. To see: if both rise towards low PRS ratios, "
        "the robustness of low-PRS networks is partly an attack that could not move."
    )
    return scatter(models, to_see, "14")


@figure("15", "What the PRS ratio is made of: dead units", needs="models")
def figure_15(models: pd.DataFrame) -> Drawing:
    """Dead units against the PRS ratio, and RA against the PRS ratio at fixed dead units."""
    to_see = (
        "Dead units are penultimate units that are positive for no training sample. The second panel shows what is "
        "left of RA and PRS ratio once their linear dependence on the dead units of the same network and data set is "
        "taken out (an added-variable plot); its lines are fitted on that, and so are those of the statistics. To see: "
        "if the ratio follows from the dead units alone, the first relation is tight and the second flat."
    )
    return scatter(models, to_see, "15")
