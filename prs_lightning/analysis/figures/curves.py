"""Figures 2b, 5 and 7b: measures over the epochs of training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from prs_lightning.analysis.figures.registry import figure
from prs_lightning.analysis.figures.style import (
    COLOURS,
    LINES,
    Drawing,
    legend,
    mean_and_band,
    over_epochs,
    panels,
    ratio_limits,
    say,
)
from prs_lightning.analysis.relations import DATA_LABELS, MODEL_LABELS, label
from prs_lightning.measures import COSINE_SIMILARITY, PRS_RATIO, ROBUST_ACCURACY, TEST_ACCURACY

GROUP = ["data", "model", "batch_size"]


def over_seeds(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean and sample standard deviation over the seeds of each (data, model, batch size, epoch).

    Returns:
        Columns data, model, batch_size, epoch, measure, mean, standard_deviation (NaN for one run), n (runs).
    """
    columns = [*GROUP, "epoch", "measure", "mean", "standard_deviation", "n"]
    measured = rows.reindex(columns=[*GROUP, "epoch", column]).dropna(subset=[column])
    grouped = measured.groupby([*GROUP, "epoch"], sort=True, observed=True)[column]
    table = grouped.agg(mean="mean", standard_deviation="std", n="count").reset_index()
    return table.assign(measure=column)[columns]


