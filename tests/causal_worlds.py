"""Simulated experiments with planted causes, and what the rule of docs/causal.md must say of each.

A run has a course over its epochs: accuracy and gap rise, the PRS ratio falls. An arm moves each of these by what is
planted, growing over the first half of the training. Audited RA and distance have a level of the panel, a course, what
the arm really does, and noise of the seed (shared by all arms), of the run and of the epoch. RA under cross-entropy is
audited RA and that part of the remaining accuracy which the logit gap masks: it moves with the gap alone where nothing
real is planted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from prs_lightning.analysis.arms import SCALED
from prs_lightning.analysis.causes import CAUSAL, FAILED, MASKING, NEITHER, UNDECIDED
from prs_lightning.measures import (
    AUDITED_ACCURACY,
    DISTANCE,
    LOGIT_GAP,
    PRS_RATIO,
    ROBUST_ACCURACY,
    TEMPERATURE,
    TEST_ACCURACY,
)

Array = NDArray[np.float64]
PANELS = [("cnn6", "mnist5k"), ("cnn6", "fashion_mnist")]
TRAINING_SAMPLES = 2000


@dataclass(frozen=True)
class Moves:
    """What an arm moves: PRS ratio, logarithm of the gap, accuracy, and, really, audited RA and distance."""

    prs: float = 0.0
    gap: float = 0.0
    accuracy: float = 0.0
    robust: float = 0.0
    distance: float = 0.0


LOW, STRONG, HIGH, HELD, PENALTY, ADVERSARIAL = (
    ("low_prs", 1.0), ("low_prs", 5.0), ("high_prs", 1.0), ("low_prs+logit_penalty", "5+0.01"), ("logit_penalty", 0.01),
    ("adversarial", 1.0),
)  # fmt: skip
ARMS: dict[tuple[str, Any], Moves] = {
    LOW: Moves(prs=-0.4, gap=0.25),
    STRONG: Moves(prs=-0.6, gap=0.55),
    HIGH: Moves(prs=0.15, gap=-0.4),
    HELD: Moves(prs=-0.55, gap=0.02),
    ADVERSARIAL: Moves(prs=-0.05, gap=-0.7, accuracy=-0.02, robust=0.2, distance=0.02),
}
"""What the prototype moved: lowering the ratio lets logits grow, raising it lets them shrink."""
AIMED = (LOW, STRONG, HIGH, HELD)


def with_real(robust: float, distance: float, arms: Mapping[Any, Moves] = ARMS, high: float = 1.0) -> dict[Any, Moves]:
    """The arms whose regions really do something; ``high``: how much of it, reversed, the high one does."""
    shares = {LOW: 0.8, STRONG: 1.0, HIGH: -high, HELD: 1.0}
    return {
        arm: replace(moves, robust=share * robust, distance=share * distance) if (share := shares.get(arm)) else moves
        for arm, moves in arms.items()
    }


def plain(arms: Mapping[Any, Moves] = ARMS, **moves: float) -> dict[Any, Moves]:
    """The arms that aim, with other numbers of those names."""
    return {arm: replace(own, **moves) if arm in AIMED else own for arm, own in arms.items()}


def experiment(
    rng: np.random.Generator,
    *,
    panels: int = 2,
    seeds: int = 5,
    epochs: Sequence[int] = range(3, 13),
    arms: Mapping[Any, Moves] = ARMS,
    level: float = 0.45,
    course: float = 0.0,
    noise: float = 0.03,
    distance_noise: float = 0.003,
    samples: int = 500,
    blind: bool = False,
    fooled: float = 0.0,
    vary: Sequence[float] = (1.0, 1.0),
    warmup: int = 0,
    spoil: Callable[[dict[str, Array]], None] = lambda values: None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of runs, and those of the negative control.

    Args:
        arms: beside ``none``.
        level: of audited RA without intervention; ``course``: what the second half of the training takes from it.
        noise, distance_noise: deviation of a paired difference of audited RA, and of the distance.
        samples: test images; shares are multiples of one.
        blind: cross-entropy's attack sees through the scale of logits.
        fooled: by how much the scale of logits raises audited RA.
        vary: what real effects of arms that aim are multiplied with in each panel.
        warmup: up to this epoch runs of one seed are the same in all arms.
        spoil: changes the finished values in place.
    """
    names = [("none", 0.0), *arms]
    moves = [Moves(), *arms.values()]
    shape = (panels, len(names), seeds, len(epochs))
    time = np.asarray(epochs, dtype=float) / max(epochs)
    acting = np.asarray(epochs) > warmup
    ramp = np.minimum(2 * time, 1.0) * acting

    def arm(name: str) -> Array:
        return np.array([getattr(each, name) for each in moves])[:, None, None] * ramp

    def noisy(deviation: float) -> Array:
        """Of a difference between two runs of one seed, at one epoch; a quarter of its variance is of the epoch."""
        own = np.sqrt(0.75) * rng.standard_normal((*shape[:3], 1)) + np.sqrt(0.25) * rng.standard_normal(shape)
        own = np.where(acting, own, own[:, :1])
        return deviation * (rng.standard_normal((panels, 1, seeds, 1)) + own / np.sqrt(2))

    aimed = np.array([name in AIMED for name in names])[None, :, None, None]
    factor = np.where(aimed, np.asarray(vary[:panels], dtype=float)[:, None, None, None], 1.0)
    fall = np.maximum(time - 0.5, 0) * 2
    level_of = level - 0.05 * np.arange(panels)[:, None, None, None]
    audited = level_of - course * fall + factor * arm("robust") + noisy(noise)
    distance = 0.06 - 0.1 * course * fall + factor * arm("distance") + noisy(distance_noise)
    gap = 12 * time**0.8 * np.exp(arm("gap") + noisy(0.03))
    accuracy = 0.93 - 0.2 * np.exp(-5 * time) + arm("accuracy") + noisy(0.004)
    prs = special.expit(special.logit(0.85) + 2 * (1 - time) + 0 * gap) + arm("prs") + noisy(0.02)
    values = {
        PRS_RATIO: np.round(np.clip(prs, 0.001, 1) * TRAINING_SAMPLES) / TRAINING_SAMPLES,
        TEST_ACCURACY: np.clip(accuracy, 0.1, 1), LOGIT_GAP: gap, AUDITED_ACCURACY: np.clip(audited, 0, accuracy),
        DISTANCE: np.maximum(distance, 0.001),
    }  # fmt: skip

    def attacked(values: dict[str, Array], gap: Array) -> dict[str, Array]:
        hidden = (values[TEST_ACCURACY] - values[AUDITED_ACCURACY]) * special.expit((gap - 24) / 5)
        found = values | {ROBUST_ACCURACY: values[AUDITED_ACCURACY] + hidden, TEMPERATURE: values[AUDITED_ACCURACY]}
        spoil(found)
        for name in (TEST_ACCURACY, ROBUST_ACCURACY, AUDITED_ACCURACY, TEMPERATURE):
            found[name] = np.round(np.clip(found[name], 0, 1) * samples) / samples
        return found

    places = np.indices(shape).reshape(4, -1)
    frame = pd.DataFrame({
        "model": [PANELS[place][0] for place in places[0]], "data": [PANELS[place][1] for place in places[0]],
        "batch_size": 32, "seed": places[2], "epochs": max(epochs), "status": "finished",
        "arm": [names[place][0] for place in places[1]], "strength": [names[place][1] for place in places[1]],
        "epoch": np.asarray(epochs)[places[3]], "config.grid_epochs": str([*epochs]),
    })  # fmt: skip
    run = frame["data"] + "-" + frame["model"] + "-" + frame["arm"] + "-" + frame["strength"].astype(str)
    frame.insert(0, "run", run + "-seed" + frame["seed"].astype(str))
    rows = frame.assign(**{name: value.ravel() for name, value in attacked(values, gap).items()})
    alone = (frame["arm"] == "none") & (frame["epoch"] == max(epochs))
    audit = values | {AUDITED_ACCURACY: np.minimum(values[AUDITED_ACCURACY] + fooled, values[TEST_ACCURACY])}
    found = attacked(audit, gap if blind else 1000 * gap)
    scaled = frame.assign(**{name: value.ravel() for name, value in found.items()}, arm=SCALED)
    scaled[LOGIT_GAP] = 1000 * gap.ravel()
    return rows, scaled[alone].reset_index(drop=True)


