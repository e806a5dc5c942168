"""The numbers: what each measure is called, means and ranges over. Columns, labels, dashboard and README read it here.

python -m prs_lightning.measures      # the README's table of the numbers
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

GROUPS = {
    "robust": "Robust accuracy",
    "prs": "Populated decision regions",
    "logits": "Logits",
    "weights": "Weights",
    "features": "Features",
    "collapse": "Neural collapse",
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
        better: 1 where more is better, -1 where less is, 0 where neither is.
        low, high: the range; -inf and None where it has no bound.
        bar: it is shown beside the progress bar.
    """

    name: str
    label: str
    meaning: str
    unit: str = "share"
    better: int = 0
    low: float = 0
    high: float | None = 1
    bar: bool = False

    @property
    def group(self) -> str:
        return self.name.split("/")[0]


def share(name: str, label: str, meaning: str, better: int = 0, *, bar: bool = False) -> Measure:
    """A ratio in [0, 1]."""
    return Measure(name, label, meaning, better=better, bar=bar)


def amount(name: str, label: str, meaning: str, unit: str, better: int = 0) -> Measure:
    """0 or more of a unit."""
    return Measure(name, label, meaning, unit, better, high=None)


PRS_RATIO = "prs/ratio"
INCLUSION_RATIO = "prs/inclusion_ratio"
DEAD_UNITS = "prs/dead_units"
LIVE_UNITS = "prs/live_units"
COSINE_SIMILARITY = "weights/cosine_similarity"
LOG_NORM = "weights/log_norm"
SPARSITY = "features/sparsity"
LOCAL_COMPLEXITY = "features/local_complexity"
NC1 = "collapse/nc1"
NC2 = "collapse/nc2"
LOGIT_GAP = "logits/gap"
LOSS_UNDERFLOW = "logits/loss_underflow"
ROBUST_ACCURACY = "robust/pgd20"
AUDITED_ACCURACY = "robust/pgd20_audited"
MASKING_GAP = "robust/masking_gap"
ZERO_GRADIENT = "robust/zero_gradient"
GRADIENT_NOISE = "robust/gradient_noise"
DLR = "robust/dlr"
TEMPERATURE = "robust/temperature"
DISTANCE = "robust/distance"
AUTOATTACK = "robust/autoattack"
TEST_ACCURACY = "test/accuracy"

LOSS, CORRECT = "cross-entropy of the", "share classified correctly of the"
UNDER = "share of all test samples still classified correctly under"

