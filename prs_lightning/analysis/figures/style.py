"""One look for all figures: paper widths, colours for colour-blind readers too, legends outside the data."""

from __future__ import annotations

import textwrap
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine

from prs_lightning.analysis.relations import DATA_LABELS, MODEL_LABELS

# Okabe & Ito 2008, "Color Universal Design"; the yellow is left out: too light for lines on white.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))

# Tol's muted scheme, for the classes: ten hues; the class number is always written beside them too.
CLASS_COLOURS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777",
)  # fmt: skip
GREY = "#666666"

SETTINGS: Any = {
    "figure.dpi": 100, "savefig.dpi": 200, "savefig.facecolor": "white", "pdf.fonttype": 42,
    "font.family": "DejaVu Sans", "font.size": 7, "axes.titlesize": 7.5, "axes.labelsize": 7.5,
    "xtick.labelsize": 6.5, "ytick.labelsize": 6.5, "legend.fontsize": 7, "legend.frameon": False,
    "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False, "axes.titlepad": 4,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "lines.linewidth": 1.2, "lines.markersize": 3.5, "axes.grid": True, "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5, "axes.axisbelow": True, "image.interpolation": "nearest",
}  # fmt: skip

paper_style = partial(style.context, SETTINGS, after_reset=True)
"""matplotlib's settings inside a ``with`` block, the caller's again outside."""


def rank(name: str) -> tuple[int, str]:
    """To sort networks or data sets by: the paper's order, and behind it those that are not in the paper."""
    order = [*MODEL_LABELS, *DATA_LABELS]
    return order.index(name) if name in order else len(order), name


def panels(rows: int, columns: int, *, height: float = 1.9, **sharing: Any) -> tuple[Canvas, np.ndarray]:
    """A drawing and its axes, an object array (rows, columns); a single panel takes one column of a two-column page.

    Args:
        height: of a row, in inches.
        sharing: ``sharex``, ``sharey`` and the like, for ``subplots``.
    """
    size = (3.4 if columns == 1 else 7.0, height * rows + 0.45)
    canvas = Canvas(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05))
    return canvas, canvas.subplots(rows, columns, squeeze=False, **sharing)


def bare(axes: Axes) -> None:
    """Take the ticks and the grid from a panel whose axes have no scale."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)


def say(axes: Axes, message: str) -> None:
    """Write in a panel why nothing is drawn there."""
    where: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
    axes.text(0.5, 0.5, textwrap.fill(message, 30), color=GREY, fontsize=7, **where)
    bare(axes)


def note(axes: Axes, message: str) -> None:
    """A line under the title's height inside the panel, at its upper right, over a white ground."""
    axes.text(
        0.98, 0.97, message, transform=axes.transAxes, ha="right", va="top", fontsize=6, color=GREY, linespacing=1.3,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}, zorder=5,
    )  # fmt: skip


def legend(canvas: Canvas, *, columns: int | None = None) -> None:
    """One legend for all panels, below them, of everything that was drawn with a label; each label once."""
    handles: dict[str, Any] = {}
    for axes in canvas.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        columns = columns or min(len(handles), 5)
        canvas.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)


def ratio_limits(axes: Axes, values: np.ndarray, *, which: str = "y") -> None:
    """Limits for shares: the whole of [0, 1] where the values fill a good part of it, else close around them."""
    known = values[np.isfinite(values)]
    if not known.size:
        return
    low, high = float(known.min()), float(known.max())
    pad = max(0.06 * (high - low), 0.005)
    limits = (-0.03, 1.03) if low >= 0 and high <= 1 and high - low > 0.4 else (low - pad, high + pad)
    (axes.set_ylim if which == "y" else axes.set_xlim)(*limits)


def points(position: int) -> dict[str, Any]:
    """Colour and marker of the ``position``-th of a few series of points."""
    return {"color": COLOURS[position % len(COLOURS)], "marker": MARKERS[position % len(MARKERS)]}


def curve(position: int) -> dict[str, Any]:
    """Colour, marker and line of the ``position``-th of a few curves."""
    return points(position) | {"linestyle": LINES[position % len(LINES)]}


def mean_and_band(axes: Axes, table: pd.DataFrame, *, over: str, **line: Any) -> None:
    """Draw column ``mean`` over the one named, with a band of one ``standard_deviation`` (NaN: none) around it."""
    x, mean, deviation = table[over], table["mean"], table["standard_deviation"].fillna(0)
    axes.plot(x, mean, **line)
    if (deviation > 0).any():
        axes.fill_between(x, mean - deviation, mean + deviation, color=line["color"], alpha=0.2, linewidth=0)
