"""Simulated grids of models with planted relations, and what the rule of docs/statistics.md must say of each.

Every number of a model hangs on a standard normal: "few regions" U for the PRS ratio, Y for a measure. Both are

    sqrt(share) * level of the run + sqrt(1 - share) * deviation of the epoch + batch size + epoch + own trend,

and their correlation is planted separately for the levels of runs (``between``) and the deviations of epochs
(``within``). Deviations are autocorrelated. Rank statistics do not see the maps into (0, 1) that come last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from prs_lightning.measures import (
    AUDITED_ACCURACY,
    COSINE_SIMILARITY,
    INCLUSION_RATIO,
    PRS_RATIO,
    ROBUST_ACCURACY,
    SPARSITY,
    TEST_ACCURACY,
)

Array = NDArray[np.float64]
Generator = np.random.Generator

PANELS = [(model, data) for data in ("mnist", "fashion_mnist", "cifar10") for model in ("cnn6", "vgg16", "resnet18")]
BATCH_SIZES = (64, 128, 512, 2048)
GRID = (50, 100, 150, 200, 250, 300)
CENTRES = {
    ROBUST_ACCURACY: 0.4, AUDITED_ACCURACY: 0.25, COSINE_SIMILARITY: 0.3, INCLUSION_RATIO: 0.6, SPARSITY: 0.7,
}  # fmt: skip
"""The measures, each of independent Y, and their middle; the five relation claims are about them."""
COUNTED = (ROBUST_ACCURACY, AUDITED_ACCURACY, INCLUSION_RATIO)
TRAINING_SAMPLES = 60_000

HALF = 2 * np.sin(np.pi / 12)
"""The correlation of two normals whose Spearman correlation is 0.5 (Pearson 1907): 0.518."""


def deviations(rng: Generator, shape: tuple[int, ...], persistence: float) -> Array:
    """AR(1) along the last axis less its mean there, of variance 1 on average; ``persistence`` 1: random walks.

    Less its mean, so that what is planted between levels of runs is all that there is between means of runs.
    """
    epochs = shape[-1]
    if epochs == 1:
        return np.zeros(shape)
    steps = rng.standard_normal(shape)
    distance = np.arange(epochs)[:, None] - np.arange(epochs)
    filter_ = np.where(distance >= 0, persistence ** np.maximum(distance, 0), 0.0)
    filter_[:, 1:] *= np.sqrt(1 - persistence**2) if persistence < 1 else 1.0
    filter_ -= filter_.mean(axis=0)
    return steps @ filter_.T / np.sqrt((filter_**2).sum() / epochs)


def grid(
    rng: Generator,
    *,
    panels: int = 9,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    seeds: int = 5,
    epochs: Sequence[int] = GRID,
    between: float | Sequence[float] = 0.0,
    within: float | Sequence[float] = 0.0,
    batch: Sequence[float] = (0, 0, 0, 0),
    batch_y: Sequence[float] | None = None,
    epoch: float = 0.0,
    trends: float = 0.0,
    share: float = 0.5,
    persistence: float = 0.8,
    sizes: Mapping[str, float] | float = 0.1,
    centres: Mapping[str, float] | None = None,
    samples: int = 10_000,
    degrees: float | None = None,
    volatility: float = 0.0,
    of_seed: float = 0.0,
) -> pd.DataFrame:
    """Models, a row per panel, batch size, seed and epoch; positive numbers agree with the claims.

    Args:
        between, within: correlation of U and Y between levels of runs and between deviations; one, or one per panel.
        batch, batch_y: what each batch size adds to U and to Y (None: the same), in deviations of one cell.
        epoch: what the last epoch adds to both and the first takes from both.
        trends: deviation of each run's own linear trends, independent for U and Y.
        share: of the variance in a cell, that of the levels of runs.
        persistence: autocorrelation of the deviations of neighbouring epochs; 1: random walks.
        sizes: deviation of each measure in a cell, in its unit; ``centres``: its middle.
        samples: test samples; shares are multiples of one.
        degrees: levels of runs have tails as Student's t with so many degrees of freedom; None: normal.
        volatility: deviation of the logarithm by which a run's deviations are larger, the same of U and Y.
        of_seed: of the variance of the levels of runs, that of the seed, which is the same at every batch size.
    """
    shape = (panels, len(batch_sizes), seeds)
    time = np.linspace(-1, 1, len(epochs)) if len(epochs) > 1 else np.zeros(1)

    def levels() -> Array:
        if degrees is not None:
            return rng.standard_t(degrees, shape) / np.sqrt(degrees / (degrees - 2))
        of_run = rng.standard_normal(shape)
        if not of_seed:
            return of_run
        return np.sqrt(1 - of_seed) * of_run + np.sqrt(of_seed) * rng.standard_normal((panels, 1, seeds))

    def latent(level: Array, deviation: Array, by_batch: Sequence[float]) -> Array:
        own = trends * rng.standard_normal(shape)[..., None] * time
        fixed = np.asarray(by_batch, dtype=float)[:, None, None] + epoch * time
        return np.sqrt(share) * level[..., None] + np.sqrt(1 - share) * scale * deviation + fixed + own

    def correlated(with_: Array, rho: float | Sequence[float], other: Array) -> Array:
        planted = np.broadcast_to(rho, panels).reshape(-1, *[1] * (with_.ndim - 1))
        return planted * with_ + np.sqrt(1 - planted**2) * other

    scale = np.exp(volatility * rng.standard_normal((*shape, 1)) - volatility**2) if volatility else 1.0
    level, deviation = levels(), deviations(rng, (*shape, len(epochs)), persistence)
    few = latent(level, deviation, batch)
    regions = np.round(special.expit(special.logit(0.4) - few) * TRAINING_SAMPLES)
    values = {PRS_RATIO: np.clip(regions, 1, TRAINING_SAMPLES) / TRAINING_SAMPLES}
    for name, centre in (CENTRES | dict(centres or {})).items():
        of_runs = correlated(level, between, levels())
        of_epochs = correlated(deviation, within, deviations(rng, deviation.shape, persistence))
        y = latent(of_runs, of_epochs, batch if batch_y is None else batch_y)
        size = sizes.get(name, 0.1) if isinstance(sizes, Mapping) else sizes
        share_of = special.expit(special.logit(centre) + size / (centre * (1 - centre)) * y)
        values[name] = np.round(share_of * samples) / samples if name in COUNTED else share_of
    values[AUDITED_ACCURACY] = np.minimum(values[AUDITED_ACCURACY], values[ROBUST_ACCURACY])
    values[TEST_ACCURACY] = np.round((0.9 + 0.005 * rng.standard_normal((*shape, len(epochs)))) * samples) / samples
    places = np.indices((*shape, len(epochs))).reshape(4, -1)
    names = np.array(PANELS[:panels])[places[0]]
    frame = pd.DataFrame({
        "model": names[:, 0], "data": names[:, 1], "batch_size": np.asarray(batch_sizes)[places[1]],
        "seed": places[2], "epoch": np.asarray(epochs)[places[3]],
    })  # fmt: skip
    run = frame["data"] + "-" + frame["model"] + "-bs" + frame["batch_size"].astype(str)
    frame.insert(0, "run", run + "-seed" + frame["seed"].astype(str))
    return frame.assign(**{name: value.ravel() for name, value in values.items()})


def panel_of(models: pd.DataFrame) -> Array:
    """The number of each model's panel, in the order of `PANELS`."""
    numbers = {panel: number for number, panel in enumerate(PANELS)}
    return np.array([numbers[panel] for panel in zip(models["model"], models["data"], strict=True)])