COLUMN_MEASURES = (
    amount("train/loss", "training loss", f"{LOSS} training set", "nats", -1),
    share("train/accuracy", "training accuracy", f"{CORRECT} training set", 1),
    amount("test/loss", "test loss", f"{LOSS} test set", "nats", -1),
    share(TEST_ACCURACY, "test accuracy", f"{CORRECT} test set", 1, bar=True),
    share(PRS_RATIO, "PRS ratio", "populated regions of the penultimate layer per training sample", bar=True),
    amount("prs/count", "populated regions", "penultimate regions that hold a training sample", "regions"),
    share(INCLUSION_RATIO, "inclusion ratio", "share of test samples whose region holds a training sample"),
    amount(DEAD_UNITS, "dead units", "penultimate units that are positive for no training sample", "units"),
    amount(LIVE_UNITS, "live units", "penultimate units that are neither never nor always positive there", "units"),
    amount(
        LOGIT_GAP,
        "logit gap",
        "largest minus second logit, median over the test samples classified correctly",
        "logits",
    ),
    share(LOSS_UNDERFLOW, "loss underflow", "all test samples whose cross-entropy is exactly 0 in float32", -1),
    Measure(COSINE_SIMILARITY, "cosine similarity", "mean over pairs of rows of the final weight", "cosine", low=-1),
    Measure(
        LOG_NORM,
        "log norm",
        "sum over the layers of log10 of the spectral norm of the weight",
        "log10",
        low=-math.inf,
        high=None,
    ),
    share(SPARSITY, "sparsity", "zeros of each ReLU output over the training set, mean over the layers"),
    amount(
        LOCAL_COMPLEXITY,
        "local complexity",
        "penultimate units whose sign changes in a small ball around a sample, mean, at the grid's epochs",
        "units",
    ),
    amount(
        NC1,
        "within-class variation (NC1)",
        "trace of within-class over between-class covariance of the penultimate features, training set",
        "ratio",
    ),
    amount(
        NC2,
        "departure from equal angles (NC2)",
        "centred class means off equal angles, mean over pairs; 0: a simplex",
        "cosine",
    ),
    share(ROBUST_ACCURACY, "RA (PGD-20)", f"robust accuracy: {UNDER} PGD with cross-entropy", 1, bar=True),
    share(AUDITED_ACCURACY, "RA after the audit", "robust accuracy after PGD and a margin loss", 1, bar=True),
    share(
        MASKING_GAP, "masking gap", "`robust/pgd20` minus its audited twin: how much was only a vanished gradient", -1
    ),
    share(ZERO_GRADIENT, "zero-gradient share", "all test samples whose loss gradient at the clean image is 0", -1),
    share(
        GRADIENT_NOISE,
        "gradient noise",
        "test samples (a subset) whose loss gradient has other signs than in float64 on over a tenth of the pixels",
        -1,
    ),
    share("robust/fgsm", "RA (FGSM)", f"{UNDER} FGSM, at the grid's epochs as all below", 1),
    share("robust/bim5", "RA (BIM-5)", f"{UNDER} BIM of 5 steps", 1),
    share("robust/pgd100", "RA (PGD-100)", f"{UNDER} PGD of 100 steps", 1, bar=True),
    share(DLR, "RA after DLR", "robust accuracy after PGD and the DLR loss", 1),
    share(
        TEMPERATURE,
        "RA (any temperature)",
        "least robust accuracy under PGD-20 with cross-entropy of logits / T, T of 1, 10, 100, 1000",
        1,
    ),
    amount(
        DISTANCE,
        "distance",
        "to the decision boundary (L-inf), median over the test samples classified correctly",
        "pixel units",
        1,
    ),
    share(AUTOATTACK, "RA (AutoAttack)", f"{UNDER} ART's AutoAttack, if asked for", 1),
    amount("time/train_s", "training time", "time that the epoch's training took", "seconds", -1),
    amount("time/measure_s", "measuring time", "time that its measures took", "seconds", -1),
)

FURTHER_MEASURES = (
    amount("prs/always_positive_units", "always positive units", "of the penultimate layer", "units"),
    amount("prs/entropy", "entropy", "of the training samples' spread over the regions", "nats"),
    amount("prs/hamming_to_major", "distance to the major region", "mean over the samples", "units"),
    amount("prs/mean_positive_units", "positive units", "of the penultimate layer, mean over the samples", "units"),
    share("prs/purity", "purity", "training samples whose region holds one class only"),
    share("prs/singleton_share", "singleton share", "training samples alone in their region"),
    share("prs/ratio/<layer>", "PRS ratio of a layer", "the PRS ratio of a further layer"),
    Measure(
        f"{LOG_NORM}/<layer>",
        "log norm of a layer",
        "log10 of the spectral norm of its weight",
        "log10",
        low=-math.inf,
        high=None,
    ),
    share("robust/pgd<steps>", "RA (PGD)", f"{UNDER} PGD of other steps", 1, bar=True),
    share("robust/pgd<steps>_audited", "RA after the audit", "after PGD of other steps and a margin loss", 1, bar=True),
    amount("robust/distance_l2", "L2 distance", "the same in the L2 norm, if asked for", "pixel units", 1),
    share("robust/<attack>", "RA", f"{UNDER} an attack of `grid_attacks`", 1),
)

MEASURES = COLUMN_MEASURES + FURTHER_MEASURES

COLUMNS = ("epoch", "step", *(measure.name for measure in COLUMN_MEASURES))
"""The order of the columns of metrics.csv; a measure that is not named here comes after them."""


def find(name: str) -> Measure | None:
    """The measure of that name, or the one whose ``<...>`` it fills; None if there is none.

    >>> find("robust/pgd7").label, find("prs/ratio/hidden.1").unit, find("loss")
    ('RA (PGD)', 'share', None)
    """
    named = {measure.name: measure for measure in MEASURES}
    if name in named:
        return named[name]
    patterns = ((m, re.sub("<(layer|attack)>", ".+", m.name.replace("<steps>", "[0-9]+"))) for m in MEASURES)
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
