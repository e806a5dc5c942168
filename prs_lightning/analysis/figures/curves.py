"""Figures 2b, 5 and 7b: measures over the epochs of training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from prs_lightning.analysis.figures.registry import figure
from prs_lightning.analysis.figures.style import (
    COLUMN,
    LINES,
    PAGE,
    Drawing,
    colour_of,
    legend,
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
    if column not in rows or rows[column].isna().all():
        return pd.DataFrame(columns=columns)
    measured = rows.dropna(subset=[column])
    grouped = measured.groupby([*GROUP, "epoch"], sort=True, observed=True)[column]
    table = grouped.agg(mean="mean", standard_deviation="std", n="count").reset_index()
    return table.assign(measure=column)[columns]


def settings(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """The (data, model) pairs that occur: networks in the paper's order, the data sets within each."""
    found = {(str(data), str(model)) for data, model in zip(rows["data"], rows["model"], strict=True)}

    def place(pair: tuple[str, str]) -> tuple[int, int, str]:
        data, model = list(DATA_LABELS), list(MODEL_LABELS)
        where = (
            names.index(name) if name in names else len(names) for name, names in ((pair[1], model), (pair[0], data))
        )
        return (*where, str(pair))  # type: ignore[return-value]

    return sorted(found, key=place)


def _bands(axes: Axes, table: pd.DataFrame, batch_sizes: list[float], handles: dict[str, object]) -> None:
    """A line per batch size, with a band of one standard deviation."""
    for batch_size, group in table.groupby("batch_size", sort=True):
        position = batch_sizes.index(float(str(batch_size)))
        colour, style = colour_of(position), LINES[position % len(LINES)]
        epochs, mean = group["epoch"].to_numpy(float), group["mean"].to_numpy(float)
        deviation = group["standard_deviation"].fillna(0).to_numpy(float)
        # A single epoch is a point: a line through it would be invisible.
        (line,) = axes.plot(epochs, mean, color=colour, linestyle=style, marker="o" if len(epochs) < 3 else "")
        if (deviation > 0).any():
            axes.fill_between(epochs, mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0)
        handles.setdefault(f"batch size {int(float(str(batch_size)))}", line)


def _seeds(table: pd.DataFrame) -> str:
    """How many runs a line is the mean of: ``n = 5 seeds``, or a range."""
    least, most = int(table["n"].min()), int(table["n"].max())
    counted = f"{least}" if least == most else f"{least} to {most}"
    return f"n = {counted} seed{'s' * (counted != '1')}"


def _batch_sizes(rows: pd.DataFrame) -> list[float]:
    return sorted(float(size) for size in rows["batch_size"].dropna().unique())


def _not_measured(axes: Axes, column: str) -> None:
    say(axes, f"{label(column)}: not measured in these runs")


BAND = (
    "Mean over seeds, band of one standard deviation (none for a single seed); runs of different length are averaged "
    "over those that reached the epoch. "
)


@figure("5", "Test accuracy, PRS ratio and RA over epochs", needs="rows")
def figure_5(rows: pd.DataFrame) -> Drawing:
    """Test accuracy, PRS ratio and RA over epochs, mean and standard deviation over seeds."""
    measures = (TEST_ACCURACY, PRS_RATIO, ROBUST_ACCURACY)
    pairs = settings(rows)
    height = 1.75 if len(pairs) < 4 else 1.15
    canvas, grid = panels(max(len(pairs), 1), 3, height=height, sharex="all")
    tables = [over_seeds(rows, column) for column in measures]
    handles: dict[str, object] = {}
    for row, (data, model) in enumerate(pairs):
        for column, (measure, table) in enumerate(zip(measures, tables, strict=True)):
            axes = grid[row, column]
            chosen = table[(table["data"] == data) & (table["model"] == model)]
            axes.set_ylabel(label(measure))
            over_epochs(axes)
            if chosen.empty:
                _not_measured(axes, measure)
                continue
            axes.set_title(f"{label(model)}, {label(data)}, {_seeds(chosen)}", fontsize=6.5)
            _bands(axes, chosen, _batch_sizes(rows), handles)
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
    canvas, grid = panels(
        -(-max(len(pairs), 1) // columns), columns, height=1.75, width=PAGE if columns > 1 else COLUMN
    )
    handles: dict[str, object] = {}
    for axes in grid.flat[len(pairs) :] if pairs else []:
        axes.set_axis_off()
    for axes, (data, model) in zip(grid.flat, pairs, strict=False):
        chosen = table[(table["data"] == data) & (table["model"] == model)]
        over_epochs(axes)
        axes.set_ylabel(label(COSINE_SIMILARITY))
        if chosen.empty:
            axes.set_title(f"{label(model)}, {label(data)}")
            _not_measured(axes, COSINE_SIMILARITY)
            continue
        axes.set_title(f"{label(model)}, {label(data)}, {_seeds(chosen)}")
        _bands(axes, chosen, _batch_sizes(rows), handles)
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
        name = ", ".join(
            [
                *(label(str(first[key])) for key in ("model", "data")),
                f"batch {int(first['batch_size'])}",
                f"seed {int(first['seed'])}",
            ]
        )
        for measure, axes, line in (
            ("train/accuracy", grid[0, 0], "--"),
            (TEST_ACCURACY, grid[0, 0], "-"),
            (PRS_RATIO, grid[0, 1], "-"),
        ):
            if measure not in chosen:
                continue
            known = chosen.dropna(subset=[measure])
            marker = "o" if len(known) < 3 else ""
            (drawn,) = axes.plot(known["epoch"], known[measure], line, color=colour_of(position), marker=marker)
            words = "test accuracy, PRS ratio" if measure == TEST_ACCURACY else label(measure)
            if measure != PRS_RATIO:
                handles[f"{name}: {words}"] = drawn
            numbers.append(
                pd.DataFrame({"run": run, "epoch": known["epoch"], "measure": measure, "value": known[measure]})
            )
    for axes, words in zip(grid.flat, ("accuracy", label(PRS_RATIO)), strict=True):
        over_epochs(axes)
        axes.set_ylabel(words)
        drawn_values = [line.get_ydata() for line in axes.lines]
        if not drawn_values:
            say(axes, "the PRS ratio was not measured in these runs")
        else:
            ratio_limits(axes, np.concatenate(drawn_values))
        legend(canvas, handles, columns=1 if len(handles) < 3 else 2)
    n = (
        "two runs of one network and data set whose final PRS ratios differ most"
        if len(runs) == 2
        else "the one run there is"
    )
    caption = (
        f"Shown: {n}. To see: accuracy settles within a few epochs, while the PRS ratio goes on changing, so it tells "
        "networks apart that test accuracy cannot."
    )
    table = (
        pd.concat(numbers, ignore_index=True) if numbers else pd.DataFrame(columns=["run", "epoch", "measure", "value"])
    )
    return caption, canvas, table
