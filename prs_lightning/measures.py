"""The numbers: what each measure is called, means and ranges over. Columns, labels, dashboard and README read it here.

python -m prs_lightning.measures      # the README's table of the numbers
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

GROUPS = {
    "robust": "Robust accuracy",
    "prs": "Populated decision regions",
    "weights": "Weights of the final layer",
    "features": "Features",
    "test": "Test set",
    "train": "Training set",
    "time": "Time",
}
"""The first part of each measure's name, and its title on the dashboard, in the dashboard's order."""


@dataclass(frozen=True)
class Measure:
    """One number of an epoch.

    Attributes:
        name: column of metrics.csv and W&B key, ``group/...``; ``<...>`` stands for what a config chooses.
        label: in words, for axes and table heads.
        meaning: what it is, one line.
        unit: ``share`` (a ratio in [0, 1]), or what is counted.
        low, high: the range; None where it has no bound.
        better: 1 where more is better, -1 where less is, 0 where neither is.
        column: it has a place of its own among the columns of metrics.csv and on the dashboard; others follow by name.
        bar: it is shown beside the progress bar.
    """

    name: str
    label: str
    meaning: str
    unit: str = "share"
    low: float | None = 0
    high: float | None = 1
    better: int = 0
    column: bool = True
    bar: bool = False

    @property
    def group(self) -> str:
        return self.name.split("/")[0]


PRS_RATIO = "prs/ratio"
INCLUSION_RATIO = "prs/inclusion_ratio"
DEAD_UNITS = "prs/dead_units"
COSINE_SIMILARITY = "weights/cosine_similarity"
SPARSITY = "features/sparsity"
ROBUST_ACCURACY = "robust/pgd20"
AUDITED_ACCURACY = "robust/pgd20_audited"
MASKING_GAP = "robust/masking_gap"
ZERO_GRADIENT = "robust/zero_gradient"
DLR = "robust/dlr"
AUTOATTACK = "robust/autoattack"
TEST_ACCURACY = "test/accuracy"

MEASURES = (
    Measure("train/loss", "training loss", "cross-entropy over the training set", "nats", high=None, better=-1),
    Measure("train/accuracy", "training accuracy", "share of training samples classified correctly", better=1),
    Measure("test/loss", "test loss", "cross-entropy over the test set", "nats", high=None, better=-1),
    Measure(TEST_ACCURACY, "test accuracy", "share of test samples classified correctly", better=1, bar=True),
    Measure(
        PRS_RATIO,
        "PRS ratio",
        "populated regions of the penultimate layer over the whole training set, per sample",
        bar=True,
    ),
    Measure("prs/count", "populated regions", "populated regions of the training set", "regions", high=None),
    Measure(INCLUSION_RATIO, "inclusion ratio", "share of test samples whose region holds a training sample"),
    Measure(DEAD_UNITS, "dead units", "penultimate units that are positive for no training sample", "units", high=None),
    Measure(
        COSINE_SIMILARITY,
        "cosine similarity",
        "mean over pairs of rows of the final layer's weight",
        "cosine",
        low=-1,
    ),
    Measure(
        SPARSITY,
        "sparsity",
        "share of zeros of every ReLU output over the training set, mean over the layers",
    ),
    Measure(
        ROBUST_ACCURACY,
        "RA (PGD-20)",
        "robust accuracy: share of all test samples still classified correctly under PGD with cross-entropy",
        better=1,
        bar=True,
    ),
    Measure(
        AUDITED_ACCURACY,
        "RA after the audit",
        "the same after the survivors were attacked again with a margin loss",
        better=1,
        bar=True,
    ),
    Measure(
        MASKING_GAP,
        "masking gap",
        "the first minus the second: how much of the robustness was only a vanished gradient",
        better=-1,
    ),
    Measure(
        ZERO_GRADIENT,
        "zero-gradient share",
        "share of test samples whose loss gradient is exactly 0 at the clean image",
        better=-1,
    ),
    Measure("robust/fgsm", "RA (FGSM)", "robust accuracy under one step, at the grid's epochs", better=1),
    Measure("robust/bim5", "RA (BIM-5)", "under BIM of five steps, there too", better=1),
    Measure("robust/pgd100", "RA (PGD-100)", "under PGD of a hundred steps, there too", better=1, bar=True),
    Measure(
        DLR,
        "RA after DLR",
        "there too: after the survivors of `robust/pgd20` were attacked again with the DLR loss",
        better=1,
    ),
    Measure(AUTOATTACK, "RA (AutoAttack)", "under ART's AutoAttack, there too if asked for", better=1),
    Measure("time/train_s", "training time", "seconds of the epoch's training", "s", high=None, better=-1),
    Measure("time/measure_s", "measuring time", "seconds of the epoch's measures", "s", high=None, better=-1),
    Measure(
        "prs/always_positive_units",
        "always positive units",
        "penultimate units that are positive for every training sample",
        "units",
        high=None,
        column=False,
    ),
    Measure("prs/entropy", "entropy", "of the samples' spread over the regions", "nats", high=None, column=False),
    Measure(
        "prs/hamming_to_major",
        "Hamming distance to the major region",
        "units in which a training sample differs from its class's major region, mean over the samples",
        "units",
        high=None,
        column=False,
    ),
    Measure(
        "prs/mean_positive_units",
        "positive units",
        "penultimate units that are positive for a training sample, mean over the samples",
        "units",
        high=None,
        column=False,
    ),
    Measure(
        "prs/purity", "purity", "share of training samples whose region holds one class only", column=False, better=1
    ),
    Measure("prs/singleton_share", "singleton share", "share of training samples alone in a region", column=False),
    Measure(
        "prs/ratio/<layer>",
        "PRS ratio of a layer",
        "the PRS ratio of a further layer (`callbacks.regions.layers`)",
        column=False,
    ),
    Measure(
        "robust/pgd<steps>",
        "RA (PGD)",
        "robust accuracy under another number of steps",
        better=1,
        column=False,
        bar=True,
    ),
    Measure(
        "robust/pgd<steps>_audited", "RA after the audit", "the same after the audit", better=1, column=False, bar=True
    ),
)

COLUMNS = ("epoch", "step", *(measure.name for measure in MEASURES if measure.column))
"""The order of the columns of metrics.csv; a measure that is not named here comes after them."""


def find(name: str) -> Measure | None:
    """The measure of that name, or the one whose ``<...>`` it fills; None if there is none.

    >>> find("robust/pgd7").label, find("prs/ratio/hidden.1").unit, find("loss")
    ('RA (PGD)', 'share', None)
    """
    named = {measure.name: measure for measure in MEASURES}
    if name in named:
        return named[name]
    patterns = ((m, m.name.replace("<layer>", ".+").replace("<steps>", "[0-9]+")) for m in MEASURES)
    return next((measure for measure, pattern in patterns if re.fullmatch(pattern, name)), None)


def on_bar(name: str) -> bool:
    """Whether the progress bar shows it."""
    measure = find(name)
    return measure is not None and measure.bar


def markdown(measures: Sequence[Measure] = MEASURES) -> str:
    """The README's table."""
    lines = ["| name | meaning | unit |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| `{m.name}` | {m.meaning} | {m.unit} |" for m in measures)])


if __name__ == "__main__":
    print(markdown())
