"""Which measures the paper relates to which, in what words, and what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prs_lightning import measures

LABELS = {measure.name: measure.label for measure in measures.MEASURES} | {"epoch": "epoch", "batch_size": "batch size"}
"""Columns of the table in words, for axes and table heads."""

DATA_LABELS = {
    "mnist": "MNIST",
    "mnist5k": "MNIST-5k",
    "digits": "Digits",
    "fashion_mnist": "F-MNIST",
    "cifar10": "CIFAR-10",
}
MODEL_LABELS = {"cnn6": "CNN-6", "vgg16": "VGG-16", "resnet18": "ResNet-18"}


def label(column: str) -> str:
    """A column, data set or network in words; a name that is not known stays as it is.

    >>> label("robust/zero_gradient"), label("cnn6"), label("prs/other")
    ('zero-gradient share', 'CNN-6', 'prs/other')
    """
    return (LABELS | DATA_LABELS | MODEL_LABELS).get(column, column)


def rank(name: str) -> tuple[int, str]:
    """To sort networks or data sets by: the paper's order, and behind it those that are not in the paper."""
    order = [*MODEL_LABELS, *DATA_LABELS]
    return order.index(name) if name in order else len(order), name


def in_words(names: Sequence[str]) -> str:
    """Names as one list.

    >>> in_words(["a", "b", "c"]), in_words(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "panel"), plural(1200, "panel")
    ('1 panel', '1,200 panels')
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


@dataclass(frozen=True)
class Relation:
    """``y`` against ``x``: a panel of a scatter figure, and a row of the statistics, per architecture and data set.

    ``controls`` are held fixed: in the figure, by taking out what is linear in them; in the partial Spearman
    correlation, beside batch size, epoch and test accuracy.
    """

    figure: str
    y: str
    x: str = measures.PRS_RATIO
    controls: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """``y against x`` in words."""
        fixed = in_words([label(name) for name in self.controls])
        return f"{label(self.y)} against {label(self.x)}" + (f", at fixed {fixed}" if fixed else "")

    @property
    def axes(self) -> tuple[str, str]:
        """Names of the axes of x and y."""
        fixed = "".join(f", {label(name)} fixed" for name in self.controls)
        return label(self.x) + fixed, label(self.y) + fixed

    @property
    def columns(self) -> list[str]:
        """x, y and what is held fixed."""
        return [self.x, self.y, *self.controls]


BEYOND_RIVALS = Relation(
    "16",
    measures.AUDITED_ACCURACY,
    controls=(measures.LOGIT_GAP, measures.LOG_NORM, measures.LOCAL_COMPLEXITY, measures.NC1, measures.NC2),
)
"""What the PRS ratio tells of audited RA that its rivals do not tell: a row of the statistics without a panel."""

RELATIONS = (
    Relation("4", measures.ROBUST_ACCURACY),
    Relation("4b", measures.AUDITED_ACCURACY),
    Relation("4b", measures.DLR),
    Relation("4b", measures.AUTOATTACK),
    Relation("4b", measures.TEMPERATURE),
    Relation("4b", measures.DISTANCE),
    Relation("8", measures.COSINE_SIMILARITY),
    Relation("10", measures.INCLUSION_RATIO),
    Relation("12", measures.SPARSITY),
    Relation("14", measures.MASKING_GAP),
    Relation("14", measures.ZERO_GRADIENT),
    Relation("15", measures.PRS_RATIO, x=measures.DEAD_UNITS),
    Relation("15", measures.ROBUST_ACCURACY, controls=(measures.DEAD_UNITS,)),
    BEYOND_RIVALS,
)
"""The relations of the scatter figures, in the figures' order, and of the statistics alone."""

DRAWN = (
    *(name for name in LABELS if name.startswith("robust/") and name != measures.DISTANCE),
    measures.INCLUSION_RATIO,
)
"""Shares of test samples, which stand for others: their number makes an error."""

MARGINS = {
    "robust_accuracy": 0.02, "cosine_similarity": 0.05, "inclusion_ratio": 0.02, "sparsity": 0.02, "distance": 0.00392,
}  # fmt: skip
"""By kind of measure: a change that is smaller is negligible; of the distance one grey level, of an angle's cosine more
than of a share."""


def margin_of(name: str, margins: Mapping[str, float]) -> float:
    """The margin of a measure."""
    kind = name.rpartition("/")[2]
    return margins[kind if kind in margins else "robust_accuracy"]


def is_share(name: str) -> bool:
    """Whether it is a share of samples, in [0, 1]; sparsity is a mean of ratios."""
    measure = measures.find(name)
    return measure is not None and measure.unit == "share" and name != measures.SPARSITY


UNMATCHED, MATCHED = "none", "clean margin"
"""How the inclusion and the exclusion group of figure 9 were made alike."""

PAPER_SLOPES = {
    (y, model, data): slope
    for y, table in {
        measures.ROBUST_ACCURACY: ((-0.30, -0.45, -0.23), (-14.32, -2.52, -0.86), (-0.80, -0.90, -0.11)),
        measures.COSINE_SIMILARITY: ((-0.76, -0.58, -0.65), (-14.70, -3.38, 0.28), (-2.88, -2.24, -1.29)),
        measures.INCLUSION_RATIO: ((-0.72, -0.79, -0.80), (-0.53, -0.48, -0.79), (-0.53, -0.65, -0.71)),
        measures.SPARSITY: ((-0.49, -0.23, -0.15), (-1.99, -2.24, -0.90), (0.05, 0.08, -0.03)),
    }.items()
    for model, slopes in zip(("cnn6", "vgg16", "resnet18"), table, strict=True)
    for data, slope in zip(("mnist", "fashion_mnist", "cifar10"), slopes, strict=True)
}
"""(y, model, data) -> the OLS slope against the PRS ratio that the paper prints (figures 4, 8, 10 and 12)."""

PAPER_NOTE = (
    "The paper's slopes were extracted from the text of its figures; which slope belongs to which data set is "
    "inferred from their order in that text (MNIST, F-MNIST, CIFAR-10)."
)
