"""One look for all figures: paper widths, colours for colour-blind readers too, legends outside the data."""

from __future__ import annotations

import re
import textwrap
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path

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

PAGE = 7.0
"""Width of a page of two columns, in inches: that of a figure of several panels."""
TYPE = 6.5
"""The size of all letters in all figures, in points: those of a page are set alike, in print and in the report."""

SETTINGS: Any = {
    "figure.dpi": 100, "savefig.dpi": 200, "savefig.facecolor": "white", "pdf.fonttype": 42,
    "font.family": "DejaVu Sans", "font.size": TYPE, "axes.titlesize": TYPE, "axes.labelsize": TYPE,
    "xtick.labelsize": TYPE, "ytick.labelsize": TYPE, "legend.fontsize": TYPE, "legend.frameon": False,
    "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False, "axes.titlepad": 4,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "lines.linewidth": 1.2, "lines.markersize": 3.5, "axes.grid": True, "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5, "axes.axisbelow": True, "image.interpolation": "nearest",
}  # fmt: skip

BESIDE = 0.6
"""Inches of a panel's width that its title does not use: it stands over the middle of the axes, so what the numbers
and the name to their left take is lost twice. A panel without these loses a sixth of it."""

paper_style = partial(style.context, SETTINGS, after_reset=True)
"""matplotlib's settings inside a ``with`` block, the caller's again outside."""


def panels(rows: int, columns: int, *, height: float = 1.9, **sharing: Any) -> tuple[Canvas, np.ndarray]:
    """A drawing and its axes, an object array (rows, columns); a single panel takes one column of a two-column page.

    Args:
        height: of a row, in inches.
        sharing: ``sharex``, ``sharey`` and the like, for ``subplots``.
    """
    size = (3.4 if columns == 1 else PAGE, height * rows + 0.45)
    canvas = Canvas(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05))
    return canvas, canvas.subplots(rows, columns, squeeze=False, **sharing)


def width_of(text: str) -> float:
    """Of a line in the figures' type, in inches."""
    font = FontProperties(family=SETTINGS["font.family"], size=TYPE)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]) / 72


def fitted(line: str, inches: float) -> str:
    """A line broken where it is longer than ``inches``: after a comma if that is enough, else between words.

    >>> fitted("ResNet-18, CIFAR-10, n = 2 to 5 seeds", 1.3).splitlines()
    ['ResNet-18, CIFAR-10,', 'n = 2 to 5 seeds']
    """
    lines = [""]
    for piece in re.split(r"(?<=,) ", line):
        for part in [piece] if width_of(piece) <= inches else piece.split():
            longer = f"{lines[-1]} {part}".strip()
            if lines[-1] and width_of(longer) > inches:
                lines.append(part)
            else:
                lines[-1] = longer
    return "\n".join(lines)


def fit_titles(canvas: Canvas) -> None:
    """Break the titles that would run into the next panel, or over the edge: the layout makes no room for them."""
    for axes in canvas.axes:
        place = axes.get_subplotspec()
        if axes.get_title() and place:
            beside = BESIDE if len(axes.get_yticks()) else BESIDE / 6
            inches = canvas.get_figwidth() / place.get_gridspec().ncols - beside
            axes.set_title("\n".join(fitted(line, inches) for line in axes.get_title().splitlines()))


def bare(axes: Axes) -> None:
    """Take the ticks and the grid from a panel whose axes have no scale."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)


def say(axes: Axes, message: str) -> None:
    """Write in a panel why nothing is drawn there."""
    where: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
    axes.text(0.5, 0.5, textwrap.fill(message, 30), color=GREY, **where)
    bare(axes)


def note(axes: Axes, message: str) -> None:
    """A line under the title's height inside the panel, at its upper right, over a white ground."""
    axes.text(
        0.98, 0.97, message, transform=axes.transAxes, ha="right", va="top", color=GREY, linespacing=1.3,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}, zorder=5,
    )  # fmt: skip


def legend(canvas: Canvas, *, columns: int = 5) -> None:
    """One legend for all panels, below them, of everything that was drawn with a label; each label once.

    ``columns`` are the most; there are fewer where so many would be wider than the drawing.
    """
    handles: dict[str, Any] = {}
    for axes in canvas.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        # With its line and the spaces around it, which are as wide as five letters are high.
        entry = sorted((width_of(label) + 5 * TYPE / 72 for label in handles), reverse=True)
        wide = sum(np.cumsum(entry) < canvas.get_figwidth())
        columns = max(1, min(len(handles), columns, wide))
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