def settings(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """The (data, model) pairs that occur: networks in the paper's order, the data sets within each."""

    def place(pair: tuple[str, str]) -> tuple[int, int, str]:
        data, model = (
            list(known).index(name) if name in known else len(known)
            for name, known in zip(pair, (DATA_LABELS, MODEL_LABELS), strict=True)
        )
        return model, data, str(pair)

    return sorted(set(zip(rows["data"].astype(str), rows["model"].astype(str), strict=True)), key=place)


def _draw(axes: Axes, table: pd.DataFrame, rows: pd.DataFrame, measure: str, handles: dict[str, object]) -> None:
    """A line per batch size, with a band of one standard deviation; ``table`` is of one network and data set."""
    over_epochs(axes, label(measure))
    if table.empty:
        say(axes, f"{label(measure)}: not measured in these runs")
        return
    least, most = int(table["n"].min()), int(table["n"].max())
    counted = f"{least}" if least == most else f"{least} to {most}"
    first = table.iloc[0]
    axes.set_title(f"{label(first['model'])}, {label(first['data'])}, n = {counted} seed{'s' * (counted != '1')}")
    batch_sizes = sorted(rows["batch_size"].dropna().astype(float).unique())
    for batch_size, group in table.groupby(table["batch_size"].astype(float), sort=True):
        position = batch_sizes.index(batch_size)
        values = group.set_index("epoch")
        line = mean_and_band(
            axes, values["mean"], values["standard_deviation"], color=COLOURS[position % len(COLOURS)],
            # A single epoch is a point: a line through it would be invisible.
            linestyle=LINES[position % len(LINES)], marker="o" if len(group) < 3 else "",
        )  # fmt: skip
        handles.setdefault(f"batch size {int(batch_size)}", line)


BAND = (
    "Mean over seeds, band of one standard deviation (none for a single seed); runs of different length are averaged "
    "over those that reached the epoch. "
)


@figure("5", "Test accuracy, PRS ratio and RA over epochs", needs="rows")
def figure_5(rows: pd.DataFrame) -> Drawing:
    """Test accuracy, PRS ratio and RA over epochs, mean and standard deviation over seeds."""
    measures = (TEST_ACCURACY, PRS_RATIO, ROBUST_ACCURACY)
    pairs, tables = settings(rows), [over_seeds(rows, measure) for measure in measures]
    canvas, grid = panels(max(len(pairs), 1), 3, height=1.75 if len(pairs) < 4 else 1.15, sharex="all")
    handles: dict[str, object] = {}
    for line, (data, model) in zip(grid, pairs, strict=False):
        for axes, measure, table in zip(line, measures, tables, strict=True):
            chosen = table[(table["data"] == data) & (table["model"] == model)]
            _draw(axes, chosen, rows, measure, handles)
            axes.title.set_fontsize(6.5)
            ratio_limits(axes, chosen["mean"].to_numpy(float))
    if not pairs:
        for axes in grid.flat:
            say(axes, "no epoch was measured")
    legend(canvas, handles)
    caption = BAND + (
        "To see: the paper says that the PRS ratio falls and RA rises as training goes on, after test accuracy has "
        "levelled off, and that smaller batches go further."
    )
    return caption, canvas, pd.concat(tables, ignore_index=True)


@figure("7b", "Cosine similarity of the final layer's weights over epochs", needs="rows")
def figure_7b(rows: pd.DataFrame) -> Drawing:
    """Mean cosine similarity of the final layer's weights over epochs, mean and standard deviation over seeds."""
    table, pairs = over_seeds(rows, COSINE_SIMILARITY), settings(rows)
    columns = min(max(len(pairs), 1), 3)
    canvas, grid = panels(-(-max(len(pairs), 1) // columns), columns, height=1.75)
    handles: dict[str, object] = {}
    for axes in grid.flat[max(len(pairs), 1) :]:
        axes.set_axis_off()
    for axes, (data, model) in zip(grid.flat, pairs, strict=False):
        axes.set_title(f"{label(model)}, {label(data)}")
        chosen = table[(table["data"] == data) & (table["model"] == model)]
        _draw(axes, chosen, rows, COSINE_SIMILARITY, handles)
    if not pairs:
        say(grid[0, 0], "no epoch was measured")
    legend(canvas, handles)
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
    spread = last.groupby(["data", "model"], observed=True)[PRS_RATIO].transform(lambda r: r.max() - r.min())
    widest = last.iloc[int(spread.to_numpy().argmax())]
    alike = (last["data"] == widest["data"]) & (last["model"] == widest["model"])
    group = last[alike].sort_values(PRS_RATIO, ascending=False)
    return list(dict.fromkeys([str(group["run"].iloc[0]), str(group["run"].iloc[-1])]))


@figure("2b", "Accuracy and PRS ratio over epochs", needs="rows")
def figure_2b(rows: pd.DataFrame) -> Drawing:
    """Accuracy on the training and test set, and PRS ratio, over the epochs of two contrasting runs."""
    runs = contrasting_runs(rows)
    canvas, grid = panels(1, 2, height=2.1)
    numbers, handles = [], {}
    for position, run in enumerate(runs):
        chosen = rows[rows["run"] == run].sort_values("epoch")
        first = chosen.iloc[0]
        name = f"{label(str(first['model']))}, {label(str(first['data']))}, "
        name += f"batch {int(first['batch_size'])}, seed {int(first['seed'])}"
        for measure, axes, line in (
            ("train/accuracy", grid[0, 0], "--"),
            (TEST_ACCURACY, grid[0, 0], "-"),
            (PRS_RATIO, grid[0, 1], "-"),
        ):
            if measure not in chosen:
                continue
            known = chosen.dropna(subset=[measure])
            look = {"color": COLOURS[position], "marker": "o" if len(known) < 3 else ""}
            (drawn,) = axes.plot(known["epoch"], known[measure], line, **look)
            words = "test accuracy, PRS ratio" if measure == TEST_ACCURACY else label(measure)
            if measure != PRS_RATIO:
                handles[f"{name}: {words}"] = drawn
            numbers.append(known[["run", "epoch"]].assign(measure=measure, value=known[measure]))
    for axes, words in zip(grid.flat, ("accuracy", label(PRS_RATIO)), strict=True):
        over_epochs(axes, words)
        if axes.lines:
            ratio_limits(axes, np.concatenate([line.get_ydata() for line in axes.lines]))
        else:
            say(axes, "the PRS ratio was not measured in these runs")
        legend(canvas, handles, columns=1 if len(handles) < 3 else 2)
    two = "two runs of one network and data set whose final PRS ratios differ most"
    caption = (
        f"Shown: {two if len(runs) == 2 else 'the one run there is'}. To see: accuracy settles within a few epochs, "
        "while the PRS ratio goes on changing, so it tells networks apart that test accuracy cannot."
    )
    columns = ["run", "epoch", "measure", "value"]
    return caption, canvas, pd.concat(numbers, ignore_index=True) if numbers else pd.DataFrame(columns=columns)
