"""Figures 2b, 5 and 7b: measures over the epochs of training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from prs_lightning.analysis.figures import style
from prs_lightning.analysis.figures.registry import Drawing, figure
from prs_lightning.analysis.relations import label, rank
from prs_lightning.measures import COSINE_SIMILARITY, LOCAL_COMPLEXITY, PRS_RATIO, ROBUST_ACCURACY, TEST_ACCURACY

POINT = ["data", "model", "batch_size", "epoch"]


def over_seeds(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean and sample standard deviation over the seeds of each (data, model, batch size, epoch).

    Returns:
        Columns data, model, batch_size, epoch, measure, mean, standard_deviation (NaN for one run), n (runs).
    """
    measured = rows.reindex(columns=[*POINT, column]).dropna(subset=[column])
    grouped = measured.groupby(POINT, sort=True, observed=True, dropna=False)[column]
    table = grouped.agg(mean="mean", standard_deviation="std", n="count").reset_index()
    table.insert(len(POINT), "measure", column)
    return table


def settings(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """The (data, model) pairs that occur: networks in the paper's order, the data sets within each."""
    pairs = set(zip(rows["data"].astype(str), rows["model"].astype(str), strict=True))
    return sorted(pairs, key=lambda pair: (rank(pair[1])[0], rank(pair[0])[0], str(pair)))


UNKNOWN = np.inf
"""Stands for the batch size of a network that was trained elsewhere, behind all others."""


def _known(value: float) -> str:
    return str(int(value)) if np.isfinite(value) else "unknown"


def over_epochs(axes: Axes, name: str) -> None:
    """Name the axes of a panel of ``name`` over epochs, with ticks at whole epochs."""
    axes.set(xlabel="epoch", ylabel=name)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _draw(axes: Axes, table: pd.DataFrame, rows: pd.DataFrame, measure: str, apart: str = ", ") -> None:
    """A line per batch size, with a band of one standard deviation; ``table`` is of one network and data set.

    ``apart`` stands between the title's parts.
    """
    over_epochs(axes, label(measure))
    if table.empty:
        style.say(axes, f"{label(measure)}: not measured in these runs")
        return
    least, most = int(table["n"].min()), int(table["n"].max())
    counted = f"{least}" if least == most else f"{least} to {most}"
    first = table.iloc[0]
    axes.set_title(f"{label(first['model'])}, {label(first['data'])}{apart}n = {counted} seed{'s' * (counted != '1')}")
    batch_sizes = sorted(rows["batch_size"].astype(float).fillna(UNKNOWN).unique())
    for batch_size, group in table.groupby(table["batch_size"].astype(float).fillna(UNKNOWN), sort=True):
        # A single epoch is a point: a line through it would be invisible. And between few epochs it is a guess.
        sparse = len(group) < 3 or len(group) < 0.2 * rows["epoch"].max()
        look = style.curve(batch_sizes.index(batch_size)) | {"marker": "o" if sparse else ""}
        style.mean_and_band(axes, group, over="epoch", label=f"batch size {_known(batch_size)}", **look)


BAND = (
    "Mean over seeds, band of one standard deviation (none for a single seed); runs of different length are averaged "
    "over those that reached the epoch. "
)


@figure("5", "Test accuracy, PRS ratio and RA over epochs", needs="rows")
def figure_5(rows: pd.DataFrame) -> Drawing:
    """Test accuracy, PRS ratio, RA and, where it was measured, local complexity over epochs, over seeds."""
    measures = [TEST_ACCURACY, PRS_RATIO, ROBUST_ACCURACY]
    rival = LOCAL_COMPLEXITY in rows and bool(rows[LOCAL_COMPLEXITY].notna().any())
    measures += [LOCAL_COMPLEXITY] if rival else []
    pairs, tables = settings(rows), [over_seeds(rows, measure) for measure in measures]
    height = 1.75 if len(pairs) < 4 else 1.3 if rival else 1.15
    canvas, grid = style.panels(max(len(pairs), 1), len(measures), height=height, sharex="all")
    for line, (data, model) in zip(grid, pairs, strict=False):
        for axes, measure, table in zip(line, measures, tables, strict=True):
            chosen = table[(table["data"] == data) & (table["model"] == model)]
            _draw(axes, chosen, rows, measure, "\n" if rival else ", ")
            if measure != LOCAL_COMPLEXITY:
                style.ratio_limits(axes, chosen["mean"].to_numpy(float))
    if not pairs:
        for axes in grid.flat:
            style.say(axes, "no epoch was measured")
    style.legend(canvas)
    caption = BAND + (
        "To see: the paper says that the PRS ratio falls and RA rises as training goes on, after test accuracy has "
        "levelled off, and that smaller batches go further."
    )
    if rival:
        caption += (
            " Local complexity (Humayun et al. 2024), the mean number of penultimate units whose sign changes in a "
            "small ball around a sample, is measured at the grid's epochs and is the rival explanation: if it falls "
            "where RA rises, it is what happens near the samples that counts, not how many regions these populate."
        )
    return caption, canvas, pd.concat(tables, ignore_index=True)


@figure("7b", "Cosine similarity of the final layer's weights over epochs", needs="rows")
def figure_7b(rows: pd.DataFrame) -> Drawing:
    """Mean cosine similarity of the final layer's weights over epochs, mean and standard deviation over seeds."""
    table, pairs = over_seeds(rows, COSINE_SIMILARITY), settings(rows)
    shown = max(len(pairs), 1)
    canvas, grid = style.panels(-(-shown // 3), min(shown, 3), height=1.75)
    for axes in grid.flat[shown:]:
        axes.set_axis_off()
    for axes, (data, model) in zip(grid.flat, pairs, strict=False):
        axes.set_title(f"{label(model)}, {label(data)}")
        _draw(axes, table[(table["data"] == data) & (table["model"] == model)], rows, COSINE_SIMILARITY)
    if not pairs:
        style.say(grid[0, 0], "no epoch was measured")
    style.legend(canvas)
    caption = BAND + (
        "To see: whether the weight vectors of the classes draw together (similarity rises) as training goes on. Ten "
        "vectors cannot all point apart by more than a mean similarity of -1/9."
    )
    return caption, canvas, table


def contrasting_runs(rows: pd.DataFrame) -> list[str]:
    """The runs of one network and data set whose PRS ratios at their last epochs lie furthest apart, larger first.

    Of each (data, model) the widest difference counts; one run if there is no second, none if nothing was measured.
    """
    if PRS_RATIO not in rows:
        return []
    measured = rows.dropna(subset=[PRS_RATIO]).sort_values("epoch")
    last = measured.groupby(["data", "model", "run"], sort=True, observed=True)[PRS_RATIO].last().reset_index()
    if last.empty:
        return []
    groups = (group for _, group in last.groupby(["data", "model"], observed=True))
    widest = max(groups, key=lambda group: np.ptp(group[PRS_RATIO])).sort_values(PRS_RATIO, ascending=False)
    return list(dict.fromkeys(widest["run"].iloc[[0, -1]].astype(str)))


@figure("2b", "Accuracy and PRS ratio over epochs", needs="rows")
def figure_2b(rows: pd.DataFrame) -> Drawing:
    """Accuracy on the training and test set, and PRS ratio, over the epochs of two contrasting runs."""
    runs = contrasting_runs(rows)
    canvas, grid = style.panels(1, 2, height=2.1)
    accuracy, ratio = grid[0]
    numbers = []
    for position, run in enumerate(runs):
        chosen = rows[rows["run"] == run].sort_values("epoch")
        first = chosen.iloc[0]
        name = f"{label(str(first['model']))}, {label(str(first['data']))}, "
        name += f"batch {_known(first['batch_size'])}, seed {_known(first['seed'])}"
        for measure, axes, line, words in (
            ("train/accuracy", accuracy, "--", f"{name}: {label('train/accuracy')}"),
            (TEST_ACCURACY, accuracy, "-", f"{name}: test accuracy, PRS ratio"),
            (PRS_RATIO, ratio, "-", None),
        ):
            if measure not in chosen:
                continue
            known = chosen.dropna(subset=[measure])
            look = style.points(position) | {"marker": "o" if len(known) < 3 else ""}
            axes.plot(known["epoch"], known[measure], line, label=words, **look)
            numbers.append(known[["run", "epoch"]].assign(measure=measure, value=known[measure]))
    for axes, words in ((accuracy, "accuracy"), (ratio, label(PRS_RATIO))):
        over_epochs(axes, words)
        if axes.lines:
            style.ratio_limits(axes, np.concatenate([line.get_ydata() for line in axes.lines]))
        else:
            style.say(axes, "the PRS ratio was not measured in these runs")
    style.legend(canvas, columns=1 if len(grid[0, 0].lines) < 3 else 2)
    two = "two runs of one network and data set whose final PRS ratios differ most"
    caption = (
        f"Shown: {two if len(runs) == 2 else 'the one run there is'}. To see: accuracy settles within a few epochs, "
        "while the PRS ratio goes on changing, so it tells networks apart that test accuracy cannot."
    )
    columns = ["run", "epoch", "measure", "value"]
    return caption, canvas, pd.concat(numbers, ignore_index=True) if numbers else pd.DataFrame(columns=columns)
