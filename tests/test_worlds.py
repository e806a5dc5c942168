"""The simulated worlds hold what they promise, and the scoreboard says of each of them what it must."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from prs_lightning.analysis.claims import RELATION_CLAIMS, scoreboard
from prs_lightning.analysis.panels import panel_statistics
from prs_lightning.analysis.relations import Relation
from prs_lightning.analysis.verdict import NEGLIGIBLE, NOT_MEASURABLE, UNDECIDED, Claim
from prs_lightning.measures import AUDITED_ACCURACY, PRS_RATIO, ROBUST_ACCURACY
from tests.worlds import CENTRES, CONFOUNDED, HALF, LINEAR, NULL, RA_CLAIM, WORLDS, deviations, grid, panel_of

SIDES = [PRS_RATIO, ROBUST_ACCURACY]
CELL = ["model", "data", "batch_size", "epoch"]


def large(name: str) -> pd.DataFrame:
    """The world's plan with one panel of 500 seeds."""
    plan = {key: value for key, value in WORLDS[name].make.keywords.items() if not isinstance(value, list)}
    return grid(np.random.default_rng(7), **plan | {"panels": 1, "seeds": 500})


@cache
def study(name: str) -> pd.DataFrame:
    """One study of a world, for all tests."""
    return WORLDS[name].make(np.random.default_rng(11))


def spearman(frame: pd.DataFrame) -> float:
    """Positive where it agrees with the claim."""
    return -float(stats.spearmanr(frame[PRS_RATIO], frame[ROBUST_ACCURACY])[0])


def answers(models: pd.DataFrame) -> tuple[float, float, float]:
    """Spearman of a panel's models; of means of runs in a stratum; of epochs, centred by run and by cell."""
    ranked = models[["run", *CELL]].join(models.groupby(CELL)[SIDES].rank())
    means = ranked.groupby(["batch_size", "run"])[SIDES].mean().reset_index()
    between = np.mean([spearman(stratum) for _, stratum in means.groupby("batch_size")])
    bounded = models[SIDES].clip(1e-5, 1 - 1e-5)
    centred = np.log(bounded / (1 - bounded))  # the scale on which effects were added
    centred -= centred.groupby([models[key] for key in CELL]).transform("mean")
    centred -= centred.groupby(models["run"]).transform("mean")
    return spearman(models), float(between), spearman(centred)


@pytest.mark.parametrize("name", [name for name, world in WORLDS.items() if world.kind in (NULL, CONFOUNDED)])
def test_nothing_is_planted_at_fixed_batch_size_and_epoch(name: str) -> None:
    association, between, epochs = answers(large(name))
    assert abs(between) < 0.06
    assert abs(epochs) < 0.06
    assert (association > 0.35) == (WORLDS[name].kind == CONFOUNDED)


@pytest.mark.parametrize(
    ("name", "association", "between", "epochs"),
    [
        ("between runs", (0.4, 0.6), (0.5, 0.7), (-0.06, 0.06)),
        ("between epochs", (0.15, 0.35), (-0.06, 0.06), (0.44, 0.56)),
        ("both", (0.44, 0.56), (0.44, 0.56), (0.44, 0.56)),
        ("both, batch size", (0.75, 0.9), (0.44, 0.56), (0.44, 0.56)),
        ("between epochs, epochs", (0.65, 0.85), (-0.06, 0.06), (0.44, 0.56)),
        ("reversed", (-0.56, -0.44), (-0.56, -0.44), (-0.56, -0.44)),
        ("batch size against", (0.4, 0.7), (-0.56, -0.44), (-0.56, -0.44)),
    ],
)
def test_what_is_planted_is_there(name: str, association: tuple, between: tuple, epochs: tuple) -> None:
    models = large(name)
    for found, (low, high) in zip(answers(models), (association, between, epochs), strict=True):
        assert low < found < high, answers(models)
    if name == "between runs":
        assert np.mean([spearman(cell) for _, cell in models.groupby(CELL)]) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("persistence", [0.0, 0.8, 0.95, 1.0])