def with_accuracy(models: pd.DataFrame, robust: float | Array) -> pd.DataFrame:
    """Another robust accuracy, before and after the audit."""
    return models.assign(**{ROBUST_ACCURACY: robust, AUDITED_ACCURACY: robust})


def nearly_all_zero(rng: Generator) -> pd.DataFrame:
    """1 to 3 of 10,000 samples withstand in 15% of the models."""
    models = grid(rng)
    counts = rng.integers(1, 4, len(models)) * (rng.random(len(models)) < 0.15)
    return with_accuracy(models, counts / 10_000)


def few_runs_above_zero(rng: Generator, runs: int = 6) -> pd.DataFrame:
    """RA is 0 but in six runs, where it rises with epochs, as PRS falls in all."""
    models = grid(rng, epoch=1.0)
    chosen = rng.choice(models["run"].unique(), runs, replace=False)
    counts = models["epoch"] + rng.integers(0, 20, len(models))
    return with_accuracy(models, np.where(models["run"].isin(chosen), counts / 10_000, 0.0))


def wholly_masked(rng: Generator) -> pd.DataFrame:
    """RA hangs on the PRS ratio, and no sample withstands the audit."""
    return grid(rng, between=HALF, within=HALF).assign(**{AUDITED_ACCURACY: 0.0})


def one_empty_panel(rng: Generator) -> pd.DataFrame:
    """A strong effect, but for a panel where RA is above 0 in one run alone."""
    models = grid(rng, between=0.9, within=0.9)
    empty = (panel_of(models) == 4) & ~((models["batch_size"] == 64) & (models["seed"] == 0))
    robust = models[ROBUST_ACCURACY].where(~empty, 0.0)
    return with_accuracy(models, robust.to_numpy())


