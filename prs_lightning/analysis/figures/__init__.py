"""The paper's figures and those beyond it: each a drawing, its numbers and a caption.

Importing this needs no torch; only the figures that are made from checkpoints load it.
"""

from prs_lightning.analysis.figures.making import Made, make_all
from prs_lightning.analysis.figures.registry import NUMBERS, Figure, Sizes

__all__ = ["NUMBERS", "Figure", "Made", "Sizes", "make_all"]
