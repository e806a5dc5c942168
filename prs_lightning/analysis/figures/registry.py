"""What a figure is: the decorator that makes one, and the list of all that are made by it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure as Canvas

from prs_lightning.analysis.figures.style import fit_titles, paper_style
from prs_lightning.errors import ConfigError, in_yaml

Drawing = tuple[str, Canvas, pd.DataFrame]
"""What a function under ``@figure`` returns: the caption, the drawing, and every number in it, a row per point."""


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
    number: str, title: str, *, needs: Literal["rows", "models", "networks", "arms"]
) -> Callable[[Callable[..., Drawing]], Callable[..., Figure]]:
    """Make a figure of a function that returns caption, drawing and numbers; it draws under ``paper_style``.

    Args:
        needs: what the function is given: ``rows`` (``RunTable.rows``), ``models`` (``Selection.models``), or
            ``networks`` (a ``NetworkPair``, and ``sizes``), or ``arms`` (rows at grid epochs with those of all arms).
            ``FIGURES`` reads it, and the others, from the source.
    """

    def register(draw: Callable[..., Drawing]) -> Callable[..., Figure]:
        @wraps(draw)
        def wrapper(*arguments: Any, **keywords: Any) -> Figure:
            with paper_style():
                caption, canvas, numbers = draw(*arguments, **keywords)
                fit_titles(canvas)
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

    def load(self) -> Callable[..., Figure]:
        return getattr(import_module(self.module), self.function)


def registered() -> Iterator[Entry]:
    """Every ``@figure`` beside this file; read from the source, as importing them all would load torch."""
    for file in Path(__file__).parent.glob("*.py"):
        for function in (node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)):
            for call in function.decorator_list:
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "figure":
                    number, title, needs = map(ast.literal_eval, [*call.args, *(word.value for word in call.keywords)])
                    yield Entry(number, title, needs, f"{__package__}.{file.stem}", function.name)


FIGURES = sorted(registered(), key=lambda entry: (int(re.sub(r"\D", "", entry.number)), entry.number))
NUMBERS = tuple(entry.number for entry in FIGURES)


def refuse_unknown(numbers: Sequence[str]) -> None:
    """Raise ConfigError for a number that is no figure."""
    if unknown := sorted({*numbers} - {*NUMBERS}):
        raise ConfigError(f"figures={in_yaml(unknown)}: expected some of {', '.join(NUMBERS)}")


@dataclass(frozen=True)
class Sizes:
    """How many samples the figures of networks A and B look at; more is dearer and finer.

    Attributes:
        plane: points along each side of figure 1's plane.
        layers: training samples of figures 2a, 11 and 16.
        curve: samples per split of figure 3.
        attacked: test samples of figures 6a and 6b.
        group: samples per inclusion or exclusion group of figure 9.
        embedded: samples of figure 13.
        scaled: test samples of figure 16.
    """

    plane: int = 160
    layers: int = 5000
    curve: int = 500
    attacked: int = 1000
    group: int = 1000
    embedded: int = 2000
    scaled: int = 1000

    @classmethod
    def on_this_machine(cls, **given: int) -> Sizes:
        """The paper's with an accelerator; else small enough for two CNN-6 in a few minutes on two cores (each figure
        says how many samples there are); ``given`` instead of either."""
        import torch

        small = cls(plane=64, layers=1000, curve=30, attacked=300, group=60, embedded=1000, scaled=100)
        return replace(cls() if torch.accelerator.is_available() else small, **given)
