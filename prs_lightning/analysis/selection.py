"""The candidate models: an epoch grid, a threshold on test accuracy, and the pair of networks A and B."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from prs_lightning.errors import ConfigError
from prs_lightning.measures import PRS_RATIO, TEST_ACCURACY
from prs_lightning.runs.naming import is_bookkeeping

DEFAULT = "default"
"""Key of ``thresholds`` for data sets that are not named."""


@dataclass(frozen=True)
class Selection:
    """The models that the figures and statistics are made of.

    Attributes:
        models: the rows that were kept, one per model: a run at an epoch of the grid.
        counts: a row per step: ``step``, ``models`` and ``runs`` that are left after it.
        collapsed: a row per run that lost models to the threshold: ``run``, ``lost`` and ``candidates`` (models),
            ``lowest`` and ``threshold`` (test accuracy), ``wholly`` (no model of the run is left).
        thresholds: data set -> the threshold that was applied.
        grids: data set -> the epochs of its grid.
    """

    models: pd.DataFrame
    counts: pd.DataFrame
    collapsed: pd.DataFrame
    thresholds: dict[str, float]
    grids: dict[str, tuple[int, ...]]


def select(
    rows: pd.DataFrame, grid_epochs: Sequence[int] | None = None, thresholds: Mapping[str, float] | None = None
) -> Selection:
    """Keep the rows at the grid's epochs whose test accuracy reaches the threshold of their data set.

    Args:
        rows: ``RunTable.rows``.
        grid_epochs: epochs, counted from 1; None takes each run's own ``grid_epochs``, the
            epochs whose weights it kept; a finished run that is shorter than its grid is represented by its last epoch.
        thresholds: data set -> least test accuracy in [0, 1]; ``default`` stands for the others (0 without it).

    Raises:
        ConfigError: an epoch below 1 or a threshold outside [0, 1].
    """
    limits = dict(thresholds or {})
    if bad := {name: limit for name, limit in limits.items() if not 0 <= limit <= 1}:
        raise ConfigError(f"thresholds={bad}: expected test accuracies in [0, 1]")
    if grid_epochs is not None and any(epoch < 1 for epoch in grid_epochs):
        raise ConfigError(f"grid_epochs={list(grid_epochs)}: epochs are counted from 1")
    steps = [("rows read, one per run and epoch", rows)]
    candidates = rows[_on_grid(rows, grid_epochs)]
    steps.append(("at an epoch of the grid: the candidate models", candidates))
    accuracy = candidates.get(TEST_ACCURACY, pd.Series(np.nan, candidates.index))
    measured = candidates[accuracy.notna()]
    steps.append(("with a test accuracy", measured))
    threshold = measured["data"].map(lambda name: limits.get(name, limits.get(DEFAULT, 0.0))).astype(float)
    passed = accuracy[measured.index] >= threshold
    models = measured[passed].reset_index(drop=True)
    steps.append(("that reach the threshold on test accuracy", models))
    names = sorted(rows["data"].unique())
    return Selection(
        models=models,
        counts=pd.DataFrame(
            [{"step": step, "models": len(left), "runs": left["run"].nunique()} for step, left in steps]
        ),
        collapsed=_collapsed(measured, passed, threshold),
        thresholds={name: float(limits.get(name, limits.get(DEFAULT, 0.0))) for name in names},
        grids={name: tuple(sorted({*candidates.loc[candidates["data"] == name, "epoch"].tolist()})) for name in names},
    )


def _on_grid(rows: pd.DataFrame, grid_epochs: Sequence[int] | None) -> pd.Series:
    if grid_epochs is not None:
        return rows["epoch"].isin(list(grid_epochs))
    own = rows.get("config.grid_epochs", pd.Series(None, rows.index)).astype(object)
    on = pd.Series(False, rows.index)
    for text in own.dropna().unique():
        on |= (own == text) & rows["epoch"].isin(_epochs(text))
    short = (rows["status"] == "finished") & ~on.groupby(rows["run"]).transform("any")
    return on | (short & (rows["epoch"] == rows.groupby("run")["epoch"].transform("max")))


def _epochs(text: str) -> list[int]:
    """The list of a ``config.grid_epochs``; empty if it is something else, as in a foreign config."""
    try:
        epochs = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return []
    return [epoch for epoch in epochs if isinstance(epoch, int)] if isinstance(epochs, list) else []


def _collapsed(measured: pd.DataFrame, passed: pd.Series, threshold: pd.Series) -> pd.DataFrame:
    columns = ["run", "lost", "candidates", "lowest", "threshold", "wholly"]
    if passed.all():
        return pd.DataFrame(columns=columns)
    frame = measured.assign(lost=~passed, threshold=threshold)
    by_run = frame.groupby("run", sort=True).agg(
        lost=("lost", "sum"),
        candidates=("lost", "size"),
        lowest=(TEST_ACCURACY, "min"),
        threshold=("threshold", "first"),
    )
    by_run = by_run[by_run["lost"] > 0].reset_index()
    return by_run.assign(wholly=by_run["lost"] == by_run["candidates"])[columns]


def varying_settings(models: pd.DataFrame) -> list[str]:
    """Panels whose runs differ in more than batch size and seed, a line each: they mix what is not alike."""
    told = []
    settings = {name: name.removeprefix("config.") for name in models.columns if name.startswith("config.")}
    for (model, data), group in models.groupby(["model", "data"], sort=True):
        keys = [
            key
            for name, key in settings.items()
            if key.rsplit(".", 1)[-1] not in ("seed", "batch_size")
            and not is_bookkeeping(key)
            and group[name].astype(object).nunique(dropna=False) > 1
        ]
        if keys:
            told.append(f"{model} on {data}: the runs differ in {', '.join(keys)}; their panels mix them")
    return told


@dataclass(frozen=True)
class Network:
    """A model that a figure is made from: a run (path relative to the folder of runs) at an epoch."""

    run: str
    epoch: int
    prs_ratio: float
    test_accuracy: float

    def __str__(self) -> str:
        return f"{self.run} at epoch {self.epoch}"


@dataclass(frozen=True)
class Pair:
    """Network A (the larger PRS ratio) and network B (the smaller one), of the same architecture and data set."""

    a: Network
    b: Network
    data: str
    model: str
    reason: str


def choose_pair(
    models: pd.DataFrame, tolerance: float = 0.02, available: Callable[[str, int], bool] = lambda run, epoch: True
) -> tuple[Pair | None, str]:
    """The two models of the same architecture and data set, at similar test accuracy, whose PRS ratios differ most.

    Args:
        models: ``Selection.models``.
        tolerance: how far their test accuracies may lie apart; if no two lie so near, the nearest are taken.
        available: whether the checkpoint of (run, epoch) is there.

    Returns:
        The pair, or None, and why.
    """
    if len(models) < 2:
        return None, f"{len(models)} model{'s' * (len(models) != 1)} passed the selection"
    if PRS_RATIO not in models or models[PRS_RATIO].notna().sum() < 2:
        return None, f"fewer than two models have a {PRS_RATIO}"
    known = models[models[PRS_RATIO].notna() & models[TEST_ACCURACY].notna()]
    there = known[[available(run, epoch) for run, epoch in zip(known["run"], known["epoch"], strict=True)]]
    if len(there) < 2:
        return None, f"{len(there)} of {len(known)} models have a checkpoint: the figures of two networks need two"
    groups = [group for _, group in there.groupby(["data", "model"], sort=True)]
    gaps = [_differences(group, PRS_RATIO) for group in groups]
    apart = [np.abs(_differences(group, TEST_ACCURACY)) for group in groups]
    nearest = min(float(near[gap > 0].min(initial=np.inf)) for gap, near in zip(gaps, apart, strict=True))
    if np.isinf(nearest):
        return None, "no two models of one architecture and data set differ in PRS ratio"
    # Without models as near as wanted, the nearest ones there are: the figures then say how far apart they lie.
    allowed = max(tolerance, nearest)
    allowing = [np.where(near <= allowed, gap, -np.inf) for gap, near in zip(gaps, apart, strict=True)]
    chosen = max(range(len(groups)), key=lambda index: allowing[index].max())
    a, b = np.unravel_index(allowing[chosen].argmax(), allowing[chosen].shape)
    first, second = groups[chosen].iloc[int(a)], groups[chosen].iloc[int(b)]
    within = f"models within {tolerance} of test accuracy"
    if nearest > tolerance:
        within = f"the models nearest in test accuracy ({nearest:.3f} apart, as none are within {tolerance})"
    reason = f"the largest difference in PRS ratio ({gaps[chosen][a, b]:.3g}) among {within}"
    return Pair(_network(first), _network(second), str(first["data"]), str(first["model"]), reason), reason


def _differences(group: pd.DataFrame, column: str) -> np.ndarray:
    values = group[column].to_numpy(float)
    return values[:, None] - values


def named_pair(rows: pd.DataFrame, a: str, b: str) -> Pair:
    """The pair that the user names, each as ``RUN@EPOCH`` with the path of the run relative to the folder of runs.

    Raises:
        ConfigError: no such run or epoch, or two architectures or data sets.
    """
    first, second = _named(rows, "pair.a", a), _named(rows, "pair.b", b)
    for key in ("data", "model"):
        if first[key] != second[key]:
            raise ConfigError(f"pair.a is of {key} {first[key]} and pair.b of {second[key]}: expected the same")
    return Pair(_network(first), _network(second), str(first["data"]), str(first["model"]), "named by the user")


def _named(rows: pd.DataFrame, key: str, text: str) -> pd.Series:
    run, _, epoch = text.rpartition("@")
    if not epoch.isdigit() or not run:
        raise ConfigError(
            f"{key}={text}: expected RUN@EPOCH, for example {rows['run'].iloc[0]}@{rows['epoch'].iloc[-1]}"
        )
    found = rows[(rows["run"] == run) & (rows["epoch"] == int(epoch))]
    if found.empty:
        known = rows.loc[rows["run"] == run, "epoch"]
        there = f"{run} has epochs {known.min()} to {known.max()}" if len(known) else f"no run is called {run}"
        raise ConfigError(f"{key}={text} was not found: {there}")
    return found.iloc[0]


def _network(row: pd.Series) -> Network:
    return Network(
        str(row["run"]), int(row["epoch"]), float(row.get(PRS_RATIO, np.nan)), float(row.get(TEST_ACCURACY, np.nan))
    )
