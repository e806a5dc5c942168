"""What a figure is: the decorator that makes one, and the list of all that are made by it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Literal, ParamSpec

import pandas as pd
from matplotlib.figure import Figure as Canvas

from prs_lightning.analysis.figures.style import Drawing, paper_style

Needs = Literal["rows", "models", "networks"]
Parameters = ParamSpec("Parameters")


@dataclass(frozen=True)
class Figure:
    """What a figure function returns: the drawing, the numbers in it, and what to see there.

    Attributes:
        number: as in the paper, for example ``"4b"``.
        numbers: every number that is drawn, one row per point.
    """

    number: str
    title: str
    caption: str
    figure: Canvas
    numbers: pd.DataFrame


def figure(
    number: str, title: str, *, needs: Needs
) -> Callable[[Callable[Parameters, Drawing]], Callable[Parameters, Figure]]:
    """Make a figure of a function that returns caption, drawing and numbers; it draws under ``paper_style``.

    Args:
        needs: what the function is given: ``rows`` (``RunTable.rows``), ``models`` (``Selection.models``), or
            ``networks`` (a ``NetworkPair``, and ``sizes``). ``FIGURES`` reads it, and the others, from the source.
    """

    def register(draw: Callable[Parameters, Drawing]) -> Callable[Parameters, Figure]:
        @wraps(draw)
        def wrapper(*arguments: Parameters.args, **keywords: Parameters.kwargs) -> Figure:
            with paper_style():
                caption, canvas, numbers = draw(*arguments, **keywords)
            return Figure(number, title, caption, canvas, numbers)

        return wrapper

    return register


@dataclass(frozen=True)
class Entry:
    """A registered figure, and the module and function that draw it."""

    number: str
    title: str
    needs: str
    module: str
    function: str


def registered() -> tuple[Entry, ...]:
    """Every ``@figure`` beside this file, by number; read from the source, as importing them all would load torch."""
    found = []
    for file in Path(__file__).parent.glob("*.py"):
        functions = (node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef))
        for node in functions:
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "figure":
                    number, title, needs = (
                        ast.literal_eval(value) for value in (*call.args, *(word.value for word in call.keywords))
                    )
                    found.append(Entry(number, title, needs, f"{__package__}.{file.stem}", node.name))
    return tuple(sorted(found, key=lambda entry: (int(re.sub(r"\D", "", entry.number)), entry.number)))


FIGURES = registered()
NUMBERS = tuple(entry.number for entry in FIGURES)


@dataclass(frozen=True)
class Sizes:
    """How many samples the figures of networks A and B look at; more is dearer and finer.

    Attributes:
        plane: points along each side of figure 1's plane.
        layers: training samples of figures 2a and 11.
        curve: samples per split of figure 3.
        attacked: test samples of figures 6a and 6b.
        group: samples per inclusion or exclusion group of figure 9.
        embedded: samples of figure 13.
    """

    plane: int = 160
    layers: int = 5000
    curve: int = 500
    attacked: int = 1000
    group: int = 1000
    embedded: int = 2000

    @classmethod
    def for_cpu(cls) -> Sizes:
        """Small enough for all figures of two CNN-6 in a few minutes on two cores; the samples are fewer than the
        paper's, so each figure says how many there are."""
        return cls(plane=64, layers=1000, curve=30, attacked=300, group=60, embedded=1000)