def saturated(at: float) -> Callable[[dict[str, Array]], None]:
    """All robust accuracies of all arms but adversarial training lie at 0, or at the clean accuracy (1)."""

    def spoil(values: dict[str, Array]) -> None:
        for name in (ROBUST_ACCURACY, AUDITED_ACCURACY, TEMPERATURE):
            values[name] = values[name].copy()
            values[name][:, :-1] = at * values[TEST_ACCURACY][:, :-1]

    return spoil


@dataclass(frozen=True)
class World:
    """A planted truth.

    Attributes:
        planted: in words.
        right: verdicts that are right.
        wrong: verdicts that are errors, of which at most one in twenty may be.
        plan: arguments of `experiment`.
    """

    planted: str
    right: tuple[str, ...]
    wrong: tuple[str, ...] = (CAUSAL, MASKING)
    plan: Mapping[str, Any] = field(default_factory=dict)

    def make(self, rng: np.random.Generator, **further: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
        """One experiment."""
        return experiment(rng, **dict(self.plan) | further)


def world(planted: str, *right: str, wrong: tuple[str, ...] | None = None, **plan: Any) -> World:
    """A world; verdicts that are wrong are *causal* and *masking* where they are not right."""
    wrong = tuple({CAUSAL, MASKING} - {*right}) if wrong is None else wrong
    return World(planted, right, wrong, plan)


REAL = with_real(0.08, 0.008)
NO_GAP = plain(gap=0.0)
WORLDS: dict[str, World] = {
    "causal": world("audited RA by 0.06 to 0.08, distance by 0.006 to 0.008, both ways", CAUSAL, arms=REAL),
    "causal, large": world("the same, twice as large", CAUSAL, arms=with_real(0.16, 0.016)),
    "causal, small": world("the same, half as large", CAUSAL, UNDECIDED, arms=with_real(0.04, 0.004)),
    "masked": world("the gap alone moves RA under cross-entropy", MASKING),
    "null": world("regions move, and nothing else", NEITHER, UNDECIDED, arms=NO_GAP),
    "one direction": world("low as in causal, high does nothing", UNDECIDED, arms=with_real(0.08, 0.008, high=0)),
    "RA alone": world("audited RA moves as in causal, the distance does not", UNDECIDED, arms=with_real(0.08, 0)),
    "opposite": world("as causal, reversed", MASKING, UNDECIDED, NEITHER, arms=with_real(-0.08, -0.008)),
    "opposite panels": world("as causal in one, reversed in the other", UNDECIDED, arms=REAL, vary=(1, -1)),
    "warm-up": world("causal; nothing acts up to epoch 4, of 12", CAUSAL, UNDECIDED, arms=REAL, warmup=4),
    "rising": world("causal; audited RA rises late by 0.1, distance 0.01", CAUSAL, UNDECIDED, arms=REAL, course=-0.1),
    "course": world("masked; audited RA falls late by 0.1, distance by 0.01", MASKING, course=0.1),
    "costly": world(
        "masked; low costs accuracy and audited RA 0.03, distance 0.003", MASKING, UNDECIDED,
        arms={a: replace(m, accuracy=-0.03, robust=-0.03, distance=-0.003) if a in (LOW, STRONG, HELD) else m
              for a, m in ARMS.items()},
    ),
    "course, null": world("null, the same course", NEITHER, UNDECIDED, arms=NO_GAP, course=0.1),
    "accuracy": world(
        "null; low raises accuracy by 0.015, RA by as much, distance by 0.0015; high the opposite", NEITHER, UNDECIDED,
        arms={a: replace(m, accuracy=s * 0.015, robust=s * 0.015, distance=s * 0.0015)
              if (s := {HIGH: -1}.get(a, 1 if a in AIMED else 0)) else m for a, m in NO_GAP.items()},
    ),
    "accuracy, large": world(
        "the same, three times as large", NEITHER, UNDECIDED,
        arms={a: replace(m, accuracy=s * 0.045, robust=s * 0.045, distance=s * 0.0045)
              if (s := {HIGH: -1}.get(a, 1 if a in AIMED else 0)) else m for a, m in NO_GAP.items()},
    ),
    "at the margin": world(
        "masked; audited RA moves by the margin, 0.02, too", UNDECIDED, wrong=(CAUSAL, MASKING),
        arms=with_real(0.02, 0),
    ),
    "not moved": world("no arm moves the ratio by more than 0.02", UNDECIDED, arms=plain(prs=-0.01)),
    "no robust training": world("adversarial training does nothing", FAILED, arms=REAL | {ADVERSARIAL: Moves()}),
    "blind": world("cross-entropy's attack sees through the scale", FAILED, blind=True),
    "fooled": world("the audit is fooled by the scale", FAILED, fooled=0.1),
    "RA 0": world("no sample withstands but after adversarial training", FAILED, UNDECIDED, spoil=saturated(0)),
    "RA 1": world("no sample falls to the attack", FAILED, UNDECIDED, spoil=saturated(1)),
}  # fmt: skip
"""The worlds of docs/benchmarks.md."""