def small_panels(rng: Generator) -> pd.DataFrame:
    """Eight panels of one seed where the effect is reversed, and one of five seeds where it is as claimed."""
    models = grid(rng, between=[0.95] + [-0.95] * 8, within=[0.95] + [-0.95] * 8)
    return models[(panel_of(models) == 0) | (models["seed"] == 0)].reset_index(drop=True)


def at_the_ceiling(rng: Generator) -> pd.DataFrame:
    """At most two of 10,000 samples fall to the attack."""
    models = grid(rng)
    return with_accuracy(models, 1 - rng.integers(0, 3, len(models)) / 10_000)


def without_some(rng: Generator, **plan: Any) -> pd.DataFrame:
    """Half of the runs miss their first half of epochs, as below a threshold of accuracy, and some models are lost."""
    models = grid(rng, **plan)
    runs = models["run"].unique()
    late = models["run"].isin(rng.choice(runs, len(runs) // 2, replace=False))
    early = models["epoch"] <= models["epoch"].median()
    return models[~(late & early) & (rng.random(len(models)) > 0.1)].reset_index(drop=True)


def of_unequal_size(rng: Generator, **plan: Any) -> pd.DataFrame:
    """Strata of 8, 5, 3 and 2 runs, and six of nine panels without their two larger batch sizes."""
    models = grid(rng, seeds=8, **plan)
    place = np.searchsorted(BATCH_SIZES, models["batch_size"])
    small = (panel_of(models) >= 3) & (place >= 2)
    return models[(models["seed"] < np.array([8, 5, 3, 2])[place]) & ~small].reset_index(drop=True)


LINEAR, STEP, HUMP = (-1.8, -0.6, 0.6, 1.8), (-1.2, -1.2, 1.2, 1.2), (-1.4, 1.2, 1.6, -1.4)
SATURATING, LATE = (-2.0, 0.3, 0.8, 0.9), (-1.6, -1.0, 0.4, 1.6)

NULL, CONFOUNDED, EFFECT, OTHER = "null", "confounded", "effect", "other"
SUPPORTED, SMALL, CONTRADICTED = "supported", "but small", "contradicted"
NEGLIGIBLE, UNDECIDED, NOT_MEASURABLE = "negligible", "undecided", "not measurable"
ASSOCIATION, DISAGREE, VANISHES = "association only", "panels disagree", "vanishes under the audit"

RA_CLAIM = "low PRS ratio → high robust accuracy"
AUDITED_CLAIM = "low PRS ratio → high robust accuracy after the audit"
EPOCHS_CLAIM = "PRS ratio falls and RA rises with epochs"


@dataclass(frozen=True)
class World:
    """A planted truth.

    Attributes:
        planted: in words.
        make: the models of one simulated study.
        right: what the verdict on ``claim`` may say: one of these words stands in it.
        kind: null, confounded, effect (some relation at fixed batch size and epoch is there), or other.
        claim: the claim that is judged.
        family: whether the benchmark judges all five relation claims, each as untrue as that one.
    """

    planted: str
    make: Callable[[Generator], pd.DataFrame]
    right: tuple[str, ...]
    kind: str
    claim: str = RA_CLAIM
    family: bool = False

    @property
    def supported_is_false(self) -> bool:
        """Whether *supported* is an error here."""
        return SUPPORTED not in self.right and SMALL not in self.right


def world(planted: str, kind: str, *right: str, family: bool = False, **plan: Any) -> World:
    """A world of `grid` with that plan."""
    return World(planted, partial(grid, **plan), right, kind, family=family)


NOTHING = (UNDECIDED, NEGLIGIBLE)

BY_BATCH, BY_EPOCH = f"{ASSOCIATION}: explained by batch size", f"{ASSOCIATION}: explained by the epoch"
RUNS = {"between": HALF / 0.8, "share": 0.8}
EPOCHS = {"within": HALF}
BOTH = {"between": HALF, "within": HALF}
REVERSED = {"between": -HALF, "within": -HALF}
OPPOSED = [0.8] * 5 + [-0.8] * 4
FINE_GRID = range(10, 301, 10)

WORLDS: dict[str, World] = {
    "null": world("nothing; autocorrelation 0.95", NULL, *NOTHING, persistence=0.95, family=True),
    "null, random walks": world("nothing; random walks", NULL, *NOTHING, persistence=1.0, share=0.2),
    "null, own trends": world("nothing; every run has its own trends", NULL, *NOTHING, trends=1.5, family=True),
    "batch size, linear": world("batch size alone moves both", CONFOUNDED, BY_BATCH, batch=LINEAR, family=True),
    "batch size, step": world("the same, in one step", CONFOUNDED, BY_BATCH, batch=STEP),
    "batch size, hump": world("the same, up and down again", CONFOUNDED, BY_BATCH, batch=HUMP, family=True),
    "batch size, curved": world(
        "the same, each side curved its way", CONFOUNDED, BY_BATCH, batch=SATURATING, batch_y=LATE
    ),
    "epochs": world("epochs alone move both", CONFOUNDED, BY_EPOCH, epoch=1.8, family=True),
    "epochs, own trends": world("the same, and own trends", CONFOUNDED, BY_EPOCH, epoch=1.8, trends=1.0, family=True),
    "batch size and epochs": world("both alone", CONFOUNDED, ASSOCIATION, batch=LINEAR, epoch=1.8, family=True),
    "between runs": world("Spearman 0.5 in each cell, of runs alone", EFFECT, SUPPORTED, **RUNS),
    "between epochs": world("Spearman 0.5 of a run's epochs alone", EFFECT, SUPPORTED, **EPOCHS),
    "both": world("Spearman 0.5 of both", EFFECT, SUPPORTED, **BOTH),
    "both, batch size": world("the same, and batch size", EFFECT, SUPPORTED, **BOTH, batch=LINEAR),
    "between runs, batch size": world("runs, and batch size", EFFECT, SUPPORTED, **RUNS, batch=LINEAR),
    "between epochs, epochs": world("a run's epochs, and a common trend", EFFECT, SUPPORTED, **EPOCHS, epoch=1.8),
    "reversed": world("Spearman -0.5 of both", EFFECT, CONTRADICTED, **REVERSED),
    "batch size against": world(
        "Spearman -0.5 of both, batch size the other way", OTHER, ASSOCIATION, UNDECIDED, **REVERSED, batch=LINEAR
    ),
    "RA 0": World("no sample withstands", lambda rng: with_accuracy(grid(rng), 0.0), (NOT_MEASURABLE,), OTHER),
    "RA 0 in 85%": World("1 to 3 of 10,000 withstand in the rest", nearly_all_zero, (NOT_MEASURABLE,), OTHER),
    "RA 1": World("0 to 2 of 10,000 fall", at_the_ceiling, (NOT_MEASURABLE,), OTHER),
    "RA 0 in 174 of 180 runs": World(
        "in the others it rises with epochs", few_runs_above_zero, (*NOTHING, NOT_MEASURABLE), OTHER, EPOCHS_CLAIM
    ),
    "wholly masked": World("RA related, audited RA 0", wholly_masked, (VANISHES,), OTHER, AUDITED_CLAIM),
    "one empty panel": World("RA above 0 in one run of 20 of one panel", one_empty_panel, (SUPPORTED,), EFFECT),
    "eight small panels": World(
        "four runs each, reversed; one of 20 as claimed", small_panels, (SUPPORTED, UNDECIDED), OTHER
    ),
    "five against four": world("five as claimed, four reversed", OTHER, DISAGREE, between=OPPOSED, within=OPPOSED),
    "small": world("Spearman 0.5 of both; RA differs by 0.008", EFFECT, SMALL, **BOTH, sizes=0.008),
    "negligible": world("nothing; RA differs by 0.008", NULL, NEGLIGIBLE, sizes=0.008),
    "two seeds": world("batch size alone; two seeds", CONFOUNDED, ASSOCIATION, batch=LINEAR, seeds=2),
    "thirty epochs": world(
        "batch size and epochs; 30 epochs", CONFOUNDED, ASSOCIATION, batch=LINEAR, epoch=1.8, epochs=FINE_GRID
    ),
    "heavy tails": world("batch size alone; Student's t with 3", CONFOUNDED, ASSOCIATION, batch=LINEAR, degrees=3),
    "ties": world("batch size alone; 100 test samples", CONFOUNDED, ASSOCIATION, batch=LINEAR, samples=100),
    "volatile runs": world(
        "epochs alone; some runs swing, in both", CONFOUNDED, ASSOCIATION, epoch=1.8, share=0.2, volatility=0.8
    ),
    "seeds": world(
        "batch size alone; half of a level is of the seed",
        CONFOUNDED,
        ASSOCIATION,
        batch=LINEAR,
        share=0.8,
        of_seed=0.5,
    ),
    "opposite": world(
        "Spearman 0.7 between runs, -0.7 between epochs", OTHER, UNDECIDED, between=0.7, within=-0.7, share=0.7
    ),
    "models missing": World(
        "both alone; half of the runs start late",
        partial(without_some, batch=LINEAR, epoch=1.8),
        (ASSOCIATION,),
        CONFOUNDED,
    ),
    "unequal sizes": World(
        "batch size alone; strata of 2 to 8 runs", partial(of_unequal_size, batch=LINEAR), (ASSOCIATION,), CONFOUNDED
    ),
}
"""The worlds of docs/benchmarks.md; `World.right` is what docs/statistics.md makes of them."""
