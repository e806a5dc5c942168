"""One look for all figures: paper widths, colours for colour-blind readers too, legends outside the data."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

COLUMN, PAGE = 3.4, 7.0
"""Width in inches of a column and of the text of a two-column page."""

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


Drawing = tuple[str, Canvas, pd.DataFrame]
"""What a function under ``@figure`` returns: the caption, the drawing, and every number in it, a row per point."""


@contextmanager
def paper_style() -> Iterator[None]:
    """matplotlib's settings inside, the caller's again outside."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        yield


def panels(
    rows: int, columns: int, *, height: float = 1.9, width: float | None = None, **sharing: Any
) -> tuple[Canvas, np.ndarray]:
    """A drawing and its axes, an object array (rows, columns); a single panel takes one column of a page.

    Args:
        height: of a row, in inches.
        width: of the whole, in inches.
        sharing: ``sharex``, ``sharey`` and the like, for ``subplots``.
    """
    width = width or (COLUMN if columns == 1 else PAGE)
    canvas = Canvas(figsize=(width, height * rows + 0.45), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05))
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


def legend(canvas: Canvas, handles: dict[str, Any], *, columns: int | None = None) -> None:
    """One legend for all panels, below them."""
    if handles:
        columns = columns or min(len(handles), 5)
        canvas.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)


def ratio_limits(axes: Axes, values: np.ndarray, *, which: str = "y") -> None:
    """Limits for shares: the whole of [0, 1] where the values fill a good part of it, else close around them."""
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if not known.size:
        return
    low, high = float(known.min()), float(known.max())
    pad = max(0.06 * (high - low), 0.005)
    limits = (-0.03, 1.03) if low >= 0 and high <= 1 and high - low > 0.4 else (low - pad, high + pad)
    (axes.set_ylim if which == "y" else axes.set_xlim)(*limits)


def over_epochs(axes: Axes, name: str) -> None:
    """Name the axes of a panel of ``name`` over epochs, with ticks at whole epochs."""
    axes.set(xlabel="epoch", ylabel=name)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def series(position: int) -> dict[str, Any]:
    """Colour, line and marker of the ``position``-th of a few curves."""
    return {"color": COLOURS[position], "linestyle": LINES[position], "marker": MARKERS[position]}


def mean_and_band(axes: Axes, mean: pd.Series, deviation: pd.Series, *, color: str, **line: Any) -> Any:
    """Draw ``mean`` over its index with a band of one ``deviation`` (NaN: none) around it, and return the line."""
    (drawn,) = axes.plot(mean.index, mean, color=color, **line)
    deviation = deviation.fillna(0)
    if (deviation > 0).any():
        axes.fill_between(mean.index, mean - deviation, mean + deviation, color=color, alpha=0.2, linewidth=0)
    return drawn


def class_colour(label: int) -> str:
    """The colour of a class."""
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]