def test_epochs_are_autocorrelated_and_their_mean_is_the_level_of_the_run(persistence: float) -> None:
    walk = deviations(np.random.default_rng(0), (20_000, 12), persistence)
    assert np.abs(walk.mean(axis=1)).max() < 1e-12
    assert walk.var() == pytest.approx(1, abs=0.02)
    lags = np.arange(1, 12)
    of_mean = (1 + 2 * ((1 - lags / 12) * persistence**lags).sum()) / 12  # of AR(1)
    steps = 2 * (1 - persistence) / (1 - of_mean) if persistence < 1 else 6 * 12 / (12**2 - 1)
    assert np.diff(walk).var() == pytest.approx(steps, rel=0.03)


@pytest.mark.parametrize("name", [*WORLDS])
def test_every_world_is_a_table_of_models_in_their_ranges(name: str) -> None:
    models = study(name)
    assert not models.duplicated(["run", "epoch"]).any()
    assert not models.isna().any().any()
    assert (models[[*CENTRES]] >= 0).all().all()
    assert (models[[*CENTRES]] <= 1).all().all()
    assert models[PRS_RATIO].between(1 / 60_000, 1).all()
    assert (models[AUDITED_ACCURACY] <= models[ROBUST_ACCURACY]).all()
    assert np.allclose(models[ROBUST_ACCURACY] * 10_000, np.round(models[ROBUST_ACCURACY] * 10_000))
    assert len(np.unique(panel_of(models))) == 9


def test_a_spearman_of_a_half_is_a_pearson_of_little_more() -> None:
    x, y = np.random.default_rng(0).multivariate_normal([0, 0], [[1, HALF], [HALF, 1]], 100_000).T
    assert stats.spearmanr(x, y)[0] == pytest.approx(0.5, abs=0.01)


def claims(models: pd.DataFrame, *asked: str) -> dict[str, Claim]:
    """What the scoreboard says of these claims, from few draws."""
    relations = [Relation(figure, y) for claim, figure, y in RELATION_CLAIMS if claim in asked]
    statistics = panel_statistics(models, relations, draws=100)
    return {claim.claim: claim for claim in scoreboard(statistics, models)}


IN_THE_BENCHMARK_ALONE = (
    "null, random walks", "null, own trends", "batch size, curved", "epochs, own trends", "between runs, batch size",
    "between epochs, epochs", "two seeds", "thirty epochs", "heavy tails", "ties", "volatile runs", "unequal sizes",
    "seeds",
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in WORLDS if name not in IN_THE_BENCHMARK_ALONE])
def test_the_scoreboard_says_of_each_world_what_it_must(name: str) -> None:
    world = WORLDS[name]
    found = claims(study(name), RA_CLAIM, world.claim)[world.claim]
    if world.kind == NULL and world.right[0] != NEGLIGIBLE:
        assert found.outcome in (UNDECIDED, NEGLIGIBLE), found  # one null in twenty has an association
    else:
        assert any(word in found.verdict for word in world.right), found
    assert found.verdict.startswith(found.outcome) or found.outcome in (UNDECIDED, NOT_MEASURABLE)
    for answer in (found.association, found.between_runs, found.between_epochs):
        assert np.isnan(answer.low) or answer.low <= answer.effect <= answer.high


def test_five_claims_that_are_not_true_are_rarely_supported() -> None:
    asked = [claim for claim, _, y in RELATION_CLAIMS if y in CENTRES]
    wrong = 0
    for number in range(6):
        plan = {"batch": LINEAR} if number % 2 else {"persistence": 0.95}
        found = claims(grid(np.random.default_rng(number), panels=2, **plan), *asked)
        wrong += any(found[claim].outcome == "supported" for claim in asked)
    assert wrong <= 2  # more have a probability of 0.002, where one in twenty does


def test_panels_that_do_not_count_are_named() -> None:
    empty = claims(study("one empty panel"), RA_CLAIM)[RA_CLAIM]
    assert "VGG-16 on F-MNIST" in empty.note
    assert [panel.name for panel in empty.panels if panel.excluded] == ["VGG-16 on F-MNIST"]
    small = claims(study("eight small panels"), RA_CLAIM)[RA_CLAIM]
    assert sum(bool(panel.excluded) for panel in small.panels) == 8
    assert small.data.startswith("1 panel, ")
